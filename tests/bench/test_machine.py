import math
import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bench.machine import (
    TICKS_PER_S,
    CoreTime,
    Memory,
    bucket_percentile,
    on_core,
    parse_buckets,
    parse_core_time,
    parse_smaps_rollup,
    parse_stat,
    read_core_time,
    read_tree,
    tree_of,
)

STAT = "812 (a (odd) name) S 700 812 812 0 -1 4194304 900 0 0 0 250 50 7 3 20 0 9 0 1 2 3"
SMAPS = """55d0-7ffe ---p 00000000 00:00 0    [rollup]
Rss:              102400 kB
Pss:               80000 kB
Pss_Anon:          50000 kB
Shared_Clean:      20000 kB
Private_Clean:      1000 kB
Private_Dirty:     60000 kB
"""
CORES = """cpu  100 0 50 1000 5 1 2 40 0 0
cpu0 60 1 20 500 5 1 1 10 0 0
cpu10 40 0 30 500 0 0 1 30 0 0
intr 1 2 3
"""


def test_a_process_may_have_any_name() -> None:
    stat = parse_stat(STAT)
    assert stat.parent == 700
    assert stat.cpu_s == pytest.approx((250 + 50 + 7 + 3) / TICKS_PER_S)


@pytest.mark.parametrize("text", ["", "812", "812 (x) S 1 2 3"])
def test_what_is_no_stat_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="stat"):
        parse_stat(text)


def test_private_memory_is_clean_and_dirty() -> None:
    memory = parse_smaps_rollup(SMAPS)
    assert memory.resident_mb == pytest.approx(102400 * 1024 / 1e6)
    assert memory.private_mb == pytest.approx(61000 * 1024 / 1e6)


def test_core_times_are_those_of_the_core() -> None:
    assert parse_core_time(CORES, 0) == CoreTime(83 / TICKS_PER_S, 10 / TICKS_PER_S)
    assert parse_core_time(CORES, 10).steal_s == 30 / TICKS_PER_S
    assert parse_core_time(CORES, None).busy_s == 153 / TICKS_PER_S
    with pytest.raises(ValueError, match="cpu1"):
        parse_core_time(CORES, 1)


def test_a_tree_has_every_descendant_and_nobody_else() -> None:
    assert tree_of(10, {10: 1, 11: 10, 12: 11, 13: 1, 14: 13}) == {10, 11, 12}


def test_buckets_are_read_as_prometheus_writes_them() -> None:
    registry = CollectorRegistry()
    lag = Histogram("lag_seconds", "x", buckets=(0.01, 0.1), registry=registry)
    Histogram("other_seconds", "x", registry=registry).observe(5)
    before = parse_buckets(generate_latest(registry).decode(), "lag_seconds")
    for value in [0.001] * 98 + [0.05, 3.0]:
        lag.observe(value)
    after = parse_buckets(generate_latest(registry).decode(), "lag_seconds")
    assert after == {0.01: 98.0, 0.1: 99.0, math.inf: 100.0}
    assert bucket_percentile(before, after, 0.5) == 0.01
    assert bucket_percentile(before, after, 0.99) == 0.1
    assert bucket_percentile(before, after, 1.0) == math.inf
    assert bucket_percentile(after, after, 0.5) is None


def test_a_childs_time_and_memory_are_counted() -> None:
    # The child is busy, its parent only waits.
    busy = "x = bytearray(30_000_000)\nfor _ in range(2_000_000): pass\nprint(1, flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen(  # noqa: S603 - a line of ours
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        cpu_s, memory = read_tree(process.pid)
        process.communicate(b"\n")
    assert cpu_s > 0.03
    assert memory.private_mb > 30
    assert read_tree(process.pid) == (0, Memory(0, 0))


def test_a_core_is_kept_only_inside() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with on_core(core):
        assert os.sched_getaffinity(0) == {core}
        assert read_core_time(core).busy_s > 0
    assert os.sched_getaffinity(0) == before
