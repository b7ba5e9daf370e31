import pytest
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.tests.utils import run_test

from processors.frames import SpeculationStartedFrame
from processors.turn_taps import ReplyTap, TranscriptTap


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
