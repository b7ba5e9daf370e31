import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import (
    Frame,
    LLMAssistantPushAggregationFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.utils.text.base_text_aggregator import TextType

from processors.heard_words import RECENT_S, AssistantTurn, HeardWords


def word(text: str = "one", *, is_remembered: bool = True) -> TTSTextFrame:
    frame = TTSTextFrame(text, text_type=TextType.WORD)
    frame.append_to_context = is_remembered
    return frame


def test_a_word_is_recent_for_a_while() -> None:
    words = HeardWords()
    words.heard("one", 1.0)
    words.heard("two", 3.0)
    assert words.recent(1.0 + RECENT_S) == ["one", "two"]
    assert words.recent(1.1 + RECENT_S) == ["two"]


def test_what_was_said_before_is_still_recent_and_no_part_of_what_is_said_now() -> None:
    words = HeardWords()
    words.heard("one", 1.0)
    words.begin()
    words.heard("two", 2.0)
    assert list(words.since_it_began) == ["two"]
    assert words.recent(2.0) == ["one", "two"]


@pytest.mark.parametrize("opening", [LLMFullResponseStartFrame(), TTSStartedFrame(context_id="c")])
@pytest.mark.parametrize("closing", [LLMFullResponseEndFrame(), LLMAssistantPushAggregationFrame()])
def test_words_are_committed_within_a_reply_or_a_line(opening: Frame, closing: Frame) -> None:
    turn = AssistantTurn()
    assert turn.loses(word())
    turn.give(opening)
    assert not turn.loses(word())
    assert not turn.has_words
    turn.give(word())
    assert turn.has_words
    turn.give(TTSStoppedFrame(context_id="c"))
    assert turn.has_words, "the end of an utterance is not the end of the reply"
    turn.give(closing)
    assert not turn.has_words
    assert turn.loses(word())


def test_a_line_that_is_not_remembered_opens_nothing_and_leaves_no_words() -> None:
    turn = AssistantTurn()
    turn.give(TTSStartedFrame(context_id="c", append_to_context=False))
    assert not turn.loses(word(is_remembered=False))
    assert turn.loses(word())
    turn.give(word(is_remembered=False))
    assert not turn.has_words


def test_a_line_that_is_not_remembered_closes_no_reply() -> None:
    turn = AssistantTurn()
    turn.give(LLMFullResponseStartFrame())
    turn.give(TTSStartedFrame(context_id="c", append_to_context=False))
    assert not turn.loses(word())


_FRAMES = st.sampled_from(
    [
        LLMFullResponseStartFrame,
        LLMFullResponseEndFrame,
        LLMAssistantPushAggregationFrame,
        word,
        lambda: TTSStartedFrame(context_id="c"),
        lambda: word(is_remembered=False),
    ]
)


@given(st.lists(_FRAMES, max_size=20))
def test_whoever_opens_a_turn_for_a_word_that_would_be_lost_loses_none(made: list[type[Frame]]) -> None:
    turn, held = AssistantTurn(), 0
    for make in made:
        frame = make()
        if isinstance(frame, TTSTextFrame) and turn.loses(frame):
            turn.give(TTSStartedFrame(context_id="c"))
            assert not turn.loses(frame)
        turn.give(frame)
        if isinstance(frame, LLMFullResponseEndFrame | LLMAssistantPushAggregationFrame):
            held = 0
        elif isinstance(frame, TTSTextFrame):
            held += frame.append_to_context
        assert turn.has_words == (held > 0)
