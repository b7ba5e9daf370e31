"""Twilio's media-stream protocol: messages in, typed events out, messages back.

Sits between the media WebSocket and the transport. Pure: no socket, no clock (`now_s` comes in), no Pipecat.
Nothing a peer sends makes it raise: what is wrong is dropped, counted per kind and logged once per stream.

Source: Twilio, Media Streams - WebSocket messages.
"""

import binascii
import enum
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from loguru import logger

from telephony.ulaw import SAMPLE_RATE_HZ

MAX_MESSAGE_CHARS: Final = 64 * 1024
"""Longest message read; Twilio's own are about 350 characters."""

FLOOD_RATE: Final = 2.0
"""Seconds of media accepted per second, in the long run."""

FLOOD_BURST_S: Final = 10.0
"""Seconds of media accepted at once: what piles up while the network stalls."""

_MIN_CHARGE_S = 0.01  # what a message costs at least, so that empty ones cannot flood either
_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # they name files and stand unescaped in JSON
_DIGITS = frozenset("0123456789*#ABCD")
_MAX_NUMBER_CHARS = 15


class StreamState(enum.Enum):
    """Where the conversation on one media socket is."""

    AWAIT_CONNECTED = "await_connected"
    AWAIT_START = "await_start"
    LIVE = "live"
    STOPPED = "stopped"


class MediaFault(enum.StrEnum):
    """Why a message was dropped."""

    BINARY_FRAME = "binary_frame"
    OVERSIZED = "oversized"
    FLOOD = "flood"
    MALFORMED_JSON = "malformed_json"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_EVENT = "unknown_event"
    OUT_OF_ORDER = "out_of_order"
    MEDIA_BEFORE_START = "media_before_start"
    SECOND_START = "second_start"
    AFTER_STOP = "after_stop"
    BAD_FIELD = "bad_field"
    BAD_BASE64 = "bad_base64"
    WRONG_STREAM = "wrong_stream"
    WRONG_TRACK = "wrong_track"
    WRONG_FORMAT = "wrong_format"


@dataclass(frozen=True, slots=True)
class ConnectedEvent:
    """The socket is Twilio's; nothing can be sent yet."""


@dataclass(frozen=True, slots=True)
class StartEvent:
    """The stream is live: media may flow both ways, mu-law 8 kHz mono (any other format is a fault)."""

    stream_sid: str
    call_sid: str
    account_sid: str
    custom_parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    """What the TwiML carried as `<Parameter>`."""


@dataclass(frozen=True, slots=True)
class MediaEvent:
    """A piece of the caller's audio."""

    ulaw: bytes
    """Mu-law, 8 kHz mono; 160 bytes (20 ms) as a rule, any length in principle."""
    timestamp_ms: int
    """Presentation time from the start of the stream."""


@dataclass(frozen=True, slots=True)
class DtmfEvent:
    """The caller pressed a key: one of 0-9, *, #, A-D."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkEvent:
    """All audio sent before this mark was played, or thrown away by a `clear`."""

    name: str


@dataclass(frozen=True, slots=True)
class StopEvent:
    """The stream or the call ended; nothing follows."""


MediaStreamEvent = ConnectedEvent | StartEvent | MediaEvent | DtmfEvent | MarkEvent | StopEvent


class _DroppedMessage(Exception):  # noqa: N818 - not an error: it carries a verdict inside this module
    def __init__(self, fault: MediaFault, detail: str = "") -> None:
        super().__init__(fault, detail)
        self.fault = fault
        self.detail = detail


class FloodGate:
    """Token bucket over seconds of audio, so that a peer cannot send much faster than people speak.

    A charge may overdraw it once; it then stays shut until refilled.
    """

    def __init__(self, *, rate: float = FLOOD_RATE, burst_s: float = FLOOD_BURST_S) -> None:
        """Create a full bucket.

        Args:
            rate: Seconds of audio let in per second, > 0.
            burst_s: Seconds of audio let in at once, > 0.

        Raises:
            ValueError: If either is not positive.
        """
        if rate <= 0 or burst_s <= 0:
            raise ValueError(f"rate and burst_s must be > 0, got {rate} and {burst_s}")
        self._rate = rate
        self._burst_s = burst_s
        self._level_s = burst_s
        self._filled_at_s: float | None = None

    def is_open(self, now_s: float) -> bool:
        """Refill for the time that passed and say whether one more message may come in."""
        elapsed_s = 0.0 if self._filled_at_s is None else max(0.0, now_s - self._filled_at_s)
        self._filled_at_s = now_s
        self._level_s = min(self._burst_s, self._level_s + elapsed_s * self._rate)
        return self._level_s > 0

    def charge(self, audio_s: float) -> None:
        """Take what a message that came in costs."""
        self._level_s -= max(audio_s, _MIN_CHARGE_S)


class MediaStream:
    """One media socket's conversation.

    AWAIT_CONNECTED --connected--> AWAIT_START --start--> LIVE --stop--> STOPPED
    LIVE --media | dtmf | mark--> LIVE
    anything else: dropped, a `MediaFault`, no change of state
    """

    def __init__(self, *, gate: FloodGate | None = None, max_message_chars: int = MAX_MESSAGE_CHARS) -> None:
        """Create the conversation before its first message.

        Args:
            gate: Flood control; its defaults allow twice real time and 10 s at once.
            max_message_chars: Longer messages are dropped unread.
        """
        self.faults: Counter[MediaFault] = Counter()
        """Dropped messages by reason."""
        self.stream_sid: str | None = None
        """Set by `start`."""
        self._state = StreamState.AWAIT_CONNECTED
        self._gate = gate or FloodGate()
        self._max_message_chars = max_message_chars
        self._media_head = ""
        self._tail = ""

    @property
    def state(self) -> StreamState:
        """Where the conversation is."""
        return self._state

    def receive(self, message: str | bytes, now_s: float) -> MediaStreamEvent | None:
        """Read one WebSocket message.

        Args:
            message: Text frame as str; binary frame as bytes (always a fault).
            now_s: Any monotonic clock.

        Returns:
            The event, or None when the message was dropped (see `faults`).
        """
        if not self._gate.is_open(now_s):
            return self.count(MediaFault.FLOOD)
        try:
            event = self._read(message)
        except _DroppedMessage as dropped:
            self._gate.charge(0.0)
            return self.count(dropped.fault, dropped.detail)
        self._gate.charge(len(event.ulaw) / SAMPLE_RATE_HZ if type(event) is MediaEvent else 0.0)
        return event

    def media(self, ulaw: bytes) -> str:
        """Return the message that plays audio after all audio sent before.

        Args:
            ulaw: Mu-law, 8 kHz mono, no header; whole 20 ms (160 bytes), best 20 to 400 ms.

        Raises:
            ValueError: If `ulaw` is empty.
            RuntimeError: If the stream has not started.
        """
        if not ulaw:
            raise ValueError("ulaw must not be empty")
        self._require_started()
        return f"{self._media_head}{binascii.b2a_base64(ulaw, newline=False).decode('ascii')}{self._tail}"

    def mark(self, name: str) -> str:
        """Return the message that asks for `name` back once the audio before it was played.

        Raises:
            RuntimeError: If the stream has not started.
        """
        return self._message("mark", {"mark": {"name": name}})

    def clear(self) -> str:
        """Return the message that throws away unplayed audio; pending marks come back at once.

        Raises:
            RuntimeError: If the stream has not started.
        """
        return self._message("clear", {})

    def _message(self, event: str, body: dict[str, Any]) -> str:
        return orjson.dumps({"event": event, "streamSid": self._require_started(), **body}).decode()

    def _require_started(self) -> str:
        if self.stream_sid is None:
            raise RuntimeError("nothing can be sent before start")
        return self.stream_sid

    def _read(self, message: str | bytes) -> MediaStreamEvent:
        body = self._decode(message)
        name = body.get("event")
        if name == "media":  # 50 a second per call: first, and without a table
            self._require_state(StreamState.LIVE, MediaFault.MEDIA_BEFORE_START)
            self._require_stream_sid(body)
            return _read_media(body)
        if name == "connected":
            self._require_state(StreamState.AWAIT_CONNECTED)
            self._set_state(StreamState.AWAIT_START)
            return ConnectedEvent()
        if name == "start":
            return self._start(body)
        read = _READERS.get(name) if isinstance(name, str) else None
        if read is None:
            raise _DroppedMessage(MediaFault.UNKNOWN_EVENT, f"event {str(name)[:40]!r}")
        self._require_state(StreamState.LIVE)
        self._require_stream_sid(body)
        event = read(body)
        if isinstance(event, StopEvent):
            self._set_state(StreamState.STOPPED)
        return event

    def _decode(self, message: str | bytes) -> dict[str, Any]:
        if isinstance(message, bytes):
            raise _DroppedMessage(MediaFault.BINARY_FRAME, f"{len(message)} bytes")
        if len(message) > self._max_message_chars:
            raise _DroppedMessage(MediaFault.OVERSIZED, f"{len(message)} characters")
        try:
            body = orjson.loads(message)
        except orjson.JSONDecodeError:
            raise _DroppedMessage(MediaFault.MALFORMED_JSON) from None
        if not isinstance(body, dict):
            raise _DroppedMessage(MediaFault.NOT_AN_OBJECT, type(body).__name__)
        return body

    def _start(self, body: dict[str, Any]) -> StartEvent:
        if self._state is StreamState.LIVE:
            raise _DroppedMessage(MediaFault.SECOND_START)
        self._require_state(StreamState.AWAIT_START)
        event = _read_start(body)
        self.stream_sid = event.stream_sid
        self._media_head = f'{{"event":"media","streamSid":"{event.stream_sid}","media":{{"payload":"'
        self._tail = '"}}'
        self._set_state(StreamState.LIVE)
        return event

    def _require_state(self, state: StreamState, fault: MediaFault = MediaFault.OUT_OF_ORDER) -> None:
        if self._state is state:
            return
        raise _DroppedMessage(MediaFault.AFTER_STOP if self._state is StreamState.STOPPED else fault)

    def _require_stream_sid(self, body: dict[str, Any]) -> None:
        if body.get("streamSid") != self.stream_sid:
            raise _DroppedMessage(MediaFault.WRONG_STREAM)

    def _set_state(self, state: StreamState) -> None:
        logger.debug("media stream {}: {} -> {}", self.stream_sid, self._state.name, state.name)
        self._state = state

    def count(self, fault: MediaFault, detail: str = "") -> None:
        """Note a message that was dropped, here or before it came here; each kind is logged once."""
        self.faults[fault] += 1
        if self.faults[fault] == 1:
            logger.warning("media stream {}: message dropped, {} {}", self.stream_sid, fault, detail)


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise _DroppedMessage(MediaFault.BAD_FIELD, name)
    return value


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise _DroppedMessage(MediaFault.BAD_FIELD, name)
    return value


def _sid(body: dict[str, Any], name: str) -> str:
    value = _text(body, name)
    if _SID.fullmatch(value) is None:
        raise _DroppedMessage(MediaFault.BAD_FIELD, name)
    return value


def _number(body: dict[str, Any], name: str) -> int:
    """Read a count that Twilio writes as a string or as a number, as it likes."""
    value = body.get(name)
    if type(value) is int and value >= 0:
        return value
    if type(value) is str and len(value) <= _MAX_NUMBER_CHARS and value.isascii() and value.isdigit():
        return int(value)
    raise _DroppedMessage(MediaFault.BAD_FIELD, name)


def _read_start(body: dict[str, Any]) -> StartEvent:
    start = _object(body, "start")
    stream_sid = _sid(start, "streamSid")
    if body.get("streamSid", stream_sid) != stream_sid:
        raise _DroppedMessage(MediaFault.WRONG_STREAM)
    _require_telephone_audio(_object(start, "mediaFormat"))
    if start.get("tracks", ["inbound"]) != ["inbound"]:  # the only choice of a bidirectional stream
        raise _DroppedMessage(MediaFault.WRONG_TRACK)
    return StartEvent(
        stream_sid=stream_sid,
        call_sid=_sid(start, "callSid"),
        account_sid=_sid(start, "accountSid"),
        custom_parameters=_read_parameters(start.get("customParameters")),
    )


def _require_telephone_audio(media_format: dict[str, Any]) -> None:
    encoding = _text(media_format, "encoding")
    rate_hz, channels = _number(media_format, "sampleRate"), _number(media_format, "channels")
    if (encoding, rate_hz, channels) != ("audio/x-mulaw", SAMPLE_RATE_HZ, 1):
        raise _DroppedMessage(MediaFault.WRONG_FORMAT, f"{encoding[:40]!r} {rate_hz} Hz {channels} channels")


def _read_parameters(parameters: object) -> Mapping[str, str]:
    if parameters is None:  # a `<Stream>` without `<Parameter>` may leave the field out
        return {}
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise _DroppedMessage(MediaFault.BAD_FIELD, "customParameters")
    return parameters


def _read_media(body: dict[str, Any]) -> MediaEvent:
    media = _object(body, "media")
    if _text(media, "track") != "inbound":
        raise _DroppedMessage(MediaFault.WRONG_TRACK)
    payload = _text(media, "payload")
    try:
        ulaw = binascii.a2b_base64(payload, strict_mode=True)
    except ValueError:  # binascii.Error, and non-ASCII characters
        raise _DroppedMessage(MediaFault.BAD_BASE64) from None
    return MediaEvent(ulaw=ulaw, timestamp_ms=_number(media, "timestamp"))


def _read_dtmf(body: dict[str, Any]) -> DtmfEvent:
    digit = _text(_object(body, "dtmf"), "digit")
    if digit not in _DIGITS:
        raise _DroppedMessage(MediaFault.BAD_FIELD, "digit")
    return DtmfEvent(digit=digit)


def _read_mark(body: dict[str, Any]) -> MarkEvent:
    return MarkEvent(name=_text(_object(body, "mark"), "name"))


def _read_stop(body: dict[str, Any]) -> StopEvent:
    return StopEvent()  # whatever it holds, the stream is over


_READERS: Final[Mapping[str, Callable[[dict[str, Any]], MediaStreamEvent]]] = {
    "dtmf": _read_dtmf,
    "mark": _read_mark,
    "stop": _read_stop,
}
