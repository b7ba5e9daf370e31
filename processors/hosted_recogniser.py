"""Mixins for Pipecat's recognisers: make one a `Recogniser`, which stands in no pipeline and whose failures are told.

What Pipecat's service would push goes to a `RecogniserListener`, if it is worth anything to others; audio and the edges
of speech come from the listener. What is kept is what the service knows of the vendor: how to dial, what to send, how
to read what comes. What is not kept is its way with a lost socket: it dials again after four seconds and forgets the
audio meanwhile. Not hosted, the service is what it was.
Source: `pipecat.services.stt_service`, `pipecat.services.websocket_service`, `pipecat.services.deepgram.stt`.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from deepgram.core.events import EventType
from deepgram.listen.v1.types import ListenV1CloseStream, ListenV1Results
from loguru import logger
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    ErrorFrame,
    Frame,
    InterimTranscriptionFrame,
    MetricsFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.deepgram.flux.stt import FluxEventType
from websockets.protocol import State

from processors.flushing_deepgram import FlushingDeepgramSTTService
from processors.flux_recogniser import FluxRecogniser
from processors.frames import TranscriptFlushedFrame
from processors.hosted_voice import failure_of, failure_of_words
from processors.recognisers import RecogniserFailure, RecogniserListener, Report
from processors.shown_words import ShownWord
from processors.voices import FailureKind

if TYPE_CHECKING:
    pass

GOODBYE_LIMIT_S = 0.3
"""For a vendor to be told that nothing more comes."""
WAITING_BYTES = 8192
"""Sent and still on this machine: half a second of a call's audio, where there should be none."""
_GOOD_CLOSES = (1000, 1001)
_WORTH_TELLING = (
    TranscriptionFrame
    | InterimTranscriptionFrame
    | EagerTranscriptionFrame
    | TranscriptFlushedFrame
    | ProposedUserStartedSpeakingFrame
    | ProposedUserStoppedSpeakingFrame
    | MetricsFrame
)


def hearing_failure(error: BaseException) -> RecogniserFailure:
    """Return what an exception of a recogniser's connection means."""
    if isinstance(error, RecogniserFailure):
        return error
    known = failure_of(error)
    return RecogniserFailure(known.kind, known.detail)


def hearing_failure_of_words(text: str, otherwise: FailureKind) -> RecogniserFailure:
    """Return what a vendor's own words mean."""
    known = failure_of_words(text, otherwise)
    return RecogniserFailure(known.kind, known.detail)


class HostedRecogniser:
    """What all have in common. Mix in before an `STTService`."""

    vendor: str = ""
    """Name as in `agent.yaml`."""
    proposes_turns: bool = False
    acknowledges: bool = True
    silence_limit_s: float = 2.0

    _listener: RecogniserListener | None = None
    _dialling: asyncio.Lock
    _fault: RecogniserFailure | None = None
    """What Pipecat reported last."""
    _is_released: bool = False
    _is_leaving: bool = False
    """Whether the connection is being ended by us: its end is nobody's business."""

    @property
    def _service(self) -> Any:
        return self

    @property
    def _socket(self) -> Any:
        """The `websockets` connection, None if there is none."""
        return self._service._websocket

    # Recogniser

    @property
    def is_connected(self) -> bool:
        """Whether audio can be sent."""
        return self._socket is not None and self._socket.state is State.OPEN and not self._is_leaving

    @property
    def is_writable(self) -> bool:
        """Whether audio can be sent at once."""
        return self.is_connected and self._socket.transport.get_write_buffer_size() <= WAITING_BYTES

    async def open(self, setup: FrameProcessorSetup, listener: RecogniserListener) -> None:
        """Get ready, without connecting; from now on what the service says goes to `listener`."""
        self._listener, self._dialling = listener, asyncio.Lock()
        await self._service.setup(setup)

    async def connect(self) -> None:
        """Connect unless it is. See `Recogniser`."""
        async with self._dialling:
            if self._is_released or self.is_connected:
                return
            self._fault = None
            await self._end_connection()
            self._is_leaving = False
            try:
                await self._dial()
            except BaseException:
                self.cut()
                raise

    async def hear(self, pcm: bytes) -> None:
        """Send audio. See `Recogniser`."""
        if not self.is_connected:
            raise self._why(RecogniserFailure(FailureKind.CLOSED, "not connected"))
        self._service._record_stt_audio_usage(pcm)
        async for frame in self._service.run_stt(pcm):
            if isinstance(frame, ErrorFrame):
                raise self._why(hearing_failure_of_words(frame.error, FailureKind.CLOSED))

    async def take(self, frame: Frame) -> None:
        """Take an edge of speech. See `Recogniser`."""
        try:
            await self._service.process_frame(frame, FrameDirection.DOWNSTREAM)
        except Exception as error:
            raise hearing_failure(error) from error

    def shown(self) -> Sequence[ShownWord]:
        """Return the words that are not final. See `Recogniser`."""
        raise NotImplementedError

    async def report_usage(self) -> None:
        """Tell of the audio that was sent. See `Recogniser`."""
        await self._service.emit_stt_usage_metrics()

    async def disconnect(self) -> None:
        """Part in good order. See `Recogniser`."""
        async with self._dialling:  # whoever wants it again waits so long
            self._is_leaving = True
            try:
                async with asyncio.timeout(GOODBYE_LIMIT_S):
                    await self._say_goodbye()
            except Exception as error:  # noqa: BLE001 - who parts needs no answer
                logger.debug("{} was left without a goodbye: {}", self.vendor, error)
            finally:
                self.cut()

    def cut(self) -> None:
        """Cut the connection. See `Recogniser`."""
        self._is_leaving = True
        transport = getattr(self._socket, "transport", None)
        if transport is not None:
            transport.abort()

    async def close(self) -> None:
        """Let go of the connection and of every task. See `Recogniser`."""
        self._is_released = True
        if self.is_connected:
            await self.disconnect()
        self.cut()
        await self._end_connection()
        await self._service.cleanup()

    # Of the kinds below

    async def _dial(self) -> None:
        raise NotImplementedError

    async def _end_connection(self) -> None:
        """Let go of what is left of a connection that has ended."""
        raise NotImplementedError

    async def _say_goodbye(self) -> None:
        """Tell the vendor that nothing more comes."""
        raise NotImplementedError

    # What Pipecat's service does, hosted

    async def _connect(self) -> None:
        if self._listener is None:
            await super()._connect()  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into, as below

    async def _disconnect(self) -> None:
        if self._listener is None:
            await super()._disconnect()  # pyright: ignore[reportAttributeAccessIssue]

    async def _handle_vad_user_stopped_speaking(self, frame: VADUserStoppedSpeakingFrame) -> None:
        if self._listener is None:
            await super()._handle_vad_user_stopped_speaking(frame)  # pyright: ignore[reportAttributeAccessIssue]

    async def push_error_frame(self, error: ErrorFrame, force_treat_as_permanent: bool = False) -> None:
        """Remember an error: who dials hears of it, or the reader does when it ends."""
        if self._listener is None:
            await super().push_error_frame(error, force_treat_as_permanent)  # pyright: ignore[reportAttributeAccessIssue]
            return
        self._fault = (
            hearing_failure(error.exception)
            if error.exception is not None
            else hearing_failure_of_words(error.error, FailureKind.SERVER)
        )
        logger.debug("{}: {}", self.vendor, self._fault)

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Let through what others want to know; the rest they have themselves."""
        if self._listener is None:
            await super().push_frame(frame, direction)  # pyright: ignore[reportAttributeAccessIssue]
        elif (
            isinstance(frame, _WORTH_TELLING)
            and direction is FrameDirection.DOWNSTREAM
            and (not self._is_leaving or isinstance(frame, MetricsFrame))
        ):
            self._mark_final(frame)
            await self._listener.recogniser_frame(cast(Any, self), frame)

    def _mark_final(self, frame: Frame) -> None:
        """Do what Pipecat's recogniser does to a final transcript on its way."""
        if isinstance(frame, TranscriptionFrame) and self._service._finalize_pending:
            frame.finalized, self._service._finalize_pending = True, False

    async def _report(self, report: Report) -> None:
        if self._listener is not None and not self._is_leaving:
            await self._listener.recogniser_reported(cast(Any, self), report)

    def _why(self, failure: RecogniserFailure) -> RecogniserFailure:
        """Return what is known of why a connection is closed, where all that was seen is that it is."""
        return self._fault if failure.kind is FailureKind.CLOSED and self._fault is not None else failure

    async def _lost(self, failure: RecogniserFailure) -> None:
        if self._listener is not None and not self._is_leaving:
            self._is_leaving = True
            await self._listener.recogniser_lost(cast(Any, self), failure)


class SocketRecogniser(HostedRecogniser):
    """For a `WebsocketSTTService`, or another with its way of connecting."""

    async def _dial(self) -> None:
        service = self._service
        service._disconnecting = False
        self._prepare()
        await service._connect_websocket()
        if self._socket is None:
            raise self._fault or RecogniserFailure(FailureKind.REFUSED)
        service._receive_task = service.create_task(
            service._receive_task_handler(service._report_error), f"{self.vendor}_reader"
        )
        await self._wait_until_confirmed()
        if not self.is_connected:
            raise self._fault or RecogniserFailure(FailureKind.CLOSED)

    def _prepare(self) -> None:
        """Get ready to dial."""

    async def _wait_until_confirmed(self) -> None:
        """Wait until the vendor says that it listens; not all do."""

    async def _wait_for(self, confirmed: asyncio.Event) -> None:
        reading = self._service._receive_task
        confirming = asyncio.ensure_future(confirmed.wait())
        try:
            await asyncio.wait({confirming, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            confirming.cancel()
        if not confirmed.is_set():
            raise self._fault or RecogniserFailure(FailureKind.CLOSED, "not confirmed")

    async def _end_connection(self) -> None:
        service = self._service
        service._disconnecting = True
        reading, service._receive_task = service._receive_task, None
        if reading is not None and reading is not asyncio.current_task():
            await service.cancel_task(reading)
        service._websocket = None

    async def _receive_task_handler(self, report_error: Any) -> None:
        if self._listener is None:
            await super()._receive_task_handler(report_error)  # pyright: ignore[reportAttributeAccessIssue]
            return
        try:
            await self._service._receive_messages()
            failure = self._failure_of_close()
        except Exception as error:  # noqa: BLE001 - whatever a vendor sends ends this connection only
            failure = self._why(hearing_failure(error))
        self._fault = failure
        transport = getattr(self._socket, "transport", None)
        if transport is not None:
            transport.abort()  # nobody reads it any more
        await self._lost(failure)

    def _failure_of_close(self) -> RecogniserFailure:
        code = getattr(self._socket, "close_code", None)
        if self._fault is not None and code not in _GOOD_CLOSES:
            return self._fault
        reason = f"{code} {getattr(self._socket, 'close_reason', '') or ''}".strip()
        return hearing_failure_of_words(reason, FailureKind.CLOSED)


class HostedDeepgram(HostedRecogniser, FlushingDeepgramSTTService):
    """Deepgram's live socket, which Pipecat keeps in one task with its own way of dialling."""

    vendor = "deepgram"
    _reading: "asyncio.Task[None] | None" = None
    _interim: Any = None
    """The last alternative with words that are not final."""

    @property
    def _socket(self) -> Any:
        return getattr(self._connection, "_websocket", None)

    async def hear(self, pcm: bytes) -> None:
        """Send audio. See `Recogniser`."""
        connection = self._connection
        if connection is None:
            raise self._why(RecogniserFailure(FailureKind.CLOSED, "not connected"))
        self._record_stt_audio_usage(pcm)
        self.count(pcm)
        try:
            await connection.send_media(pcm)
        except Exception as error:
            raise self._why(hearing_failure(error)) from error

    async def _dial(self) -> None:
        self._interim = None
        is_open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = self.create_task(self._live(is_open), "deepgram_reader")
        await is_open

    async def _live(self, is_open: "asyncio.Future[None]") -> None:
        """Live of one connection."""
        keeping: asyncio.Task[None] | None = None
        failure = RecogniserFailure(FailureKind.CLOSED, "in good order")
        try:
            async with self._client.listen.v1.connect(**self._build_connect_kwargs()) as connection:
                self._connection = connection
                connection.on(EventType.MESSAGE, self._on_message)
                connection.on(EventType.ERROR, self._on_error)
                keeping = self.create_task(self._keepalive_handler(), "deepgram_keepalive")
                if not is_open.done():
                    is_open.set_result(None)
                await connection.start_listening()
            failure = self._fault or failure
        except Exception as error:  # noqa: BLE001 - whatever a vendor does ends this connection only
            failure = hearing_failure(error)
        finally:
            self._connection = None
            if keeping is not None:
                keeping.cancel()
        if is_open.done():
            await self._lost(failure)
        else:
            is_open.set_exception(failure)

    async def _end_connection(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            await self.cancel_task(reading)
        self._connection = None

    async def _say_goodbye(self) -> None:
        if self._connection is not None:
            await self._connection.send_close_stream(ListenV1CloseStream(type="CloseStream"))

    def cut(self) -> None:
        """Cut the connection, and let go of one that is being dialled."""
        super().cut()
        if self._reading not in (None, asyncio.current_task()) and self._socket is None:
            self._reading.cancel()

    def shown(self) -> Sequence[ShownWord]:
        """Return the words that are not final. See `Recogniser`."""
        return [
            ShownWord(word.punctuated_word or word.word, word.start, word.end, word.confidence)
            for word in (self._interim.words if self._interim is not None else ())
        ]

    async def _on_error(self, error: Any) -> None:
        if self._listener is None:
            await super()._on_error(error)
        else:
            self._fault = hearing_failure(error)

    async def _on_message(self, message: Any) -> None:
        await super()._on_message(message)
        if self._listener is None or not isinstance(message, ListenV1Results):
            return
        alternatives = message.channel.alternatives
        has_words = bool(alternatives and alternatives[0].transcript.strip())
        words = alternatives[0].words if has_words else []
        until_s = message.start + message.duration
        self._interim = alternatives[0] if has_words and not message.is_final else None
        is_final = bool(message.is_final)
        ends_s = (words[-1].end if words else until_s) if is_final and has_words else None
        await self._report(Report(until_s, has_words, is_final, ends_s))


class HostedFlux(SocketRecogniser, FluxRecogniser):  # pyright: ignore[reportIncompatibleVariableOverride] - hosted, it dials itself
    """Deepgram Flux, which proposes turns. A turn that a lost connection cuts is heard again on the next."""

    vendor = "flux"
    proposes_turns = True
    acknowledges = False  # no page promises reports between turns
    silence_limit_s = 3.0
    _shown: Sequence[Any] = ()

    def _prepare(self) -> None:
        self._shown = ()
        self._websocket_url = f"{self._url}?{self._build_query_string()}"

    async def _wait_until_confirmed(self) -> None:
        await self._wait_for(self._connection_established_event)

    async def _end_connection(self) -> None:
        watchdog, self._watchdog_task = self._watchdog_task, None
        if watchdog is not None:
            await self.cancel_task(watchdog)
        await super()._end_connection()

    async def _say_goodbye(self) -> None:
        await self._send_close_stream()

    def shown(self) -> Sequence[ShownWord]:
        """Return the words that are not final. See `Recogniser`; Flux need not say where they are."""
        words = [(word.get("word"), word.get("start"), word.get("end"), word) for word in self._shown]
        if any(start is None or end is None for _, start, end, _ in words):
            return ()
        return [ShownWord(text, start, end, word.get("confidence")) for text, start, end, word in words]

    async def _end_turn_cut_short(self) -> None:
        if self._listener is None:
            await super()._end_turn_cut_short()

    async def _handle_message(self, data: dict[str, Any]) -> None:
        await super()._handle_message(data)
        told = data if isinstance(data, dict) else {}  # pyright: ignore[reportUnnecessaryIsInstance] - off the wire
        if self._listener is None or told.get("type") != "TurnInfo":
            return
        upto_s, text = told.get("audio_window_end"), told.get("transcript")
        has_words = isinstance(text, str) and bool(text.strip())
        is_end = told.get("event") == FluxEventType.END_OF_TURN
        until_s = float(upto_s) if isinstance(upto_s, int | float) else None
        # It ends turns when it likes: with each report it has told all that it will tell of a pause by itself.
        words = told.get("words") or [{}]
        self._shown = () if is_end or not has_words else words
        ends_s = words[-1].get("end", until_s) if is_end and has_words else None
        await self._report(Report(until_s, has_words, True, ends_s))
