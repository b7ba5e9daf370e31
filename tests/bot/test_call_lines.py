"""A call on its line: whichever of the two ends first ends the other."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from pipecat.frames.frames import OutputAudioRawFrame
from pipecat.utils.base_object import BaseObject

from bot.call import EndReason
from bot.call_lines import TrackLine


class CallOfATest:
    """As much of a call as its line needs."""

    def __init__(self) -> None:
        self.setup = SimpleNamespace(rate_hz=16000)
        self.ended = asyncio.Event()
        self.reasons: list[EndReason] = []
        self.wires: list[Any] = []
        self.marks: list[str] = []

    def end(self, reason: EndReason) -> None:
        self.reasons.append(reason)
        self.ended.set()

    async def put_on(self, wire: Any) -> None:
        self.wires.append(wire)

    def mark_played(self, name: str) -> None:
        self.marks.append(name)


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


@pytest.fixture
def call() -> Any:
    return CallOfATest()


@pytest.fixture
def transport() -> Any:
    return TransportOfATest()


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
