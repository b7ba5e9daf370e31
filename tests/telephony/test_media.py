"""The media-stream protocol: what is right becomes events in order, what is wrong is counted and harmless."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from telephony.media import (
    ConnectedEvent,
    DtmfEvent,
    FloodGate,
    MarkEvent,
    MediaEvent,
    MediaFault,
    MediaStream,
    MediaStreamEvent,
    StartEvent,
    StopEvent,
    StreamState,
)

STREAM_SID = "MZ" + "1" * 32
CALL_SID = "CA" + "2" * 32
ACCOUNT_SID = "AC" + "3" * 32
FRAME = bytes(range(160))

Body = dict[str, Any]


def connected() -> Body:
    return {"event": "connected", "protocol": "Call", "version": "1.0.0"}


def start(**changes: Any) -> Body:
    inner: Body = {
        "accountSid": ACCOUNT_SID,
        "streamSid": STREAM_SID,
        "callSid": CALL_SID,
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t0k3n"},
    }
    inner |= changes
    return {"event": "start", "sequenceNumber": "1", "start": inner, "streamSid": STREAM_SID}


def media(ulaw: bytes = FRAME, timestamp: Any = "20", **changes: Any) -> Body:
    inner: Body = {"track": "inbound", "chunk": "1", "timestamp": timestamp}
    inner["payload"] = base64.b64encode(ulaw).decode()
    inner |= changes
    return {"event": "media", "sequenceNumber": "2", "media": inner, "streamSid": STREAM_SID}


def dtmf(digit: Any = "5") -> Body:
    inner = {"track": "inbound_track", "digit": digit}
    return {"event": "dtmf", "streamSid": STREAM_SID, "sequenceNumber": "5", "dtmf": inner}


def mark(name: Any = "3:14") -> Body:
    return {"event": "mark", "sequenceNumber": "4", "streamSid": STREAM_SID, "mark": {"name": name}}


def stop() -> Body:
    inner = {"accountSid": ACCOUNT_SID, "callSid": CALL_SID}
    return {"event": "stop", "sequenceNumber": "9", "stop": inner, "streamSid": STREAM_SID}


def without(body: Body, *path: str) -> Body:
    """Return `body` lacking the field at `path`."""
    copy = json.loads(json.dumps(body))
    holder = copy
    for name in path[:-1]:
        holder = holder[name]
    del holder[path[-1]]
    return copy


def feed(stream: MediaStream, *messages: Body | str | bytes, now_s: float = 0.0) -> list[MediaStreamEvent]:
    texts = [json.dumps(message) if isinstance(message, dict) else message for message in messages]
    return [event for text in texts if (event := stream.receive(text, now_s)) is not None]


def live_stream(gate: FloodGate | None = None) -> MediaStream:
    stream = MediaStream(gate=gate)
    feed(stream, connected(), start())
    assert stream.state is StreamState.LIVE
    return stream


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def test_a_whole_stream_becomes_its_events_in_order() -> None:
    stream = MediaStream()
    events = feed(stream, connected(), start(), media(), dtmf("#"), mark("greeting:1"), stop())
    assert events == [
        ConnectedEvent(),
        StartEvent(
            stream_sid=STREAM_SID,
            call_sid=CALL_SID,
            account_sid=ACCOUNT_SID,
            custom_parameters={"token": "t0k3n"},
        ),
        MediaEvent(ulaw=FRAME, timestamp_ms=20),
        DtmfEvent(digit="#"),
        MarkEvent(name="greeting:1"),
        StopEvent(),
    ]
    assert stream.state is StreamState.STOPPED
    assert not stream.faults


@pytest.mark.parametrize("timestamp", ["40", 40], ids=["string", "number"])
def test_a_timestamp_is_a_string_or_a_number(timestamp: object) -> None:
    assert feed(live_stream(), media(timestamp=timestamp)) == [MediaEvent(ulaw=FRAME, timestamp_ms=40)]


@pytest.mark.parametrize(
    "body",
    [
        without(start(), "start", "customParameters"),
        start(customParameters=None),
        without(start(), "streamSid"),
        without(start(), "start", "tracks"),
        start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": "8000", "channels": "1"}),
    ],
    ids=["no parameters", "null parameters", "no outer streamSid", "no tracks", "numbers as strings"],
)
def test_a_start_that_leaves_out_what_may_be_left_out_is_accepted(body: Body) -> None:
    stream = MediaStream()
    feed(stream, connected(), body)
    assert (stream.state, stream.stream_sid) == (StreamState.LIVE, STREAM_SID)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (b'{"event":"media"}', MediaFault.BINARY_FRAME),
        pytest.param('{"event":"media"' + " " * 70_000 + "}", MediaFault.OVERSIZED, id="70 kB"),
        ("{", MediaFault.MALFORMED_JSON),
        ("", MediaFault.MALFORMED_JSON),
        pytest.param("[" * 5000, MediaFault.MALFORMED_JSON, id="nested too deep"),
        pytest.param('"\ud800"', MediaFault.MALFORMED_JSON, id="half a surrogate pair"),
        ('["event"]', MediaFault.NOT_AN_OBJECT),
        ("{}", MediaFault.UNKNOWN_EVENT),
        ('{"event":["media"]}', MediaFault.UNKNOWN_EVENT),
        ({"event": "hologram", "streamSid": STREAM_SID}, MediaFault.UNKNOWN_EVENT),
        (connected(), MediaFault.OUT_OF_ORDER),
        (start(), MediaFault.SECOND_START),
        (media() | {"streamSid": "MZother"}, MediaFault.WRONG_STREAM),
        (without(media(), "streamSid"), MediaFault.WRONG_STREAM),
        (stop() | {"streamSid": "MZother"}, MediaFault.WRONG_STREAM),
        (media(track="outbound"), MediaFault.WRONG_TRACK),
        (without(media(), "media"), MediaFault.BAD_FIELD),
        (without(media(), "media", "track"), MediaFault.BAD_FIELD),
        (without(media(), "media", "payload"), MediaFault.BAD_FIELD),
        (without(media(), "media", "timestamp"), MediaFault.BAD_FIELD),
        (media(payload=7), MediaFault.BAD_FIELD),
        (media(timestamp="-20"), MediaFault.BAD_FIELD),
        (media(timestamp=-20), MediaFault.BAD_FIELD),
        (media(timestamp=True), MediaFault.BAD_FIELD),
        (media(timestamp="²"), MediaFault.BAD_FIELD),
        (media(timestamp="9" * 5000), MediaFault.BAD_FIELD),
        (media(payload="AAA"), MediaFault.BAD_BASE64),
        (media(payload="AA==AAAA"), MediaFault.BAD_BASE64),
        (media(payload="AA A"), MediaFault.BAD_BASE64),
        (media(payload="äöü="), MediaFault.BAD_BASE64),
        (media(payload=base64.urlsafe_b64encode(b"\xff" * 3).decode()), MediaFault.BAD_BASE64),
        (dtmf("55"), MediaFault.BAD_FIELD),
        (dtmf(5), MediaFault.BAD_FIELD),
        (dtmf(""), MediaFault.BAD_FIELD),
        (without(dtmf(), "dtmf"), MediaFault.BAD_FIELD),
        (without(mark(), "mark", "name"), MediaFault.BAD_FIELD),
        (mark({"a": 1}), MediaFault.BAD_FIELD),
    ],
)
def test_a_wrong_message_on_a_live_stream_is_counted_and_the_stream_goes_on(
    message: Body | str | bytes, fault: MediaFault
) -> None:
    stream = live_stream()
    assert feed(stream, message, media()) == [MediaEvent(ulaw=FRAME, timestamp_ms=20)]
    assert stream.faults == {fault: 1}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (without(start(), "start"), MediaFault.BAD_FIELD),
        (without(start(), "start", "callSid"), MediaFault.BAD_FIELD),
        (without(start(), "start", "accountSid"), MediaFault.BAD_FIELD),
        (without(start(), "start", "streamSid"), MediaFault.BAD_FIELD),
        (without(start(), "start", "mediaFormat"), MediaFault.BAD_FIELD),
        (start(callSid="../../etc/passwd"), MediaFault.BAD_FIELD),
        (start(callSid='CA","x":"'), MediaFault.BAD_FIELD),
        (start(callSid="CA1\n"), MediaFault.BAD_FIELD),
        (start(callSid=""), MediaFault.BAD_FIELD),
        (start(callSid="C" * 65), MediaFault.BAD_FIELD),
        (start(customParameters={"token": 5}), MediaFault.BAD_FIELD),
        (start(customParameters=["token"]), MediaFault.BAD_FIELD),
        (start() | {"streamSid": "MZother"}, MediaFault.WRONG_STREAM),
        (start(tracks=["inbound", "outbound"]), MediaFault.WRONG_TRACK),
        (start(tracks=5), MediaFault.WRONG_TRACK),
        (
            start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}),
            MediaFault.WRONG_FORMAT,
        ),
        (
            start(mediaFormat={"encoding": "audio/x-l16", "sampleRate": 8000, "channels": 1}),
            MediaFault.WRONG_FORMAT,
        ),
        (
            start(mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}),
            MediaFault.WRONG_FORMAT,
        ),
    ],
)
def test_a_wrong_start_is_not_a_start(body: Body, fault: MediaFault) -> None:
    stream = MediaStream()
    assert feed(stream, connected(), body) == [ConnectedEvent()]
    assert stream.state is StreamState.AWAIT_START
    assert stream.faults == {fault: 1}


def test_before_start_only_start_counts() -> None:
    stream = MediaStream()
    assert feed(stream, media(), start(), mark(), stop(), connected(), media(), dtmf()) == [ConnectedEvent()]
    assert stream.faults == {MediaFault.MEDIA_BEFORE_START: 2, MediaFault.OUT_OF_ORDER: 4}
    assert isinstance(feed(stream, start())[0], StartEvent)


def test_after_stop_nothing_counts() -> None:
    stream = live_stream()
    feed(stream, stop())
    assert feed(stream, media(), mark(), dtmf(), stop(), start(), connected()) == []
    assert stream.faults == {MediaFault.AFTER_STOP: 6}


def test_each_kind_of_fault_is_logged_once_per_stream(warnings: list[str]) -> None:
    stream = live_stream()
    feed(stream, *["{"] * 50, *[b"x"] * 50, *[{"event": "{0.evil}" * 30}] * 50)
    kinds = [MediaFault.MALFORMED_JSON, MediaFault.BINARY_FRAME, MediaFault.UNKNOWN_EVENT]
    assert len(warnings) == len(kinds)
    for line, kind in zip(warnings, kinds, strict=True):
        assert STREAM_SID in line
        assert kind in line
        assert len(line) < 200


def test_media_at_twice_real_time_is_never_dropped() -> None:
    stream = live_stream()
    for n in range(6_000):  # two minutes of audio in one
        feed(stream, media(), now_s=n * 0.01)
    assert not stream.faults


def test_a_stall_of_eight_seconds_is_caught_up_without_loss() -> None:
    stream = live_stream()
    feed(stream, media(), now_s=0.0)
    assert len(feed(stream, *[media()] * 400, now_s=8.0)) == 400


def test_a_flood_is_dropped_down_to_the_allowed_rate_and_ends_when_the_flood_ends() -> None:
    stream = live_stream(FloodGate(rate=2.0, burst_s=1.0))
    accepted = sum(len(feed(stream, *[media()] * 100, now_s=float(second))) for second in range(10))
    allowed_frames = 1.0 / 0.02 + 9 * 1.0 / 0.02  # the burst, then the bucket refills to its brim each second
    assert allowed_frames - 10 <= accepted <= allowed_frames + 10
    assert stream.faults == {MediaFault.FLOOD: 1000 - accepted}
    assert feed(stream, media(), now_s=20.0) == [MediaEvent(ulaw=FRAME, timestamp_ms=20)]


@pytest.mark.parametrize(
    "message", [media(b""), mark(), "{", b"x"], ids=["empty media", "marks", "junk", "binary"]
)
def test_messages_without_audio_cannot_flood_either(message: Body | str | bytes) -> None:
    stream = live_stream(FloodGate(rate=2.0, burst_s=1.0))
    feed(stream, *[message] * 1000)
    assert stream.faults[MediaFault.FLOOD] >= 890


def test_a_clock_that_steps_back_neither_fills_nor_drains_the_gate() -> None:
    gate = FloodGate(rate=1.0, burst_s=1.0)
    assert gate.is_open(100.0)
    gate.charge(1.0)
    assert not gate.is_open(50.0)
    assert gate.is_open(50.5)


@pytest.mark.parametrize(("rate", "burst_s"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_a_gate_that_could_never_open_is_refused(rate: float, burst_s: float) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        FloodGate(rate=rate, burst_s=burst_s)


def test_what_we_send_is_what_the_protocol_wants() -> None:
    stream = live_stream()
    assert json.loads(stream.media(FRAME)) == {
        "event": "media",
        "streamSid": STREAM_SID,
        "media": {"payload": base64.b64encode(FRAME).decode()},
    }
    assert json.loads(stream.mark('a"b\\')) == {
        "event": "mark",
        "streamSid": STREAM_SID,
        "mark": {"name": 'a"b\\'},
    }
    assert json.loads(stream.clear()) == {"event": "clear", "streamSid": STREAM_SID}


def test_nothing_can_be_sent_before_start() -> None:
    stream = MediaStream()
    feed(stream, connected())
    for send in (lambda: stream.media(FRAME), lambda: stream.mark("m"), stream.clear):
        with pytest.raises(RuntimeError, match="before start"):
            send()


def test_empty_audio_is_not_sent() -> None:
    with pytest.raises(ValueError, match="empty"):
        live_stream().media(b"")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)
VALID = st.sampled_from([connected(), start(), media(), dtmf(), mark(), stop()])


@st.composite
def corrupted(draw: st.DrawFn) -> Body:
    """A valid message with one field, at any depth, replaced by any JSON value."""
    body = json.loads(json.dumps(draw(VALID)))
    holder = body
    while True:
        name = draw(st.sampled_from(sorted(holder)))
        if not isinstance(holder[name], dict) or not holder[name] or draw(st.booleans()):
            holder[name] = draw(JSON_VALUES)
            return body
        holder = holder[name]


MESSAGES = (
    VALID.map(json.dumps)
    | corrupted().map(json.dumps)
    | JSON_VALUES.map(json.dumps)
    | st.text(st.characters(codec=None), max_size=20)
    | st.binary(max_size=20)
)
RANK = {ConnectedEvent: 0, StartEvent: 1, MediaEvent: 2, DtmfEvent: 2, MarkEvent: 2, StopEvent: 3}


@given(st.booleans(), st.lists(st.tuples(MESSAGES, st.floats(0, 1)), max_size=30))
def test_no_sequence_of_messages_raises_or_yields_events_out_of_order(
    is_live: bool, script: list[tuple[str | bytes, float]]
) -> None:
    stream = MediaStream(gate=FloodGate(rate=2.0, burst_s=0.1))
    opening = [json.dumps(connected()), json.dumps(start())] if is_live else []
    now_s, events = 0.0, list[MediaStreamEvent]()
    for message, pause_s in [*((text, 0.0) for text in opening), *script]:
        now_s += pause_s
        event = stream.receive(message, now_s)
        events += [event] if event is not None else []
    ranks = [RANK[type(event)] for event in events]
    assert ranks == sorted(ranks)
    assert all(ranks.count(rank) <= 1 for rank in (0, 1, 3))
    assert all(rank in ranks for rank in range(max(ranks, default=-1)) if rank < 2)
    assert len(events) + stream.faults.total() == len(opening) + len(script)
