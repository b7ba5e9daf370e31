"""A hand-off as several processes of one machine see it."""

import sqlite3
from pathlib import Path

import pytest

from store.errors import StoreUnavailableError
from store.handoffs import HANDOFF_KEPT_S
from store.handoffs_sqlite import SqliteHandoffStore

pytestmark = pytest.mark.real_time


async def test_what_is_over_for_long_is_forgotten(tmp_path: Path) -> None:
    now_s = 1000.0
    store = SqliteHandoffStore(tmp_path / "one.db", deadline_s=5.0, now_s=lambda: now_s)
    await store.save("CA1", 1, "first")
    now_s += HANDOFF_KEPT_S
    assert await store.load("CA1") is None
    await store.save("CA2", 1, "second")
    await store.close()
    with sqlite3.connect(tmp_path / "one.db") as file:
        assert file.execute("SELECT call_sid FROM handoffs").fetchall() == [("CA2",)]
    file.close()


async def test_a_file_that_is_locked_is_a_typed_failure_in_time(tmp_path: Path) -> None:
    store = SqliteHandoffStore(tmp_path / "one.db", deadline_s=0.2)
    await store.load("CA1")
    other = sqlite3.connect(tmp_path / "one.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        await store.save("CA1", 1, "x")
    other.close()
    await store.close()
