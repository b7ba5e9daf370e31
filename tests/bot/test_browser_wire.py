import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pipecat.frames.frames import OutputAudioRawFrame

from bot.browser_wire import BrowserWire

RATE = 16000
PIECE = 640


class Track:
    """Consumes audio in real time, as a WebRTC track does."""

    def __init__(self) -> None:
        self.played = bytearray()
        self.is_connected = True

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        if self.is_connected:
            await asyncio.sleep(len(frame.audio) / 2 / RATE)
            self.played += frame.audio
        return self.is_connected


@asynccontextmanager
async def running(track: Track, marks: list[str]) -> AsyncGenerator[BrowserWire]:
    wire = BrowserWire(track, rate_hz=RATE, on_played=marks.append)
    task = asyncio.create_task(wire.run())
    yield wire
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_audio_is_played_in_order_and_marks_come_back_when_it_was() -> None:
    track, marks = Track(), list[str]()
    async with running(track, marks) as wire:
        await wire.send_audio(b"\x01" * PIECE * 3)
        await wire.send_mark("a")
        await wire.send_audio(b"\x02" * PIECE)
        await wire.send_mark("b")
        await asyncio.sleep(0.05)
        assert marks == []
        await asyncio.sleep(0.02)
        assert marks == ["a"]
        await asyncio.sleep(0.05)
        assert marks == ["a", "b"]
        assert bytes(track.played) == b"\x01" * PIECE * 3 + b"\x02" * PIECE


async def test_an_odd_end_is_filled_up_with_silence() -> None:
    track = Track()
    async with running(track, []) as wire:
        await wire.send_audio(b"\x01" * (PIECE + 10))
        await asyncio.sleep(0.1)
        assert bytes(track.played) == b"\x01" * (PIECE + 10) + bytes(PIECE - 10)


async def test_after_a_clear_at_most_one_piece_is_still_played() -> None:
    track, marks = Track(), list[str]()
    async with running(track, marks) as wire:
        await wire.send_audio(b"\x01" * PIECE * 10)
        await wire.send_mark("gone")
        await asyncio.sleep(0.05)
        await wire.clear()
        before = len(track.played)
        await asyncio.sleep(0.3)
        assert len(track.played) - before <= PIECE
        assert marks == []


async def test_without_a_peer_time_passes_all_the_same() -> None:
    track, marks = Track(), list[str]()
    track.is_connected = False
    async with running(track, marks) as wire:
        await wire.send_audio(b"\x01" * PIECE * 5)
        await wire.send_mark("end")
        await asyncio.sleep(0.05)
        assert marks == []
        await asyncio.sleep(0.1)
        assert marks == ["end"]
