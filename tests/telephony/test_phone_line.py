import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from telephony import phone_line, ulaw
from telephony.media import DtmfEvent, MarkEvent, MediaEvent, MediaFault
from telephony.phone_line import LineClosedError, PhoneLine

SID = "MZ" + "0" * 32
START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": SID,
    "start": {
        "accountSid": "AC1",
        "streamSid": SID,
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"token": "t"},
    },
}
CONNECTED: dict[str, Any] = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
STOP: dict[str, Any] = {
    "event": "stop",
    "sequenceNumber": "5",
    "streamSid": SID,
    "stop": {"accountSid": "AC1", "callSid": "CA1"},
}


class FakeSocket:
    """An accepted WebSocket: what the peer sends is queued, what is sent to it is kept."""

    def __init__(self, *messages: Mapping[str, Any] | str | bytes) -> None:
        self.incoming: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self.fails = False
        self.close_hangs = False
        for message in messages:
            self.say(message)

    def say(self, message: Mapping[str, Any] | str | bytes) -> None:
        if isinstance(message, bytes):
            self.incoming.put_nowait({"type": "websocket.receive", "bytes": message})
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def vanish(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def receive(self) -> Mapping[str, Any]:
        return await self.incoming.get()

    async def send_text(self, data: str) -> None:
        await self.reads.wait()
        if self.fails:
            raise ConnectionResetError
        self.sent.append(json.loads(data))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        if self.close_hangs:
            await asyncio.Event().wait()
        self.closed_with = code


async def started(*messages: Mapping[str, Any] | str | bytes) -> tuple[PhoneLine, FakeSocket]:
    socket = FakeSocket(CONNECTED, START, *messages)
    line = PhoneLine(socket)
    await line.start(1.0)
    return line, socket


async def all_events(line: PhoneLine) -> list[MediaEvent | DtmfEvent | MarkEvent]:
    return [event async for event in line.events()]


async def test_the_start_says_whose_call_it_is() -> None:
    line = PhoneLine(FakeSocket(CONNECTED, START))
    start = await line.start(1.0)
    assert (start.call_sid, start.stream_sid, start.custom_parameters["token"]) == ("CA1", SID, "t")


async def test_a_socket_that_says_nothing_is_not_waited_for() -> None:
    with pytest.raises(LineClosedError, match="no start within"):
        await PhoneLine(FakeSocket()).start(5.0)


async def test_chatter_that_is_no_start_does_not_buy_time() -> None:
    socket = FakeSocket()
    line = PhoneLine(socket)

    async def chatter() -> None:
        while True:
            socket.say({"event": "nonsense"})
            await asyncio.sleep(0.5)

    talking = asyncio.create_task(chatter())
    with pytest.raises(LineClosedError):
        await line.start(5.0)
    talking.cancel()
    assert line.stream.faults[MediaFault.UNKNOWN_EVENT] >= 5


async def test_a_peer_that_leaves_before_start_is_told_apart() -> None:
    socket = FakeSocket(CONNECTED)
    socket.vanish()
    with pytest.raises(LineClosedError, match="closed before start"):
        await PhoneLine(socket).start(1.0)


async def test_events_end_with_stop_and_with_the_socket() -> None:
    frame = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "/" * 8}
    media = {"event": "media", "sequenceNumber": "2", "streamSid": SID, "media": frame}
    key = {
        "event": "dtmf",
        "streamSid": SID,
        "sequenceNumber": "3",
        "dtmf": {"track": "inbound_track", "digit": "5"},
    }
    mark = {"event": "mark", "sequenceNumber": "4", "streamSid": SID, "mark": {"name": "m"}}
    line, _ = await started(media, "not json", b"\x00", key, mark, STOP, media)
    events = await all_events(line)
    assert [type(event) for event in events] == [MediaEvent, DtmfEvent, MarkEvent]
    line, socket = await started(media)
    socket.vanish()
    assert len(await all_events(line)) == 1
    assert not line.is_open
    await line.close()
    assert socket.closed_with is None, "there is nobody to say goodbye to"


async def test_what_is_sent_is_twilio_s_protocol() -> None:
    line, socket = await started()
    await line.send_audio(bytes(320))
    await line.send_mark("1:160")
    await line.clear()
    assert [message["event"] for message in socket.sent] == ["media", "mark", "clear"]
    assert all(message["streamSid"] == SID for message in socket.sent)
    assert ulaw.encode(bytes(320)) == bytes([0xFF]) * 160


async def test_a_peer_that_does_not_read_ends_the_line_and_is_closed_by_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(phone_line, "WRITE_LIMIT_S", 1.0)
    line, socket = await started()
    reading = asyncio.create_task(all_events(line))
    await asyncio.sleep(0)
    socket.reads.clear()
    await line.send_audio(bytes(320))
    assert not line.is_open
    socket.reads.set()  # too late: it has lost audio that nobody will say again
    await line.send_mark("late")
    with pytest.raises(LineClosedError, match="write failed"):
        await asyncio.wait_for(reading, phone_line.CLOSE_LIMIT_S + 0.01)
    await line.close()
    assert (socket.sent, socket.closed_with) == ([], 1000)


async def test_a_caller_who_talks_on_does_not_keep_a_line_that_cannot_be_written() -> None:
    line, socket = await started()
    socket.fails = True

    async def talk() -> None:
        while True:
            socket.say({"event": "nonsense"})
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(talk())
    reading = asyncio.create_task(all_events(line))
    await asyncio.sleep(0.1)
    await line.send_audio(bytes(320))
    with pytest.raises(LineClosedError, match="write failed"):
        await asyncio.wait_for(reading, 1.0)
    talking.cancel()
    for _ in range(100):  # nor does what has piled up
        socket.say({"event": "nonsense"})
    with pytest.raises(LineClosedError, match="write failed"):
        await all_events(line)
    assert socket.incoming.qsize() >= 100


@pytest.mark.parametrize("goodbye", ["stop", "disconnect"])
async def test_who_hangs_up_while_we_write_has_hung_up(goodbye: str) -> None:
    line, socket = await started()
    reading = asyncio.create_task(all_events(line))
    socket.fails = True
    await line.send_audio(bytes(320))
    if goodbye == "stop":
        socket.say(STOP)
    else:
        socket.vanish()
    assert await reading == []
    assert line.said_goodbye == (goodbye == "stop")


async def test_closing_takes_no_longer_than_it_may_and_happens_once() -> None:
    line, socket = await started()
    socket.close_hangs = True
    began_s = asyncio.get_running_loop().time()
    await line.close()
    assert asyncio.get_running_loop().time() - began_s <= phone_line.CLOSE_LIMIT_S + 0.01
    socket.close_hangs = False
    await line.close(1008)
    assert socket.closed_with is None
