"""The loop whose clock jumps."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.virtual_time import VirtualTimeLoop


def play(work: Callable[[], Awaitable[None]]) -> float:
    """Run it; return the seconds it took on the loop's clock."""

    async def run() -> float:
        await work()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(run())


def test_waits_take_their_time_and_none_of_ours() -> None:
    async def wait() -> None:
        for _ in range(1000):
            await asyncio.sleep(60.0)

    assert play(wait) == pytest.approx(60_000.0)


def test_other_threads_are_waited_for() -> None:
    async def wait() -> None:
        assert await asyncio.to_thread(lambda: 7) == 7

    assert play(wait) == 0.0


def test_who_waits_for_a_moment_that_does_not_come_is_told() -> None:
    async def wait() -> None:
        await asyncio.sleep(1e9)
        while asyncio.get_running_loop().time() <= 1e9:  # noqa: ASYNC110 - an event would come
            await asyncio.sleep(1e-9)  # lost against the clock's digits

    with pytest.raises(RuntimeError, match="turned"):
        play(wait)
