"""Cartesia's socket: submissions in, paced audio and word times out, one task per context.

`sims.cartesia` lets clients in and serves this. Nothing here knows HTTP.
"""

import asyncio
import base64
import re
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from sims.faults import FaultKind
from sims.speech import Speech, Word, encode_ulaw
from sims.voice_vendor import (
    CONNECT_FAULTS,
    SENTENCE_PAUSE_MS,
    AudioStream,
    HangUp,
    Piece,
    VendorSocket,
    VoiceVendorSim,
    cut,
    read_json,
    to_float32,
)

RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)
ENCODERS = {"pcm_s16le": bytes, "pcm_f32le": to_float32, "pcm_mulaw": encode_ulaw}
DEFAULT_BUFFER_DELAY_MS = 3000
MAX_BUFFER_DELAY_MS = 5000
CONTEXT_EXPIRY_S = 1.0
"""A context without new input ends so long after its last audio."""
IDLE_TIMEOUT_S = 300.0
MAX_WAITING_SUBMISSIONS = 256
MAX_REMEMBERED_IDS = 1024
IN_BAND_ERRORS = {
    FaultKind.UNAUTHORIZED: (401, "unauthorized", "Unauthorized"),
    FaultKind.RATE_LIMITED: (429, "concurrency_limited", "Too many concurrent requests"),
    FaultKind.SERVER_ERROR: (500, "internal_error", "Internal server error"),
    FaultKind.OVERLOADED: (503, "overloaded", "Service unavailable"),
}

_SENTENCE_END = re.compile(r"[.!?…][\"'”\u2019)]*(?=\s)")


@dataclass(frozen=True)
class Voicing:
    """What every submission of a context repeats, and may not change."""

    voice: str
    model: str
    encoding: str
    rate_hz: int
    language: str | None
    wants_words: bool


@dataclass(frozen=True)
class _Submission:
    """One message. `at_s`: loop time when it came."""

    text: str
    is_last: bool
    is_flush: bool
    at_s: float


@dataclass(frozen=True)
class _Cancel:
    """Begin nothing more."""


@dataclass(frozen=True)
class _Expiry:
    """Nothing came in time after the last audio."""


@dataclass(eq=False)
class _Context:
    """One context. Its task speaks what `inputs` holds, in order."""

    id: str
    voicing: Voicing
    buffer_delay_s: float
    inputs: asyncio.Queue[_Submission | _Cancel] = field(
        default_factory=lambda: asyncio.Queue(maxsize=MAX_WAITING_SUBMISSIONS)
    )
    stream: AudioStream | None = None
    """None until the first text."""
    held_text: str = ""
    """Text that waits until it is clear how to say it."""
    held_since_s: float = 0.0
    flush_id: int = 1
    last_audio_s: float | None = None


class SubmissionError(ValueError):
    """A submission the vendor refuses with status 400; the message says why."""


def read_voicing(message: Mapping[str, Any]) -> Voicing:
    """Read the fields that every submission repeats.

    Raises:
        SubmissionError: If one is missing or not offered.
    """
    voice, model, output = message.get("voice"), message.get("model_id"), message.get("output_format")
    voice_id = voice.get("id") if isinstance(voice, dict) else voice
    if not isinstance(voice_id, str) or not voice_id:
        raise SubmissionError("voice: an id is required")
    if not isinstance(model, str) or not model:
        raise SubmissionError("model_id: required")
    if not isinstance(output, dict):
        raise SubmissionError("output_format: required")
    encoding, rate_hz = output.get("encoding"), output.get("sample_rate")
    if encoding not in ENCODERS:
        raise SubmissionError(f"output_format: this stand-in offers {', '.join(ENCODERS)}")
    if rate_hz not in RATES_HZ:
        raise SubmissionError(f"output_format: sample_rate must be one of {RATES_HZ}")
    language = message.get("language")
    return Voicing(voice_id, model, encoding, rate_hz, language, bool(message.get("add_timestamps")))


def split_ready(held: str) -> tuple[str, str]:
    """Split text into whole sentences, ready to be spoken, and the rest."""
    ends = [match.end() for match in _SENTENCE_END.finditer(held)]
    return (held[: ends[-1]], held[ends[-1] :]) if ends else ("", held)


class CartesiaSocket(VendorSocket):
    """`/tts/websocket`."""

    def __init__(
        self,
        sim: VoiceVendorSim,
        request: web.Request,
        socket: web.WebSocketResponse,
        *,
        concurrency: int | None,
        idle_timeout_s: float,
    ) -> None:
        """Serve an accepted socket.

        Args:
            sim: The vendor.
            request: The upgrade.
            socket: The prepared answer to it.
            concurrency: Contexts the plan allows at a time, over all sockets; None is no limit.
            idle_timeout_s: Time without generation after which the socket is closed.
        """
        super().__init__(sim, request, socket)
        self._concurrency = concurrency
        self._idle_timeout_s = idle_timeout_s
        self._active_at_s = self.loop.time()
        self._contexts: dict[str, _Context] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        """Ids that have ended; the oldest are forgotten."""

    async def receive(self) -> None:
        """Act on the client's messages; close when nothing was generated for long."""
        while True:
            idle_at_s = (self.loop.time() if self._contexts else self._active_at_s) + self._idle_timeout_s
            try:
                async with asyncio.timeout_at(idle_at_s):
                    message = await self.socket.receive()
            except TimeoutError:
                if not self._contexts and self.loop.time() >= self._active_at_s + self._idle_timeout_s:
                    raise HangUp(1000, "connection idle timeout") from None
                continue
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            received = read_json(message.data) if message.type is WSMsgType.TEXT else {}
            await self._take(received)

    async def _take(self, message: Mapping[str, Any]) -> None:
        context_id = message.get("context_id")
        if not isinstance(context_id, str):
            context_id = str(uuid.uuid4())
        if message.get("cancel"):
            self._cancel(context_id)
            return
        try:
            self._submit(context_id, message)
        except SubmissionError as error:
            await self.socket.send_str(
                error_frame(context_id, 400, "invalid_request", "Bad request", str(error))
            )
        except asyncio.QueueFull:
            text = "Too many submissions are waiting."
            await self.socket.send_str(
                error_frame(context_id, 429, "rate_limited", "Too many requests", text)
            )

    def _submit(self, context_id: str, message: Mapping[str, Any]) -> None:
        text = message.get("transcript")
        if not isinstance(text, str):
            raise SubmissionError("transcript: required")
        context = self._contexts.get(context_id)
        if context is None:
            context = self._open(context_id, text, message)
        elif text and read_voicing(message) != context.voicing:
            raise SubmissionError("within a context only transcript and continue may change")
        context.inputs.put_nowait(
            _Submission(
                text,
                is_last=not message.get("continue", False),
                is_flush=bool(message.get("flush")),
                at_s=self.loop.time(),
            )
        )

    def _open(self, context_id: str, text: str, message: Mapping[str, Any]) -> _Context:
        if context_id in self._gone:
            raise SubmissionError("context_id: this context has ended")
        voicing = read_voicing(message)
        if not text.strip() and not message.get("continue"):
            raise SubmissionError("transcript: nothing to say")
        delay_ms = message.get("max_buffer_delay_ms", DEFAULT_BUFFER_DELAY_MS)
        if not isinstance(delay_ms, int) or not 0 <= delay_ms <= MAX_BUFFER_DELAY_MS:
            raise SubmissionError(f"max_buffer_delay_ms: must be 0..{MAX_BUFFER_DELAY_MS}")
        context = _Context(context_id, voicing, delay_ms / 1000)
        self._contexts[context_id] = context
        self.sim.stats["contexts"] += 1
        self.start(self._run_context(context))
        return context

    def _cancel(self, context_id: str) -> None:
        """Halt what has not begun; what is being generated goes on to its end, as at the vendor."""
        context = self._contexts.pop(context_id, None)
        if context is None:
            return
        self._forget(context_id)
        self.sim.stats["contexts_cut"] += 1
        while not context.inputs.empty():
            context.inputs.get_nowait()
        context.inputs.put_nowait(_Cancel())

    def _forget(self, context_id: str) -> None:
        self._gone[context_id] = None
        if len(self._gone) > MAX_REMEMBERED_IDS:
            self._gone.popitem(last=False)

    # --- One context

    async def _run_context(self, context: _Context) -> None:
        if self._concurrency is not None and self.sim.active >= self._concurrency:
            await self._fail(context, *IN_BAND_ERRORS[FaultKind.RATE_LIMITED])
            return
        self.sim.active += 1
        try:
            await self._speak_all(context)
        finally:
            self.sim.active -= 1
            self._active_at_s = self.loop.time()

    async def _speak_all(self, context: _Context) -> None:
        while True:
            item = await self._next_input(context)
            if isinstance(item, _Expiry):
                self._drop(context)
                return
            if isinstance(item, _Cancel):
                break
            if not await self._generate(context, item):
                return
            if item is not None and item.is_last:
                break
        if context.stream is not None:
            await context.stream.finish()
        self._drop(context)
        if context.stream is None or not context.stream.is_dead:
            frame = {"type": "done", "context_id": context.id, "done": True, "status_code": 206}
            await self.socket.send_str(_json(frame))

    async def _next_input(self, context: _Context) -> _Submission | _Cancel | _Expiry | None:
        """Return what comes next, None when the held text has waited long enough."""
        if context.held_text:
            deadline_s = context.held_since_s + context.buffer_delay_s
        elif context.last_audio_s is not None:
            deadline_s = context.last_audio_s + CONTEXT_EXPIRY_S
        else:
            deadline_s = None
        try:
            async with asyncio.timeout_at(deadline_s):
                return await context.inputs.get()
        except TimeoutError:
            return None if context.held_text else _Expiry()

    async def _generate(self, context: _Context, item: _Submission | None) -> bool:
        """Speak what is ready; False when the context has failed."""
        is_unbuffered = context.buffer_delay_s == 0
        if item is not None:
            if not context.held_text:
                context.held_since_s = item.at_s
            context.held_text += item.text
        if item is None or item.is_last or item.is_flush or is_unbuffered:
            text, context.held_text = context.held_text, ""
        else:
            text, context.held_text = split_ready(context.held_text)
        if text.strip():
            if context.stream is None and not await self._begin(context):
                return False
            if not await self._speak(context, text, item.at_s if item else self.loop.time()):
                return False
        if item is not None and (item.is_flush or (is_unbuffered and item.text)):
            await self._send_flush_done(context)
        return True

    async def _begin(self, context: _Context) -> bool:
        fault = self.sim.faults.take(context.voicing.voice)
        if fault is not None and fault.kind in CONNECT_FAULTS:
            if fault.kind is FaultKind.REFUSE:
                raise HangUp(None)
            await self._fail(context, *IN_BAND_ERRORS[fault.kind])
            return False
        context.stream = AudioStream(self.sim, fault)
        return True

    async def _speak(self, context: _Context, text: str, at_s: float) -> bool:
        stream, voicing = context.stream, context.voicing
        assert stream is not None  # noqa: S101 - `_begin` made it
        if not self.sim.spend(text):
            await self._fail(context, 402, "quota_exceeded", "Credit limit reached")
            return False
        speech = await self.sim.synthesize(text, voicing.voice, voicing.rate_hz)
        offset_s = stream.audio_s
        pause_ms = SENTENCE_PAUSE_MS if offset_s else 0
        chunks = self.sim.derive(
            speech,
            ("cartesia", voicing.encoding, pause_ms),
            lambda: _chunks(speech, voicing.encoding, pause_ms),
        )
        tail = f',"flush_id":{context.flush_id},"context_id":{_json(context.id)}}}'

        async def send(index: int) -> None:
            chunk = chunks[index]
            await self.socket.send_str(chunk.head + tail)
            if voicing.wants_words and chunk.words:
                await self.socket.send_str(_words_frame(context, chunk.words, offset_s))

        await stream.play(
            [chunk.piece for chunk in chunks],
            text_at_s=at_s,
            send=send,
            send_garbage=self.socket.send_str,
        )
        context.last_audio_s = self.loop.time()
        return True

    async def _send_flush_done(self, context: _Context) -> None:
        frame = {
            "type": "flush_done",
            "context_id": context.id,
            "done": False,
            "flush_done": True,
            "flush_id": context.flush_id,
            "status_code": 206,
        }
        context.flush_id += 1
        if context.stream is None or not context.stream.is_dead:
            await self.socket.send_str(_json(frame))

    async def _fail(self, context: _Context, status: int, code: str, title: str) -> None:
        """End a context with an error; the socket stays open."""
        self._drop(context)
        await self.socket.send_str(error_frame(context.id, status, code, title, title + "."))

    def _drop(self, context: _Context) -> None:
        if self._contexts.get(context.id) is context:
            del self._contexts[context.id]
            self._forget(context.id)


# --- What travels


@dataclass(frozen=True)
class _Chunk:
    """A chunk message, all but its flush id, context id and closing brace; words of its text that begin in it."""

    piece: Piece
    head: str
    words: tuple[Word, ...]


def _chunks(speech: Speech, encoding: str, pause_ms: int) -> list[_Chunk]:
    words = [Word(w.text, w.start_s + pause_ms / 1000, w.end_s + pause_ms / 1000) for w in speech.words]
    pieces = cut(speech, pause_ms=pause_ms)
    chunks: list[_Chunk] = []
    for piece in pieces:
        ends_s = float("inf") if piece is pieces[-1] else piece.end_s
        within = tuple(word for word in words if piece.start_s <= word.start_s < ends_s)
        frame = {
            "type": "chunk",
            "data": base64.b64encode(ENCODERS[encoding](piece.pcm)).decode(),
            "done": False,
            "status_code": 206,
            "step_time": 41.7,
        }
        chunks.append(_Chunk(piece, _json(frame)[:-1], within))
    return chunks


def _words_frame(context: _Context, words: Sequence[Word], offset_s: float) -> str:
    return _json(
        {
            "type": "timestamps",
            "context_id": context.id,
            "done": False,
            "status_code": 206,
            "flush_id": context.flush_id,
            "word_timestamps": {
                "words": [word.text for word in words],
                "start": [round(offset_s + word.start_s, 4) for word in words],
                "end": [round(offset_s + word.end_s, 4) for word in words],
            },
        }
    )


def error_frame(context_id: str, status: int, code: str, title: str, message: str) -> str:
    """Return an error with its context: clients fall over one without."""
    return _json(
        {
            "type": "error",
            "context_id": context_id,
            "done": True,
            "status_code": status,
            "error_code": code,
            "title": title,
            "message": message,
            "request_id": str(uuid.uuid4()),
        }
    )


def _json(content: object) -> str:
    return orjson.dumps(content).decode()
