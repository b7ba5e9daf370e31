"""Room for whole calls on this machine, shared by all processes of a run: whoever finds none waits.

A call that is played in real time needs its share of a core at its time; with too many beside each other, callers are
misheard and answers come late, and the tests say so. How many places there are is measured whenever one is taken: the
cores of a shared machine are at times half as fast as at others.
"""

import fcntl
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

MOST = 5
"""On two cores at their best. A place is about a quarter of a core then."""
LEAST = 2
_BEST_S: Final = 33e-9
"""A turn of the loop of `turn_s` on a core that is not shared."""
_TURNS: Final = 20_000
_SAMPLES: Final = 10
_PAUSE_S: Final = 0.05
_LOOK_EVERY_S: Final = 0.5


def places(turn_s: float) -> int:
    """Return how many places there are where a turn of the loop takes so many seconds of a core."""
    return max(LEAST, min(MOST, int(MOST * _BEST_S / turn_s)))


def fit(wanted: int, taken: Iterable[int], there_are: int) -> bool:
    """Whether so many more can be taken. Who wants more than there are gets them when nobody else has any."""
    others = sum(taken)
    return others + wanted <= there_are or not others


def turn_s() -> float:
    """Return what a turn of a small loop takes these days, in seconds of a core; waiting for a core does not count.

    Takes half a second, for a core may change its pace several times in one.
    """

    def once() -> float:
        began_s, total = time.thread_time(), 0
        for number in range(_TURNS):
            total += number
        return (time.thread_time() - began_s) / _TURNS

    def later() -> float:
        time.sleep(_PAUSE_S)
        return once()

    return statistics.fmean(later() for _ in range(_SAMPLES))


class Places:
    """Those of a run. Blocks; what a process has is its own until it gives it back or ends."""

    def __init__(self, file: Path) -> None:
        """Use a file that all processes of the run know."""
        self._file = file

    def take(self, wanted: int) -> None:
        """Wait until there is room, and take it."""
        while not self._try(wanted, places(turn_s()) if wanted else 0):
            time.sleep(_LOOK_EVERY_S)

    def give_back(self) -> None:
        """Let others have what this process has."""
        self._try(0, 0)

    def _try(self, wanted: int, there_are: int) -> bool:
        with self._file.open("a+b") as file:  # closing it unlocks it
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known: dict[str, int] = orjson.loads(file.read() or b"{}")
            taken = {pid: number for pid, number in known.items() if Path("/proc", pid).exists()}
            taken.pop(str(os.getpid()), None)
            if wanted and not fit(wanted, taken.values(), there_are):
                return False
            if wanted:
                taken[str(os.getpid())] = wanted
            file.truncate(0)
            file.write(orjson.dumps(taken))
        return True
