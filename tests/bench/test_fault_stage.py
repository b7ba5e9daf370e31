import asyncio
import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request, Response

from bench import fault_stage
from bench.chaos.redis_server import RedisServer
from bench.chaos.stage import Place, Sims, World
from bench.fault_rows import Fault, Trouble
from bench.fault_stage import in_trouble, place_for
from bench.servers import Bot, Server

pytestmark = pytest.mark.real_time
LONG_S = 30.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trouble begin with the ring."""
    monkeypatch.setattr(fault_stage, "RING_S", 0.0)
    monkeypatch.setattr(Fault, "trouble_at_s", 0.0)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A database that somebody has open."""
    path = tmp_path / "books.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE notes (text)")
    return path


def place(books: Path, sims: Sims | None = None) -> Place:
    server = Server(Bot.OURS, 1, 1, books, books.with_suffix(".log"))
    return Place(sims or Sims({}, cast("ClientSession", None)), server)


class FakeWorld:
    """Serves at once, and asks what a world is asked."""

    environment: Mapping[str, str] = defaultdict(str)

    def serve(self, *, redis: RedisServer) -> Server:
        assert redis.url.startswith("redis://")
        return Server(Bot.OURS, 1, 1, Path("books.db"), Path("server.log"))


def write(books: Path) -> None:
    with contextlib.closing(sqlite3.connect(books, timeout=0.05, isolation_level=None)) as database:
        database.execute("INSERT INTO notes VALUES ('x')")


async def test_a_database_is_locked_until_the_call_is_over(books: Path) -> None:
    async with in_trouble(place(books), Fault("a", trouble=Trouble.LOCKED)):
        await asyncio.sleep(0.2)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write(books)
    write(books)


async def test_a_damaged_database_is_none(books: Path) -> None:
    async with in_trouble(place(books), Fault("a", trouble=Trouble.DAMAGED)):
        await asyncio.sleep(0.2)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write(books)


async def test_so_is_one_that_nobody_has_written_to_yet(tmp_path: Path) -> None:
    books = tmp_path / "books.db"
    async with in_trouble(place(books), Fault("a", trouble=Trouble.DAMAGED)):
        await asyncio.sleep(0.2)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write(books)


async def test_a_quota_is_used_up_and_there_again(books: Path) -> None:
    told: list[object] = []

    async def quota(request: Request) -> Response:
        told.append(await request.json())
        return Response()

    app = Application()
    app.router.add_post("/sim/quota", quota)
    async with TestClient(TestServer(app)) as vendor, ClientSession() as http:
        sims = Sims({"elevenlabs": str(vendor.make_url("/")).rstrip("/")}, http)
        async with in_trouble(place(books, sims), Fault("a", trouble=Trouble.QUOTA)):
            await asyncio.sleep(0.2)
            assert told == [{"characters": 0}]
    assert told == [{"characters": 0}, {"characters": None}]


async def test_a_call_that_ends_before_its_trouble_has_none(
    books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_stage, "RING_S", LONG_S)
    async with in_trouble(place(books), Fault("a", trouble=Trouble.DAMAGED)):
        await asyncio.sleep(0.05)
    write(books)


async def test_a_trouble_that_cannot_begin_is_told(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        async with in_trouble(place(tmp_path / "no" / "books.db"), Fault("a", trouble=Trouble.LOCKED)):
            await asyncio.sleep(0.2)


async def answer_of(redis: RedisServer) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(b"PING\r\n")
    try:
        async with asyncio.timeout(0.5):
            return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("trouble", [Trouble.REDIS_GONE, Trouble.REDIS_HANGS])
async def test_redis_is_there_until_it_is_not(trouble: Trouble, tmp_path: Path) -> None:
    fault = Fault("a", trouble=trouble)
    async with place_for(
        fault, Bot.OURS, cast("World", FakeWorld()), cast("ClientSession", None), tmp_path
    ) as one:
        redis = one.redis
        assert redis is not None
        assert await answer_of(redis) == b"+PONG\r\n"
        async with in_trouble(one, fault):
            await asyncio.sleep(0.3)
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            await answer_of(redis)
    with pytest.raises(ConnectionRefusedError):
        await answer_of(redis)


async def test_a_server_without_a_redis_cannot_lose_it(books: Path) -> None:
    with pytest.raises(ValueError, match="no Redis"):
        async with in_trouble(place(books), Fault("a", trouble=Trouble.REDIS_GONE)):
            await asyncio.sleep(0.1)
