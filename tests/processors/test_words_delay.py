"""The wait for late words: as long as it takes while they come, never for ever."""

from hypothesis import given
from hypothesis import strategies as st

from processors.words_delay import LATE_LIMIT_S, LATES_LIMIT_S, SHOWN_LIMIT_S, SHOWN_LIMITS_S, WordsDelay


def test_nothing_is_late_at_first() -> None:
    delay = WordsDelay()
    assert not delay.is_on
    assert delay.shown(10.0) is None
    assert not delay.there()


def test_words_of_whoever_failed_are_waited_for() -> None:
    delay = WordsDelay()
    assert delay.late(10.0) == 10.0 + LATE_LIMIT_S
    assert delay.is_on
    assert delay.there()
    assert not delay.is_on


def test_another_failure_prolongs_the_wait_up_to_a_limit() -> None:
    delay = WordsDelay()
    delay.late(10.0)
    assert delay.late(10.5) == 10.5 + LATE_LIMIT_S
    assert delay.late(11.9) == 10.0 + LATES_LIMIT_S


def test_words_that_come_prolong_it_and_so_does_each_of_them() -> None:
    delay = WordsDelay()
    delay.late(10.0)
    assert delay.shown(10.5) is None  # the next are expected before it is over
    assert delay.shown(11.5) == 11.5 + SHOWN_LIMIT_S
    assert delay.shown(11.6) is None  # not worth telling
    assert delay.shown(12.3) == 12.3 + SHOWN_LIMIT_S
    assert delay.shown(13.2) == 13.2 + SHOWN_LIMIT_S
    assert delay.shown(14.1) == 10.0 + SHOWN_LIMITS_S
    assert delay.shown(14.9) is None


def test_a_failure_behind_words_does_not_shorten_it() -> None:
    delay = WordsDelay()
    delay.late(10.0)
    delay.shown(11.9)
    delay.shown(12.8)
    assert delay.late(12.9) == 12.8 + SHOWN_LIMIT_S


def test_what_comes_when_it_is_over_begins_no_other() -> None:
    delay = WordsDelay()
    until_s = delay.late(10.0)
    assert delay.shown(until_s) is None
    assert delay.shown(until_s + 1) is None


@given(st.lists(st.tuples(st.floats(0, 1.5), st.booleans()), max_size=40))
def test_it_never_shortens_and_is_over_some_day(steps: list[tuple[float, bool]]) -> None:
    delay, now_s = WordsDelay(), 0.0
    until_s = delay.late(now_s)
    for pause_s, is_shown in steps:
        now_s += pause_s
        told_s = delay.shown(now_s) if is_shown else delay.late(now_s)
        if told_s is not None:
            assert told_s >= until_s
            until_s = told_s
    assert until_s <= SHOWN_LIMITS_S
