"""A call on its line: whichever of the two ends first ends the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger
from pipecat.frames.frames import OutputAudioRawFrame
from pipecat.utils.base_object import BaseObject

from bot.call_life import EndReason
from bot.call_lines import TrackLine, hold_phone_line
from telephony.media import MediaEvent


class CallOfATest:
    """As much of a call as its line needs."""

    def __init__(self) -> None:
        self.setup = SimpleNamespace(rate_hz=16000)
        self.ended = asyncio.Event()
        self.reasons: list[EndReason] = []
        self.wires: list[Any] = []
        self.marks: list[str] = []
        self.heard: list[bytes] = []
        self.breaks_at: str | None = None

    def end(self, reason: EndReason) -> None:
        if not self.reasons:
            self.reasons.append(reason)
        self.ended.set()

    async def hear(self, pcm: bytes) -> None:
        self._break_at("hear")
        self.heard.append(pcm)

    async def put_on(self, wire: Any) -> None:
        self._break_at("put_on")
        self.wires.append(wire)

    def mark_played(self, name: str) -> None:
        self._break_at("mark_played")
        self.marks.append(name)

    def _break_at(self, place: str) -> None:
        if self.breaks_at == place:
            raise RuntimeError(place)


class PhoneOfATest:
    """A line that says one thing and then waits to be told how it ends."""

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self.error: Exception | None = None
        self.closings = 0
        self.said_goodbye = True

    async def events(self) -> AsyncIterator[MediaEvent]:
        yield MediaEvent(b"\xff" * 160, 0)
        await self.is_over.wait()
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.closings += 1


class TransportOfATest(BaseObject):
    """Fires a transport's two events; its output plays 20 ms in 20 ms."""

    def __init__(self) -> None:
        super().__init__()
        self._register_event_handler("on_client_connected", sync=True)
        self._register_event_handler("on_client_disconnected", sync=True)
        self.played = bytearray()

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        await asyncio.sleep(len(frame.audio) / 2 / frame.sample_rate)
        self.played += frame.audio
        return True

    async def fire(self, event: str) -> None:
        await self._call_event_handler(event)


@contextlib.contextmanager
def logged() -> Generator[list[str]]:
    """Collect what is logged as an error."""
    messages: list[str] = []
    handler = logger.add(messages.append, level="ERROR")
    yield messages
    logger.remove(handler)


@pytest.fixture
def call() -> Any:
    return CallOfATest()


@pytest.fixture
def transport() -> Any:
    return TransportOfATest()


@pytest.fixture
def phone() -> Any:
    return PhoneOfATest()


async def test_a_phone_that_hangs_up_ends_the_call(call: Any, phone: Any) -> None:
    holding = asyncio.create_task(hold_phone_line(call, phone))
    await asyncio.sleep(1)
    assert (call.wires, call.heard, call.reasons) == ([phone], [bytes(320)], [])
    phone.is_over.set()
    await holding
    assert (call.reasons, phone.closings) == ([EndReason.CALLER_HUNG_UP], 1)


async def test_a_phone_line_that_breaks_off_is_no_hang_up(call: Any, phone: Any) -> None:
    holding = asyncio.create_task(hold_phone_line(call, phone))
    await asyncio.sleep(1)
    phone.said_goodbye = False
    phone.is_over.set()
    await holding
    assert (call.reasons, phone.closings) == ([EndReason.LINE_LOST], 1)


async def test_a_call_that_ends_closes_its_phone_line(call: Any, phone: Any) -> None:
    holding = asyncio.create_task(hold_phone_line(call, phone))
    await asyncio.sleep(1)
    call.end(EndReason.AGENT_ENDED)
    await holding
    assert (call.reasons, phone.closings) == ([EndReason.AGENT_ENDED], 1)


@pytest.mark.parametrize("place", ["put_on", "hear", "events"])
async def test_a_phone_line_that_fails_is_no_good_end(call: Any, phone: Any, place: str) -> None:
    call.breaks_at, phone.error = place, RuntimeError("events")
    phone.is_over.set()
    with logged() as messages:
        await asyncio.wait_for(hold_phone_line(call, phone), 1.0)
    assert (call.reasons, phone.closings) == ([EndReason.FAILED], 1)
    assert place in "".join(messages)


async def test_a_track_that_fails_is_no_good_end(call: Any, transport: Any) -> None:
    holding = asyncio.create_task(TrackLine(call, transport, transport).hold())
    await transport.fire("on_client_connected")
    call.breaks_at = "mark_played"
    await call.wires[0].send_mark("end")
    with logged() as messages:
        await asyncio.wait_for(holding, 1.0)
    assert call.reasons == [EndReason.FAILED]
    assert "mark_played" in "".join(messages)


async def test_a_client_is_heard_and_hears_from_the_moment_it_is_there(call: Any, transport: Any) -> None:
    holding = asyncio.create_task(TrackLine(call, transport, transport).hold())
    await transport.fire("on_client_connected")
    [wire] = call.wires
    await wire.send_audio(b"\x01\x00" * 1600)
    await wire.send_mark("end")
    await asyncio.sleep(0.09)
    assert call.marks == []
    await asyncio.sleep(0.02)
    assert (call.marks, len(transport.played)) == (["end"], 3200)
    assert not holding.done()
    call.ended.set()
    await holding


async def test_a_client_that_goes_has_hung_up(call: Any, transport: Any) -> None:
    holding = asyncio.create_task(TrackLine(call, transport, transport).hold())
    await transport.fire("on_client_connected")
    await transport.fire("on_client_disconnected")
    await holding
    assert call.reasons == [EndReason.CALLER_HUNG_UP]


async def test_a_call_that_ended_plays_nothing_more(call: Any, transport: Any) -> None:
    holding = asyncio.create_task(TrackLine(call, transport, transport).hold())
    await transport.fire("on_client_connected")
    await call.wires[0].send_audio(b"\x01\x00" * 16000)
    await asyncio.sleep(0.1)
    call.ended.set()
    await holding
    played = len(transport.played)
    await asyncio.sleep(1)
    assert len(transport.played) == played < 32000
