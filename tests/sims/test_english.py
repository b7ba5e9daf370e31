import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims import english


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("Can I come next Tuesday morning?", "next tuesday"),
        ("not Tuesday, Wednesday please", "wednesday"),
        ("Tuesday, no, Wednesday", "wednesday"),
        ("the third of December", "third of december"),
        ("on December 3rd", "december 3rd"),
        ("the twenty fourth", "the twenty fourth"),
        ("on the 24th", "the 24th"),
        ("the day after tomorrow", "day after tomorrow"),
        ("as soon as possible", "any"),
        ("I don't mind", "any"),
        ("a cleaning, please", None),
    ],
)
def test_days(text: str, day: str | None) -> None:
    assert english.day_phrase(text) == day


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("nine works", [(9, 0)]),
        ("nine thirty, please", [(9, 30)]),
        ("at 9:30", [(9, 30)]),
        ("8 a.m. or 2 p.m.", [(8, 0), (2, 0)]),
        ("half past two", [(2, 30)]),
        ("quarter to ten", [(9, 45)]),
        ("noon", [(12, 0)]),
        ("at one", [(1, 0)]),
        ("the first one", []),
        ("December 3rd", []),
    ],
)
def test_times(text: str, times: list[tuple[int, int]]) -> None:
    assert english.times_in(text) == times


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("eight five oh, five five five, oh one nine nine", ["8505550199"]),
        ("(850) 555-0123, thanks", ["8505550123"]),
        ("eight five zero, triple five, double oh one two", ["8505550012"]),
        ("five five five, twelve thirty four", ["5551234"]),
        ("eight five oh five five five one hundred", ["850555100"]),
        ("twenty one and six", ["216"]),
        ("no digits", []),
    ],
)
def test_digits(text: str, runs: list[str]) -> None:
    assert english.digit_runs(text) == runs


@pytest.mark.parametrize(
    ("text", "asked", "name"),
    [
        ("Maria Lopez.", True, "Maria Lopez"),
        ("um, it's maria lopez please", True, "Maria Lopez"),
        ("Maria Lopez, L O P E Z", True, "Maria Lopez"),
        ("My name is Tom Becker and my number is 850", False, "Tom Becker"),
        ("This is Anna.", False, "Anna"),
        ("Sure, it's O'Brien", True, "O'Brien"),
        ("I'm in pain", False, None),
        ("I'm calling about a bill", True, None),
        ("what are your hours", True, None),
        ("Wednesday", True, None),
        ("Maria Lopez", False, None),
    ],
)
def test_names(text: str, asked: bool, name: str | None) -> None:
    assert english.person_name(text, asked=asked) == name


@pytest.mark.parametrize(
    "text", ["Yes.", "yeah that's right", "uh-huh", "No, that's fine", "sure, go ahead", "Perfect"]
)
def test_agreement(text: str) -> None:
    assert english.is_yes(text)
    assert not english.is_no(text)


@pytest.mark.parametrize(
    "text", ["No.", "nope", "That's not right", "that is wrong", "no, I said yes to Tuesday"]
)
def test_disagreement(text: str) -> None:
    assert english.is_no(text)
    assert not english.is_yes(text)


def test_agreement_with_a_change_is_not_plain() -> None:
    assert english.is_plain_yes("Yes, please.")
    assert not english.is_plain_yes("Yes, but my name is Maria.")


@pytest.mark.parametrize(
    "text", ["Bye!", "No, that's all.", "No thank you", "That's it, thanks", "have a nice day"]
)
def test_goodbyes(text: str) -> None:
    assert english.is_goodbye(text)


@pytest.mark.parametrize(
    "text", ["Sorry?", "What?", "Can you repeat that?", "I didn't catch that", "say that again"]
)
def test_requests_to_repeat(text: str) -> None:
    assert english.is_repeat(text)
    assert not english.is_repeat("Sorry, I meant Wednesday")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("the first one", 0),
        ("either", 0),
        ("the second", 1),
        ("the later one", 2),
        ("the last one", 2),
        ("hm", None),
    ],
)
def test_places(text: str, place: int | None) -> None:
    assert english.choice(text, 3) == place


def test_messages_are_what_follows_the_wish_or_all_that_was_asked_for() -> None:
    assert (
        english.free_text("Please tell Dr. Lee that my crown fell out.", asked=False) == "my crown fell out."
    )
    assert english.free_text("my crown fell out", asked=False) is None
    assert english.free_text("Um, that my crown fell out", asked=True) == "my crown fell out"


@given(st.text(max_size=80), st.booleans())
def test_nothing_a_caller_says_breaks_it(text: str, asked: bool) -> None:
    assert english.day_phrase(text) is None or english.day_phrase(text)
    assert all(1 <= hour <= 12 and 0 <= minute <= 99 for hour, minute in english.times_in(text))
    assert all(run.isdigit() for run in english.digit_runs(text))
    assert english.person_name(text, asked=asked) != ""
    assert not (english.is_yes(text) and english.is_no(text))
    english.free_text(text, asked=asked)
    english.choice(text, 2)
    english.stems(text)
