import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from store.errors import StoreUnavailableError
from store.sqlite_file import SqliteFile, transaction

pytestmark = pytest.mark.real_time

SCHEMA = "CREATE TABLE IF NOT EXISTS notes (text TEXT)"


def count(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT count(*) FROM notes").fetchone()[0]


async def test_a_block_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "a.db", schema=SCHEMA, deadline_s=5)

    def half(connection: sqlite3.Connection) -> None:
        with transaction(connection):
            connection.execute("INSERT INTO notes VALUES ('x')")
            raise LookupError("halfway")

    with pytest.raises(LookupError):
        await file.run(half)
    assert await file.run(count) == 0
    await file.close()


async def test_a_file_that_was_deleted_or_replaced_takes_nothing_until_it_is_back(tmp_path: Path) -> None:
    path, aside = tmp_path / "a.db", tmp_path / "aside.db"
    file = SqliteFile(path, schema=SCHEMA, deadline_s=5)
    await file.run(count)
    path.rename(aside)
    with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
        await file.run(count)
    path.touch()
    with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
        await file.run(count)
    aside.replace(path)
    assert await file.run(count) == 0
    await file.close()


async def test_the_deadline_ends_the_wait_and_work_that_waited_is_dropped(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "a.db", schema=SCHEMA, deadline_s=0.1)
    await file.run(count)
    released = threading.Event()
    ran: list[str] = []
    refused = await asyncio.gather(
        file.run(lambda _: released.wait(5) and ran.append("slow")),
        file.run(lambda _: ran.append("waiting")),
        return_exceptions=True,
    )
    assert [type(error) for error in refused] == [StoreUnavailableError] * 2
    assert "no answer within" in str(refused[0])
    released.set()
    await asyncio.sleep(0.05)
    await file.run(lambda _: ran.append("next"))
    assert ran == ["slow", "next"]
    await file.close()


async def test_too_much_waiting_work_is_refused_at_once(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "a.db", schema=SCHEMA, deadline_s=5)
    released = threading.Event()
    waiting = [asyncio.ensure_future(file.run(lambda _: released.wait(5))) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError, match="64 pieces"):
        await file.run(count)
    released.set()
    assert all(await asyncio.gather(*waiting))
    await file.close()


def test_a_deadline_that_is_not_positive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        SqliteFile(tmp_path / "a.db", schema=SCHEMA, deadline_s=0)


async def test_a_file_still_held_by_another_that_opens_it_is_waited_for(tmp_path: Path) -> None:
    # SQLite refuses the switch to WAL at once while someone writes in the old mode; a timeout does not help.
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    file = SqliteFile(tmp_path / "a.db", schema=SCHEMA, deadline_s=5)
    opening = asyncio.create_task(file.run(count))
    await asyncio.sleep(0.05)
    assert not opening.done()
    other.execute("COMMIT")
    other.close()
    assert await opening == 0
    await file.close()
