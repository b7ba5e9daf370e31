"""Room for whole calls on this machine, shared by all processes of a run: whoever finds none waits.

A call that is played in real time needs its share of a core at its time; with too many beside each other, callers are
misheard and answers come late, and the tests say so. How much is free is looked at whenever a file begins: the cores of
a shared machine are at times half as fast as at others.
"""

import fcntl
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

MOST = 6
"""However idle the machine: files begin with all their calls at once."""
SHARE: Final = 0.2
"""Of all cores, which must be free for each place when they are at their best: two fifths of a core of two."""
_BEST_S: Final = 35e-9
"""A turn of the loop of `pace` on a core that is not shared."""
_TURNS: Final = 20_000
_WINDOW_S: Final = 1.5
_PAUSE_S: Final = 0.1
_LOOK_EVERY_S: Final = 0.5
_IDLE: Final = (1, 3, 4)
"""Of `/proc/stat`: what was done for processes that give way to all others (nice > 0), and what was not used."""


def fit(wanted: int, taken: Iterable[int], free: float) -> bool:
    """Whether so many more can be taken, with so much free. Who finds nobody there has room."""
    others = sum(taken)
    return not others or (others + wanted <= MOST and free >= SHARE * wanted)


def free_share() -> float:
    """Return what is free, as a share of what all cores do at their best; looks for a second and a half.

    Free is what whoever does not give way has left. On cores that are half as fast it is a quarter: they do half as
    much, and what must be done in its time needs twice the room beside it.
    """
    if os.geteuid() != 0:  # nobody gives way then, see `tests.scheduling.set_nice`
        return 1.0
    before, paces = _ticks(), list[float]()
    until_s = time.monotonic() + _WINDOW_S
    while time.monotonic() < until_s:
        time.sleep(_PAUSE_S)
        paces.append(pace())
    spent = [after - earlier for earlier, after in zip(before, _ticks(), strict=True)]
    unused = sum(spent[column] for column in _IDLE) / max(1, sum(spent))
    return unused * min(1.0, statistics.fmean(paces)) ** 2


def pace() -> float:
    """Return how fast this core is now, 1 at its best; waiting for it does not count."""
    began_s, total = time.thread_time(), 0
    for number in range(_TURNS):
        total += number
    return _BEST_S * _TURNS / (time.thread_time() - began_s)


def _ticks() -> list[int]:
    return [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]


class Places:
    """Those of a run. Blocks; what a process has is its own until it gives it back or ends."""

    def __init__(self, file: Path) -> None:
        """Use a file that all processes of the run know."""
        self._file = file

    def take(self, wanted: int) -> None:
        """Wait until there is room, and take it."""
        while not self._try(wanted):
            time.sleep(_LOOK_EVERY_S)

    def give_back(self) -> None:
        """Let others have what this process has."""
        self._try(0)

    def _try(self, wanted: int) -> bool:
        with self._file.open("a+b") as file:  # closing it unlocks it
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known: dict[str, int] = orjson.loads(file.read() or b"{}")
            taken = {pid: number for pid, number in known.items() if Path("/proc", pid).exists()}
            taken.pop(str(os.getpid()), None)
            # Looked at under the lock: of two that look at the same time, the second sees what the first has begun.
            if wanted and taken and not fit(wanted, taken.values(), free_share()):
                return False
            if wanted:
                taken[str(os.getpid())] = wanted
            file.truncate(0)
            file.write(orjson.dumps(taken))
        return True
