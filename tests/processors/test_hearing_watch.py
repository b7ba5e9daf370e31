import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.hearing_watch import DeafLimits, Deafness, Hearing, HearingLimits, HearingWatch
from processors.voices import FailureKind

LATE, SILENT = FailureKind.LATE, FailureKind.SILENT


def watch(*, acknowledges: bool = True, from_s: float = 0.0, now_s: float = 0.0) -> HearingWatch:
    """Return a watch whose line and clock agree."""
    made = HearingWatch()
    made.connected(now_s, from_s=from_s, silence_limit_s=2.0, acknowledges=acknowledges)
    return made


def test_nothing_is_owed_while_nobody_speaks() -> None:
    made = watch()
    assert made.verdict(100.0, 100.0) is None
    assert made.state is Hearing.IDLE


def test_speech_without_any_result_is_late() -> None:
    made = watch()
    made.speech_began(5.0)
    assert made.verdict(6.9, 6.9) is None
    assert made.verdict(7.0, 7.0) is LATE


def test_results_that_fall_behind_are_late() -> None:
    made = watch()
    made.speech_began(5.0)
    made.reported(5.2, has_words=True, is_answer=False)
    assert made.verdict(7.1, 7.1) is None
    assert made.verdict(7.2, 7.2) is LATE


def test_results_that_keep_up_are_not() -> None:
    made = watch()
    made.speech_began(5.0)
    for at_s in range(6, 30):
        made.reported(at_s - 0.5, has_words=True, is_answer=False)
        assert made.verdict(at_s, at_s) is None


def test_the_end_of_speech_must_be_answered() -> None:
    made = watch()
    made.speech_began(5.0)
    made.reported(6.2, has_words=True, is_answer=False)
    made.speech_ended(6.4, 6.6)
    assert made.state is Hearing.OWED
    assert made.verdict(7.5, 7.5) is None
    assert made.verdict(7.6, 7.6) is LATE
    assert made.state is Hearing.IDLE


@pytest.mark.parametrize("is_flushed", [True, False], ids=["flushed", "answered"])
def test_an_answer_ends_it(is_flushed: bool) -> None:
    made = watch()
    made.speech_began(5.0)
    made.speech_ended(6.4, 6.6)
    if is_flushed:
        made.flushed(6.6)
    else:
        made.reported(6.3, has_words=True, is_answer=True)
    assert made.verdict(6.8, 6.8) in (None, SILENT)
    assert made.state is Hearing.IDLE


def test_an_answer_to_an_earlier_question_does_not_end_it() -> None:
    made = watch()
    made.speech_began(5.0)
    made.speech_ended(6.4, 6.6)
    made.flushed(6.0)
    assert made.verdict(6.8, 6.8) is None
    assert made.state is Hearing.OWED
    assert made.verdict(7.6, 7.6) is LATE


def test_speech_that_was_owed_still_counts_when_the_caller_goes_on_and_the_pause_does_not() -> None:
    made = watch()
    made.speech_began(5.0)
    made.speech_ended(6.2, 6.4)
    assert made.owed_from_s is None
    made.speech_began(7.0)
    assert made.owed_from_s == 5.0
    assert made.verdict(7.7, 7.7) is None
    assert made.verdict(7.8, 7.8) is LATE


@pytest.mark.parametrize("how", ["covered", "flushed"])
def test_speech_that_was_heard_by_then_is_not_counted(how: str) -> None:
    made = watch()
    made.speech_began(5.0)
    made.speech_ended(6.2, 6.4)
    made.speech_began(7.0)
    if how == "covered":
        made.reported(6.3, has_words=True, is_answer=False)
    else:
        made.flushed(6.4)
    assert made.owed_from_s is None
    assert made.verdict(8.9, 8.9) is None
    assert made.verdict(9.0, 9.0) is LATE


def test_a_short_sound_needs_no_answer() -> None:
    made = watch()
    made.speech_began(5.0)
    made.speech_ended(5.25, 5.45)
    assert made.state is Hearing.IDLE


def test_words_that_are_not_final_need_one_however_little_follows() -> None:
    made = watch()
    made.speech_began(5.0)
    made.reported(6.2, has_words=True, is_answer=False)
    made.speech_ended(6.25, 6.45)
    assert made.verdict(7.5, 7.5) is LATE


def test_who_does_not_acknowledge_is_late_only_with_words_that_it_has_shown() -> None:
    for shows, verdict in ((True, LATE), (False, None)):
        made = watch(acknowledges=False)
        made.speech_began(5.0)
        if shows:
            made.reported(5.4, has_words=True, is_answer=False)
        made.speech_ended(5.6, 5.8)
        assert made.verdict(6.8, 6.8) is verdict


def test_a_replay_is_given_its_time() -> None:
    made = watch()
    made.speech_began(5.0)
    made.connected(10.0, from_s=5.0, silence_limit_s=2.4, acknowledges=True)
    assert made.verdict(11.9, 12.0) is None
    assert made.verdict(12.0, 12.0) is LATE
    made.connected(20.0, from_s=5.0, silence_limit_s=2.0, acknowledges=True)
    made.speech_ended(14.0, 20.1)
    assert made.verdict(28.4, 15.0) is None
    assert made.verdict(28.5, 15.0) is LATE


def test_who_is_sent_much_at_once_must_say_something_soon() -> None:
    for missed_s, verdict in ((0.9, None), (1.0, LATE)):
        made = watch()
        made.speech_began(5.0)
        made.connected(6.0, from_s=5.0, missed_s=missed_s, silence_limit_s=9.0, acknowledges=True)
        assert made.verdict(7.4, 7.4) is None
        assert made.verdict(7.5, 7.5) is verdict
    made.reported(5.1, has_words=False, is_answer=False)
    assert made.verdict(7.5, 7.5) is None


def test_speech_that_ended_unheard_is_owed_by_who_takes_over() -> None:
    made = watch()
    made.speech_began(5.0)
    made.speech_ended(6.0, 6.2)
    assert made.verdict(7.2, 7.2) is LATE
    made.connected(7.4, from_s=4.7, silence_limit_s=2.0, acknowledges=True)
    assert made.state is Hearing.OWED
    made.reported(6.5, has_words=True, is_answer=True)
    assert made.verdict(8.0, 8.0) is None


@pytest.mark.parametrize("acknowledges", [True, False])
def test_speech_without_words_asks_for_another_opinion(acknowledges: bool) -> None:
    made = watch(acknowledges=acknowledges)
    made.speech_began(5.0)
    made.speech_ended(6.2, 6.4)
    if acknowledges:
        made.reported(6.4, has_words=False, is_answer=True)
    assert made.verdict(7.4, 7.4) is SILENT


def test_speech_that_goes_on_without_words_asks_too() -> None:
    made = watch()
    made.speech_began(5.0)
    for at_s in (6.0, 6.5):
        made.reported(at_s, has_words=False, is_answer=False)
        assert made.verdict(at_s, at_s) is None
    made.reported(6.65, has_words=False, is_answer=False)
    assert made.verdict(6.7, 6.7) is SILENT


def test_who_says_nothing_when_there_is_nothing_to_say_is_doubted_as_early() -> None:
    made = watch(acknowledges=False)
    made.speech_began(5.0)
    assert made.verdict(6.5, 6.5) is None
    assert made.verdict(6.65, 6.65) is SILENT
    made = watch(acknowledges=False)
    made.speech_began(5.0)
    made.speech_ended(6.2, 6.4)
    assert made.verdict(6.9, 6.9) is None
    assert made.verdict(7.05, 7.05) is SILENT


def test_who_shows_words_is_not_doubted() -> None:
    made = watch(acknowledges=False)
    made.speech_began(5.0)
    made.reported(5.8, has_words=True, is_answer=False)
    assert made.verdict(7.7, 7.7) is None, "it shows words of a long turn every few seconds"


def test_the_next_opinion_on_a_noise_is_asked_for_after_twice_as_much() -> None:
    made, at_s, asked = watch(), 5.0, list[bool]()
    for _ in range(6):
        made.speech_began(at_s)
        made.speech_ended(at_s + 1.2, at_s + 1.4)
        made.reported(at_s + 1.4, has_words=False, is_answer=True)
        asked.append(made.verdict(at_s + 1.4, at_s + 1.4) is SILENT)
        if asked[-1]:
            made.opinion_given()
        at_s += 3.0
    assert asked == [True, False, True, False, False, False]
    made.reported(at_s, has_words=True, is_answer=True)
    made.speech_began(at_s + 1.0)
    made.speech_ended(at_s + 2.2, at_s + 2.4)
    made.flushed(at_s + 2.4)
    assert made.verdict(at_s + 2.5, at_s + 2.5) is SILENT


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["began", "ended", "words", "answer", "nothing", "flushed", "connected"]),
            st.floats(0.01, 3.0),
        ),
        max_size=40,
    )
)
def test_whatever_comes_a_verdict_is_one_of_three_and_silence_owes_nothing(
    events: list[tuple[str, float]],
) -> None:
    made, now_s = watch(), 1.0
    for kind, wait_s in events:
        now_s += wait_s
        match kind:
            case "began":
                made.speech_began(now_s)
            case "ended":
                made.speech_ended(now_s - 0.2, now_s)
            case "words" | "answer" | "nothing":
                made.reported(now_s - 0.3, has_words=kind != "nothing", is_answer=kind == "answer")
            case "flushed":
                made.flushed(now_s - 0.1)
            case _:
                made.connected(now_s, from_s=now_s - 0.3, silence_limit_s=2.0, acknowledges=True)
        was_idle = made.state is Hearing.IDLE
        verdict = made.verdict(now_s, now_s)
        assert verdict in (None, LATE, SILENT)
        assert not (was_idle and verdict is not None)
    made.speech_began(now_s)
    made.speech_ended(now_s + 0.5, now_s + 0.7)
    made.verdict(now_s + 20.0, now_s + 20.0)
    assert made.state is Hearing.IDLE


def test_who_was_held_up_itself_waits_for_as_long() -> None:
    made = watch()
    made.speech_began(5.0)
    made.stalled(0.8, 7.0)
    assert made.verdict(7.7, 7.7) is None
    assert made.verdict(7.8, 7.8) is LATE


# Deafness


LIMITS = DeafLimits()


def test_who_hears_is_never_due() -> None:
    assert Deafness().due_s is None


def test_who_spoke_unheard_is_told_soon() -> None:
    deaf = Deafness()
    deaf.speech_began()
    deaf.lost(10.0, spoken_s=None)
    assert deaf.is_deaf
    assert deaf.due_s == pytest.approx(10.0 + LIMITS.speaking_s)
    deaf.speech_ended(13.0)
    assert deaf.due_s == pytest.approx(13.0 + LIMITS.spoken_s)
    deaf.lost(13.2, spoken_s=13.1)
    assert deaf.due_s == pytest.approx(13.0 + LIMITS.spoken_s)


def test_others_are_tried_for_a_while_first() -> None:
    deaf = Deafness()
    deaf.lost(10.0, spoken_s=9.8)
    assert deaf.due_s == pytest.approx(10.0 + LIMITS.deaf_s)


def test_who_says_nothing_is_told_later() -> None:
    deaf = Deafness()
    deaf.lost(10.0, spoken_s=None)
    assert deaf.due_s == pytest.approx(10.0 + LIMITS.silent_s)
    deaf.heard()
    assert deaf.due_s is None


def test_limits_are_taken_as_given() -> None:
    assert HearingWatch(HearingLimits(answer_s=0.5)).limits.answer_s == 0.5
