"""What tries a caller's patience, and when it is at its end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.handoff_reasons import CallerPatience, HandoffReason, Patience, reason_of
from processors.confidence import Trust
from processors.language import known_languages, load_language

EN = load_language("en")


def patience(**limits: int) -> CallerPatience:
    return CallerPatience(EN, Patience(**limits))


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_turns_that_could_not_be_heard_count_in_a_row(limit: int) -> None:
    caller = patience(failed_turns=limit)
    assert [caller.failed_turn(count) for count in range(1, limit)] == [None] * (limit - 1)
    assert caller.failed_turn(limit) is HandoffReason.FAILED_TURNS


@pytest.mark.parametrize(
    "text",
    [
        "This is ridiculous.",
        "You stupid machine!",
        "For God's sake, how many times do I have to say it?",
        "Are you even listening to me?",
        "I'm so fed up with this.",
        "What the hell.",
    ],
)
def test_strong_words_are_enough(text: str) -> None:
    assert patience().turn_over(text) is HandoffReason.FRUSTRATED


@pytest.mark.parametrize(
    "text",
    [
        "That's not what I said, I said Thursday.",
        "My tooth is killing me.",
        "Is this a machine?",
        "That would be ridiculously early for me.",
        "Sorry, how many times a year should I come in?",
        "Hello?",
        "",
    ],
)
def test_ordinary_words_are_not(text: str) -> None:
    assert patience().turn_over(text) is None


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Das ist doch lächerlich!"),
        ("es", "¡Esto es ridículo!"),
        ("fr", "C'est vraiment ridicule !"),
        ("it", "Questo è assurdo."),
        ("nl", "Dit is echt belachelijk."),
        ("pt", "Isto é ridículo."),
    ],
)
def test_every_language_has_words_for_it(language: str, text: str) -> None:
    assert load_language(language).is_frustrated(text)
    assert not any(
        load_language(other).is_frustrated("ja nein si no oui merci") for other in known_languages()
    )


def test_the_same_request_three_times_is_too_often() -> None:
    caller = patience()
    assert caller.turn_over("I need to move my appointment.") is None
    assert caller.turn_over("Tuesday.") is None
    assert caller.turn_over("I need to move my appointment!") is None
    assert caller.turn_over("I need to move my appointment, please!") is HandoffReason.REPEATED


def test_a_yes_may_be_said_again_and_again_and_an_old_request_is_forgotten() -> None:
    caller = patience()
    assert {caller.turn_over("Yes, please.") for _ in range(10)} == {None}
    for text in ("I need a cleaning on Tuesday", "one", "two", "three", "four", "five", "six"):
        assert caller.turn_over(text) is None
    assert caller.turn_over("I need a cleaning on Tuesday") is None
    assert caller.turn_over("I need a cleaning on Tuesday") is None


def test_doubt_counts_by_turns_in_a_row() -> None:
    caller = patience(doubtful_turns=2)
    caller.heard(Trust.DOUBTFUL)
    caller.heard(Trust.CLEAR)
    assert caller.turn_over("a cleaning maybe") is None
    caller.heard(Trust.CLEAR)
    assert caller.turn_over("on Tuesday then") is None
    caller.heard(Trust.DOUBTFUL)
    caller.heard(Trust.DOUBTFUL)
    assert caller.turn_over("at half past nine") is None
    caller.heard(Trust.DOUBTFUL)
    assert caller.turn_over("for Maria Lopez") is HandoffReason.UNSURE


@given(st.lists(st.text(max_size=60), max_size=12))
def test_whatever_is_said_there_is_an_answer(turns: list[str]) -> None:
    caller = patience()
    for text in turns:
        assert caller.turn_over(text) in (None, HandoffReason.FRUSTRATED, HandoffReason.REPEATED)


@pytest.mark.parametrize("name", ["failed_turns", "doubtful_turns", "same_requests"])
def test_a_limit_is_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=">= 1"):
        Patience(**{name: 0})


@pytest.mark.parametrize(
    ("cause", "reason", "can_agent_talk"),
    [
        ("llm_failed", HandoffReason.MODEL, False),
        ("model", HandoffReason.MODEL, False),
        ("voice", HandoffReason.VOICE, False),
        ("stt", HandoffReason.RECOGNISER, False),
        ("hearing", HandoffReason.RECOGNISER, False),
        ("playout", HandoffReason.STUCK, False),
        ("anything", HandoffReason.STUCK, False),
    ],
)
def test_what_a_call_was_given_up_for(cause: str, reason: HandoffReason, can_agent_talk: bool) -> None:
    assert reason_of(cause) is reason
    assert reason.can_agent_talk is can_agent_talk
    assert reason.is_ours


def test_who_asks_can_be_taken_back_and_who_is_not_understood_cannot() -> None:
    assert HandoffReason.ASKED.can_agent_talk
    assert not HandoffReason.FAILED_TURNS.can_agent_talk
    assert not HandoffReason.FAILED_TURNS.is_ours
