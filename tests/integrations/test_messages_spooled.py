import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from integrations.messages import CallerMessage, MessageBookUnavailableError, Noted
from integrations.messages_spooled import SpooledMessageBook, deliver_to
from integrations.messages_sqlite import SqliteMessageBook
from store.spool import Spool
from tests.fakes.launcher import eventually

pytestmark = pytest.mark.real_time

ZONE = ZoneInfo("America/Chicago")
MESSAGE = CallerMessage(
    key="CA1:1",
    call_sid="CA1",
    name="Maria Ó Briain",
    phone="+18505550199",
    text='My crown fell out.\n\t"Today"',
    received_at=datetime(2026, 11, 23, 9, 10, tzinfo=ZONE),
)


class Office:
    """One process with its message book and spool."""

    def __init__(self, folder: Path, process: str = "one") -> None:
        self.path = folder / "books.db"
        self.behind = SqliteMessageBook(self.path, timezone=ZONE, deadline_s=0.3)
        self.spool = Spool(folder / "spool", name="books", process=process, deadline_s=1.0)
        deliver_to(self.behind, self.spool)
        self.book = SpooledMessageBook(self.behind, self.spool)

    async def close(self) -> None:
        await self.spool.close()
        await self.behind.close()


async def test_a_book_that_is_there_has_the_message_at_once(tmp_path: Path) -> None:
    office = Office(tmp_path)
    assert await office.book.leave(MESSAGE) is Noted.IN_THE_BOOK
    assert await office.behind.messages() == [MESSAGE]
    assert not (tmp_path / "spool").exists()
    await office.close()


async def test_a_message_left_while_the_book_is_locked_gets_there_once(tmp_path: Path) -> None:
    office = Office(tmp_path)
    await office.behind.messages()
    other = sqlite3.connect(office.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert (
        await asyncio.gather(office.book.leave(MESSAGE), office.book.leave(MESSAGE))
        == [Noted.ON_THIS_MACHINE] * 2
    )
    other.execute("ROLLBACK")
    other.close()
    assert await office.spool.settled(15)
    assert await office.behind.messages() == [MESSAGE]
    [read] = await office.behind.messages()
    assert read.received_at.tzinfo == ZONE
    await office.close()


async def test_a_message_outlives_the_process_that_took_it(tmp_path: Path) -> None:
    office = Office(tmp_path)
    (tmp_path / "books.db").mkdir()
    assert await office.book.leave(MESSAGE) is Noted.ON_THIS_MACHINE
    await office.close()
    (tmp_path / "books.db").rmdir()
    later = Office(tmp_path, "two")
    later.spool.start()
    await eventually(lambda: len(later.spool) == 0 and (tmp_path / "books.db").exists())
    assert await later.spool.settled(5)
    assert await later.behind.messages() == [MESSAGE]
    await later.close()


async def test_a_time_without_a_zone_by_name_keeps_its_moment(tmp_path: Path) -> None:
    office = Office(tmp_path)
    (tmp_path / "books.db").mkdir()
    moment = datetime(2026, 11, 23, 15, 10, tzinfo=UTC)
    message = CallerMessage("CA1:2", "CA1", "Ann", "+18505550199", "Hello.", moment)
    await office.book.leave(message)
    (tmp_path / "books.db").rmdir()
    assert await office.spool.settled(15)
    [read] = await office.behind.messages()
    assert read.received_at == moment
    await office.close()


async def test_with_neither_book_nor_disk_nobody_is_told_that_it_is_noted(tmp_path: Path) -> None:
    office = Office(tmp_path)
    (tmp_path / "books.db").mkdir()
    (tmp_path / "spool").write_text("a file where the folder must be")
    with pytest.raises(MessageBookUnavailableError, match="disk"):
        await office.book.leave(MESSAGE)
    await office.close()
