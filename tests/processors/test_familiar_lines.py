import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.familiar_lines import (
    CALLS_NEEDED,
    MOST_LINES,
    MOST_WATCHED,
    FamiliarLines,
    is_impersonal,
)

DAY = "What day would you like to come in?"


@pytest.mark.parametrize(
    ("sentence", "is_kept"),
    [
        (DAY, True),
        ("How can I help you?", True),
        ("I'm sorry, I didn't catch that.", True),
        ("Shall I note that?", True),
        ("I think I'd do that.", True),
        ("What day would you like to come in", False),
        ("Sure, thanks.", False),
        ("Is that right, Dana?", False),
        ("Is that right, McKay?", False),
        ("Shall I take the one at 9:30?", False),
        ("A table for two on Tuesday at nine?", False),
        ("so " * 14 + "long.", False),
        ("", False),
    ],
)
def test_what_is_said_of_nobody_may_be_kept(sentence: str, is_kept: bool) -> None:
    assert is_impersonal(sentence) is is_kept


def test_a_sentence_is_familiar_when_two_calls_have_said_it() -> None:
    familiar = FamiliarLines()
    assert not familiar.said(DAY, "CA1")
    assert not familiar.said(DAY, "CA1"), "one call alone may say it as often as it likes"
    assert familiar.lines == ()
    assert familiar.said(DAY, "CA2")
    assert familiar.lines == (DAY,)
    assert not familiar.said(DAY, "CA3"), "it becomes familiar once"


def test_what_is_personal_never_becomes_familiar() -> None:
    familiar = FamiliarLines()
    for number in range(5):
        assert not familiar.said("Is that right, Dana?", f"CA{number}")
    assert familiar.lines == ()


def test_the_line_not_said_for_longest_is_forgotten() -> None:
    familiar = FamiliarLines()
    lines = [
        f"Would you like the {'very ' * (n % 7)}{chr(97 + n % 26)}{chr(97 + n // 26)} one?"
        for n in range(MOST_LINES + 1)
    ]
    for line in lines[:-1]:
        for call in ("CA1", "CA2"):
            familiar.said(line, call)
    familiar.said(lines[0], "CA3")
    for call in ("CA1", "CA2"):
        familiar.said(lines[-1], call)
    assert len(familiar.lines) == MOST_LINES
    assert lines[0] in familiar.lines
    assert lines[1] not in familiar.lines


@given(
    st.lists(
        st.tuples(
            st.sampled_from([f"May I have the {chr(97 + n)} one?" for n in range(9)]), st.integers(0, 3)
        )
    )
)
def test_familiar_is_what_enough_calls_have_said(said: list[tuple[str, int]]) -> None:
    familiar = FamiliarLines()
    for sentence, call in said:
        familiar.said(sentence, str(call))
    calls = {sentence: {call for one, call in said if one == sentence} for sentence, _ in said}
    assert set(familiar.lines) == {one for one, by in calls.items() if len(by) >= CALLS_NEEDED}


def test_what_is_watched_is_bounded() -> None:
    familiar = FamiliarLines()
    first = "May I have the first one?"
    familiar.said(first, "CA1")
    for number in range(MOST_WATCHED):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        familiar.said(f"May I have the {word} one?", "CA1")
    assert not familiar.said(first, "CA2"), "it was forgotten, and is new"
