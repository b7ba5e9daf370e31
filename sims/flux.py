"""Deepgram's Flux socket (`WS /v2/listen`) on loopback: a transcriber that decides where turns end.

It hears what `/v1/listen` hears (`live_stream`). What is told when decides the pure `flux_turns`; this module is the
wire: the query, the JSON, the control messages. Who is let in, and which faults hit, decides `deepgram`.

Not acted out: other encodings than linear16 and mulaw, numerals, redaction, keyterms and other languages than
English; the options are taken and answered.

Source: deepgram-sdk 7.17 (`deepgram.listen.v2`), developers.deepgram.com/docs/flux, captures of Pipecat 1.14.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from multidict import MultiMapping
from pydantic import BaseModel, Field, ValidationError, model_validator

from sims.faults import FaultKind
from sims.flux_turns import Closed, Configured, Event, FluxTranscript, FluxTurns, NoTurn, Thresholds, TurnInfo
from sims.live_stream import LiveStream, StreamParts, StreamState
from sims.spoken import Encoding, HeardWord

_REPEATED = ("keyterm", "language_hint", "tag")
_MOST_KEYTERMS = 100


class FluxQuery(BaseModel, frozen=True):
    """The query of `/v2/listen` as far as it is acted out; unknown keys are ignored, as Deepgram does."""

    model: Literal["flux-general-en", "flux-general-multi"]
    encoding: Encoding
    sample_rate: int = Field(ge=8000, le=48000)
    eager_eot_threshold: float | None = Field(default=None, ge=0.3, le=0.9)
    eot_threshold: float = Field(default=0.7, ge=0.5, le=1.0)
    eot_timeout_ms: int = Field(default=5000, ge=500, le=60000)
    keyterm: tuple[str, ...] = Field(default=(), max_length=_MOST_KEYTERMS)
    language_hint: tuple[str, ...] = ()
    numerals: bool = False

    @classmethod
    def read(cls, query: MultiMapping[str]) -> Self:
        """Check a query string.

        Raises:
            ValidationError: If Deepgram would refuse it.
        """
        lists = {name: tuple(query.getall(name)) for name in _REPEATED if name in query}
        return cls.model_validate({**dict(query), **lists})

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.eager_eot_threshold is not None and self.eager_eot_threshold > self.eot_threshold:
            raise ValueError("eager_eot_threshold must be less than or equal to eot_threshold.")
        return self

    @property
    def thresholds(self) -> Thresholds:
        """When turns end, in seconds."""
        return Thresholds(self.eot_threshold, self.eager_eot_threshold, self.eot_timeout_ms / 1000)

    def configured(self, message: Mapping[str, Any]) -> Self:
        """Return the options after a `Configure`: what it leaves out stays, lists are replaced.

        Raises:
            ValidationError: If Deepgram would not take them.
        """
        thresholds = dict(message.get("thresholds") or {})
        names = {"keyterms": "keyterm", "language_hints": "language_hint", "numerals": "numerals"}
        changes = {field: message.get(name) for name, field in names.items()}
        given = {name: value for name, value in {**thresholds, **changes}.items() if value is not None}
        if "eager_eot_threshold" in thresholds:  # null turns predictions off
            given["eager_eot_threshold"] = thresholds["eager_eot_threshold"]
        return self.model_validate({**self.model_dump(), **given})


class FluxStream(LiveStream):
    """One socket of version 2: `Connected` first, then turns.

    LISTENING --CloseStream | idle | unreadable text--> CLOSING --told everything--> closed
    """

    def __init__(self, parts: StreamParts, query: FluxQuery, request_id: str, *, update_s: float) -> None:
        """Create the stream; `run` serves it.

        Args:
            parts: The socket and what belongs to it.
            query: What the client asked for.
            request_id: Names the stream in its messages.
            update_s: Audio time between two updates.
        """
        fault = parts.fault
        turns = FluxTurns(
            query.thresholds,
            update_s=update_s,
            starts_on_sound=fault is not None and fault.kind is FaultKind.EMPTY,
        )
        self._transcript = FluxTranscript(turns, parts.latency_s)
        super().__init__(parts, self._transcript)
        self._query = query
        self._wanted = query
        self._request_id = request_id
        self._sequence_id = 0
        is_dead = fault is not None and fault.kind is FaultKind.HANG_AFTER_FIRST_BYTE and fault.after_s == 0
        if not is_dead:
            self.say_at_once({"type": "Connected"})

    def hear(self, audio: bytes, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Take audio; without words a turn has speech and no text."""
        del audio
        self._transcript.hear(self.last_message_s, self.ears.audio_s, words, is_speaking=is_speaking)

    def hear_nothing(self) -> None:
        """Ignore an empty frame."""

    def obey(self, text: str, message: object) -> None:
        """Act on a control message; version 2 knows no KeepAlive and no Finalize."""
        match message:
            case {"type": "Configure", **options}:
                self._configure(options)
            case {"type": "ForceEndTurn"}:
                self.ears.line.finish()
                self._transcript.force(self.last_message_s)
            case {"type": "CloseStream"}:
                self.state = StreamState.CLOSING
                self.ears.line.finish()
                self._transcript.close(self.last_message_s)
            case _:
                self.stats["unreadable"] += 1
                kind = message.get("type") if isinstance(message, dict) else text[:80]
                reason = f"Could not deserialize last text message: unknown variant `{kind}`"
                self._fail("UNPARSABLE_CLIENT_MESSAGE", reason)

    def leave_idle(self) -> None:
        """Say why, then close."""
        self._fail("INACTIVE_CLIENT", "No audio was received within the timeout window.", 1011)

    async def tell(self, now_s: float) -> None:
        """Send what is due; nothing sums up the stream."""
        for event in self._transcript.advance(now_s):
            if isinstance(event, Closed):
                await self.say_goodbye(None)
                return
            await self.send(self._message(event))

    async def send(self, message: dict[str, Any] | str) -> None:
        """Number a message and send it."""
        if isinstance(message, dict):
            message = {**message, "sequence_id": self._sequence_id}
            if message["type"] != "Error":
                message["request_id"] = self._request_id
            self._sequence_id += 1
        await super().send(message)

    def _configure(self, options: Mapping[str, Any]) -> None:
        try:
            self._wanted = self._wanted.configured(options)
        except (TypeError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "malformed"
            self.say_at_once({"type": "ConfigureFailure", "code": "INVALID_CONFIGURE", "description": reason})
            return
        self._transcript.configure(self.last_message_s, self._wanted.thresholds)

    def _fail(self, code: str, description: str, close_code: int | None = None) -> None:
        self.say_at_once({"type": "Error", "code": code, "description": description})
        self.leave(close_code)

    def _message(self, event: Event) -> dict[str, Any]:
        match event:
            case TurnInfo():
                self.stats[event.event.value] += 1
                return self._turn_info(event)
            case Configured():
                return self._configure_success(event.thresholds)
            case NoTurn():
                return {
                    "type": "Warning",
                    "code": "FORCE_END_TURN_NO_ACTIVE_TURN",
                    "description": "ForceEndTurn was ignored: no turn is active.",
                }
            case Closed():
                raise ValueError("the end of a stream has no message")

    def _configure_success(self, thresholds: Thresholds) -> dict[str, Any]:
        shown = {"eot_threshold": thresholds.eot, "eot_timeout_ms": round(thresholds.timeout_s * 1000)}
        if thresholds.eager is not None:
            shown["eager_eot_threshold"] = thresholds.eager
        answer: dict[str, Any] = {
            "type": "ConfigureSuccess",
            "thresholds": shown,
            "keyterms": list(self._wanted.keyterm),
            "numerals": self._wanted.numerals,
        }
        if self._is_multilingual:
            answer["language_hints"] = list(self._wanted.language_hint)
        return answer

    def _turn_info(self, info: TurnInfo) -> dict[str, Any]:
        message: dict[str, Any] = {
            "type": "TurnInfo",
            "event": info.event.value,
            "turn_index": info.turn_index,
            "audio_window_start": round(info.window_start_s, 3),
            "audio_window_end": round(info.window_end_s, 3),
            "transcript": info.transcript,
            "words": [_word(word) for word in info.words],
            "end_of_turn_confidence": round(info.confidence, 4),
        }
        if info.trigger is not None:
            message["trigger"] = info.trigger.value
        if self._is_multilingual:
            message["languages"] = ["en"] if info.words else []
            if self._wanted.language_hint:
                message["languages_hinted"] = list(self._wanted.language_hint)
        return message

    @property
    def _is_multilingual(self) -> bool:
        return self._query.model == "flux-general-multi"


def _word(word: HeardWord) -> dict[str, Any]:
    return {
        "word": word.text,
        "confidence": word.confidence,
        "start": round(word.start_s, 3),
        "end": round(word.end_s, 3),
    }
