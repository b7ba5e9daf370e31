"""Deadlines around `asyncio.wait_for`, when all happens in the same moment."""

import asyncio

import pytest

import processors


async def wait_under(deadline: asyncio.Timeout, future: "asyncio.Future[None]") -> None:
    async with deadline:
        await asyncio.wait_for(future, 60)


async def test_a_deadline_that_passes_as_its_wait_is_over_is_told_as_a_deadline() -> None:
    assert processors.__doc__  # importing it is what does it
    loop = asyncio.get_running_loop()
    future, deadline = loop.create_future(), asyncio.timeout(60)
    waiting = asyncio.create_task(wait_under(deadline, future))
    await asyncio.sleep(1)
    future.set_result(None)
    deadline.reschedule(loop.time())
    with pytest.raises(TimeoutError):
        await waiting
    assert not waiting.cancelled()


async def test_who_is_cancelled_as_the_wait_is_over_is_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(asyncio.wait_for(future, 60))
    await asyncio.sleep(1)
    future.set_result(None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_wait_gives_what_it_waited_for_or_says_that_it_took_too_long() -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_later(1, future.set_result, "it")
    assert await asyncio.wait_for(future, 2) == "it"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop.create_future(), 2)


async def test_its_own_time_and_a_deadline_around_it_may_pass_together() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 2)
