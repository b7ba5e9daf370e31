"""Which process tests which file, and when: whole calls first, so many at once that each has the core it needs.

Whole calls take as long as calls take and mostly wait, so several run beside each other and beside what computes. How
many is a matter of what they compute meanwhile, which is their *places*: a third of a core each and some room.
"""

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

PLACES = 6
"""Given out at a time; whether there is room at the moment is seen when one begins, see `tests.places`."""
CALLS_NICE = -10
"""Of a process while it plays calls: ahead of the others."""
STARTING_NICE = -5
"""Of a server that a test starts, until it is there."""
OTHERS_NICE = 1
"""Of a process that plays none: it gives way, and still gets a part of what it would have."""


@dataclass(frozen=True)
class Load:
    """What a file of tests takes."""

    about_s: float
    """How long alone, roughly: the longest begin first."""
    places: int
    """0 if it plays no calls."""


LOADS = {
    "tests/e2e/test_serve.py": Load(130, 2),
    "tests/e2e/test_resume.py": Load(80, 2),
    "tests/e2e/test_handoff.py": Load(110, 2),
    "tests/e2e/test_turn_taking.py": Load(40, 2),
    "tests/e2e/test_stt_failover.py": Load(40, 2),
    "tests/e2e/test_chaos.py": Load(55, 2),
    "tests/e2e/test_hang_ups.py": Load(30, 3),
    "tests/e2e/test_voice_failover.py": Load(25, 2),
    "tests/e2e/test_aura_voice.py": Load(20, 2),
    "tests/e2e/test_burst.py": Load(20, 2),
    "tests/e2e/test_whole_calls.py": Load(70, 1),
    "tests/e2e/test_line_drops.py": Load(60, 1),
    "tests/e2e/test_browser.py": Load(55, 2),
    "tests/e2e/test_model_tiers.py": Load(50, 1),
    "tests/e2e/test_llm_failover.py": Load(50, 1),
    "tests/e2e/test_stores_down.py": Load(45, 1),
    "tests/e2e/test_failures.py": Load(45, 1),
    "tests/e2e/test_silence.py": Load(40, 1),
    "tests/e2e/test_one_real_vendor.py": Load(40, 1),
    "tests/bench/test_plain_bot.py": Load(30, 1),
    "tests/bot/test_bot.py": Load(25, 1),
}
_LIGHT = Load(0, 0)


def load_of(file: str) -> Load:
    """Return what a file takes, by its path from the root; nothing to speak of if it is not known."""
    return LOADS.get(file, _LIGHT)


def choose(waiting: Sequence[str], own: Sequence[str], others: Sequence[Sequence[str]]) -> str:
    """Return the file that a process gets next.

    Who plays calls gets something else for afterwards, so that calls do not wait for each other. Nobody is sent away:
    a process with a single test left does not begin it before it knows the next.

    Args:
        waiting: Files that nobody has, at least one.
        own: Those of the process, not done.
        others: Those of each other process, not done.
    """
    taken = sum(_places(files) for files in others)
    calls = sorted((file for file in waiting if load_of(file).places), key=_first)
    rest = [file for file in waiting if not load_of(file).places]
    if _places(own):
        return rest[-1] if rest else calls[-1]
    fitting = (file for file in calls if taken + load_of(file).places <= PLACES)
    return next(fitting, rest[0] if rest else calls[-1])


def _first(file: str) -> tuple[int, float]:
    load = load_of(file)
    return -load.places, -load.about_s


def _places(files: Sequence[str]) -> int:
    return max((load_of(file).places for file in files), default=0)


def set_nice(file: str) -> None:
    """Let this process go ahead of others if it plays calls, and give way if not."""
    if os.geteuid() == 0:  # only root may go back; without it all share alike
        os.setpriority(os.PRIO_PROCESS, 0, CALLS_NICE if load_of(file).places else OTHERS_NICE)


@contextlib.contextmanager
def starting() -> Generator[None]:
    """Start a server within: that takes seconds of a core, which is not to be taken from calls that run.

    Its processes begin between those that play calls and the others; once it has started, `catch_up` lets them go ahead
    as this one does.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if os.geteuid() != 0 or usual != CALLS_NICE:  # whoever is not root could not go back
        yield
        return
    os.setpriority(os.PRIO_PROCESS, 0, STARTING_NICE)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, usual)


def catch_up(group: int) -> None:
    """Let a process group that was started go ahead as this process does."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, group, os.getpriority(os.PRIO_PROCESS, 0))


class FilesByLoad(LoadFileScheduling):
    """A file's tests in one process, chosen by load; of a process that died, only what it left goes to another.

    The scheduler it extends hands on finished files as well, as empty lots. A process that is given one with a single
    test before it waits for more, and the run never ends.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        others = [self._left(other) for other in self.assigned_work if other is not node]
        file = choose([*self.workqueue], self._left(node), others)
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)

    def _left(self, node: WorkerController) -> list[str]:
        files = self.assigned_work.get(node, {})
        return [file for file, tests in files.items() if not all(tests.values())]

    def remove_node(self, node: WorkerController) -> str | None:
        """Take a process out; return the test that it died of, None if it had none left."""
        files = self.assigned_work.pop(node)
        crashed = next((test for file in files.values() for test, done in file.items() if not done), None)
        if crashed is None:
            return None
        for file in files.values():
            if crashed in file:
                file[crashed] = True  # it is reported as failed; once is enough
        self.workqueue.update((name, file) for name, file in files.items() if not all(file.values()))
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed
