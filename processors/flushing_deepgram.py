"""Pipecat's Deepgram recogniser, which finalizes early and tells when nothing is left to transcribe.

Deepgram usually has sent the last words by its own endpointing when the answer to `Finalize` comes, and then
that answer has no text: Pipecat drops it and the turn waits for its safety net (350 ms after the last sound).
With thinking ahead on, `Finalize` is sent at the first moment of quiet, and again when the pause is one: a last word
that faded away may not have been whole at the first. The first answer is taken as the last if the words reach to the
quiet; words that the second brings still come.
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
_UNHEARD_S = 0.3
"""From the end of the last word to an early `Finalize`; in more than that, the last of it quiet, fits another word."""


class FlushingDeepgramSTTService(DeepgramSTTService):
    """Push a `TranscriptFlushedFrame` when Deepgram says that nothing is left to transcribe."""

    finalizes_early = False
    """Whether a pause too short to end a turn is worth a `Finalize`."""
    _is_asked_early = False
    """Whether this pause's first `Finalize` was sent before it was one."""
    _unanswered = 0
    """`Finalize`s of this pause that were not answered."""
    _is_stopped = True
    """Whether the pause is long enough to count as one; before the caller's first words it is."""
    _has_text = False
    """Whether anything was understood since the caller began, or went on."""
    _text_end_s = 0.0
    """Where the last word understood ends, in seconds of audio sent."""
    _is_flushed = False
    """Whether this pause's `TranscriptFlushedFrame` was pushed."""
    _stream: object | None = None
    """The connection whose audio is counted."""
    _sent_s = 0.0
    _finalize_at_s = 0.0
    """Audio sent before the last `Finalize`: an answer that covers less was to an earlier one."""

    def count(self, audio: bytes) -> None:
        """Count audio that is being sent."""
        if self._stream is not self._connection:
            self._stream = self._connection
            self._sent_s = self._finalize_at_s = self._text_end_s = 0.0
        if self.sample_rate:  # known once the pipeline starts
            self._sent_s += len(audio) / 2 / self.sample_rate

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Send audio, and count it."""
        self.count(audio)
        async for frame in super().run_stt(audio):
            yield frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Finalize early, and once a pause."""
        if isinstance(frame, CallerResumedFrame | VADUserStartedSpeakingFrame):
            self._is_asked_early = self._is_stopped = self._has_text = self._is_flushed = False
            self._unanswered = 0
        self._is_stopped = self._is_stopped or isinstance(frame, VADUserStoppedSpeakingFrame)
        if isinstance(frame, VADUserStoppedSpeakingFrame) and self._is_asked_early:
            await STTService.process_frame(
                self, frame, direction
            )  # all that Pipecat does here but to finalize
            await self._request_final()
            return
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            self._finalize_at_s = self._sent_s
        await super().process_frame(frame, direction)
        if isinstance(frame, CallerPausedFrame) and self.finalizes_early and self._connection is not None:
            self._is_asked_early, self._is_flushed, self._unanswered = True, False, 0
            self._finalize_at_s = self._sent_s
            await self._request_final()

    async def _request_final(self) -> None:
        if self._connection is not None:
            self._unanswered += 1
            self.request_finalize()
            await self._connection.send_finalize(ListenV1Finalize(type="Finalize"))

    async def _on_message(self, message: Any) -> None:
        await super()._on_message(message)
        if not isinstance(message, ListenV1Results):
            return
        self._note_words(message)
        if not (message.is_final and message.from_finalize):
            return
        if message.start + message.duration < self._finalize_at_s - _ROUNDING_S:
            return
        self._unanswered = max(self._unanswered - 1, 0)
        is_last = self._is_stopped and not self._unanswered
        is_whole = self._has_text and self._text_end_s >= self._finalize_at_s - _UNHEARD_S
        if self._is_flushed or (self._is_asked_early and not is_whole and not is_last):
            return
        self._is_flushed = True
        await self.push_frame(TranscriptFlushedFrame())

    def _note_words(self, message: ListenV1Results) -> None:
        alternatives = message.channel.alternatives
        if alternatives and alternatives[0].transcript.strip():
            words = alternatives[0].words
            self._has_text = True
            self._text_end_s = words[-1].end if words else message.start + message.duration
