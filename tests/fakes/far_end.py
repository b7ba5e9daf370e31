"""A far end behind a network: the sims' playout buffer, which plays linear samples as they were sent."""

import asyncio
import random
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sims.playout import PlayoutBuffer

NOTHING = -1
"""Sample of a moment in which nothing is played."""


class FarEnd:
    """A `PlayoutWire`, and the phone at its end.

    What is sent arrives in order, after `delay_s`; marks come back the same way, some of them late or never.
    """

    def __init__(
        self,
        mark_played: Callable[[str], None],
        dice: random.Random,
        *,
        rate_hz: int = 8000,
        lost_marks: float = 0.0,
        late_marks_s: float = 0.0,
    ) -> None:
        """Pick up.

        Args:
            mark_played: Told each mark that comes back.
            dice: Decides which do.
            rate_hz: Of the audio.
            lost_marks: Share of marks that never come back.
            late_marks_s: The most by which a mark comes later than it should.
        """
        self.delay_s = 0.0
        """Each way."""
        self.cleared_s: list[float] = []
        """When it was told to throw away what it had not played."""
        self._mark_played = mark_played
        self._dice = dice
        self._rate_hz = rate_hz
        self._lost_marks = lost_marks
        self._late_marks_s = late_marks_s
        self._halves = (PlayoutBuffer(), PlayoutBuffer())
        """Low and high bytes of the same samples."""
        self._loop = asyncio.get_running_loop()
        self._under_way: deque[tuple[float, Callable[[], None]]] = deque()
        self._coming_back: deque[tuple[float, str]] = deque()

    async def send_audio(self, pcm: bytes) -> None:
        self._arrives(lambda: self._push(pcm))

    async def send_mark(self, name: str) -> None:
        self._arrives(lambda: self._mark(name))

    async def clear(self) -> None:
        self._arrives(self._clear)

    def take(self) -> NDArray[np.int16]:
        """Return every sample of the line since the last time, `NOTHING` where nothing was played."""
        low, high = (
            np.frombuffer(half.take(self._now()), np.uint8).astype(np.uint16) for half in self._halves
        )
        return (high * 256 + low).view(np.int16)

    def _arrives(self, what: Callable[[], None]) -> None:
        """Let something happen after the delay, in the order in which it was sent."""
        at_s = self._loop.time() + self.delay_s
        self._under_way.append((at_s, what))
        self._loop.call_at(at_s, self._arrive)

    def _arrive(self) -> None:
        while self._under_way and self._under_way[0][0] <= self._loop.time() + 1e-6:
            self._under_way.popleft()[1]()

    def _push(self, pcm: bytes) -> None:
        for number, half in enumerate(self._halves):
            half.push(pcm[number::2], self._now())
        self._await_mark()

    def _mark(self, name: str) -> None:
        self._halves[0].mark(name, self._now())
        self._await_mark()

    def _clear(self) -> None:
        self.cleared_s.append(self._loop.time())
        for half in self._halves:
            half.clear(self._now())
        self._await_mark()

    def _await_mark(self) -> None:
        at = self._halves[0].next_mark_at
        if at is not None:
            self._loop.call_at(max(at / self._rate_hz, self._loop.time()), self._return_marks)

    def _return_marks(self) -> None:
        for name in self._halves[0].due_marks(self._now()):
            if self._dice.random() >= self._lost_marks:
                late_s = self._dice.uniform(0.0, self._late_marks_s) if self._late_marks_s else 0.0
                # One connection: a mark that is late keeps those behind it waiting.
                due_s = self._loop.time() + self.delay_s + late_s
                if self._coming_back:
                    due_s = max(due_s, self._coming_back[-1][0])
                self._coming_back.append((due_s, name))
                self._loop.call_at(due_s, self._come_back)
        self._await_mark()

    def _come_back(self) -> None:
        while self._coming_back and self._coming_back[0][0] <= self._loop.time() + 1e-6:
            self._mark_played(self._coming_back.popleft()[1])

    def _now(self) -> int:
        return round(self._loop.time() * self._rate_hz)
