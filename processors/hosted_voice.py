"""A mixin for Pipecat's socket voices: makes one a `Voice`, which stands in no pipeline and whose failures are told.

What Pipecat's service would queue for its pipeline (audio, words, ends, errors) goes to a `VoiceListener` as it comes.
What is kept is what it knows of the vendor: how to dial, what to send, how to read what comes. What is not kept is
its way with a lost socket, which dials again, forgets the text it had been given and tells nobody.
Not hosted, the service is what it was. Source: `pipecat.services.tts_service`, `pipecat.services.websocket_service`.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from loguru import logger
from pipecat.frames.frames import ErrorFrame, Frame, MetricsFrame, TTSAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.utils.errors import extract_http_status_code
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.protocol import State

from processors.voices import FailureKind, TimedWord, VoiceFailure, VoiceListener

if TYPE_CHECKING:
    from pipecat.services.tts_service import WebsocketTTSService

CLOSE_LIMIT_S = 0.5
READER_LIMIT_S = 0.05
"""For the reader of a connection that is closed to say why."""
_BYTES_PER_SAMPLE = 2
_GOOD_CLOSES = (1000, 1001)
_DETAIL_CHARS = 200
_BY_STATUS = {
    400: FailureKind.REQUEST,
    401: FailureKind.UNAUTHORIZED,
    402: FailureKind.QUOTA,
    403: FailureKind.UNAUTHORIZED,
    404: FailureKind.REQUEST,
    422: FailureKind.REQUEST,
    429: FailureKind.RATE_LIMITED,
}
_BY_WORDS = (
    # Of ElevenLabs' errors and close reasons, the most telling first; behind Deepgram's: too much text in a minute, and
    # nothing that it could send in time.
    ("data-0001", FailureKind.RATE_LIMITED),
    ("net-0000", FailureKind.SERVER),
    ("quota", FailureKind.QUOTA),
    ("credit", FailureKind.QUOTA),
    ("api_key", FailureKind.UNAUTHORIZED),
    ("api key", FailureKind.UNAUTHORIZED),
    ("unusual_activity", FailureKind.UNAUTHORIZED),
    ("too many", FailureKind.RATE_LIMITED),
    ("too_many", FailureKind.RATE_LIMITED),
    ("max_active", FailureKind.RATE_LIMITED),
    ("maximum simultaneous", FailureKind.RATE_LIMITED),
    ("busy", FailureKind.RATE_LIMITED),
    ("heavy traffic", FailureKind.RATE_LIMITED),
    ("went wrong", FailureKind.SERVER),
    ("internal", FailureKind.SERVER),
)


def failure_of_status(status: int, detail: str = "") -> VoiceFailure:
    """Return what an HTTP status, or a vendor's own number like it, means."""
    kind = _BY_STATUS.get(status, FailureKind.SERVER if status >= 500 else FailureKind.REQUEST)
    return VoiceFailure(kind, f"{status} {detail}".strip()[:_DETAIL_CHARS])


def failure_of_words(text: str, otherwise: FailureKind) -> VoiceFailure:
    """Return what a vendor's own words mean."""
    kind = next((kind for words, kind in _BY_WORDS if words in text.lower()), otherwise)
    return VoiceFailure(kind, text[:_DETAIL_CHARS])


def failure_of(error: BaseException) -> VoiceFailure:
    """Return what an exception of a socket means."""
    if isinstance(error, VoiceFailure):
        return error
    if (status := extract_http_status_code(error)) is not None:
        return failure_of_status(status)
    if isinstance(error, ConnectionClosed):
        close = error.rcvd
        reason = f"{close.code} {close.reason}".strip() if close else "without a goodbye"
        return failure_of_words(reason, FailureKind.CLOSED)
    if isinstance(error, json.JSONDecodeError):
        return VoiceFailure(FailureKind.GARBAGE, "not JSON")
    if isinstance(error, OSError | TimeoutError | EOFError | InvalidHandshake):
        return VoiceFailure(FailureKind.REFUSED, f"{type(error).__name__}: {error}"[:_DETAIL_CHARS])
    return VoiceFailure(FailureKind.GARBAGE, f"{type(error).__name__}: {error}"[:_DETAIL_CHARS])


def _raise_error(frame: Frame | None) -> None:
    if isinstance(frame, ErrorFrame):
        raise failure_of_words(frame.error, FailureKind.CLOSED)


class HostedVoice:
    """See the module. Mix in before a `WebsocketTTSService`."""

    vendor: str = ""
    """Name as in `agent.yaml`."""
    idle_limit_s: float = 15.0
    most_at_once: int | None = None
    words_follow_audio: bool = False
    """Whether a word is reported only when all its audio has come."""

    _listener: VoiceListener | None = None
    _hosted: dict[str, int]
    """Contexts that may still speak, with the bytes of audio that have come."""
    _dialling: asyncio.Lock
    _fault: VoiceFailure | None = None
    """What Pipecat reported last."""
    _loss: VoiceFailure | None = None
    """What the last connection was lost for; known when `_was_read` is set."""
    _was_read: asyncio.Event
    """Set while nothing is read: of a connection's end, its reader knows the reason."""
    _is_opening: bool = False
    _is_released: bool = False

    # Voice

    @property
    def sound(self) -> str:
        """Vendor, voice and model."""
        settings = self._service.settings
        return f"{self.vendor}/{settings.voice}/{settings.model}"  # pyright: ignore[reportAttributeAccessIssue] - of a voice

    @property
    def is_connected(self) -> bool:
        """Whether text can be sent at once."""
        socket = self._service._websocket
        # One that was cut says that it is open until its transport has told it otherwise.
        return socket is not None and socket.state is State.OPEN and not socket.transport.is_closing()

    async def open(self, setup: FrameProcessorSetup, listener: VoiceListener) -> None:
        """Get ready, without connecting; from now on what the service says goes to `listener`."""
        self._listener, self._hosted, self._dialling = listener, {}, asyncio.Lock()
        self._was_read = asyncio.Event()
        self._was_read.set()
        self._is_opening = True
        try:
            await self._service.setup(setup)
        finally:
            self._is_opening = False

    async def connect(self) -> None:
        """Connect unless it is. See `Voice`."""
        async with self._dialling:
            if self.is_connected or self._is_released:
                return
            self._fault = None
            try:
                if self._service._receive_task is not None:  # pyright: ignore[reportAttributeAccessIssue] - of every socket service
                    await self._service._disconnect()
                await self._service._connect()
            except Exception as error:
                raise failure_of(error) from error
            if not self.is_connected:
                raise self._fault or VoiceFailure(FailureKind.REFUSED)

    async def speak(self, text: str, context_id: str) -> None:
        """Give a context its next text. See `Voice`."""
        if not self.is_connected:  # Pipecat would dial, for as long as that takes
            raise await self._why_closed(VoiceFailure(FailureKind.CLOSED, "not connected"))
        service = self._service
        try:
            if service._push_start_frame and not self.audio_context_available(context_id):
                await self.create_audio_context(context_id)
            async for frame in service.run_tts(text, context_id):
                _raise_error(frame)
        except Exception as error:
            raise await self._why_closed(failure_of(error)) from error

    async def _why_closed(self, failure: VoiceFailure) -> VoiceFailure:
        """Return what a connection that is closed was closed for, if its reader says so now."""
        if failure.kind is not FailureKind.CLOSED:
            return failure
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READER_LIMIT_S):
                await self._was_read.wait()
        return self._loss or failure

    async def finish(self, context_id: str) -> None:
        """Tell the vendor that a context gets no more text. See `Voice`."""
        service = self._service
        if not self.audio_context_available(context_id):
            return
        # Pipecat's end of a turn, in whose course it tells the vendor what that wants to hear.
        service._turn_context_id = context_id
        try:
            await service.on_turn_context_completed()
        except Exception as error:
            raise await self._why_closed(failure_of(error)) from error
        finally:
            service._turn_context_id = None

    async def drop(self, context_id: str) -> None:
        """Stop a context. See `Voice`."""
        if self._hosted.pop(context_id, None) is None or not self.is_connected:
            return
        try:
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await self._service.on_audio_context_interrupted(context_id)
        except Exception as error:  # noqa: BLE001 - nothing of it is wanted any more, and a lost socket is told by its reader
            logger.debug("{} did not take back a context: {}", self.vendor, error)

    def cut(self) -> None:
        """Cut the connection. See `Voice`."""
        self._hosted.clear()
        self._abort()

    def whole_word(self, context_id: str) -> TimedWord | None:
        """Return a word that was not reported though its audio has come; None unless a vendor tells letters."""
        return None

    async def close(self) -> None:
        """Let go of the connection and of every task. See `Voice`."""
        self._is_released = True
        await self._service.cleanup()

    # What Pipecat's service does, hosted

    @property
    def _service(self) -> "WebsocketTTSService":
        return cast("WebsocketTTSService", self)

    def _seconds(self, context_id: str) -> float:
        return self._hosted.get(context_id, 0) / (_BYTES_PER_SAMPLE * self._service.sample_rate)

    def _whole_until_s(self, context_id: str) -> float:
        """Return where in a context's audio the words end that are being reported."""
        return self._seconds(context_id)

    async def _connect(self) -> None:
        if not self._is_opening:
            await super()._connect()  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into, as below

    async def _receive_task_handler(self, report_error: Any) -> None:
        if self._listener is None:
            await super()._receive_task_handler(report_error)  # pyright: ignore[reportAttributeAccessIssue]
            return
        failure: VoiceFailure | None = None
        self._loss = None
        self._was_read.clear()
        try:
            await self._service._receive_messages()
            failure = self._failure_of_close()
        except Exception as error:  # noqa: BLE001 - whatever a vendor sends ends this connection only
            failure = self._fault or failure_of(error)
        finally:
            self._loss = failure
            self._was_read.set()
        self._hosted.clear()
        if self.is_connected:  # nobody reads it any more
            self._abort()
        await self._listener.voice_lost(cast(Any, self), failure)

    def _failure_of_close(self) -> VoiceFailure | None:
        socket = self._service._websocket
        code = getattr(socket, "close_code", None)
        if self._fault is None and code in _GOOD_CLOSES:
            return None
        return self._fault or failure_of_words(
            f"{code} {getattr(socket, 'close_reason', '')}".strip(), FailureKind.CLOSED
        )

    def _abort(self) -> None:
        """Cut the socket at once."""
        socket = self._service._websocket
        transport = getattr(socket, "transport", None)
        if transport is not None:
            transport.abort()

    def audio_context_available(self, context_id: str) -> bool:
        """Whether a context may still speak."""
        if self._listener is None:
            return super().audio_context_available(context_id)  # pyright: ignore[reportAttributeAccessIssue]
        return context_id in self._hosted

    async def create_audio_context(self, context_id: str) -> None:
        """Open a context."""
        if self._listener is None:
            await super().create_audio_context(context_id)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            self._hosted[context_id] = 0

    async def append_to_audio_context(self, context_id: str | None, frame: Any) -> None:
        """Pass audio on to the listener."""
        if self._listener is None:
            await super().append_to_audio_context(context_id, frame)  # pyright: ignore[reportAttributeAccessIssue]
        elif context_id in self._hosted:
            if isinstance(frame, TTSAudioRawFrame):
                self._hosted[context_id] += len(frame.audio)
                await self._listener.voice_audio(cast(Any, self), context_id, frame.audio)
            elif isinstance(frame, ErrorFrame):
                await self._fail(context_id, failure_of_words(frame.error, FailureKind.SERVER))

    async def remove_audio_context(self, context_id: str | None) -> None:
        """Pass a context's end on to the listener."""
        if self._listener is None:
            await super().remove_audio_context(context_id)  # pyright: ignore[reportAttributeAccessIssue]
        elif context_id is not None and self._hosted.pop(context_id, None) is not None:
            await self._service.on_audio_context_completed(context_id)
            await self._listener.voice_ended(cast(Any, self), context_id)

    async def add_word_timestamps(
        self,
        word_times: list[tuple[str, float]],
        context_id: str | None = None,
        includes_inter_frame_spaces: bool | None = None,
        pre_merge_tokens: bool = False,
    ) -> None:
        """Pass words on to the listener."""
        if self._listener is None:
            await super().add_word_timestamps(  # pyright: ignore[reportAttributeAccessIssue]
                word_times, context_id, includes_inter_frame_spaces, pre_merge_tokens
            )
        elif context_id is not None:
            end_s = self._whole_until_s(context_id) if self.words_follow_audio else None
            await self._words(context_id, [TimedWord(word, start_s, end_s) for word, start_s in word_times])

    async def _words(self, context_id: str, words: Sequence[TimedWord]) -> None:
        if self._listener is not None and context_id in self._hosted:
            await self._listener.voice_words(cast(Any, self), context_id, words)

    async def _fail(self, context_id: str, failure: VoiceFailure) -> None:
        if self._listener is not None and self._hosted.pop(context_id, None) is not None:
            await self._listener.voice_failed(cast(Any, self), context_id, failure)

    async def push_error_frame(self, error: ErrorFrame, force_treat_as_permanent: bool = False) -> None:
        """Remember an error: who asked hears of it, or the reader does when it ends."""
        if self._listener is None:
            await super().push_error_frame(error, force_treat_as_permanent)  # pyright: ignore[reportAttributeAccessIssue]
            return
        self._fault = (
            failure_of(error.exception)
            if error.exception is not None
            else failure_of_words(error.error, FailureKind.SERVER)
        )
        logger.debug("{}: {}", self.vendor, self._fault)

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Let usage through to the pipeline; everything else is told in other ways."""
        if self._listener is None:
            await super().push_frame(frame, direction)  # pyright: ignore[reportAttributeAccessIssue]
        elif isinstance(frame, MetricsFrame):
            await self._listener.voice_frame(cast(Any, self), frame)
