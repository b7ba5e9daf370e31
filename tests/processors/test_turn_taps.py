import asyncio

import pytest
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.tests.utils import SleepFrame, run_test

from processors.frames import AnswerDroppedFrame, CachedSpeechFrame, SpeculationStartedFrame
from processors.turn_taps import ReplyTap, SpokenTextTap, TranscriptTap


class Notes:
    """Keeps the name of everything it is told, with what tells calls apart."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def transcript(self, text: str, final: bool, now_s: float) -> None:
        self.told.append(("transcript", text, final))

    def turn_decided(self, now_s: float) -> None:
        self.told.append(("decided",))

    def interrupted(self, now_s: float) -> None:
        self.told.append(("interrupted",))

    def retried(self, now_s: float) -> None:
        self.told.append(("retried",))

    def speculation_started(self, now_s: float) -> None:
        self.told.append(("ahead",))

    def speculation_withdrawn(self, now_s: float) -> None:
        self.told.append(("withdrawn",))

    def llm_requested(self, now_s: float) -> None:
        self.told.append(("requested",))

    def llm_first_token(self, now_s: float) -> None:
        self.told.append(("token",))

    def tool_started(self, name: str, now_s: float) -> None:
        self.told.append(("tool", name))

    def tool_ended(self, name: str, ok: bool, now_s: float) -> None:
        self.told.append(("tool ended", name, ok))


async def test_transcripts_are_noted_and_passed() -> None:
    notes = Notes()
    frames: list[Frame] = [InterimTranscriptionFrame("hel", "", ""), TranscriptionFrame("Hello.", "", "")]
    down, _ = await run_test(TranscriptTap(notes), frames_to_send=frames)
    assert notes.told == [("transcript", "hel", False), ("transcript", "Hello.", True)]
    assert [type(frame) for frame in down] == [type(frame) for frame in frames]


async def test_only_the_first_token_of_each_answer_counts() -> None:
    notes = Notes()
    frames: list[Frame] = [
        LLMFullResponseStartFrame(),
        LLMTextFrame("Sure"),
        LLMTextFrame(", one"),
        LLMFullResponseStartFrame(),
        LLMTextFrame("And"),
    ]
    await run_test(ReplyTap(notes), frames_to_send=frames)
    assert notes.told == [("requested",), ("token",), ("requested",), ("token",)]


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (UserStoppedSpeakingFrame(), ("decided",)),
        (InterruptionFrame(), ("interrupted",)),
        (AnswerDroppedFrame(), ("retried",)),
        (SpeculationStartedFrame(), ("ahead",)),
        (EagerEndOfTurnCancelFrame(), ("withdrawn",)),
        (FunctionCallInProgressFrame("look", "1", {}), ("tool", "look")),
        (FunctionCallResultFrame("look", "1", {}, {}), ("tool ended", "look", True)),
        (FunctionCallCancelFrame("look", "1"), ("tool ended", "look", False)),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_stages_are_noted(frame: Frame, told: tuple[object, ...]) -> None:
    notes = Notes()
    down, _ = await run_test(ReplyTap(notes), frames_to_send=[frame])
    assert notes.told == [told]
    assert type(down[0]) is type(frame)


async def test_an_answer_that_is_given_up_is_not_asked_for_again() -> None:
    notes = Notes()
    await run_test(ReplyTap(notes), frames_to_send=[AnswerDroppedFrame(asks_again=False)])
    assert notes.told == []


class AnswerNotes:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def reply_started(self, now_s: float, *, is_ahead: bool) -> None:
        self._note("ahead" if is_ahead else "started", now_s)

    def reply_text(self, now_s: float, *, needs_voice: bool) -> None:
        self._note("text" if needs_voice else "sound", now_s)

    def reply_withdrawn(self, now_s: float) -> None:
        self._note("withdrawn", now_s)

    def _note(self, what: str, now_s: float) -> None:
        assert now_s == pytest.approx(asyncio.get_running_loop().time())
        self.notes.append(what)


def read_only(text: str) -> LLMTextFrame:
    frame = LLMTextFrame(text)
    frame.skip_tts = True
    return frame


@pytest.mark.parametrize(
    ("frames", "notes"),
    [
        ([LLMFullResponseStartFrame(), LLMTextFrame("Hi"), LLMFullResponseEndFrame()], ["started", "text"]),
        ([LLMFullResponseStartFrame(), LLMTextFrame(" "), LLMTextFrame("…")], ["started"]),
        ([LLMFullResponseStartFrame(), read_only("Hi")], ["started"]),
        ([LLMFullResponseStartFrame(), CachedSpeechFrame("Sure.", b"", 8000, ())], ["started", "sound"]),
        (
            [
                SpeculationStartedFrame(),
                LLMFullResponseStartFrame(),
                SleepFrame(0.1),
                EagerEndOfTurnCancelFrame(),
            ],
            ["ahead", "withdrawn"],
        ),
        (
            [SpeculationStartedFrame(), LLMFullResponseStartFrame(), LLMFullResponseStartFrame()],
            ["ahead", "started"],
        ),
    ],
)
async def test_the_watchdog_is_told_of_what_can_be_spoken(frames: list[Frame], notes: list[str]) -> None:
    told = AnswerNotes()
    down, _ = await run_test(SpokenTextTap(told), frames_to_send=frames)
    assert told.notes == notes
    sent = [frame for frame in frames if not isinstance(frame, SleepFrame)]
    assert [type(frame) for frame in down if not isinstance(frame, SleepFrame)] == [
        type(frame) for frame in sent
    ]
