"""Deepgram's live transcription socket (`WS /v1/listen`) on loopback.

It hears what a real one would, with two ears: the `SpokenIndex` knows the words of scripted callers by their
frames, and PocketSphinx guesses at everything else (`free_speech`). When something is said decides the pure
`transcript`; this module is the wire: handshake, JSON, close codes, faults. It never looks at a call or a scenario.

Not acted out: other encodings than linear16 and mulaw, several channels, diarization, numerals (numbers stay as the
script spells them), redaction, keyterms, and prerecorded audio.

Source: deepgram-sdk 7.17 (`deepgram.listen.v1`), developers.deepgram.com/docs, captures of Pipecat 1.14.
"""

import asyncio
import enum
import hashlib
import math
import string
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from aiohttp import WSMsgType, web
from pydantic import BaseModel, Field, ValidationError, field_validator

from sims import mulaw
from sims.faults import FaultKind, FaultSpec
from sims.free_speech import FreeSpeech, FreeSpeechLine
from sims.profiles import Profile
from sims.spoken import Encoding, HeardWord, SpokenIndex, SpokenTracker
from sims.transcript import Ended, Event, LiveTranscript, Result, Rules, SpeechStarted, UtteranceEnd
from sims.vendor import VendorSim

_IDLE_LIMIT_S = 10.0
_IDLE_REASON = (
    "Deepgram did not receive audio data or a text message within the timeout window. "
    "See https://dpgr.am/net0001"
)
_SEND_LIMIT_S = 5.0
"""A client that does not read for so long is cut off."""
_RECOGNITION_LIMIT_S = 2.0
"""How long Finalize waits for free speech to be recognised."""
_HANG_LIMIT_S = 60.0
_TRICKLE_LAG = 4.0
"""A fifth of real time: each second of audio adds so many seconds of delay."""
_GARBAGE = "<html><body>502 Bad Gateway</body></html>"
_MODEL_UUID = "3b3a5a50-7a0e-4f0f-9d6f-7f1f4c8a0001"


class ListenQuery(BaseModel, frozen=True):
    """The query of `/v1/listen` as far as it is acted out; unknown keys are ignored, as Deepgram does."""

    model: str = Field(default="base-general", min_length=1)
    encoding: Encoding
    sample_rate: int = Field(ge=8000, le=48000)
    channels: Literal["1"] = "1"
    language: str = "en"
    interim_results: bool = False
    punctuate: bool = False
    smart_format: bool = False
    detect_entities: bool = False
    vad_events: bool = False
    endpointing: int | None = Field(default=10, ge=0)
    utterance_end_ms: int | None = Field(default=None, ge=1000, le=5000)

    @field_validator("endpointing", mode="before")
    @classmethod
    def _read_switch(cls, value: object) -> object:
        """`endpointing` is milliseconds or a switch; Deepgram's default is 10."""
        return {"true": 10, "false": None}.get(value, value) if isinstance(value, str) else value

    def rules(self, interim_s: float) -> Rules:
        """Return what the transcript needs of it, in seconds."""
        return Rules(
            interim_results=self.interim_results,
            interim_s=interim_s,
            endpointing_s=None if self.endpointing is None else self.endpointing / 1000,
            utterance_end_s=None if self.utterance_end_ms is None else self.utterance_end_ms / 1000,
            vad_events=self.vad_events,
        )


@dataclass(frozen=True)
class _Refusal:
    """An HTTP answer instead of the upgrade."""

    status: int
    code: str
    message: str


_REFUSALS = {
    FaultKind.UNAUTHORIZED: _Refusal(401, "INVALID_AUTH", "Invalid credentials."),
    FaultKind.RATE_LIMITED: _Refusal(429, "TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
    FaultKind.SERVER_ERROR: _Refusal(500, "INTERNAL_SERVER_ERROR", "An internal error occurred."),
}


class DeepgramSim(VendorSim):
    """Deepgram on one loopback port.

    Faults: `refuse`, `401`, `429`, `500` instead of the upgrade; `hang_before_first_byte` never answers the
    upgrade; after `after_s` of audio `hang_after_first_byte` goes silent with the socket open (0 for a socket that
    is dead from the start), `close_mid_stream` cuts it (1006), `garbage` sends text that is not JSON; `trickle`
    transcribes at a fifth of real time; `empty` hears no words.
    """

    name = "deepgram"
    scheme = "ws"
    supported_faults = frozenset(FaultKind) - {FaultKind.OVERLOADED}

    def __init__(
        self,
        profile: Profile,
        *,
        spoken_index: SpokenIndex | None = None,
        seed: int = 0,
        api_key: str | None = None,
        free_speech: FreeSpeech | None = None,
    ) -> None:
        """Create a stopped sim.

        Args:
            profile: Timing.
            spoken_index: What scripted callers say; None knows nobody.
            seed: Seed of delays and random faults.
            api_key: The only right key; None takes any.
            free_speech: Recogniser for what no script explains, closed with the sim; None makes one, which starts
                its process at the first such speech.
        """
        super().__init__(profile, seed=seed)
        self._spoken = SpokenIndex() if spoken_index is None else spoken_index
        self._api_key = api_key
        self._free_speech = free_speech or FreeSpeech()
        self._sockets: set[web.WebSocketResponse] = set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register `/v1/listen`."""
        router.add_get("/v1/listen", self._listen)

    async def stop(self) -> None:
        """Tell every client that the server goes away, then close the port and the recogniser."""
        closing = [socket.close(code=1001, message=b"server shutting down") for socket in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)
        await self._free_speech.close()
        await super().stop()

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        self.stats["connects"] += 1
        request_id = str(uuid.uuid4())
        fault = self.faults.take()
        if fault is not None and fault.kind in (FaultKind.REFUSE, FaultKind.HANG_BEFORE_FIRST_BYTE):
            await _leave_unanswered(request, _HANG_LIMIT_S if fault.kind is not FaultKind.REFUSE else 0.0)
            return web.Response(status=503)
        refusal = self._refusal(request, fault)
        if refusal is not None:
            return self._refuse(refusal, request_id)
        try:
            query = ListenQuery.model_validate(dict(request.query))
        except ValidationError as error:
            return self._refuse(_bad_query(error), request_id)
        socket = web.WebSocketResponse(
            timeout=1.0, compress=False, max_msg_size=4 * 2**20, protocols=("token", "bearer")
        )
        socket.headers["dg-request-id"] = request_id
        await socket.prepare(request)
        self._sockets.add(socket)
        self.stats["streams"] += 1
        try:
            await self._make_stream(socket, request, query, fault, request_id).run()
        finally:
            self._sockets.discard(socket)
        return socket

    def _refusal(self, request: web.Request, fault: FaultSpec | None) -> _Refusal | None:
        if fault is not None and fault.kind in _REFUSALS:
            return _REFUSALS[fault.kind]
        key = _credentials(request.headers)
        if not key or (self._api_key is not None and key != self._api_key):
            return _REFUSALS[FaultKind.UNAUTHORIZED]
        return None

    def _refuse(self, refusal: _Refusal, request_id: str) -> web.Response:
        self.stats[f"refused_{refusal.status}"] += 1
        body = {"err_code": refusal.code, "err_msg": refusal.message, "request_id": request_id}
        headers = {"dg-error": refusal.message, "dg-request-id": request_id}
        return web.json_response(body, status=refusal.status, headers=headers)

    def _make_stream(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        query: ListenQuery,
        fault: FaultSpec | None,
        request_id: str,
    ) -> "_Stream":
        profile = self.profile  # a stream keeps the profile it began with
        return _Stream(
            socket,
            cut=request.transport.abort if request.transport else lambda: None,
            writer=_MessageWriter(query, request_id),
            ears=_Ears(query, self._spoken, self._free_speech),
            rules=query.rules(profile.stt_interim_s),
            latency_s=lambda: profile.delay(profile.stt_final_s, self.rng),
            fault=fault,
            stats=self.stats,
        )


async def _leave_unanswered(request: web.Request, limit_s: float) -> None:
    """Hold a request without an answer until the client leaves or `limit_s` passed, then cut it."""
    deadline_s = asyncio.get_running_loop().time() + limit_s
    while request.transport is not None and asyncio.get_running_loop().time() < deadline_s:  # noqa: ASYNC110 - no event tells that a client left
        await asyncio.sleep(0.05)
    if request.transport is not None:
        request.transport.abort()


def _credentials(headers: Mapping[str, str]) -> str:
    """Return the key or token of `Authorization: Token|Bearer …` or of the browser's subprotocol pair."""
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("token", "bearer"):
        return key.strip()
    scheme, _, key = headers.get("Sec-WebSocket-Protocol", "").partition(",")
    return key.strip() if scheme.strip().lower() in ("token", "bearer") else ""


def _bad_query(error: ValidationError) -> _Refusal:
    """Word the first fault as Deepgram does (deepgram/deepgram-python-sdk#279)."""
    first = error.errors()[0]
    name = first["loc"][0] if first["loc"] else "query"
    if first["type"] == "missing":
        return _Refusal(400, "Bad Request", f"Missing '{name}'.")
    return _Refusal(400, "Bad Request", f"Invalid '{name}' value of '{first['input']}'.")


class _MessageWriter:
    """Turns events into Deepgram's JSON."""

    def __init__(self, query: ListenQuery, request_id: str) -> None:
        self._query = query
        self._request_id = request_id
        self._is_punctuated = query.punctuate or query.smart_format
        self._metadata = {
            "request_id": request_id,
            "model_info": {
                "name": query.model,
                "version": "2025-04-17.21547",
                "arch": query.model.rpartition("-")[0],
            },
            "model_uuid": _MODEL_UUID,
        }

    def event(self, event: Result | SpeechStarted | UtteranceEnd) -> dict[str, Any]:
        """Return the message that tells `event`."""
        match event:
            case Result():
                return self._results(event)
            case SpeechStarted(at_s):
                return {"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(at_s, 3)}
            case UtteranceEnd(last_word_end_s):
                return {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": round(last_word_end_s, 3)}

    def metadata(self, sha256: str, duration_s: float) -> dict[str, Any]:
        """Return the last message of a stream."""
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request_id,
            "sha256": sha256,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": round(duration_s, 4),
            "channels": 1,
        }

    def configured(self, keyterms: object) -> dict[str, Any]:
        """Return the answer to a Configure."""
        return {"type": "ConfigureSuccess", "request_id": self._request_id, "keyterms": keyterms}

    def unreadable(self, text: str) -> dict[str, Any]:
        """Return the complaint about a text message nobody understands."""
        message = f"Could not deserialize last text message: {text[:80]}"
        return {"type": "Error", "variant": "UNPARSABLE_CLIENT_MESSAGE", "description": message}

    def _results(self, result: Result) -> dict[str, Any]:
        words = [self._word(word) for word in result.words]
        shown = [word.get("punctuated_word", word["word"]) for word in words]
        alternative: dict[str, Any] = {
            "transcript": " ".join(shown),
            "confidence": round(sum(w["confidence"] for w in words) / len(words), 7) if words else 0.0,
            "words": words,
        }
        if self._query.language == "multi" and words:
            alternative["languages"] = ["en"]
        message: dict[str, Any] = {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": round(result.duration_s, 4),
            "start": round(result.start_s, 4),
            "is_final": result.is_final,
            "speech_final": result.speech_final,
            "channel": {"alternatives": [alternative]},
            "metadata": self._metadata,
            "from_finalize": result.from_finalize,
        }
        if self._query.detect_entities and result.is_final:
            message["entities"] = []
        return message

    def _word(self, word: HeardWord) -> dict[str, Any]:
        plain = word.text.strip(string.punctuation).lower() or word.text.lower()
        shown: dict[str, Any] = {
            "word": plain,
            "start": round(word.start_s, 3),
            "end": round(word.end_s, 3),
            "confidence": word.confidence,
        }
        if self._is_punctuated:
            shown["punctuated_word"] = word.text
        if self._query.language == "multi":
            shown["language"] = "en"
        return shown


class _Ears:
    """One stream's audio: scripted words by lookup, the rest to the free-speech line."""

    def __init__(self, query: ListenQuery, spoken: SpokenIndex, free_speech: FreeSpeech) -> None:
        self._is_mulaw = query.encoding is Encoding.MULAW
        self._bytes_per_s = query.sample_rate * (1 if self._is_mulaw else 2)
        self._taken_bytes = 0
        self._tracker: SpokenTracker | None = None
        if query.sample_rate == mulaw.RATE_HZ:
            self._tracker = spoken.tracker(query.encoding)
        self.line: FreeSpeechLine = free_speech.open_line(query.sample_rate)

    @property
    def audio_s(self) -> float:
        """Length of the stream so far, seconds."""
        return self._taken_bytes / self._bytes_per_s

    @property
    def is_speaking(self) -> bool:
        """Whether somebody is speaking now."""
        return self.line.is_speaking or (self._tracker is not None and self._tracker.is_speaking)

    def hear(self, audio: bytes) -> Sequence[HeardWord]:
        """Take one chunk; return the scripted words that ended in it. Free speech goes to the line's listener."""
        self._taken_bytes += len(audio)
        if self._tracker is None:
            self.line.hear(mulaw.decode(audio) if self._is_mulaw else audio, self.audio_s)
            return ()
        words = self._tracker.feed(audio)
        if self._tracker.is_following:
            self.line.finish()
        elif self._tracker.unexplained:
            self.line.hear_ulaw(self._tracker.unexplained, self.audio_s)
        return words


class _State(enum.Enum):
    LISTENING = "listening"
    MUTE = "mute"
    CLOSING = "closing"


class _Stream:
    """One socket: the reader feeds the transcript, one writer task tells what is due, woken by one timer.

    LISTENING --CloseStream | empty frame | idle | unreadable text--> CLOSING --told everything--> closed
    any --client gone | cut--> closed
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        *,
        cut: Callable[[], None],
        writer: _MessageWriter,
        ears: _Ears,
        rules: Rules,
        latency_s: Callable[[], float],
        fault: FaultSpec | None,
        stats: Counter[str],
    ) -> None:
        self._socket = socket
        self._cut = cut
        self._writer = writer
        self._ears = ears
        self._fault = fault
        self._stats = stats
        self._loop = asyncio.get_running_loop()
        lag = _TRICKLE_LAG if fault is not None and fault.kind is FaultKind.TRICKLE else 0.0
        self._transcript = LiveTranscript(rules, lambda: latency_s() + lag * ears.audio_s)
        self._state = _State.LISTENING
        self._recognitions = 0
        self._sha256 = hashlib.sha256()
        self._reading: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._last_message_s = self._loop.time()
        self._urgent: list[dict[str, Any] | str] = []
        self._goodbye: tuple[int, bytes] | None = None

    async def run(self) -> None:
        """Serve until either end closes."""
        self._ears.line.listen(self)
        self._idle_timer = self._loop.call_later(_IDLE_LIMIT_S, self._check_idle)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._reading = tasks.create_task(self._read(), name="deepgram_read")
                telling = tasks.create_task(self._tell(), name="deepgram_tell")
                await asyncio.wait([self._reading, telling], return_when=asyncio.FIRST_COMPLETED)
                if self._state is _State.CLOSING:
                    await asyncio.wait([telling], timeout=_SEND_LIMIT_S)
                telling.cancel()
                self._reading.cancel()
        finally:
            for timer in (self._timer, self._idle_timer):
                if timer is not None:
                    timer.cancel()
            self._ears.line.close()
            self._stats["audio_ms"] += round(self._ears.audio_s * 1000)

    # --- What the client sends

    async def _read(self) -> None:
        async for message in self._socket:
            self._last_message_s = self._loop.time()
            if self._state is not _State.LISTENING:
                continue
            if message.type is WSMsgType.BINARY:
                self._hear(message.data)
            elif message.type is WSMsgType.TEXT:
                self._obey(message.data)

    def _hear(self, audio: bytes) -> None:
        if not audio:
            self._close()
            return
        self._sha256.update(audio)
        words = self._ears.hear(audio)
        self._transcript.hear(
            self._last_message_s,
            self._ears.audio_s,
            () if self._is_wordless else words,
            is_speaking=self._ears.is_speaking and not self._is_wordless,
        )
        if self._fault is not None and self._ears.audio_s >= self._fault.after_s:
            self._act_fault(self._fault.kind)
        self._arm()

    @property
    def _is_wordless(self) -> bool:
        return self._fault is not None and self._fault.kind is FaultKind.EMPTY

    def _act_fault(self, kind: FaultKind) -> None:
        if kind is FaultKind.CLOSE_MID_STREAM:
            self._cut()
        elif kind is FaultKind.HANG_AFTER_FIRST_BYTE:
            self._state = _State.MUTE
        elif kind is FaultKind.GARBAGE:
            self._say_at_once(_GARBAGE)
            self._fault = None

    def _obey(self, text: str) -> None:
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            message = None
        match message:
            case {"type": "KeepAlive"}:
                pass
            case {"type": "Finalize"}:
                self._stats["finalizes"] += 1
                self._ears.line.finish()
                self._transcript.finalize(self._last_message_s)
            case {"type": "CloseStream"}:
                self._close()
            case {"type": "Configure"}:
                self._say_at_once(self._writer.configured(message.get("keyterms")))
            case _:
                self._stats["unreadable"] += 1
                self._say_at_once(self._writer.unreadable(text))
                self._leave(1008, "Could not deserialize last text message.")
        self._arm()

    def _close(self) -> None:
        self._state = _State.CLOSING
        self._ears.line.finish()
        self._transcript.close(self._last_message_s)
        self._arm()

    def _check_idle(self) -> None:
        left_s = self._last_message_s + _IDLE_LIMIT_S - self._loop.time()
        if left_s > 0:
            self._idle_timer = self._loop.call_later(left_s, self._check_idle)
        elif self._state is _State.LISTENING:
            self._stats["idle_closed"] += 1
            self._leave(1011, _IDLE_REASON)

    # --- Free speech (`LineListener`)

    def recognition_began(self) -> None:
        """Hold Finalize until this speech is recognised."""
        self._recognitions += 1
        self._transcript.expect(math.inf)

    def recognition_ended(self) -> None:
        """The speaker paused: the words must come soon."""
        self._transcript.expect(self._loop.time() + _RECOGNITION_LIMIT_S)
        self._arm()

    def guessed(self, words: Sequence[HeardWord]) -> None:
        """Show words in the next interim."""
        self._transcript.guess(words)

    def recognised(self, words: Sequence[HeardWord]) -> None:
        """Take the words; Finalize may be answered."""
        self._recognitions -= 1
        self._transcript.settle(self._loop.time(), () if self._is_wordless else words)
        if self._recognitions:
            self._transcript.expect(self._loop.time() + _RECOGNITION_LIMIT_S)
        self._arm()

    # --- What the client is told

    def _arm(self) -> None:
        """Have the writer woken at the next due time; a timer that fires earlier does the same again."""
        due_s = self._transcript.due_s
        if due_s is None or due_s == math.inf or (self._timer is not None and self._timer_due_s <= due_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._fire)
        self._timer_due_s = due_s  # uvloop's handles cannot say it

    def _fire(self) -> None:
        self._timer = None
        self._wake.set()

    def _say_at_once(self, message: dict[str, Any] | str) -> None:
        self._urgent.append(message)
        self._wake.set()

    def _leave(self, code: int, reason: str) -> None:
        self._state = _State.CLOSING
        self._goodbye = (code, reason.encode())
        self._wake.set()

    async def _tell(self) -> None:
        try:
            while not self._socket.closed:
                await self._wake.wait()
                self._wake.clear()
                if self._state is not _State.MUTE:
                    async with asyncio.timeout(_SEND_LIMIT_S):
                        await self._tell_due()
        except (TimeoutError, ConnectionError):
            self._cut()  # the client is gone or does not read; the reader notices

    async def _tell_due(self) -> None:
        urgent, self._urgent = self._urgent, []
        for message in urgent:
            await self._send(message)
        if self._goodbye is not None:
            await self._say_goodbye(*self._goodbye)
            return
        for event in self._transcript.advance(self._loop.time()):
            if isinstance(event, Ended):
                await self._send(self._writer.metadata(self._sha256.hexdigest(), self._ears.audio_s))
                await self._say_goodbye(1000, b"")
                return
            self._count(event)
            await self._send(self._writer.event(event))
        self._arm()

    async def _say_goodbye(self, code: int, reason: bytes) -> None:
        """Close; the client's own close frame is waited for, which needs the reader out of the way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._socket.close(code=code, message=reason)

    async def _send(self, message: dict[str, Any] | str) -> None:
        data = message.encode() if isinstance(message, str) else orjson.dumps(message)
        await self._socket.send_frame(data, WSMsgType.TEXT)

    def _count(self, event: Event) -> None:
        if isinstance(event, Result):
            self._stats["finals" if event.is_final else "interims"] += 1
            self._stats["words"] += len(event.words) if event.is_final else 0
