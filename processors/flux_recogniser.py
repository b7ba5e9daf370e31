"""Pipecat's Flux recogniser, which also notices that Flux has gone silent, and tells when nothing is left to hear.

Flux reports on the audio every quarter of a second, words or not. That is used twice. A report that covers the sound
that just ended says that no word of it is still on its way (Flux knows no Finalize). And audio without a report where
one is due means a dead socket, however open it looks: Pipecat would leave the turn open for ever
(pipecat-ai/pipecat#5735). Between turns a report is due once one has come there: no page promises it.
"""

from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTService, FluxEventType

from processors.frames import TranscriptFlushedFrame

LAST_WORD_S = 0.1
"""Audio after a sound that must be covered, too: a word is known only once it is over."""


class ReportedAudio:
    """How far one socket's audio was sent, and how far it was reported on. Seconds of audio; reads no clock."""

    def __init__(self, *, silence_limit_s: float) -> None:
        """Start a new socket.

        Args:
            silence_limit_s: Audio without a report, where one is due, after which the socket is dead.
        """
        self._silence_limit_s = silence_limit_s
        self._sent_s = 0.0
        self._sent_at_report_s = 0.0
        self._wanted_s: float | None = None

    def is_dead(self, *, is_due: bool) -> bool:
        """Tell whether too much audio has gone unanswered.

        Args:
            is_due: Whether reports come now, whatever is heard; otherwise one is due only for a sound.
        """
        is_late = self._sent_s - self._sent_at_report_s > self._silence_limit_s
        return is_late and (is_due or self._wanted_s is not None)

    def send(self, audio_s: float) -> None:
        """Count audio."""
        self._sent_s += audio_s

    def expect_word(self) -> None:
        """A sound began: what was asked for before says nothing about it."""
        self._wanted_s = None

    def ask(self, quiet_s: float) -> None:
        """A sound ended `quiet_s` ago: wait for the report that covers it."""
        self._wanted_s = max(self._sent_s - quiet_s + LAST_WORD_S, 0.0)

    def answer(self, upto_s: float | None) -> bool:
        """Take a message that reports on the audio up to `upto_s`, or on none.

        Returns:
            Whether it covers the sound that was asked about, once.
        """
        self._sent_at_report_s = self._sent_s
        if self._wanted_s is None or upto_s is None or upto_s < self._wanted_s:
            return False
        self._wanted_s = None
        return True


class FluxRecogniser(DeepgramFluxSTTService):
    """Flux that pushes a `TranscriptFlushedFrame` behind the words of a sound, and never stays deaf.

    It never pushes an `EagerEndOfTurnCancelFrame`: use it with `FluxEndOfTurnStrategy`.
    """

    _CONNECTION_TIMEOUT = 3.0  # of Pipecat's: for `Connected`; its 10 s are a caller's patience

    def __init__(
        self,
        *,
        silence_limit_s: float = 3.0,
        reconnect_wait_s: tuple[float, float] = (0.2, 2.0),
        **options: Any,
    ) -> None:
        """Create the recogniser.

        Args:
            silence_limit_s: Audio without a message from Flux, where one is due, after which its socket is cut and
                dialled anew.
            reconnect_wait_s: Least and longest wait between dials, from the second on.
            options: Of `DeepgramFluxSTTService`.
        """
        super().__init__(**options)
        self._reconnect_backoff_min_wait, self._reconnect_backoff_max_wait = reconnect_wait_s
        self._silence_limit_s = silence_limit_s
        self._reported = ReportedAudio(silence_limit_s=silence_limit_s)
        self._reports_between_turns = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Ask for the words of each sound as it ends."""
        if isinstance(frame, VADUserStartedSpeakingFrame):
            self._reported.expect_word()
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self._reported.ask(frame.stop_secs)
        await super().process_frame(frame, direction)

    async def _cancel_eager_end_of_turn(self) -> None:
        # Pipecat's sign of it is a system frame that every model and voice takes for an interruption, also when
        # nothing was thought ahead. Whoever thinks ahead withdraws it when other words come or the caller speaks.
        self._clear_eager_end_of_turn()

    async def _connect_websocket(self) -> None:
        if not self._transport_is_active():
            self._reported = ReportedAudio(silence_limit_s=self._silence_limit_s)
        await super()._connect_websocket()

    async def _transport_send_audio(self, audio: bytes) -> None:
        await super()._transport_send_audio(audio)
        self._reported.send(len(audio) / (2 * self.sample_rate))
        is_due = self._user_is_speaking or self._reports_between_turns
        if self._reported.is_dead(is_due=is_due) and self._websocket is not None:
            logger.warning(
                "{}: no word from Flux for {} s of audio, dialling anew", self, self._silence_limit_s
            )
            # The reader sees it cut: it ends the open turn with the text so far and reconnects.
            self._websocket.transport.abort()

    async def _handle_message(self, data: dict[str, Any]) -> None:
        told = data if isinstance(data, dict) else {}  # pyright: ignore[reportUnnecessaryIsInstance] - off the wire
        if told.get("event") == FluxEventType.UPDATE and not self._user_is_speaking:
            self._reports_between_turns = True
        upto_s = told.get("audio_window_end")
        covers = self._reported.answer(float(upto_s) if isinstance(upto_s, (int, float)) else None)
        await super()._handle_message(data)
        if covers:
            await self.push_frame(TranscriptFlushedFrame())
