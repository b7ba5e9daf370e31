"""Where a call of `bench/faults.py` is played: a server of its own, two behind one address, or one with a Redis.

What no sim acts out goes wrong here.
"""

import asyncio
import contextlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.chaos.faults import Target
from bench.chaos.front import opened
from bench.chaos.play import RING_S
from bench.chaos.stage import AGENTS, MAX_CALLS, Place, Sims, World
from bench.fault_rows import Fault, Trouble
from bench.servers import Bot, ServerError, free_port, running
from bot.settings import Vendor, VendorSource
from bot.sim_process import sim_environment

_REDIS_LIMIT_S = 10.0
_LOCK_LIMIT_S = 5.0
_PAGE_BYTES = 4096
_QUOTA_LIMIT = aiohttp.ClientTimeout(total=5.0)
_Undo = Callable[[], object]


@dataclass(frozen=True)
class RedisServer:
    """A `redis-server` of our own, in memory only."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        """Return what `REDIS_URL` is."""
        return f"redis://127.0.0.1:{self.port}/0"


@dataclass(frozen=True)
class Stand:
    """A server that waits for its call, and what it stands on."""

    place: Place
    redis: RedisServer | None = None


@contextlib.asynccontextmanager
async def stand_for(
    fault: Fault, bot: Bot, world: World, http: aiohttp.ClientSession, folder: Path
) -> AsyncGenerator[Stand]:
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
        stack = contextlib.ExitStack()
        try:
            redis = await asyncio.to_thread(stack.enter_context, redis_server())
            serving = _with_redis(world, sims, redis, folder)
            yield Stand(await asyncio.to_thread(stack.enter_context, serving), redis)
        finally:
            await asyncio.shield(asyncio.to_thread(stack.close))
    elif fault.needs_standby and bot is Bot.OURS:
        first, second = await asyncio.to_thread(world.serve_two)
        async with opened((first.port, second.port), first.public_port or 0):
            yield Stand(Place(sims, first, standby=second))
    else:
        yield Stand(Place(sims, await asyncio.to_thread(world.serve, bot)))


@contextlib.contextmanager
def _with_redis(world: World, sims: Sims, redis: RedisServer, folder: Path) -> Generator[Place]:
    """Start a server of ours that keeps its calls in Redis, and has the lines that another has rendered."""
    vendors = sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), world.environment)
    with running(
        Bot.OURS,
        vendors={**vendors, "SIMS": "off", "REDIS_URL": redis.url},
        folder=folder / "with-redis",
        core=None,
        max_calls=MAX_CALLS,
        agents=AGENTS,
        rendered=next(folder.glob("server-*/audio-cache"), None),
    ) as server:
        yield Place(sims, server)


@contextlib.asynccontextmanager
async def in_trouble(stand: Stand, fault: Fault) -> AsyncGenerator[None]:
    """Let a fault's trouble begin at its moment of the call that is ordered at the beginning of the block.

    Raises:
        aiohttp.ClientError: If a sim cannot be reached.
        sqlite3.Error: If the database cannot be locked.
    """
    if fault.trouble is None:
        yield
        return
    async with contextlib.AsyncExitStack() as undoing:
        beginning = asyncio.create_task(_begin_later(stand, fault, fault.trouble, undoing), name="trouble")
        try:
            yield
        finally:
            beginning.cancel()
            await asyncio.wait({beginning})
        if not beginning.cancelled():
            beginning.result()


async def _begin_later(
    stand: Stand, fault: Fault, trouble: Trouble, undoing: contextlib.AsyncExitStack
) -> None:
    await asyncio.sleep(RING_S + fault.trouble_at_s)
    match trouble:
        case Trouble.QUOTA:
            undoing.push_async_callback(_set_quota, stand, None)
            await _set_quota(stand, 0)
        case Trouble.LOCKED:
            undoing.callback(await asyncio.to_thread(_lock, stand.place.server.database))
        case Trouble.DAMAGED:
            _damage(stand.place.server.database)
        case Trouble.REDIS_GONE:
            _signal(stand, signal.SIGKILL)
        case Trouble.REDIS_HANGS:
            _signal(stand, signal.SIGSTOP)


async def _set_quota(stand: Stand, characters: int | None) -> None:
    sims = stand.place.sims
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


def _signal(stand: Stand, number: signal.Signals) -> None:
    if stand.redis is not None:
        stand.redis.process.send_signal(number)


@contextlib.contextmanager
def redis_server() -> Generator[RedisServer]:
    """Run one on a free port of loopback for as long as the block lasts.

    Raises:
        ServerError: If there is none on this machine, or it does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise ServerError("the rows of Redis need redis-server (Debian's package redis-server)")
    port = free_port()
    arguments = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    process = subprocess.Popen(  # noqa: S603 - what is on the path
        [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + _REDIS_LIMIT_S
        while not _is_listening(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise ServerError("redis-server does not start")
            time.sleep(0.02)
        yield RedisServer(port, process)
    finally:
        process.kill()
        process.wait()


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False
