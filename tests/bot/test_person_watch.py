import pytest

from bot.handoff_reasons import CallerPatience, HandoffReason, Patience
from bot.person_watch import PersonWatch
from flows.business import PersonAnswer
from processors.confidence import Trust
from processors.language import load_language


class Desk:
    """Puts callers through, or has nobody for them."""

    def __init__(self, answer: PersonAnswer) -> None:
        self.answer = answer
        self.asked: list[tuple[HandoffReason, str]] = []

    def hand_off(self, reason: HandoffReason, about: str) -> PersonAnswer:
        self.asked.append((reason, about))
        return self.answer


def watch(desk: Desk) -> PersonWatch:
    return PersonWatch(CallerPatience(load_language("en-US"), Patience(failed_turns=2)), desk.hand_off)


@pytest.mark.parametrize("answer", list(PersonAnswer))
def test_a_caller_who_cannot_be_understood_is_asked_again_unless_they_are_put_through(
    answer: PersonAnswer,
) -> None:
    desk = Desk(answer)
    person = watch(desk)
    assert person.failed_turn(1)
    assert desk.asked == []
    assert person.failed_turn(2) is (answer is PersonAnswer.NOBODY)
    assert desk.asked == [(HandoffReason.FAILED_TURNS, "")]


@pytest.mark.parametrize("answer", list(PersonAnswer))
def test_a_tool_that_wants_a_person_gets_what_there_is(answer: PersonAnswer) -> None:
    desk = Desk(answer)
    assert watch(desk).asked("a bill") is answer
    assert desk.asked == [(HandoffReason.ASKED, "a bill")]


def test_who_says_the_same_thing_again_and_again_is_put_through() -> None:
    desk = Desk(PersonAnswer.PUT_THROUGH)
    person = watch(desk)
    for _ in range(3):
        assert desk.asked == []
        person.turn_over("I want to talk about my last bill")
    assert desk.asked == [(HandoffReason.REPEATED, "")]


def test_who_is_understood_with_doubt_only_is_put_through() -> None:
    desk = Desk(PersonAnswer.PUT_THROUGH)
    person = watch(desk)
    for text in ("one thing", "another thing", "something else", "the last of it"):
        assert desk.asked == []
        person.heard(Trust.DOUBTFUL)
        person.turn_over(text)
    assert desk.asked == [(HandoffReason.UNSURE, "")]
