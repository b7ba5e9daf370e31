"""Deepgram on loopback: who is let in to its live sockets, and the first of them (`WS /v1/listen`).

It hears what a real one would (`live_stream`). When something is said decides the pure `transcript`; this module is
the wire: handshake, JSON, close codes, faults. `/v2/listen` is `flux`. It never looks at a call or a scenario.

Not acted out: other encodings than linear16 and mulaw, several channels, diarization, numerals (numbers stay as the
script spells them), redaction, and keyterms. Whole files are `deepgram_recorded`.

Source: deepgram-sdk 7.17 (`deepgram.listen.v1`), developers.deepgram.com/docs, captures of Pipecat 1.14.
"""

import asyncio
import hashlib
import string
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError, field_validator

from sims.deepgram_recorded import UnreadableAudioError, hear_all, read_wav
from sims.deepgram_recorded import response as recorded_response
from sims.faults import FaultKind, FaultSpec
from sims.flux import FluxQuery, FluxStream
from sims.free_speech import FreeSpeech
from sims.live_stream import Ears, LiveStream, StreamParts, StreamState, leave_unanswered
from sims.profiles import Profile
from sims.spoken import Encoding, HeardWord, SpokenIndex
from sims.transcript import Ended, Event, LiveTranscript, Result, Rules, SpeechStarted, UtteranceEnd
from sims.vendor import VendorSim

_IDLE_LIMIT_S = 10.0
_IDLE_REASON = (
    "Deepgram did not receive audio data or a text message within the timeout window. "
    "See https://dpgr.am/net0001"
)
_MODEL_UUID = "3b3a5a50-7a0e-4f0f-9d6f-7f1f4c8a0001"

QueryT = TypeVar("QueryT", "ListenQuery", FluxQuery)


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
    supported_faults = frozenset(FaultKind) - {FaultKind.OVERLOADED, FaultKind.SLOW_FIRST_BYTE}

    def __init__(
        self,
        profile: Profile,
        *,
        spoken_index: SpokenIndex | None = None,
        seed: int = 0,
        api_key: str | None = None,
        free_speech: FreeSpeech | None = None,
        also: Callable[[web.UrlDispatcher], None] | None = None,
    ) -> None:
        """Create a stopped sim.

        Args:
            profile: Timing.
            spoken_index: What scripted callers say; None knows nobody.
            seed: Seed of delays and random faults.
            api_key: The only right key; None takes any.
            free_speech: Recogniser for what no script explains, closed with the sim; None makes one, which starts
                its process at the first such speech.
            also: Registers what Deepgram has on the same address: `AuraSim.add_speech`.
        """
        super().__init__(profile, seed=seed)
        self._spoken = SpokenIndex() if spoken_index is None else spoken_index
        self._api_key = api_key
        self._also = also
        self._free_speech = free_speech or FreeSpeech()
        self._sockets: set[web.WebSocketResponse] = set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register both versions of the live socket."""
        router.add_get("/v1/listen", self._listen_v1)
        router.add_get("/v2/listen", self._listen_v2)
        router.add_post("/v1/listen", self._transcribe)
        if self._also is not None:
            self._also(router)

    async def stop(self) -> None:
        """Tell every client that the server goes away, then close the port and the recogniser."""
        closing = [socket.close(code=1001, message=b"server shutting down") for socket in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)
        await self._free_speech.close()
        await super().stop()

    async def _transcribe(self, request: web.Request) -> web.StreamResponse:
        """Transcribe a whole file; the faults of a handshake are those of its answer."""
        self.stats["files"] += 1
        request_id = str(uuid.uuid4())
        fault = self.faults.take()
        if fault is not None and fault.kind in (FaultKind.REFUSE, FaultKind.HANG_BEFORE_FIRST_BYTE):
            await leave_unanswered(request, hangs=fault.kind is not FaultKind.REFUSE)
            return web.Response(status=503)
        refusal = self._refusal(request, fault)
        if refusal is not None:
            return self._refuse(refusal, request_id)
        body = await request.read()
        try:
            pcm = read_wav(body)
        except UnreadableAudioError as error:
            return self._refuse(_Refusal(400, "Bad Request", str(error)), request_id)
        words = hear_all(pcm, self._spoken)
        await asyncio.sleep(self.profile.delay(self.profile.stt_final_s, self.rng))
        answer = recorded_response(
            body, words, duration_s=len(pcm) / 16000, request_id=request_id,
            model=request.query.get("model", "base-general"),
        )  # fmt: skip
        return web.json_response(answer, headers={"dg-request-id": request_id})

    async def _listen_v1(self, request: web.Request) -> web.StreamResponse:
        def read() -> ListenQuery:
            return ListenQuery.model_validate(dict(request.query))

        def make(query: ListenQuery, parts: StreamParts, request_id: str, profile: Profile) -> LiveStream:
            return _Stream(parts, _MessageWriter(query, request_id), query.rules(profile.stt_interim_s))

        return await self._listen(request, read, make)

    async def _listen_v2(self, request: web.Request) -> web.StreamResponse:
        def read() -> FluxQuery:
            return FluxQuery.read(request.query)

        def make(query: FluxQuery, parts: StreamParts, request_id: str, profile: Profile) -> LiveStream:
            return FluxStream(parts, query, request_id, update_s=profile.stt_interim_s)

        return await self._listen(request, read, make)

    async def _listen(
        self,
        request: web.Request,
        read_query: Callable[[], QueryT],
        make_stream: Callable[[QueryT, StreamParts, str, Profile], LiveStream],
    ) -> web.StreamResponse:
        self.stats["connects"] += 1
        request_id = str(uuid.uuid4())
        fault = self.faults.take(keyterms=request.query.getall("keyterm", []))
        if fault is not None and fault.kind in (FaultKind.REFUSE, FaultKind.HANG_BEFORE_FIRST_BYTE):
            await leave_unanswered(request, hangs=fault.kind is not FaultKind.REFUSE)
            return web.Response(status=503)
        refusal = self._refusal(request, fault)
        if refusal is not None:
            return self._refuse(refusal, request_id)
        try:
            query = read_query()
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
            profile = self.profile  # a stream keeps the profile it began with
            parts = self._stream_parts(socket, request, query, fault, profile)
            await make_stream(query, parts, request_id, profile).run()
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

    def _stream_parts(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        query: ListenQuery | FluxQuery,
        fault: FaultSpec | None,
        profile: Profile,
    ) -> StreamParts:
        return StreamParts(
            socket,
            cut=request.transport.abort if request.transport else lambda: None,
            ears=Ears(query.encoding, query.sample_rate, self._spoken, self._free_speech),
            draw_latency_s=lambda: profile.delay(profile.stt_final_s, self.rng),
            idle_limit_s=_IDLE_LIMIT_S,
            speed=profile.stt_speed,
            fault=fault,
            stats=self.stats,
        )


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
    if not first["loc"]:
        return _Refusal(400, "Bad Request", first["msg"].removeprefix("Value error, "))
    name = first["loc"][0]
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


class _Stream(LiveStream):
    """One socket of version 1.

    LISTENING --CloseStream | empty frame | idle | unreadable text--> CLOSING --told everything--> closed
    """

    def __init__(self, parts: StreamParts, writer: _MessageWriter, rules: Rules) -> None:
        self._transcript = LiveTranscript(rules, parts.latency_s)
        super().__init__(parts, self._transcript)
        self._writer = writer
        self._sha256 = hashlib.sha256()

    def hear(self, audio: bytes, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Transcribe; a fault that hears no words hears nobody speaking either."""
        self._sha256.update(audio)
        self._transcript.hear(
            self.last_message_s, self.ears.audio_s, words, is_speaking=is_speaking and not self.is_wordless
        )

    def hear_nothing(self) -> None:
        """Take an empty frame for the end of the stream."""
        self._close()

    def obey(self, text: str, message: object) -> None:
        """Act on a control message."""
        match message:
            case {"type": "KeepAlive"}:
                pass
            case {"type": "Finalize"}:
                self.stats["finalizes"] += 1
                self.ears.line.finish()
                self._transcript.finalize(self.last_message_s)
            case {"type": "CloseStream"}:
                self._close()
            case {"type": "Configure", **rest}:
                self.say_at_once(self._writer.configured(rest.get("keyterms")))
            case _:
                self.stats["unreadable"] += 1
                self.say_at_once(self._writer.unreadable(text))
                self.leave(1008, "Could not deserialize last text message.")

    def leave_idle(self) -> None:
        """Close as Deepgram does after ten seconds."""
        self.leave(1011, _IDLE_REASON)

    def _close(self) -> None:
        self.state = StreamState.CLOSING
        self.ears.line.finish()
        self._transcript.close(self.last_message_s)
        self.arm()

    async def tell(self, now_s: float) -> None:
        """Send what is due; the last thing is the summary."""
        for event in self._transcript.advance(now_s):
            if isinstance(event, Ended):
                await self.send(self._writer.metadata(self._sha256.hexdigest(), self.ears.audio_s))
                await self.say_goodbye(1000)
                return
            self._count(event)
            await self.send(self._writer.event(event))

    def _count(self, event: Event) -> None:
        if isinstance(event, Result):
            self.stats["finals" if event.is_final else "interims"] += 1
            self.stats["words"] += len(event.words) if event.is_final else 0
