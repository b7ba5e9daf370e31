"""Where a call of `bench/faults.py` is played: a server of its own, two behind one address, or one with a Redis.

What no sim acts out goes wrong here.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import aiohttp

from bench.chaos.faults import Target
from bench.chaos.front import opened
from bench.chaos.play import RING_S
from bench.chaos.redis_server import RedisServer
from bench.chaos.stage import Place, Sims, World
from bench.fault_rows import Fault, Trouble
from bench.servers import Bot

_LOCK_LIMIT_S = 5.0
_PAGE_BYTES = 4096
_QUOTA_LIMIT = aiohttp.ClientTimeout(total=5.0)
_Undo = Callable[[], object]


@contextlib.asynccontextmanager
async def place_for(
    fault: Fault, bot: Bot, world: World, http: aiohttp.ClientSession, folder: Path
) -> AsyncGenerator[Place]:
    """Start what one call needs, in place of all before.

    Args:
        fault: What is going to fail.
        bot: Whose server.
        world: Has the sims.
        http: For the sims' control surfaces.
        folder: The world's.

    Raises:
        ServerError: If something does not start.
    """
    sims = Sims.of(world.environment, http)
    if fault.trouble is not None and fault.trouble.is_of_redis:
        redis = RedisServer(folder)
        try:
            await asyncio.to_thread(redis.start)
            yield Place(sims, await asyncio.to_thread(world.serve, redis=redis), redis=redis)
        finally:
            await asyncio.shield(asyncio.to_thread(redis.kill))
    elif fault.needs_standby and bot is Bot.OURS:
        first, second = await asyncio.to_thread(world.serve_two)
        async with opened((first.port, second.port), first.public_port or 0):
            yield Place(sims, first, standby=second)
    else:
        yield Place(sims, await asyncio.to_thread(world.serve, bot))


@contextlib.asynccontextmanager
async def in_trouble(place: Place, fault: Fault) -> AsyncGenerator[None]:
    """Let a fault's trouble begin at its moment of the call that is ordered at the beginning of the block.

    Raises:
        aiohttp.ClientError: If a sim cannot be reached.
        sqlite3.Error: If the database cannot be locked.
    """
    if fault.trouble is None:
        yield
        return
    async with contextlib.AsyncExitStack() as undoing:
        beginning = asyncio.create_task(_begin_later(place, fault, fault.trouble, undoing), name="trouble")
        try:
            yield
        finally:
            beginning.cancel()
            await asyncio.wait({beginning})
        if not beginning.cancelled():
            beginning.result()


async def _begin_later(
    place: Place, fault: Fault, trouble: Trouble, undoing: contextlib.AsyncExitStack
) -> None:
    await asyncio.sleep(RING_S + fault.trouble_at_s)
    match trouble:
        case Trouble.QUOTA:
            undoing.push_async_callback(_set_quota, place, None)
            await _set_quota(place, 0)
        case Trouble.LOCKED:
            undoing.callback(await asyncio.to_thread(_lock, place.server.database))
        case Trouble.DAMAGED:
            _damage(place.server.database)
        case Trouble.REDIS_GONE:
            await asyncio.to_thread(_redis_of(place).kill)
        case Trouble.REDIS_HANGS:
            _redis_of(place).freeze()


async def _set_quota(place: Place, characters: int | None) -> None:
    sims = place.sims
    url = sims.urls[Target.VOICE] + "/sim/quota"
    async with sims.http.post(url, json={"characters": characters}, timeout=_QUOTA_LIMIT) as response:
        response.raise_for_status()


def _lock(database: Path) -> _Undo:
    """Keep everybody else from writing; return what ends it, for any thread. Waits for whoever writes just now."""
    books = sqlite3.connect(database, timeout=_LOCK_LIMIT_S, isolation_level=None, check_same_thread=False)
    books.execute("BEGIN IMMEDIATE")
    return books.close


def _damage(database: Path) -> None:
    """Write over what a file holds, if there is one yet, and over what was not yet brought together with it."""
    for file, least_bytes in ((database, _PAGE_BYTES), (database.with_name(f"{database.name}-wal"), 0)):
        size = max(file.stat().st_size if file.exists() else 0, least_bytes)
        if size:
            with file.open(
                "r+b" if file.exists() else "wb"
            ) as content:  # the same file for whoever has it open
                content.write(b"\xff" * size)


def _redis_of(place: Place) -> RedisServer:
    if place.redis is None:
        raise ValueError("this server has no Redis")
    return place.redis
