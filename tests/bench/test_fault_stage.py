import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import cast

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request, Response

from bench import fault_stage
from bench.chaos.stage import Place, Sims
from bench.fault_rows import Fault, Trouble
from bench.fault_stage import Stand, in_trouble, redis_server
from bench.servers import Bot, Server, ServerError

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


def stand(books: Path, sims: Sims | None = None) -> Stand:
    server = Server(Bot.OURS, 1, 1, books, books.with_suffix(".log"))
    return Stand(Place(sims or Sims({}, cast("ClientSession", None)), server))


def write(books: Path) -> None:
    with contextlib.closing(sqlite3.connect(books, timeout=0.05, isolation_level=None)) as database:
        database.execute("INSERT INTO notes VALUES ('x')")


async def test_a_database_is_locked_until_the_call_is_over(books: Path) -> None:
    async with in_trouble(stand(books), Fault("a", trouble=Trouble.LOCKED)):
        await asyncio.sleep(0.2)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            write(books)
    write(books)


async def test_a_damaged_database_is_none(books: Path) -> None:
    async with in_trouble(stand(books), Fault("a", trouble=Trouble.DAMAGED)):
        await asyncio.sleep(0.2)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        write(books)


async def test_so_is_one_that_nobody_has_written_to_yet(tmp_path: Path) -> None:
    books = tmp_path / "books.db"
    async with in_trouble(stand(books), Fault("a", trouble=Trouble.DAMAGED)):
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
        async with in_trouble(stand(books, sims), Fault("a", trouble=Trouble.QUOTA)):
            await asyncio.sleep(0.2)
            assert told == [{"characters": 0}]
    assert told == [{"characters": 0}, {"characters": None}]


async def test_a_call_that_ends_before_its_trouble_has_none(
    books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fault_stage, "RING_S", LONG_S)
    async with in_trouble(stand(books), Fault("a", trouble=Trouble.DAMAGED)):
        await asyncio.sleep(0.05)
    write(books)


async def test_a_trouble_that_cannot_begin_is_told(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        async with in_trouble(stand(tmp_path / "no" / "books.db"), Fault("a", trouble=Trouble.LOCKED)):
            await asyncio.sleep(0.2)


async def test_redis_is_there_until_it_is_killed(books: Path) -> None:
    with redis_server() as redis:
        _, writer = await asyncio.open_connection("127.0.0.1", redis.port)
        writer.close()
        one = Stand(stand(books).place, redis)
        async with in_trouble(one, Fault("a", trouble=Trouble.REDIS_GONE)):
            await asyncio.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", redis.port)


def test_a_machine_without_redis_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ServerError, match="redis-server"), redis_server():
        pass
