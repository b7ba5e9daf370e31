from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.openers import OpenerMatcher, ReplyStart

OPENERS = ("Sure.", "Okay.", "D'accord.", "Thanks,", "Let me look.", "Okay. One moment.")


def feed(parts: Sequence[str]) -> list[Sequence[ReplyStart]]:
    matcher = OpenerMatcher(OPENERS)
    return [matcher.feed(part) for part in parts]


def plain(text: str) -> ReplyStart:
    return ReplyStart(None, "", text)


SURE = ReplyStart("Sure.", "Sure.", "")
THANKS = ReplyStart("Thanks,", "Thanks,", "")


@pytest.mark.parametrize(
    ("parts", "decisions"),
    [
        # Streamed, in one, and with what follows.
        (["Sure", ".", " What"], [[], [SURE], [plain(" What")]]),
        (["Sure."], [[SURE]]),
        (["Sure. What day?"], [[ReplyStart("Sure.", "Sure.", " What day?")]]),
        (["\n Sure", "!\n"], [[], [ReplyStart("Sure.", "\n Sure!", "\n")]]),
        (["D\u2019accord."], [[ReplyStart("D'accord.", "D\u2019accord.", "")]]),
        # None of them: released as soon as that is certain.
        (["What"], [[plain("What")]]),
        (["Sure", " thing", "."], [[], [plain("Sure thing")], [plain(".")]]),
        (["Sure", ", let me", " check."], [[], [plain("Sure, let me")], [plain(" check.")]]),
        (["Surely."], [[plain("Surely.")]]),
        (["sure."], [[plain("sure.")]]),
        (["Sure..."], [[plain("Sure...")]]),
        (["Sure.ly"], [[plain("Sure.ly")]]),
        # A longer one in sight: one more token, no longer.
        (["Okay.", " What"], [[], [ReplyStart("Okay.", "Okay.", " What")]]),
        (["Okay.", " One", " moment."], [[], [ReplyStart("Okay.", "Okay.", " One")], [plain(" moment.")]]),
        (["Okay.", " One moment."], [[], [ReplyStart("Okay. One moment.", "Okay. One moment.", "")]]),
        (["Okay. One moment. And?"], [[ReplyStart("Okay. One moment.", "Okay. One moment.", " And?")]]),
        # A comma is certain at once, and a second one may go on with the sentence.
        (["Thanks", ",", " Dana"], [[], [THANKS], [plain(" Dana")]]),
        (
            ["Thanks,", " let", " me look", "."],
            [[THANKS], [], [], [ReplyStart("Let me look.", " let me look.", "")]],
        ),
        (["Thanks, let me look. I have"], [[THANKS, ReplyStart("Let me look.", " let me look.", " I have")]]),
        (["Thanks, let", " me see."], [[THANKS], [plain(" let me see.")]]),
        (["Thanks,", " thanks,", " x"], [[THANKS], [plain(" thanks,")], [plain(" x")]]),
        (["Thanks,ok"], [[plain("Thanks,ok")]]),
    ],
)
def test_decisions(parts: list[str], decisions: list[list[ReplyStart]]) -> None:
    assert feed(parts) == decisions


def test_only_the_beginning_counts() -> None:
    matcher = OpenerMatcher(OPENERS)
    matcher.feed("Yes.")
    assert matcher.feed("Sure.") == [plain("Sure.")]
    matcher.reset()
    assert matcher.feed("Sure.") == [SURE]


@pytest.mark.parametrize(
    ("parts", "rest"),
    [
        (["Sure"], [plain("Sure")]),
        (["Okay."], [ReplyStart("Okay.", "Okay.", "")]),
        (["Thanks", ", let me"], [plain(" let me")]),
        (["Sure."], []),
        ([], []),
    ],
)
def test_what_is_held_is_let_go_when_nothing_comes(parts: list[str], rest: list[ReplyStart]) -> None:
    matcher = OpenerMatcher(OPENERS)
    for part in parts:
        matcher.feed(part)
    assert matcher.flush() == rest


def test_nothing_to_let_go_decides_nothing() -> None:
    matcher = OpenerMatcher(OPENERS)
    matcher.feed("")
    matcher.flush()
    assert matcher.feed("Sure.") == [SURE]


def test_without_openers_nothing_is_held() -> None:
    assert OpenerMatcher(()).feed("Sure") == [plain("Sure")]


@given(
    st.lists(
        st.sampled_from(
            ["Sure", "Thanks", ".", ",", " let me", " look", "Okay", " One", " moment", "!", " ", "\n", "x"]
        )
    )
)
def test_no_character_is_lost_or_doubled(parts: list[str]) -> None:
    matcher = OpenerMatcher(OPENERS)
    starts = [start for part in parts for start in matcher.feed(part)] + [*matcher.flush()]
    assert "".join(start.said + start.rest for start in starts) == "".join(parts)
    assert sum(start.opener is not None for start in starts) <= 2


@given(st.text(alphabet="Sure, .letmOkaynThks", max_size=30))
def test_never_more_is_held_than_the_longest_opener_and_a_token(text: str) -> None:
    matcher, held = OpenerMatcher(OPENERS), 0
    for char in text:
        held = 0 if matcher.feed(char) else held + 1
        assert held <= len(text) - len(text.lstrip()) + max(map(len, OPENERS))
