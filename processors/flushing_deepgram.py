"""Pipecat's Deepgram recogniser, which finalizes early and tells when nothing is left to transcribe.

Deepgram usually has sent the last words by its own endpointing when the answer to `Finalize` comes, and then
that answer has no text: Pipecat drops it and the turn waits for its safety net (350 ms after the last sound).
With thinking ahead on, `Finalize` is sent at the first moment of quiet, and not again for the same pause. Only when
nothing at all was understood, it is asked once more with the quiet behind: the end of a single short word ("wait") may
have come after the first.
"""

from collections.abc import AsyncGenerator
from typing import Any

from deepgram.listen.v1.types import ListenV1Finalize, ListenV1Results
from pipecat.frames.frames import Frame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.deepgram.stt import DeepgramSTTService
from pipecat.services.stt_service import STTService

from processors.frames import CallerPausedFrame, CallerResumedFrame, TranscriptFlushedFrame

_ROUNDING_S = 0.03
"""Between our count of the audio sent and the vendor's."""


class FlushingDeepgramSTTService(DeepgramSTTService):
    """Push a `TranscriptFlushedFrame` when Deepgram says that nothing is left to transcribe."""

    finalizes_early = False
    """Whether a pause too short to end a turn is worth a `Finalize`."""
    _is_finalized = False
    """Whether this pause's `Finalize` was sent."""
    _is_stopped = False
    """Whether the pause is long enough to count as one."""
    _has_text = False
    """Whether anything was understood since the caller began, or went on."""
    _stream: object | None = None
    """The connection whose audio is counted."""
    _sent_s = 0.0
    _finalize_at_s = 0.0
    """Audio sent before the last `Finalize`: an answer that covers less was to an earlier one."""

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Send audio, and count it."""
        if self._stream is not self._connection:
            self._stream, self._sent_s, self._finalize_at_s = self._connection, 0.0, 0.0
        if self.sample_rate:  # known once the pipeline starts
            self._sent_s += len(audio) / 2 / self.sample_rate
        async for frame in super().run_stt(audio):
            yield frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Finalize early, and once a pause."""
        if isinstance(frame, CallerResumedFrame | VADUserStartedSpeakingFrame):
            self._is_finalized = self._is_stopped = self._has_text = False
        self._is_stopped = self._is_stopped or isinstance(frame, VADUserStoppedSpeakingFrame)
        if isinstance(frame, VADUserStoppedSpeakingFrame) and self._is_finalized:
            await STTService.process_frame(
                self, frame, direction
            )  # all that Pipecat does here but to finalize
            return
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            self._finalize_at_s = self._sent_s
        await super().process_frame(frame, direction)
        if isinstance(frame, CallerPausedFrame) and self.finalizes_early and self._connection is not None:
            self._is_finalized = True
            await self._finalize()

    async def _finalize(self) -> None:
        if self._connection is not None:
            self._finalize_at_s = self._sent_s
            self.request_finalize()
            await self._connection.send_finalize(ListenV1Finalize(type="Finalize"))

    async def _on_message(self, message: Any) -> None:
        await super()._on_message(message)
        if not isinstance(message, ListenV1Results):
            return
        alternatives = message.channel.alternatives
        self._has_text = self._has_text or bool(alternatives and alternatives[0].transcript.strip())
        if not (message.is_final and message.from_finalize):
            return
        if message.start + message.duration < self._finalize_at_s - _ROUNDING_S:
            return
        if self._is_finalized and not self._has_text:  # asked early, and for nothing so far
            self._is_finalized = False
            if self._is_stopped:
                await self._finalize()
            return
        await self.push_frame(TranscriptFlushedFrame())
