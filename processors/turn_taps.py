"""Two taps that tell the turn ledger what passes by: one behind the recogniser, one behind the model.

Both run in direct mode (no queue, no task of their own) and never change, delay or drop a frame.
"""

from typing import Protocol

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
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from processors.frames import SpeculationStartedFrame


class TranscriptListener(Protocol):
    """Told what the recogniser understood. Times are those of the event loop's clock, in seconds."""

    def transcript(self, text: str, final: bool, now_s: float) -> None:
        """Words came: an interim version, or final ones."""
        ...


class ReplyListener(Protocol):
    """Told how an answer comes about. Times are those of the event loop's clock, in seconds."""

    def turn_decided(self, now_s: float) -> None:
        """The caller's turn is over."""
        ...

    def interrupted(self, now_s: float) -> None:
        """The caller spoke over the agent."""
        ...

    def speculation_started(self, now_s: float) -> None:
        """The model was asked before the caller's turn is known to be over."""
        ...

    def speculation_withdrawn(self, now_s: float) -> None:
        """What it says to that is not needed."""
        ...

    def llm_requested(self, now_s: float) -> None:
        """The model was asked."""
        ...

    def llm_first_token(self, now_s: float) -> None:
        """The model's first text came."""
        ...

    def tool_started(self, name: str, now_s: float) -> None:
        """A tool runs."""
        ...

    def tool_ended(self, name: str, ok: bool, now_s: float) -> None:
        """A tool has answered (`ok`) or was given up."""
        ...


class TranscriptTap(FrameProcessor):
    """Place between the recogniser and the user aggregator; behind barge-in it hears only what belongs to a turn."""

    def __init__(self, listener: TranscriptListener) -> None:
        """Tell `listener`."""
        super().__init__(enable_direct_mode=True)
        self._listener = listener

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note transcripts; forward everything."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            final = isinstance(frame, TranscriptionFrame)
            self._listener.transcript(frame.text, final, self.get_event_loop().time())
        await self.push_frame(frame, direction)


class ReplyTap(FrameProcessor):
    """Place directly behind the model."""

    def __init__(self, listener: ReplyListener) -> None:
        """Tell `listener`."""
        super().__init__(enable_direct_mode=True)
        self._listener = listener
        self._awaits_token = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note the stages of an answer; forward everything."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self._note(frame, self.get_event_loop().time())
        await self.push_frame(frame, direction)

    def _note(self, frame: Frame, now_s: float) -> None:
        if isinstance(frame, LLMTextFrame):
            if self._awaits_token:
                self._awaits_token = False
                self._listener.llm_first_token(now_s)
        elif isinstance(frame, SpeculationStartedFrame):
            self._listener.speculation_started(now_s)
        elif isinstance(frame, EagerEndOfTurnCancelFrame):
            self._listener.speculation_withdrawn(now_s)
        elif isinstance(frame, LLMFullResponseStartFrame):
            self._awaits_token = True
            self._listener.llm_requested(now_s)
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._listener.turn_decided(now_s)
        elif isinstance(frame, InterruptionFrame):
            self._listener.interrupted(now_s)
        elif isinstance(frame, FunctionCallInProgressFrame):
            self._listener.tool_started(frame.function_name, now_s)
        elif isinstance(frame, FunctionCallResultFrame):
            self._listener.tool_ended(frame.function_name, ok=True, now_s=now_s)
        elif isinstance(frame, FunctionCallCancelFrame):
            self._listener.tool_ended(frame.function_name, ok=False, now_s=now_s)
