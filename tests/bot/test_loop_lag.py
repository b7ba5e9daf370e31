import asyncio

import pytest

from bot.loop_lag import watch_loop_lag


async def test_an_idle_loop_is_never_late() -> None:
    seen: list[float] = []
    task = asyncio.create_task(watch_loop_lag(seen.append))
    await asyncio.sleep(2.1)
    task.cancel()
    assert len(seen) == 8
    assert max(seen) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.real_time
async def test_a_blocked_loop_is_late() -> None:
    import time

    seen: list[float] = []
    task = asyncio.create_task(watch_loop_lag(seen.append))
    await asyncio.sleep(0.1)
    time.sleep(0.4)  # noqa: ASYNC251 - the blocking is the point
    await asyncio.sleep(0.3)
    task.cancel()
    assert max(seen) > 0.1
