"""Taps that tell others what passes by: in front of the user aggregator, behind the model, and in front of the voice.

They run in direct mode (no queue, no task of their own) and never change, delay or drop a frame.
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

from processors.frames import AnswerDroppedFrame, CachedSpeechFrame, SpeculationStartedFrame


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

    def retried(self, now_s: float) -> None:
        """What was made of an answer is dropped, to ask for it again."""
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


class AnswerListener(Protocol):
    """Told how much of an answer there is to be heard. Times are those of the event loop's clock, in seconds."""

    def reply_started(self, now_s: float, *, is_ahead: bool) -> None:
        """The model was asked; `is_ahead` before the caller's turn is known to be over."""
        ...

    def reply_text(self, now_s: float, *, needs_voice: bool) -> None:
        """Text came that can be spoken; `needs_voice` when its sound is not there yet."""
        ...

    def reply_withdrawn(self, now_s: float) -> None:
        """What was made ahead is dropped."""
        ...


class Tap(FrameProcessor):
    """Shows each frame that comes down the pipeline to `_note`, and forwards everything."""

    def __init__(self) -> None:
        """Create it in direct mode."""
        super().__init__(enable_direct_mode=True)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note what comes down; forward everything."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self._note(frame, self.get_event_loop().time())
        await self.push_frame(frame, direction)

    def _note(self, frame: Frame, now_s: float) -> None:
        raise NotImplementedError


class TranscriptTap(Tap):
    """Place between the recogniser and the user aggregator; behind barge-in it hears only what belongs to a turn."""

    def __init__(self, listener: TranscriptListener) -> None:
        """Tell `listener`."""
        super().__init__()
        self._listener = listener

    def _note(self, frame: Frame, now_s: float) -> None:
        if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame):
            self._listener.transcript(frame.text, isinstance(frame, TranscriptionFrame), now_s)


class ReplyTap(Tap):
    """Place directly behind the model."""

    def __init__(self, listener: ReplyListener) -> None:
        """Tell `listener`."""
        super().__init__()
        self._listener = listener
        self._awaits_token = False

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
        elif isinstance(frame, AnswerDroppedFrame):
            if frame.asks_again:
                self._listener.retried(now_s)
        elif isinstance(frame, InterruptionFrame):
            self._listener.interrupted(now_s)
        elif isinstance(frame, FunctionCallInProgressFrame):
            self._listener.tool_started(frame.function_name, now_s)
        elif isinstance(frame, FunctionCallResultFrame):
            self._listener.tool_ended(frame.function_name, ok=True, now_s=now_s)
        elif isinstance(frame, FunctionCallCancelFrame):
            self._listener.tool_ended(frame.function_name, ok=False, now_s=now_s)


class SpokenTextTap(Tap):
    """Place between `speech_text` and the voice, where text comes by that can be spoken."""

    def __init__(self, listener: AnswerListener) -> None:
        """Tell `listener`."""
        super().__init__()
        self._listener = listener
        self._is_ahead = False

    def _note(self, frame: Frame, now_s: float) -> None:
        if isinstance(frame, SpeculationStartedFrame):
            self._is_ahead = True
        elif isinstance(frame, LLMFullResponseStartFrame):
            is_ahead, self._is_ahead = self._is_ahead, False
            self._listener.reply_started(now_s, is_ahead=is_ahead)
        elif isinstance(frame, EagerEndOfTurnCancelFrame):
            self._is_ahead = False
            self._listener.reply_withdrawn(now_s)
        elif isinstance(frame, CachedSpeechFrame):
            self._listener.reply_text(now_s, needs_voice=False)
        elif isinstance(frame, LLMTextFrame) and not frame.skip_tts and any(map(str.isalnum, frame.text)):
            self._listener.reply_text(now_s, needs_voice=True)
