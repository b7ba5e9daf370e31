import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.tests.utils import run_test

from processors.frames import CachedSpeechFrame
from processors.unsaid import UnsaidLedger, UnsaidTap

OFFER = "I have Tuesday at nine, or Wednesday at ten. Which would you like?"


def ledger_with(*texts: str) -> UnsaidLedger:
    """A turn that was answered with `texts`, whole."""
    ledger = UnsaidLedger()
    ledger.turn_decided()
    ledger.reply_started()
    for text in texts:
        ledger.reply_text(text)
    ledger.reply_ended()
    return ledger


def test_there_is_nothing_at_first() -> None:
    assert UnsaidLedger().to_say_again("") == ""


def test_a_greeting_is_a_step() -> None:
    ledger = UnsaidLedger()
    ledger.said("Northside Dental, how can I help?", is_step=True)
    assert ledger.to_say_again("") == "Northside Dental, how can I help?"
    assert ledger.to_say_again("Northside Dental, how can I help?") == "Northside Dental, how can I help?"


@pytest.mark.parametrize(
    ("heard", "again"),
    [
        ("", OFFER),
        ("I have Tuesday", OFFER),
        ("I have Tuesday at nine, or Wednesday at ten.", "Which would you like?"),
        ("I have Tuesday at nine, or Wednesday at ten. Which", "Which would you like?"),
        (OFFER, "Which would you like?"),
        ("Sure. I have Tuesday —", OFFER),
    ],
)
def test_a_reply_is_said_from_the_sentence_that_was_cut(heard: str, again: str) -> None:
    assert ledger_with(OFFER).to_say_again(heard) == again


def test_behind_a_question_all_that_follows_it_is_said() -> None:
    ledger = ledger_with("Is Monday good? Take your time.")
    assert ledger.to_say_again("Is Monday good? Take your time.") == "Is Monday good? Take your time."


def test_without_a_question_the_last_sentence_is_said() -> None:
    ledger = ledger_with("You are booked. See you on Monday.")
    assert ledger.to_say_again("You are booked. See you on Monday.") == "See you on Monday."


def test_while_the_model_is_asked_nothing_is_known() -> None:
    ledger = ledger_with(OFFER)
    ledger.turn_decided()
    assert ledger.to_say_again("") is None
    ledger.reply_started()
    ledger.reply_text("You are")
    assert ledger.to_say_again("You are") is None


def test_while_a_tool_runs_nothing_is_known() -> None:
    ledger = UnsaidLedger()
    ledger.turn_decided()
    ledger.reply_started()
    ledger.reply_text("Sure, let me look.")
    ledger.tool_started("1")
    ledger.reply_ended()
    assert ledger.to_say_again("Sure, let me look.") is None
    ledger.tool_ended("1", is_answered=True)
    assert ledger.to_say_again("Sure, let me look.") is None
    ledger.reply_started()
    ledger.reply_text(OFFER)
    ledger.reply_ended()
    assert ledger.to_say_again("Sure, let me look.") == OFFER
    assert ledger.to_say_again("Sure, let me") == f"Sure, let me look. {OFFER}"


def test_a_tool_whose_result_ends_the_call_owes_nothing() -> None:
    ledger = ledger_with("Thank you for calling. Goodbye.")
    ledger.tool_started("1")
    ledger.tool_ended("1", is_answered=False)
    assert ledger.to_say_again("Thank you for calling.") == "Goodbye."


def test_what_only_fills_a_silence_is_not_said_again() -> None:
    ledger = ledger_with(OFFER)
    ledger.said("Are you still there?")
    assert ledger.to_say_again(f"{OFFER} Are you") == "Which would you like?"
    assert ledger.to_say_again(f"{OFFER} Are you still there?") == "Which would you like?"


def test_who_was_interrupted_says_the_cut_sentence() -> None:
    ledger = UnsaidLedger()
    ledger.turn_decided()
    ledger.reply_started()
    ledger.reply_text(OFFER)
    ledger.interrupted()
    assert ledger.to_say_again("I have Tuesday —") == OFFER


def test_an_answer_made_ahead_counts_from_the_turn_on() -> None:
    ledger = ledger_with(OFFER)
    ledger.ahead_started()
    ledger.reply_started()
    ledger.reply_text("The second one.")
    ledger.reply_ended()
    assert ledger.to_say_again(OFFER) == "Which would you like?"
    ledger.turn_decided()
    assert ledger.to_say_again("") == "The second one."


def test_an_answer_made_ahead_may_go_on_behind_the_turn() -> None:
    ledger = UnsaidLedger()
    ledger.ahead_started()
    ledger.reply_started()
    ledger.reply_text("The second")
    ledger.turn_decided()
    assert ledger.to_say_again("") is None
    ledger.reply_text(" one.")
    ledger.reply_ended()
    assert ledger.to_say_again("") == "The second one."


def test_an_answer_made_ahead_may_answer_nothing() -> None:
    ledger = ledger_with(OFFER)
    ledger.ahead_started()
    ledger.reply_started()
    ledger.reply_text("The second one.")
    ledger.ahead_withdrawn()
    assert ledger.to_say_again(OFFER) == "Which would you like?"


def test_an_answer_that_is_asked_for_again_is_not_known() -> None:
    ledger = ledger_with(OFFER)
    ledger.reply_dropped(asks_again=True)
    assert ledger.to_say_again("") is None
    ledger.reply_dropped(asks_again=False)
    assert ledger.to_say_again("") == ""


SENTENCES = st.lists(
    st.sampled_from(["It is on Monday.", "Is that right?", "We open at eight.", "Shall I book it?"]),
    min_size=1,
    max_size=4,
    unique=True,
)


@given(sentences=SENTENCES, data=st.data())
def test_each_word_that_was_not_heard_is_said_and_nothing_but_whole_sentences(
    sentences: list[str], data: st.DataObject
) -> None:
    text = " ".join(sentences)
    words = text.split()
    count = data.draw(st.integers(0, len(words)))
    again = ledger_with(text).to_say_again(" ".join(words[:count]))
    assert again
    assert text.endswith(again)
    assert any(again.startswith(sentence) for sentence in sentences)
    assert again.split()[-len(words[count:]) or len(words) :] == words[count:] or count == len(words)


async def told(*frames: Frame) -> UnsaidLedger:
    ledger = UnsaidLedger()
    down, _ = await run_test(UnsaidTap(ledger), frames_to_send=list(frames))
    for frame in frames:
        assert type(frame) in [type(one) for one in down]
    return ledger


async def test_the_tap_hears_a_reply() -> None:
    ledger = await told(
        UserStoppedSpeakingFrame(),
        LLMFullResponseStartFrame(),
        CachedSpeechFrame("Sure.", b"\0\0", 8000, ()),
        LLMTextFrame("Which"),
        LLMTextFrame(" day?"),
        LLMFullResponseEndFrame(),
    )
    assert ledger.to_say_again("Sure.") == "Which day?"


@pytest.mark.parametrize("answers", [True, False])
async def test_the_tap_hears_tools(answers: bool) -> None:
    ledger = await told(
        LLMFullResponseStartFrame(),
        LLMTextFrame("Bye."),
        FunctionCallsStartedFrame([FunctionCallFromLLM("end", "1", {}, LLMContext())]),
        LLMFullResponseEndFrame(),
        FunctionCallResultFrame(
            "end", "1", {}, {"a": 1}, properties=FunctionCallResultProperties(run_llm=answers)
        ),
    )
    assert ledger.to_say_again("Bye.") == (None if answers else "Bye.")


async def test_the_tap_hears_an_interruption() -> None:
    ledger = await told(
        LLMFullResponseStartFrame(), LLMTextFrame("Which day would suit you?"), InterruptionFrame()
    )
    assert ledger.to_say_again("Which day —") == "Which day would suit you?"


async def test_the_tap_knows_whether_the_caller_is_in_the_middle_of_a_turn() -> None:
    assert (await told(UserStartedSpeakingFrame())).is_caller_talking
    assert not (await told(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame())).is_caller_talking


async def test_the_tap_tells_when_another_would_have_to_know() -> None:
    steps: list[str] = []
    ledger = UnsaidLedger()
    tap = UnsaidTap(ledger, on_step=lambda: steps.append(ledger.to_say_again("") or "owed"))
    frames: list[Frame] = [
        UserStartedSpeakingFrame(),
        UserStoppedSpeakingFrame(),
        LLMFullResponseStartFrame(),
        LLMTextFrame("Which day?"),
        LLMFullResponseEndFrame(),
    ]
    await run_test(tap, frames_to_send=frames)
    assert steps == ["owed", "owed", "owed", "Which day?"]
