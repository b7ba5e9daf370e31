import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.build_queue import REST_SHARE, TURN_LIMIT_S, BuildQueue
from tests.virtual_time import VirtualTimeLoop


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def build(queue: BuildQueue, took_s: float, log: list[tuple[float, float]]) -> None:
    turn = await queue.take()
    began_s = now_s()
    await asyncio.sleep(took_s)
    turn.give_back()
    turn.give_back()
    log.append((began_s, now_s()))


async def test_the_first_builds_at_once() -> None:
    queue = BuildQueue()
    assert queue.backlog_s == 0.0
    began_s = now_s()
    await queue.take()
    assert now_s() == began_s


async def test_one_builds_at_a_time_and_the_loop_is_given_back_in_between() -> None:
    queue, log = BuildQueue(), list[tuple[float, float]]()
    began_s = now_s()
    await asyncio.gather(*(build(queue, 0.1, log) for _ in range(5)))
    begins = [round(began - began_s, 3) for began, _ in log]
    step_s = 0.1 * (1 + REST_SHARE)
    assert begins == [round(step_s * number, 3) for number in range(5)]


async def test_a_build_that_hangs_holds_up_nobody_for_longer_than_its_limit() -> None:
    queue = BuildQueue()
    began_s = now_s()
    await queue.take()
    await queue.take()
    assert now_s() - began_s == pytest.approx(TURN_LIMIT_S * (1 + REST_SHARE))


async def test_the_backlog_is_learned_from_what_builds_take() -> None:
    queue, log = BuildQueue(), list[tuple[float, float]]()
    await asyncio.gather(*(build(queue, 0.2, log) for _ in range(20)))
    waiting = [asyncio.create_task(build(queue, 0.2, log)) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert queue.backlog_s == pytest.approx(10 * 0.2 * (1 + REST_SHARE), rel=0.1)
    await asyncio.gather(*waiting)
    await asyncio.sleep(1.0)
    assert queue.backlog_s == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 0.8), st.sampled_from([None, 0.0, 0.05, 0.3, 1.0])),
        min_size=1,
        max_size=12,
    )
)
def test_whoever_is_called_off_takes_no_turn_along(builds: list[tuple[float, float | None]]) -> None:
    async def run() -> None:
        queue, log = BuildQueue(), list[tuple[float, float]]()
        tasks: list[asyncio.Task[None]] = []
        for took_s, leaves_after_s in builds:
            task = asyncio.create_task(build(queue, took_s, log))
            tasks.append(task)
            if leaves_after_s is not None:
                asyncio.get_running_loop().call_later(leaves_after_s, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(2 * TURN_LIMIT_S + 0.1)
        assert queue.backlog_s == 0.0
        began_s = now_s()
        await queue.take()
        assert now_s() == began_s
        ordered = sorted(log)
        for (_, ended_s), (next_s, _) in itertools.pairwise(ordered):
            assert next_s >= ended_s or ended_s - next_s <= 0.8

    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
