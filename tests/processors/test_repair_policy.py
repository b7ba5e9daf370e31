import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.confidence import Trust
from processors.repair_lines import lines_of, repair_lines
from processors.repair_policy import RepairParams, RepairPolicy, Unheard

LINES = lines_of("en")


def policy() -> RepairPolicy:
    return RepairPolicy(LINES, RepairParams())


def sound(one: RepairPolicy, start_s: float, length_s: float) -> None:
    one.sound_started(start_s)
    one.sound_ended(start_s + length_s, start_s + length_s + 0.2)


def settled(one: RepairPolicy) -> Unheard | None:
    """What comes of it if nothing happens any more."""
    due_s = one.due_s()
    return None if due_s is None else one.decide(due_s)


def test_speech_without_words_is_asked_about_one_second_after_it() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    one.flushed()
    assert one.due_s() == pytest.approx(1.5)
    assert one.decide(1.49) is None
    assert one.decide(1.5) == Unheard(LINES.first[0])
    assert one.failed_turns == 1
    assert one.due_s() is None, "never twice without a sound between"


def test_a_recogniser_that_does_not_answer_is_waited_for_a_little_longer() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    assert one.due_s() == pytest.approx(1.9)
    assert settled(one) == Unheard(LINES.first[0])


def test_words_may_come_behind_the_news_that_the_sound_ended_long_ago() -> None:
    one = policy()
    one.sound_started(0.0)
    one.sound_ended(0.5, 3.0)
    assert one.due_s() == pytest.approx(3.2)


def test_an_answer_to_an_earlier_pause_does_not_count() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    one.flushed()
    sound(one, 0.8, 0.5)
    assert one.due_s() == pytest.approx(2.7)


def test_a_cough_closes_the_turn_and_nothing_is_said() -> None:
    one = policy()
    sound(one, 0.0, 0.39)
    assert settled(one) == Unheard(None)
    assert one.failed_turns == 0


def test_the_longest_sound_of_a_turn_counts() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    sound(one, 1.0, 0.2)
    assert settled(one) == Unheard(LINES.first[0])


@pytest.mark.parametrize("trust", [Trust.CLEAR, Trust.DOUBTFUL])
def test_understood_words_are_others_matter(trust: Trust) -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    assert not one.words(trust, 0.6)
    assert one.due_s() is None
    one.turn_ended(1.0)
    assert one.due_s() is None


def test_unclear_words_are_asked_about_however_short_they_were() -> None:
    one = policy()
    sound(one, 0.0, 0.2)
    one.words(Trust.UNHEARD, 0.3)
    one.flushed()
    assert one.due_s() == pytest.approx(1.2)
    assert settled(one) == Unheard(LINES.first[0])


def test_unclear_words_of_a_turn_that_others_end_are_asked_about_at_once() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    one.words(Trust.UNHEARD, 0.6)
    one.turn_ended(0.8)
    assert one.decide(0.8) == Unheard(LINES.first[0])


def test_unclear_words_that_the_voice_model_missed_are_asked_about() -> None:
    one = policy()
    one.words(Trust.UNHEARD, 5.0)
    one.flushed()
    assert one.decide(6.0) == Unheard(LINES.first[0])


def test_the_model_is_told_once_that_it_misses_some() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    assert [
        one.words(trust, 0.6) for trust in (Trust.UNHEARD, Trust.CLEAR, Trust.UNHEARD, Trust.DOUBTFUL)
    ] == [False, True, False, False]
    one.turn_ended(1.0)
    sound(one, 2.0, 0.5)
    assert [one.words(trust, 2.6) for trust in (Trust.CLEAR, Trust.UNHEARD)] == [False, True]


def test_lines_alternate_and_the_second_in_a_row_blames_the_line() -> None:
    one = policy()
    said: list[str | None] = []
    for turn in range(4):
        sound(one, turn * 10.0, 0.5)
        outcome = settled(one)
        assert outcome is not None
        said.append(outcome.line)
    assert said == [LINES.first[0], LINES.again[1], LINES.again[0], LINES.again[1]]
    assert one.failed_turns == 4
    sound(one, 50.0, 0.5)
    one.words(Trust.CLEAR, 50.6)
    one.turn_ended(51.0)
    assert one.failed_turns == 0
    sound(one, 60.0, 0.5)
    assert settled(one) == Unheard(LINES.first[0])


def test_nobody_is_asked_while_the_agent_speaks() -> None:
    one = policy()
    one.agent_started()
    sound(one, 0.0, 1.0)
    assert settled(one) == Unheard(None)
    sound(one, 5.0, 1.0)
    one.agent_stopped()
    assert settled(one) == Unheard(None), "the sound was made over the agent"
    sound(one, 10.0, 1.0)
    assert settled(one) == Unheard(LINES.first[0])


def test_nobody_is_asked_when_the_agent_speaks_meanwhile() -> None:
    one = policy()
    sound(one, 0.0, 1.0)
    one.agent_started()
    one.agent_stopped()
    assert settled(one) == Unheard(None)


def test_nobody_is_asked_while_an_answer_is_on_its_way_but_not_for_ever() -> None:
    one = policy()
    one.reply_expected(0.0)
    sound(one, 1.0, 1.0)
    assert settled(one) == Unheard(None)
    sound(one, 11.0, 1.0)
    assert settled(one) == Unheard(LINES.first[0])


def test_an_answer_is_still_owed_when_the_agent_said_that_it_looks() -> None:
    one = policy()
    one.agent_started()
    one.reply_expected(0.5)  # the tool runs
    one.agent_stopped()
    sound(one, 1.0, 1.0)
    assert settled(one) == Unheard(None)


@pytest.mark.parametrize("is_speaking", [True, False])
def test_who_cut_the_agent_off_is_asked_even_after_a_noise(is_speaking: bool) -> None:
    one = policy()
    if is_speaking:
        one.agent_started()
    else:
        one.reply_expected(0.0)
    one.sound_started(1.0)
    one.turn_started(1.2)
    one.interrupted(1.2)
    one.agent_stopped()
    one.sound_ended(1.3, 1.5)
    assert settled(one) == Unheard(LINES.first[0])


def test_waits_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="quiet_s"):
        RepairParams(quiet_s=2.0, text_limit_s=1.0)


EVENTS = {
    "sound": lambda one, now: one.sound_started(now),
    "quiet": lambda one, now: one.sound_ended(now, now),
    "flushed": lambda one, now: one.flushed(),
    "clear": lambda one, now: one.words(Trust.CLEAR, now),
    "unclear": lambda one, now: one.words(Trust.UNHEARD, now),
    "turn": lambda one, now: one.turn_started(now),
    "turn ended": lambda one, now: one.turn_ended(now),
    "asked": lambda one, now: one.reply_expected(now),
    "agent": lambda one, now: one.agent_started(),
    "agent quiet": lambda one, now: one.agent_stopped(),
    "interrupted": lambda one, now: one.interrupted(now),
}


Events = list[tuple[str, float]]
"""Each with the time before it."""
UNHEARD_TURN: Events = [("sound", 1.0), ("quiet", 0.6), ("agent quiet", 3.0)]
UNDERSTOOD_TURN: Events = [("sound", 1.0), ("clear", 0.5), ("quiet", 0.1), ("turn ended", 0.5)]
one_event = st.tuples(st.sampled_from(sorted(EVENTS)), st.floats(0.0, 3.0))


@settings(max_examples=200)
@given(
    st.lists(
        one_event.map(lambda event: [event]) | st.sampled_from([UNHEARD_TURN, UNDERSTOOD_TURN]), max_size=30
    ).map(lambda parts: [event for part in parts for event in part])
)
def test_no_sequence_of_events_leaves_the_caller_waiting_or_asks_twice(
    events: Events,
) -> None:
    one = policy()
    now_s = 0.0
    is_speaking = False
    is_unheard = False
    said: list[str] = []
    is_understood = False
    asks = 0
    for event, wait_s in events:
        due_s = one.due_s()
        if due_s is not None and due_s <= now_s + wait_s:
            now_s = max(now_s, due_s)
            outcome = one.decide(now_s)
            assert outcome is not None, "what is due is decided"
            assert one.due_s() is None, "once"
            if outcome.line is not None:
                assert not is_speaking
                assert outcome.line in repair_lines("en")
                assert said[-1:] != [outcome.line], "never the same twice in a row"
                said.append(outcome.line)
                asks += 1
            is_unheard = False
            is_sounding = False
        else:
            now_s += wait_s
        EVENTS[event](one, now_s)
        is_understood |= event == "clear"
        if event == "turn ended" and is_understood:
            is_understood = False
            asks = 0
        assert one.failed_turns == asks, "each ask is one failed turn, until one is understood"
        if event in ("agent", "agent quiet", "interrupted"):
            is_speaking = event == "agent"
        is_unheard = (is_unheard or event == "unclear") and event not in ("clear", "turn ended")
        is_sounding = event == "sound"
        due_s = one.due_s()
        if is_unheard and not is_sounding and due_s is not None:
            assert due_s <= now_s + RepairParams().text_limit_s + 1e-6


def test_words_that_are_late_are_waited_for() -> None:
    one = policy()
    sound(one, 0.0, 0.5)
    one.delayed(2.6, 0.6)
    assert one.due_s() == pytest.approx(2.6)
    one.delayed(None, 2.0)
    assert one.due_s() == pytest.approx(2.2), "they come in front of the news"
    one.words(Trust.CLEAR, 2.0)
    assert one.due_s() is None
