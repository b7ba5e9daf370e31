"""Pipecat's AssemblyAI recogniser, hosted: tells how it fails, and when nothing is left to transcribe.

AssemblyAI ends a turn of its own after a tenth of a second of silence, or when it is told to (`ForceEndpoint`), and
answers nothing when no turn is open. So a pause is flushed when the words reach to it already, or when a turn ends
whose words do; otherwise not at all, and the turn waits for its safety net.

A session is paid for while it is open, whatever is sent: it is ended by `Terminate`, not left to be noticed.
Source: assemblyai.com/docs/streaming (message-sequence, common-session-errors-and-closures), assemblyai 1.8.2
(`assemblyai.streaming.v3.models`), `pipecat.services.assemblyai.stt`.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pipecat.frames.frames import Frame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.assemblyai.stt import AssemblyAISTTService

from processors.frames import CallerResumedFrame, TranscriptFlushedFrame
from processors.hosted_recogniser import SocketRecogniser
from processors.recognisers import RecogniserFailure, Report
from processors.shown_words import ShownWord
from processors.voices import FailureKind

CHUNK_MS = 50
"""The shortest piece of audio that AssemblyAI takes."""
_UNHEARD_S = 0.3
"""From the end of the last word to the end of the sound; in more than that fits another word."""
_BY_CODE = {
    1013: FailureKind.SERVER,
    3005: FailureKind.SERVER,
    3006: FailureKind.REQUEST,
    3007: FailureKind.REQUEST,
    3008: FailureKind.CLOSED,
    3009: FailureKind.RATE_LIMITED,
    4001: FailureKind.UNAUTHORIZED,
    4002: FailureKind.QUOTA,
    4003: FailureKind.QUOTA,
    4102: FailureKind.RATE_LIMITED,
}
_BY_WORDS = (
    ("too many concurrent", FailureKind.RATE_LIMITED),
    ("balance", FailureKind.QUOTA),
    ("funds", FailureKind.QUOTA),
    ("unauthorized", FailureKind.UNAUTHORIZED),
)
"""What closes with 1008, the most telling first."""


def failure_of_code(code: int | None, reason: str) -> RecogniserFailure:
    """Return what a close code, or the `error_code` of an `Error` message, means."""
    by_words = next((kind for words, kind in _BY_WORDS if words in reason.lower()), FailureKind.CLOSED)
    kind = _BY_CODE.get(code or 0, by_words)
    return RecogniserFailure(kind, f"{code or ''} {reason}".strip()[:200])


class HostedAssemblyAI(SocketRecogniser, AssemblyAISTTService):
    """AssemblyAI's streaming socket, version 3."""

    vendor = "assemblyai"
    acknowledges = False
    silence_limit_s = 4.5
    """It shows words of a long turn every three seconds, and takes its time for them."""

    _begun: asyncio.Event
    _sent_s = 0.0
    _final_end_s = 0.0
    """Where the last final word ends, in seconds of audio sent."""
    _shown: Sequence[Any] = ()
    _is_turn_open = False
    """Whether words were shown that are not final."""
    _asked_s: float | None = None
    """Where a pause began whose last words are awaited, in seconds of audio sent."""

    async def run_stt(self, audio: bytes) -> AsyncGenerator[Frame | None, None]:
        """Send audio, and count it."""
        self._sent_s += len(audio) / 2 / self.sample_rate
        async for frame in super().run_stt(audio):
            yield frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Notice a pause whose words are all there."""
        await super().process_frame(frame, direction)
        if isinstance(frame, CallerResumedFrame | VADUserStartedSpeakingFrame):
            self._asked_s = None
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            quiet_from_s = self._sent_s - frame.stop_secs
            if self._is_turn_open or not self._reach(self._final_end_s, quiet_from_s):
                self._asked_s = quiet_from_s
            else:
                await self.push_frame(TranscriptFlushedFrame())

    def shown(self) -> Sequence[ShownWord]:
        """Return the words that are not final. See `Recogniser`."""
        return [
            ShownWord(word.text, word.start / 1000, word.end / 1000, word.confidence) for word in self._shown
        ]

    def _prepare(self) -> None:
        self._begun = asyncio.Event()
        self._chunk_size_bytes = int(CHUNK_MS * self.sample_rate * 2 / 1000)
        self._audio_buffer.clear()
        self._termination_event.clear()
        self._sent_s = self._final_end_s = 0.0
        self._shown = ()
        self._is_turn_open, self._asked_s = False, None

    async def _wait_until_confirmed(self) -> None:
        await self._wait_for(self._begun)  # who is not let in is told so here, not at the handshake

    async def _say_goodbye(self) -> None:
        await self._socket.send(json.dumps({"type": "Terminate"}))
        await self._termination_event.wait()

    async def _receive_messages(self) -> None:
        """Read what comes.

        Raises:
            RecogniserFailure: If AssemblyAI says that it fails.
            json.JSONDecodeError: If something comes that it does not speak.
        """
        async for message in self._get_websocket():
            await self._handle_message(json.loads(message))

    async def _handle_message(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "Termination":
            self._termination_event.set()
        elif kind == "Begin":
            self._begun.set()
        elif kind == "Error" or "error" in message:
            raise failure_of_code(message.get("error_code"), str(message.get("error")))
        elif kind == "Turn":
            await self._handle_turn(message)
        elif kind == "SpeechStarted":
            await self._report(Report(message["timestamp"] / 1000))

    async def _handle_turn(self, message: dict[str, Any]) -> None:
        turn = self._parse_message(message)
        await self._handle_transcription(turn)  # pyright: ignore[reportArgumentType] - a `Turn` becomes a `TurnMessage`
        words = turn.words  # pyright: ignore[reportAttributeAccessIssue]
        ends_s = words[-1].end / 1000 if words else None
        is_end = turn.end_of_turn and (turn.turn_is_formatted or not self._settings.format_turns)  # pyright: ignore[reportAttributeAccessIssue]
        self._is_turn_open = bool(words) and not is_end
        self._shown = () if is_end else words
        if not is_end:
            await self._report(Report(ends_s, bool(words)))
            return
        self._final_end_s = ends_s or self._final_end_s
        # Of audio that is heard again a turn may have ended by itself, in front of the last words.
        if self._asked_s is not None and self._reach(self._final_end_s, self._asked_s):
            self._asked_s = None
            await self.push_frame(TranscriptFlushedFrame())
        await self._report(Report(ends_s, bool(words), is_answer=True, words_until_s=ends_s))

    @staticmethod
    def _reach(words_end_s: float, quiet_from_s: float) -> bool:
        """Tell whether no further word fits between the last one and the pause."""
        return words_end_s >= quiet_from_s - _UNHEARD_S

    def _failure_of_close(self) -> RecogniserFailure:
        socket = self._socket
        return failure_of_code(getattr(socket, "close_code", None), getattr(socket, "close_reason", "") or "")
