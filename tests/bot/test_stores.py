"""The stores of a process as they are opened, and all of a server over a real Redis that comes and goes."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bot.settings import Settings
from bot.shared_health import SharedHealth
from bot.stores import Stores
from processors.voice_health import ProcessVoiceHealth
from processors.voices import FailureKind
from store.events import CallEvent, EventKind
from store.spool_table import SpoolState
from tests.fakes.launcher import eventually
from tests.fakes.redis_process import RedisProcess, redis_process
from tests.store.call_store_suite import saved

pytestmark = pytest.mark.real_time


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with redis_process(tmp_path) as running:
        yield running


def open_stores(folder: Path, url: str | None = None) -> Stores:
    settings = Settings(_env_file=None, database_url=f"sqlite:///{folder / 'data' / 'a.db'}", redis_url=url)  # pyright: ignore[reportCallIssue]
    return Stores.open(settings)


def event() -> CallEvent:
    return CallEvent("CA1", datetime.now(UTC), EventKind.CALL_BEGAN, {"channel": "phone"})


async def use(stores: Stores, folder: Path) -> None:
    one, call = event(), saved(process=stores.process)
    stores.start()
    stores.events.note(one)
    await stores.calls.save(call)
    assert await stores.state_spool.settled(5)
    other = open_stores(folder, None if stores.link is None else _url(stores))
    assert await other.events.of_call("CA1") == [one]
    assert await other.calls.load("CA1") == call
    await other.close()


def _url(stores: Stores) -> str:
    assert stores.link is not None
    options = stores.link.redis.connection_pool.connection_kwargs
    return f"redis://127.0.0.1:{options['port']}/0"


async def test_without_redis_the_database_keeps_everything(tmp_path: Path) -> None:
    stores = open_stores(tmp_path)
    await use(stores, tmp_path)
    assert stores.board is None
    await stores.close()
    assert sorted(path.name for path in (tmp_path / "data" / "spool").iterdir()) == []


async def test_with_redis_it_keeps_everything(tmp_path: Path, server: RedisProcess) -> None:
    stores = open_stores(tmp_path, server.url)
    await use(stores, tmp_path)
    await stores.close()
    assert not (tmp_path / "data" / "a.db").exists()


async def test_opening_and_closing_touches_nothing(tmp_path: Path) -> None:
    stores = open_stores(tmp_path, "redis://127.0.0.1:1/0")
    await stores.close()
    assert not (tmp_path / "data").exists()


async def test_a_process_ends_in_time_while_redis_hangs_and_the_next_goes_on(
    tmp_path: Path, server: RedisProcess
) -> None:
    first = open_stores(tmp_path, server.url)
    one = event()
    first.events.note(one)
    assert await first.state_spool.settled(5)
    server.freeze()
    late = event()
    first.events.note(late)
    await eventually(lambda: first.state_spool.state is SpoolState.DOWN)
    began_s = asyncio.get_running_loop().time()
    await first.close()
    assert asyncio.get_running_loop().time() - began_s < 3.0
    server.thaw()
    second = open_stores(tmp_path, server.url)
    second.start()
    await eventually(lambda: not (tmp_path / "data" / "spool" / f"{first.process}.state.spool").exists())
    assert await second.state_spool.settled(10)
    assert await second.events.of_call("CA1") == [one, late]
    await second.close()


async def test_what_one_process_finds_out_of_a_voice_another_knows_within_a_second(
    tmp_path: Path, server: RedisProcess
) -> None:
    stores = [open_stores(tmp_path / name, server.url) for name in ("one", "two")]
    healths = [ProcessVoiceHealth(), ProcessVoiceHealth()]
    tasks: list[asyncio.Task[None]] = []
    for one, health in zip(stores, healths, strict=True):
        assert one.board is not None
        shared = SharedHealth({"voice": health}, one.board, process=one.process)
        tasks.append(asyncio.create_task(shared.run()))
    loop = asyncio.get_running_loop()
    try:
        await asyncio.sleep(0.2)
        healths[0].failed("cartesia", FailureKind.UNAUTHORIZED, loop.time())
        await eventually(lambda: not healths[1].is_well("cartesia"), 2.0)
        assert 50.0 < healths[1].probe_in_s("cartesia", loop.time()) <= 60.0
        server.kill()
        healths[1].failed("elevenlabs", FailureKind.UNAUTHORIZED, loop.time())
        assert not healths[1].is_well("elevenlabs")
        await asyncio.sleep(0.5)
        assert healths[0].is_well("elevenlabs")
        server.start()
        await eventually(lambda: not healths[0].is_well("elevenlabs"))
    finally:
        for task in tasks:
            task.cancel()
        for one in stores:
            await one.close()
