import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from store.calls import Beat, CallStore
from store.calls_sqlite import SqliteCallStore
from store.errors import StoreUnavailableError
from tests.store.call_store_suite import CallStoreSuite, saved

pytestmark = pytest.mark.real_time


class TestSqliteCallStore(CallStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Callable[[], CallStore]:
        return lambda: SqliteCallStore(tmp_path / "data" / "calls.db", deadline_s=5.0)


async def test_a_locked_file_is_a_typed_failure_in_time(tmp_path: Path) -> None:
    store = SqliteCallStore(tmp_path / "calls.db", deadline_s=0.2)
    await store.save(saved())
    other = sqlite3.connect(tmp_path / "calls.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        await store.save(saved(revision=2))
    assert await store.load("CA1") == saved()  # readers do not wait for writers
    other.close()
    await store.save(saved(revision=2))
    await store.close()


async def test_what_has_expired_leaves_the_file(tmp_path: Path) -> None:
    clock = [1000.0]
    store = SqliteCallStore(tmp_path / "calls.db", deadline_s=5.0, now_s=lambda: clock[0])
    await store.save(saved())
    await store.beat(Beat("one", 1))
    clock[0] += 1200.0
    await store.beat(Beat("two", 1))
    await store.close()
    with sqlite3.connect(tmp_path / "calls.db") as file:
        assert file.execute("SELECT count(*) FROM saved_calls").fetchone() == (0,)
        assert file.execute("SELECT process FROM beats").fetchall() == [("two",)]
    file.close()


async def test_a_clock_that_was_set_back_makes_no_beat_younger_than_now(tmp_path: Path) -> None:
    clock = [1000.0]
    store = SqliteCallStore(tmp_path / "calls.db", deadline_s=5.0, now_s=lambda: clock[0])
    await store.beat(Beat("one", 1))
    clock[0] -= 50.0
    [seen] = await store.beats()
    assert seen.age_s == 0.0
    await store.close()
