"""What the kernel says of a process and of a core, and how quick a core is right now.

Parsers are pure; readers open `/proc` and nothing else. Linux only.

Source: proc(5): `/proc/pid/stat`, `/proc/pid/smaps_rollup`, `/proc/stat`.
"""

import contextlib
import math
import os
import re
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_CALIBRATION_ROUNDS = 300_000
_BUCKET = re.compile(r'^(?P<name>\w+)_bucket\{.*?le="(?P<edge>[^"]+)".*?\} (?P<count>\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class ProcessStat:
    """One process's parent and CPU time, that of its ended children included."""

    parent: int
    cpu_s: float


@dataclass(frozen=True)
class Memory:
    """Of one process or of a tree, in MB (10^6 bytes)."""

    resident_mb: float
    private_mb: float
    """What would be free again if it ended: pages that no other process maps."""

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.resident_mb + other.resident_mb, self.private_mb + other.private_mb)


@dataclass(frozen=True)
class CoreTime:
    """Seconds since boot that a core was busy for us, and that the host kept it from us."""

    busy_s: float
    steal_s: float


def parse_stat(text: str) -> ProcessStat:
    """Parse `/proc/pid/stat`.

    Raises:
        ValueError: If it is not one.
    """
    # The name, in brackets, may hold anything; what follows the last bracket is field 3 on.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 15:
        raise ValueError(f"not a process's stat: {text[:60]!r}")
    return ProcessStat(int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / TICKS_PER_S)


def parse_smaps_rollup(text: str) -> Memory:
    """Parse `/proc/pid/smaps_rollup`; lines that are missing count as 0."""
    kb = {
        name: int(amount)
        for name, amount in re.findall(r"^(Rss|Private_Clean|Private_Dirty):\s+(\d+) kB$", text, re.MULTILINE)
    }
    private_kb = kb.get("Private_Clean", 0) + kb.get("Private_Dirty", 0)
    return Memory(kb.get("Rss", 0) * 1024 / 1e6, private_kb * 1024 / 1e6)


def parse_core_time(text: str, core: int | None) -> CoreTime:
    """Parse `/proc/stat`.

    Args:
        text: The file.
        core: Number of the core; None is all of them together.

    Raises:
        ValueError: If it has no such core.
    """
    name = "cpu" if core is None else f"cpu{core}"
    for line in text.splitlines():
        if line.split(" ", 1)[0] == name:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(n) for n in line.split()[1:9])
            return CoreTime((user + nice + system + irq + softirq) / TICKS_PER_S, steal / TICKS_PER_S)
    raise ValueError(f"no line {name!r} in /proc/stat")


def parse_buckets(exposition: str, name: str) -> dict[float, float]:
    """Return upper edge to cumulative count of a Prometheus histogram without other labels."""
    return {
        math.inf if match["edge"] == "+Inf" else float(match["edge"]): float(match["count"])
        for match in _BUCKET.finditer(exposition)
        if match["name"] == name
    }


def bucket_percentile(
    before: Mapping[float, float], after: Mapping[float, float], share: float
) -> float | None:
    """Return the upper edge below which `share` of what was observed between two readings lies.

    None when nothing was observed.
    """
    counts = {edge: after[edge] - before.get(edge, 0.0) for edge in sorted(after)}
    total = max(counts.values(), default=0.0)
    return next((edge for edge, count in counts.items() if total and count >= share * total), None)


def tree_of(root: int, parents: Mapping[int, int]) -> set[int]:
    """Return a process and all its descendants.

    Args:
        root: The process.
        parents: Process to parent, of all there are.
    """
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree


def read_tree(root: int) -> tuple[float, Memory]:
    """Return CPU seconds and memory of a process and its descendants."""
    stats = dict(_read_stats())
    tree = tree_of(root, {pid: stat.parent for pid, stat in stats.items()})
    cpu_s = sum(stats[pid].cpu_s for pid in tree if pid in stats)
    memory = Memory(0.0, 0.0)
    for pid in tree:
        with contextlib.suppress(OSError):  # it ended meanwhile
            memory += parse_smaps_rollup((_PROC / str(pid) / "smaps_rollup").read_text())
    return cpu_s, memory


def read_core_time(core: int | None) -> CoreTime:
    """Read a core's times; None is all cores."""
    return parse_core_time((_PROC / "stat").read_text(), core)


@contextlib.contextmanager
def on_core(core: int | None) -> Generator[None]:
    """Run this thread, and processes that it starts, on one core; None leaves them where they are."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def calibrate(core: int | None) -> float:
    """Return how many seconds a fixed piece of Python takes on a core, the best of five. Blocks for about 0.1 s."""
    with on_core(core):
        return min(_spin_s() for _ in range(5))


def _spin_s() -> float:
    began_s = time.perf_counter()
    total = 0
    for number in range(_CALIBRATION_ROUNDS):
        total ^= number
    return time.perf_counter() - began_s


def _read_stats() -> Iterable[tuple[int, ProcessStat]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                yield int(entry.name), parse_stat((entry / "stat").read_text())
