from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.openers import OpenerMatcher, ReplyStart

OPENERS = ("Sure.", "Okay.", "D'accord.", "Sure, let me look.", "Okay. One moment.")


def feed(parts: Sequence[str]) -> list[ReplyStart | None]:
    matcher = OpenerMatcher(OPENERS)
    return [matcher.feed(part) for part in parts]


@pytest.mark.parametrize(
    ("parts", "decisions"),
    [
        # Streamed, in one, and with what follows.
        (["Sure", ".", " What"], [None, ReplyStart("Sure.", "Sure.", ""), ReplyStart(None, "", " What")]),
        (["Sure."], [ReplyStart("Sure.", "Sure.", "")]),
        (["Sure. What day?"], [ReplyStart("Sure.", "Sure.", " What day?")]),
        (["\n Sure", "!\n"], [None, ReplyStart("Sure.", "\n Sure!", "\n")]),
        (["D\u2019accord."], [ReplyStart("D'accord.", "D\u2019accord.", "")]),
        (
            ["Sure", ",", " let me", " look."],
            [None] * 3 + [ReplyStart("Sure, let me look.", "Sure, let me look.", "")],
        ),
        # None of them: released as soon as that is certain.
        (["What"], [ReplyStart(None, "", "What")]),
        (["Sure", " thing", "."], [None, ReplyStart(None, "", "Sure thing"), ReplyStart(None, "", ".")]),
        (["Sure", ", let me", " check."], [None, None, ReplyStart(None, "", "Sure, let me check.")]),
        (["Surely."], [ReplyStart(None, "", "Surely.")]),
        (["sure."], [ReplyStart(None, "", "sure.")]),
        (["Sure..."], [ReplyStart(None, "", "Sure...")]),
        (["Sure.ly"], [ReplyStart(None, "", "Sure.ly")]),
        # A longer one in sight: one more token, no longer.
        (["Okay.", " What"], [None, ReplyStart("Okay.", "Okay.", " What")]),
        (
            ["Okay.", " One", " moment."],
            [None, ReplyStart("Okay.", "Okay.", " One"), ReplyStart(None, "", " moment.")],
        ),
        (["Okay.", " One moment."], [None, ReplyStart("Okay. One moment.", "Okay. One moment.", "")]),
        (["Okay. One moment. And?"], [ReplyStart("Okay. One moment.", "Okay. One moment.", " And?")]),
    ],
)
def test_decisions(parts: list[str], decisions: list[ReplyStart | None]) -> None:
    assert feed(parts) == decisions


def test_only_the_beginning_counts() -> None:
    matcher = OpenerMatcher(OPENERS)
    matcher.feed("Yes.")
    assert matcher.feed("Sure.") == ReplyStart(None, "", "Sure.")
    matcher.reset()
    assert matcher.feed("Sure.") == ReplyStart("Sure.", "Sure.", "")


@pytest.mark.parametrize(
    ("parts", "rest"),
    [
        (["Sure"], ReplyStart(None, "", "Sure")),
        (["Okay."], ReplyStart("Okay.", "Okay.", "")),
        (["Sure."], ReplyStart(None, "", "")),
        ([], ReplyStart(None, "", "")),
    ],
)
def test_what_is_held_is_let_go_when_nothing_comes(parts: list[str], rest: ReplyStart) -> None:
    matcher = OpenerMatcher(OPENERS)
    for part in parts:
        matcher.feed(part)
    assert matcher.flush() == rest


def test_nothing_to_let_go_decides_nothing() -> None:
    matcher = OpenerMatcher(OPENERS)
    matcher.feed("")
    matcher.flush()
    assert matcher.feed("Sure.") == ReplyStart("Sure.", "Sure.", "")


def test_without_openers_nothing_is_held() -> None:
    assert OpenerMatcher(()).feed("Sure") == ReplyStart(None, "", "Sure")


@given(
    st.lists(
        st.sampled_from(
            ["Sure", ".", ",", " let me", " look", "Okay", " One", " moment", "!", " ", "\n", "x"]
        )
    )
)
def test_no_character_is_lost_or_doubled(parts: list[str]) -> None:
    matcher = OpenerMatcher(OPENERS)
    starts = [matcher.feed(part) for part in parts] + [matcher.flush()]
    assert "".join(start.said + start.rest for start in starts if start is not None) == "".join(parts)
    assert sum(start.opener is not None for start in starts if start is not None) <= 1


@given(st.text(alphabet="Sure, .letmOkayn", max_size=30))
def test_never_more_is_held_than_the_longest_opener_and_a_token(text: str) -> None:
    matcher, held = OpenerMatcher(OPENERS), 0
    for char in text:
        held = held + 1 if matcher.feed(char) is None else 0
        assert held <= len(text) - len(text.lstrip()) + max(map(len, OPENERS))
