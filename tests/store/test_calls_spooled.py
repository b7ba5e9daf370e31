"""Calls written down while the store is up, hangs, is gone, full, or locked by others; and what is read meanwhile."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from store.calls import Beat, SavedCall, SaveVerdict
from store.calls_redis import RedisCallStore
from store.calls_spooled import SpooledCallStore
from store.calls_sqlite import SqliteCallStore
from store.errors import StoreUnavailableError
from store.spool import Spool
from store.spool_table import SpoolState
from tests.fakes.launcher import eventually
from tests.fakes.redis_process import RedisProcess, redis_process
from tests.store.call_store_suite import NOW, saved

pytestmark = pytest.mark.real_time


class Process:
    """What one process has: its spool, and the store behind it."""

    def __init__(self, folder: Path, name: str, server: RedisProcess | None) -> None:
        self.link = None if server is None else server.link(deadline_s=1.0)
        self.store = (
            SqliteCallStore(folder / "calls.db", deadline_s=1.0)
            if self.link is None
            else RedisCallStore(self.link)
        )
        self.spool = Spool(folder / "spool", name="state", process=name, deadline_s=1.0)
        self.calls = SpooledCallStore(self.store, self.spool, process=name)
        self.lost: list[SavedCall] = []
        self.calls.tell_lost(self.lost.append)

    async def close(self) -> None:
        await self.spool.close()
        await self.calls.close()
        if self.link is not None:
            await self.link.close()

    async def is_down(self) -> None:
        await eventually(lambda: self.spool.state is SpoolState.DOWN)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with redis_process(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def one(tmp_path: Path, server: RedisProcess) -> AsyncIterator[Process]:
    process = Process(tmp_path, "one", server)
    yield process
    await process.close()


@pytest_asyncio.fixture
async def two(tmp_path: Path, server: RedisProcess) -> AsyncIterator[Process]:
    process = Process(tmp_path, "two", server)
    yield process
    await process.close()


async def test_what_was_just_saved_is_read_before_the_store_has_it(one: Process) -> None:
    saving = asyncio.create_task(one.calls.save(saved()))
    await asyncio.sleep(0)
    assert await one.calls.load("CA1") == saved()
    assert await one.calls.load("CA") is None
    assert await one.calls.calls_of("one") == [saved()]
    assert await saving is SaveVerdict.WRITTEN
    assert await one.store.load("CA1") == saved()
    await one.calls.finish(saved(), NOW)
    assert await one.calls.calls_of("one") == []


async def test_redis_gone_before_the_first_write_and_back_after_the_call(
    one: Process, server: RedisProcess
) -> None:
    server.kill()
    call = saved()
    for step in range(5):
        assert await one.calls.save(call) is SaveVerdict.WRITTEN
        assert await one.calls.load("CA1") == call
        call = call.next(NOW, node=f"step {step}")
    await one.calls.finish(call, NOW)
    await one.is_down()
    server.start()
    assert await one.spool.settled(15)
    stored = await one.store.load("CA1")
    assert stored is not None
    assert stored.is_finished


async def test_redis_that_hangs_in_the_middle_of_a_call_keeps_nobody_waiting(
    one: Process, server: RedisProcess
) -> None:
    await one.calls.save(saved())
    server.freeze()
    began_s = asyncio.get_running_loop().time()
    call = saved()
    for _ in range(20):
        call = call.next(NOW)
        assert await one.calls.save(call) is SaveVerdict.WRITTEN
    assert (
        asyncio.get_running_loop().time() - began_s < 4.0
    )  # the first waits for the deadline, and few others
    assert await one.calls.load("CA1") == call
    server.thaw()
    assert await one.spool.settled(15)
    assert await one.store.load("CA1") == call


async def test_redis_that_lost_its_memory_gets_the_call_at_its_next_step(
    one: Process, server: RedisProcess
) -> None:
    await one.calls.save(saved())
    server.kill()
    server.start()
    assert await one.calls.load("CA1") is None
    await one.calls.save(saved(revision=2))
    assert await one.spool.settled(10)
    assert await one.store.load("CA1") == saved(revision=2)


async def test_a_process_that_slept_learns_that_its_call_was_taken(one: Process, two: Process) -> None:
    await one.calls.save(saved())
    known = await two.calls.load("CA1")
    assert known is not None
    taken = await two.calls.claim(known, "two", NOW)
    assert taken is not None
    await two.calls.save(taken.next(NOW, node="on"))
    assert await two.spool.settled(5)
    late = saved(revision=2, node="late")
    assert await one.calls.save(late) is SaveVerdict.LOST
    assert one.lost == [late]
    assert await one.calls.save(late.next(NOW)) is SaveVerdict.LOST
    stored = await two.calls.load("CA1")
    assert stored is not None
    assert (stored.node, stored.process) == ("on", "two")


async def test_a_call_comes_back_to_who_had_lost_it(one: Process, two: Process) -> None:
    await one.calls.save(saved())
    await two.calls.claim(saved(), "two", NOW)
    await one.calls.save(saved(revision=2))
    await eventually(lambda: len(one.lost) == 1)
    again = await one.calls.claim(saved(claim=2), "one", NOW)
    assert again is not None
    assert await one.calls.save(again.next(NOW)) is SaveVerdict.WRITTEN
    assert await one.spool.settled(5)
    assert len(one.lost) == 1


async def test_a_claim_of_its_own_call_has_the_last_step_that_the_store_lacks(
    one: Process, server: RedisProcess
) -> None:
    await one.calls.save(saved())
    server.freeze()
    last = saved(revision=2, node="last")
    await one.calls.save(last)
    await one.is_down()
    server.thaw()
    taken = await one.calls.claim(saved(), "one", NOW)
    assert taken is not None
    assert (taken.node, taken.claim, taken.resumes) == ("last", 2, (NOW,))
    assert await one.spool.settled(15)
    stored = await one.store.load("CA1")
    assert stored is not None
    assert (stored.node, stored.claim) == ("last", 2)
    assert [call.claim for call in one.lost] == [1]  # the earlier owner, in this same process
    assert await one.calls.save(last.next(NOW)) is SaveVerdict.LOST
    assert await one.calls.save(taken.next(NOW)) is SaveVerdict.WRITTEN


async def test_with_the_store_down_a_process_goes_on_with_its_own_call_and_with_no_other(
    one: Process, two: Process, server: RedisProcess
) -> None:
    await one.calls.save(saved())
    await two.calls.save(saved(call_sid="CA2", process="two"))
    assert await one.spool.settled(5)
    assert await two.spool.settled(5)
    server.kill()
    await one.calls.save(saved(revision=2, node="last"))
    taken = await one.calls.claim(saved(revision=2), "one", NOW)
    assert taken is not None
    assert (taken.node, taken.claim) == ("last", 2)
    for ask in (
        one.calls.claim(saved(call_sid="CA2", process="two"), "one", NOW),
        one.calls.load("CA2"),
        one.calls.beat(Beat("one", 1)),
        one.calls.beats(),
        one.calls.calls_of("two"),
    ):
        with pytest.raises(StoreUnavailableError):
            await ask
    server.start()
    assert await one.spool.settled(15)
    stored = await one.store.load("CA1")
    assert stored is not None
    assert (stored.node, stored.claim) == ("last", 2)


async def test_a_call_that_never_got_to_the_store_can_be_claimed_by_its_own(
    one: Process, server: RedisProcess
) -> None:
    server.kill()
    await one.calls.save(saved())
    await one.is_down()
    server.start()
    taken = await one.calls.claim(saved(), "one", NOW)
    assert taken is not None
    assert taken.claim == 2
    assert await one.calls.claim(saved(), "one", NOW) is None
    assert await one.spool.settled(15)
    assert await one.store.load("CA1") == taken


async def test_what_a_dead_process_had_not_written_yet_is_known_where_it_is_adopted(
    one: Process, tmp_path: Path, server: RedisProcess
) -> None:
    dead = Process(tmp_path, "dead", server)
    server.freeze()
    await dead.calls.save(saved(process="dead", node="last"))
    await dead.is_down()
    await dead.close()
    one.spool.start()
    await eventually(lambda: len(one.spool) == 1)
    found = await one.calls.load("CA1")
    assert found is not None
    assert found.node == "last"
    server.thaw()
    assert await one.spool.settled(15)
    claimed = await one.calls.claim(found, "one", NOW)
    assert claimed is not None
    assert claimed.node == "last"
    assert one.lost == []


async def test_adopted_writes_do_not_displace_ours(
    one: Process, tmp_path: Path, server: RedisProcess
) -> None:
    await one.calls.save(saved(process="dead"))
    assert await one.spool.settled(5)
    dead = Process(tmp_path, "dead", server)
    server.freeze()
    await dead.calls.save(saved(process="dead", revision=5, node="late"))
    await dead.is_down()
    await dead.close()
    server.thaw()
    taken = await one.store.claim(saved(process="dead"), "one", NOW)
    assert taken is not None
    server.freeze()
    await one.calls.save(taken.next(NOW, node="ours"))
    await eventually(lambda: len(one.spool) == 2)
    server.thaw()
    assert await one.spool.settled(15)
    stored = await one.store.load("CA1")
    assert stored is not None
    assert stored.node == "ours"


async def test_sqlite_locked_by_somebody_else(tmp_path: Path) -> None:
    one = Process(tmp_path, "one", None)
    await one.calls.save(saved())
    other = sqlite3.connect(tmp_path / "calls.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await one.calls.save(saved(revision=2))
    await one.is_down()
    assert await one.calls.load("CA1") == saved(revision=2)
    other.execute("ROLLBACK")
    other.close()
    assert await one.spool.settled(15)
    assert await one.store.load("CA1") == saved(revision=2)
    await one.close()


async def test_sqlite_on_a_disk_that_is_full(tmp_path: Path) -> None:
    one = Process(tmp_path, "one", None)
    await one.calls.save(saved())

    def limit(connection: sqlite3.Connection) -> int:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        return connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0]

    assert isinstance(one.store, SqliteCallStore)
    await one.store._file.run(limit)
    big = saved(revision=2, about_to_say="x" * 100_000)
    await one.calls.save(big)
    await one.is_down()  # "database or disk is full"
    assert await one.calls.load("CA1") == big
    await one.store._file.run(
        lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone()
    )
    assert await one.spool.settled(15)
    assert await one.store.load("CA1") == big
    await one.close()


async def test_sqlite_that_may_only_be_read(tmp_path: Path) -> None:
    one = Process(tmp_path, "one", None)
    await one.calls.save(saved())
    assert isinstance(one.store, SqliteCallStore)
    await one.store._file.run(lambda connection: connection.execute("PRAGMA query_only = 1").fetchone())
    await one.calls.save(saved(revision=2))
    await one.is_down()
    assert await one.calls.load("CA1") == saved(revision=2)
    await one.store._file.run(lambda connection: connection.execute("PRAGMA query_only = 0").fetchone())
    assert await one.spool.settled(15)
    assert await one.store.load("CA1") == saved(revision=2)
    await one.close()
