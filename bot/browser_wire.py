"""The agent's audio to a browser: what the WebRTC track has consumed counts as played.

A `PlayoutWire` over a transport's output. The playout sends ahead of real time; this holds what is ahead, gives
the track 20 ms at a time, and answers marks when it gets to them.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from pipecat.frames.frames import OutputAudioRawFrame

_PIECE_S = 0.02


class AudioOutput(Protocol):
    """The part of Pipecat's output transports used here."""

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Play audio; returns when it was consumed. False if nobody is there to take it."""
        ...


class BrowserWire:
    """Owned by the call; `run` is its task."""

    def __init__(self, output: AudioOutput, *, rate_hz: int, on_played: Callable[[str], None]) -> None:
        """Create the wire.

        Args:
            output: Where the audio goes.
            rate_hz: Its sample rate.
            on_played: Told the name of each mark that was reached.
        """
        self._output = output
        self._rate_hz = rate_hz
        self._on_played = on_played
        self._piece_bytes = round(_PIECE_S * rate_hz) * 2
        self._waiting: deque[bytes | str] = deque()
        self._there = asyncio.Event()

    async def send_audio(self, pcm: bytes) -> None:
        """Queue audio; the playout's lead bounds how much. s16le mono."""
        for start in range(0, len(pcm), self._piece_bytes):
            self._waiting.append(pcm[start : start + self._piece_bytes].ljust(self._piece_bytes, b"\0"))
        self._there.set()

    async def send_mark(self, name: str) -> None:
        """Queue a mark behind the audio."""
        self._waiting.append(name)
        self._there.set()

    async def clear(self) -> None:
        """Throw away what waits; at most one piece is still played."""
        self._waiting.clear()

    async def run(self) -> None:
        """Play what is queued, for as long as the call lasts."""
        while True:
            await self._there.wait()
            self._there.clear()
            while self._waiting:
                item = self._waiting.popleft()
                if isinstance(item, str):
                    self._on_played(item)
                    continue
                frame = OutputAudioRawFrame(audio=item, sample_rate=self._rate_hz, num_channels=1)
                if not await self._output.write_audio_frame(frame):
                    await asyncio.sleep(_PIECE_S)  # not connected yet, or gone: time passes all the same
