"""How late the machine is while a test measures: taken off what was measured, in place of a slack that hides as much.

In this loop, which is the callers', the vendors' and often the product's, a timer is set again and again as the
callers' own clocks are. Of another process the kernel knows how long its threads were ready to run and had no core.
"""

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import AsyncGenerator
from pathlib import Path

from sims.report import CallReport

TICK_S = 0.02
LOOKS_EVERY = 5
"""Ticks between two looks at other processes: each of their threads has a file."""


class Lateness:
    """Adds up how late the machine is, from when `run` begins."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        """Other processes that are waited for."""
        self._times_s: list[float] = []
        self._totals_s: list[float] = []
        self._waits_s: dict[Path, float] = {}

    def between_s(self, from_s: float, to_s: float) -> float:
        """Return how late it was in all between two moments of this loop's clock."""
        if not self._times_s:
            return 0.0
        last = len(self._times_s) - 1
        before = max(bisect_left(self._times_s, from_s) - 1, 0)
        return self._totals_s[min(bisect_left(self._times_s, to_s), last)] - self._totals_s[before]

    def in_call_s(self, report: CallReport, line_s: float, from_s: float, to_s: float) -> float:
        """Return how late it was in a stretch of a call, in seconds since it was answered.

        Args:
            report: Of the caller's end.
            line_s: When the product had its line, on this loop's clock.
            from_s: Where the stretch begins.
            to_s: Where it ends.
        """
        assert report.stream_started_s is not None
        answered_s = line_s - report.stream_started_s
        return self.between_s(answered_s + from_s, answered_s + to_s)

    async def run(self) -> None:
        """Watch until cancelled."""
        loop = asyncio.get_running_loop()
        late_s = waits_s = 0.0
        while True:
            due_s = loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            now_s = loop.time()
            late_s += now_s - due_s
            if len(self._times_s) % LOOKS_EVERY == 0:
                waits_s = self._waited_s()
            self._times_s.append(now_s)
            self._totals_s.append(late_s + waits_s)

    def _waited_s(self) -> float:
        """Return how long the threads of the other processes have waited for a core, those that ended included.

        Source: Linux, Documentation/scheduler/sched-stats.rst: `/proc/<pid>/schedstat`, the second figure.
        """
        for pid in self.pids:
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):  # it has just ended
                    self._waits_s[file] = int(file.read_text().split()[1]) / 1e9
        return sum(self._waits_s.values())


@contextlib.asynccontextmanager
async def watch_lateness() -> AsyncGenerator[Lateness]:
    """Watch this loop until the block ends."""
    lateness = Lateness()
    watching = asyncio.create_task(lateness.run(), name="lateness")
    try:
        yield lateness
    finally:
        watching.cancel()
