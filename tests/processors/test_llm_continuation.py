import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.processors.aggregators.llm_context import LLMContext

from processors.llm_continuation import NOTE, Continuation, continued, ends_sentence


def joined(said: str, *pieces: str) -> str:
    """What the caller hears in the end."""
    continuation = Continuation(said)
    return said + "".join(continuation.feed(piece) for piece in pieces) + continuation.flush()


@pytest.mark.parametrize(
    ("said", "pieces", "heard"),
    [
        ("We're open", [" nine", " to five."], "We're open nine to five."),
        ("We're open", ["nine to five."], "We're open nine to five."),
        ("We're open ", ["nine", " to five."], "We're open nine to five."),
        ("We're open", ["open nine", " to five."], "We're open nine to five."),
        ("We're op", ["open nine to five."], "We're open nine to five."),
        ("We're open", ["We're open nine to five."], "We're open nine to five."),
        ("We're open", ["We're ", "open"], "We're open"),
        ("We're open", ["We're"], "We're open"),
        ("We're open", [", as ever."], "We're open, as ever."),
        ("Sure.", ["Sure. Which day?"], "Sure. Which day?"),
        ("Sure, let me", ["let me look."], "Sure, let me look."),
        ("the cat saw the", ["the dog."], "the cat saw the dog."),
        ("We are open", ["Sorry, at nine."], "We are open Sorry, at nine."),
        ("We're open.", [], "We're open."),
        ("", ["Hello."], "Hello."),
    ],
)
def test_no_word_is_said_twice_and_none_is_lost(said: str, pieces: list[str], heard: str) -> None:
    assert joined(said, *pieces) == heard


@st.composite
def broken_answers(draw: st.DrawFn) -> tuple[str, str, list[str]]:
    """An answer, what of it was said, and the pieces in which a model goes on."""
    letters = draw(st.permutations(string.ascii_lowercase))[: draw(st.integers(2, 12))]
    words = [letter * draw(st.integers(1, 4)) for letter in letters]
    full = " ".join(words)
    cut = draw(st.integers(1, len(full)))
    said = full[:cut]
    begun = said.rstrip().count(" ")
    is_whole_word = cut == len(full) or full[cut] == " " or said.endswith(" ")
    first = draw(st.integers(0, begun + (1 if is_whole_word else 0)))
    rest = " ".join(words[first:])
    pieces: list[str] = []
    while rest:
        size = draw(st.integers(1, 5))
        pieces.append(rest[:size])
        rest = rest[size:]
    return full, said, pieces


@given(broken_answers())
def test_wherever_it_broke_and_wherever_the_model_begins_again(broken: tuple[str, str, list[str]]) -> None:
    full, said, pieces = broken
    assert joined(said, *pieces).rstrip() == full


def test_what_is_asked_begins_like_what_was_asked_before() -> None:
    context = LLMContext(messages=[{"role": "user", "content": "When are you open?"}])
    asked = continued(context, "We're open ")
    assert asked.messages[:1] == context.messages
    assert asked.messages[1:] == [
        {"role": "assistant", "content": "We're open"},
        {"role": "developer", "content": NOTE},
    ]
    assert len(context.messages) == 1
    assert continued(context, " ") is context


@pytest.mark.parametrize(
    ("said", "ends"), [("Okay.", True), ("Is it? ", True), ('"Yes."', True), ("We're", False)]
)
def test_a_whole_sentence_may_be_a_whole_answer(said: str, ends: bool) -> None:
    assert ends_sentence(said) is ends
