"""AssemblyAI's streaming socket, version 3 (`WS /v3/ws`), on loopback.

It hears what a real one would (`live_stream`). What is told when decides the pure `assemblyai_turns`; this module is
the wire: handshake, JSON, error codes, faults. It never looks at a call or a scenario.

Who is not let in is told so over the socket: an `Error`, and a close with the same code.

Not acted out: other encodings than PCM and mu-law, diarization, languages, prompts and carried context (all are taken),
PII redaction, confidence in the end of a turn, the limit of audio ahead of its time (five minutes).

Source: assemblyai.com/docs/streaming (message-sequence, common-session-errors-and-closures, turn-detection),
assemblyai 1.8.2 (`assemblyai.streaming.v3`), Pipecat 1.14 (`pipecat.services.assemblyai.stt`).
"""

import asyncio
import string
import time
import uuid
from collections.abc import Sequence
from typing import Any, Self

import orjson
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError, model_validator

from sims.assemblyai_turns import SpeechStarted, Terminated, Turn, TurnRules, TurnTranscript
from sims.faults import FaultKind, FaultSpec
from sims.free_speech import FreeSpeech
from sims.live_stream import Ears, LiveStream, StreamParts, StreamState, leave_unanswered
from sims.profiles import Profile
from sims.spoken import Encoding, HeardWord, SpokenIndex
from sims.vendor import VendorSim

SESSION_LIMIT_S = 10_800.0
_SHORTEST_MS, _LONGEST_MS = 50, 1000
"""Of one piece of audio."""
_ENCODINGS = {"pcm_s16le": Encoding.LINEAR16, "pcm_mulaw": Encoding.MULAW}
_PRO = ("u3-rt-pro", "universal-3-5-pro", "universal-3-6-pro")
_WORDWISE = ("universal-streaming-english", "universal-streaming-multilingual")
_REFUSALS = {
    FaultKind.UNAUTHORIZED: (1008, "Unauthorized Connection: Missing Authorization header"),
    FaultKind.RATE_LIMITED: (3009, "Unauthorized Connection: Too many concurrent sessions"),
    FaultKind.SERVER_ERROR: (3005, "Session Cancelled: An error occurred"),
}


class SessionQuery(BaseModel, frozen=True):
    """The query of `/v3/ws` as far as it is acted out; unknown keys are ignored."""

    speech_model: str
    sample_rate: int = Field(default=16000, ge=8000, le=48000)
    encoding: str = "pcm_s16le"
    format_turns: bool = False
    min_turn_silence: int | None = Field(default=None, ge=0)
    max_turn_silence: int | None = Field(default=None, ge=0)
    continuous_partials: bool = True
    inactivity_timeout: int | None = Field(default=None, ge=5, le=3600)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"Invalid encoding: {self.encoding}")
        if not self.speech_model.startswith((*_PRO, *_WORDWISE)):
            raise ValueError(f"Invalid speech_model: {self.speech_model}")
        return self

    @property
    def rules(self) -> TurnRules:
        """Return what the turns need of it, in seconds."""
        is_wordwise = self.speech_model in _WORDWISE
        usual_min_ms, usual_max_ms = (400, 1280) if is_wordwise else (100, 1000)
        least_ms = usual_min_ms if self.min_turn_silence is None else self.min_turn_silence
        most_ms = usual_max_ms if self.max_turn_silence is None else self.max_turn_silence
        return TurnRules(
            shows_words=is_wordwise,
            formats=self.format_turns,
            min_silence_s=least_ms / 1000,
            max_silence_s=max(least_ms, most_ms) / 1000,
            continues=self.continuous_partials,
        )


class AssemblyAISim(VendorSim):
    """AssemblyAI on one loopback port.

    Faults: `401`, `429`, `500` are told over the socket, before anything else; `refuse` and `hang_before_first_byte`
    never answer the upgrade; after `after_s` of audio `hang_after_first_byte` goes silent with the socket open (0 for
    one that is dead from the start), `close_mid_stream` cuts it (1006), `garbage` sends text that is not JSON;
    `trickle` transcribes at a fifth of real time; `empty` hears no words.
    """

    name = "assemblyai"
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
    ) -> None:
        """Create a stopped sim; see `DeepgramSim`."""
        super().__init__(profile, seed=seed)
        self._spoken = SpokenIndex() if spoken_index is None else spoken_index
        self._api_key = api_key
        self._free_speech = free_speech or FreeSpeech()
        self._sockets: set[web.WebSocketResponse] = set()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the socket."""
        router.add_get("/v3/ws", self._serve)

    async def stop(self) -> None:
        """Tell every client that the server goes away, then close the port and the recogniser."""
        closing = [socket.close(code=1001, message=b"server shutting down") for socket in self._sockets]
        await asyncio.gather(*closing, return_exceptions=True)
        await self._free_speech.close()
        await super().stop()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.stats["connects"] += 1
        fault = self.faults.take(keyterms=_keyterms(request))
        if fault is not None and fault.kind in (FaultKind.REFUSE, FaultKind.HANG_BEFORE_FIRST_BYTE):
            await leave_unanswered(request, hangs=fault.kind is not FaultKind.REFUSE)
            return web.Response(status=503)
        socket = web.WebSocketResponse(timeout=1.0, compress=False, max_msg_size=2**20)
        await socket.prepare(request)
        refusal = self._refusal(request, fault)
        try:
            query = SessionQuery.model_validate(dict(request.query))
        except ValidationError as error:
            refusal = refusal or (3006, f"Invalid Message: {error.errors()[0]['msg']}")
            query = None
        if refusal is not None or query is None:
            self.stats["refused"] += 1
            await _refuse(socket, *(refusal or (3006, "Invalid Message")))
            return socket
        self._sockets.add(socket)
        self.stats["sessions"] += 1
        try:
            await _Session(self._parts(socket, request, query, fault), query).run()
        finally:
            self._sockets.discard(socket)
        return socket

    def _refusal(self, request: web.Request, fault: FaultSpec | None) -> tuple[int, str] | None:
        if fault is not None and fault.kind in _REFUSALS:
            return _REFUSALS[fault.kind]
        key = request.headers.get("Authorization") or request.query.get("token")
        if not key or (self._api_key is not None and key != self._api_key):
            return _REFUSALS[FaultKind.UNAUTHORIZED]
        return None

    def _parts(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        query: SessionQuery,
        fault: FaultSpec | None,
    ) -> StreamParts:
        profile = self.profile  # a session keeps the profile it began with
        return StreamParts(
            socket,
            cut=request.transport.abort if request.transport else lambda: None,
            ears=Ears(_ENCODINGS[query.encoding], query.sample_rate, self._spoken, self._free_speech),
            draw_latency_s=lambda: profile.delay(profile.stt_final_s, self.rng),
            idle_limit_s=query.inactivity_timeout or SESSION_LIMIT_S,
            speed=profile.stt_speed,
            fault=fault,
            stats=self.stats,
        )


def _keyterms(request: web.Request) -> Sequence[str]:
    try:
        return [str(term) for term in orjson.loads(request.query.get("keyterms_prompt", "[]"))]
    except (orjson.JSONDecodeError, TypeError):
        return ()


async def _refuse(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    await socket.send_json({"type": "Error", "error_code": code, "error": reason})
    await socket.close(code=code, message=reason.encode()[:123])


class _Session(LiveStream):
    """One socket: `Begin` first, then turns.

    LISTENING --Terminate | idle | unreadable message | wrong piece of audio--> CLOSING --told everything--> closed
    """

    def __init__(self, parts: StreamParts, query: SessionQuery) -> None:
        self._turns = TurnTranscript(query.rules, parts.latency_s)
        super().__init__(parts, self._turns)
        self._query = query
        self._began_s = time.monotonic()
        fault = parts.fault
        is_dead = fault is not None and fault.kind is FaultKind.HANG_AFTER_FIRST_BYTE and fault.after_s == 0
        if not is_dead:
            self.say_at_once(
                {
                    "type": "Begin",
                    "id": str(uuid.uuid4()),
                    "expires_at": int(time.time() + SESSION_LIMIT_S),
                    "configuration": {"model": query.speech_model},
                }
            )

    def hear(self, audio: bytes, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Take one piece of audio."""
        length_ms = round(self.ears.length_s(len(audio)) * 1000)
        if not _SHORTEST_MS <= length_ms <= _LONGEST_MS:
            expected = f"Expected between {_SHORTEST_MS} and {_LONGEST_MS} ms"
            self._fail(3007, f"Input Duration Error: Input duration violation: {length_ms} ms. {expected}")
            return
        is_heard = is_speaking and not self.is_wordless
        self._turns.hear(self.last_message_s, self.ears.audio_s, words, is_speaking=is_heard)

    def hear_nothing(self) -> None:
        """An empty piece is too short."""
        self._fail(3007, "Input Duration Error: Input duration violation: 0 ms.")

    def obey(self, text: str, message: object) -> None:
        """Act on a control message."""
        match message:
            case {"type": "KeepAlive"}:
                pass
            case {"type": "UpdateConfiguration"}:
                self.stats["updates"] += 1
            case {"type": "ForceEndpoint"}:
                self.stats["forced"] += 1
                self.ears.line.finish()
                self._turns.force(self.last_message_s)
            case {"type": "Terminate"}:
                self.state = StreamState.CLOSING
                self.ears.line.finish()
                self._turns.close(self.last_message_s)
            case {"type": kind}:
                self._fail(3006, f"Invalid Message Type: {kind}")
            case None:
                self._fail(3006, f"Invalid JSON: {text[:80]}")
            case _:
                self._fail(3006, f"Invalid Message: {text[:80]}")

    def leave_idle(self) -> None:
        """Close as AssemblyAI does when it was asked to."""
        self._fail(3008, "Session Expired: Inactivity timeout exceeded")

    async def tell(self, now_s: float) -> None:
        """Send what is due; the last thing is the summary."""
        for event in self._turns.advance(now_s):
            match event:
                case SpeechStarted(at_s):
                    await self.send({"type": "SpeechStarted", "timestamp": round(at_s * 1000)})
                case Turn():
                    self.stats["finals" if event.is_end else "partials"] += 1
                    await self.send(self._turn(event))
                case Terminated():
                    self.stats["terminated"] += 1
                    await self.send(self._termination())
                    await self.say_goodbye(1000)
                    return

    def _fail(self, code: int, reason: str) -> None:
        self.stats["failed"] += 1
        self.say_at_once({"type": "Error", "error_code": code, "error": reason})
        self.leave(code, reason[:123])

    def _termination(self) -> dict[str, Any]:
        return {
            "type": "Termination",
            "audio_duration_seconds": round(self.ears.audio_s),
            "session_duration_seconds": round(time.monotonic() - self._began_s),
        }

    def _turn(self, turn: Turn) -> dict[str, Any]:
        is_written = turn.is_formatted or not self._query.rules.shows_words
        words = [_word(word, is_written, at < turn.finals) for at, word in enumerate(turn.words)]
        shown = words[: turn.finals] if self._query.rules.shows_words else words
        transcript = " ".join(word["text"] for word in shown)
        return {
            "type": "Turn",
            "turn_order": turn.order,
            "turn_is_formatted": turn.is_formatted,
            "end_of_turn": turn.is_end,
            "transcript": transcript,
            "utterance": transcript if turn.is_end else "",
            "end_of_turn_confidence": 1.0 if turn.is_end else 0.1,
            "words": words,
        }


def _word(word: HeardWord, is_written: bool, is_final: bool) -> dict[str, Any]:
    plain = word.text.strip(string.punctuation).lower() or word.text.lower()
    return {
        "start": round(word.start_s * 1000),
        "end": round(word.end_s * 1000),
        "text": word.text if is_written else plain,
        "confidence": word.confidence,
        "word_is_final": is_final,
    }
