import asyncio
import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from integrations.calendar import OpeningHours
from integrations.calendar_sqlite import SqliteCalendar
from integrations.callbacks import Callback
from integrations.messages import CallerMessage, MessageBookUnavailableError
from integrations.messages_sqlite import SqliteMessageBook

pytestmark = pytest.mark.real_time

ZONE = ZoneInfo("America/Chicago")
MESSAGE = CallerMessage(
    key="CA1:1",
    call_sid="CA1",
    name="Maria Lopez",
    phone="+18505550199",
    text="My crown fell out.",
    received_at=datetime(2026, 11, 23, 9, 10, tzinfo=ZONE),
)


async def test_a_message_is_written_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    book = SqliteMessageBook(tmp_path / "books.db", timezone=ZONE)
    await asyncio.gather(book.leave(MESSAGE), book.leave(MESSAGE))
    assert await book.messages() == [MESSAGE]
    await book.close()


async def test_it_shares_a_file_with_the_appointment_book(tmp_path: Path) -> None:
    path = tmp_path / "books.db"
    messages = SqliteMessageBook(path, timezone=ZONE)
    hours = OpeningHours.parse({"mon": "08:00-18:00"})
    calendar = SqliteCalendar(path, hours=hours, timezone=ZONE, now=lambda: MESSAGE.received_at)
    await asyncio.gather(messages.leave(MESSAGE), calendar.bookings())
    assert len(await messages.messages()) == 1
    await messages.close()
    await calendar.close()


async def test_a_file_that_cannot_be_opened_is_a_typed_failure(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    book = SqliteMessageBook(tmp_path / "folder.db", timezone=ZONE)
    with pytest.raises(MessageBookUnavailableError):
        await book.leave(MESSAGE)
    await book.close()


async def test_a_locked_file_is_a_typed_failure_in_time(tmp_path: Path) -> None:
    book = SqliteMessageBook(tmp_path / "books.db", timezone=ZONE, deadline_s=0.2)
    await book.messages()
    other = sqlite3.connect(tmp_path / "books.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(MessageBookUnavailableError):
        await book.leave(MESSAGE)
    other.close()
    await book.close()


PROMISE = Callback(
    key="CA1",
    call_sid="CA1",
    name="Maria Lopez",
    phone="+18505550199",
    reason="a bill",
    due_at=datetime(2026, 11, 23, 10, 15, tzinfo=ZONE),
    asked_at=datetime(2026, 11, 23, 9, 10, tzinfo=ZONE),
)


async def test_a_promise_is_written_once_and_comes_back_as_it_was(tmp_path: Path) -> None:
    book = SqliteMessageBook(tmp_path / "books.db", timezone=ZONE)
    later = replace(PROMISE, key="CA2", due_at=PROMISE.due_at + timedelta(hours=1))
    await asyncio.gather(book.promise(later), book.promise(PROMISE), book.promise(PROMISE))
    await book.promise(replace(PROMISE, name="somebody else"))
    assert await book.callbacks() == [PROMISE, later]
    await book.close()


async def test_a_voicemail_is_added_to_its_promise_bit_by_bit(tmp_path: Path) -> None:
    book = SqliteMessageBook(tmp_path / "books.db", timezone=ZONE)
    await book.promise(PROMISE)
    assert await book.attach_voicemail("CA1", recording="CA1/voicemail.wav", transcript="")
    assert await book.attach_voicemail("CA1", recording="", transcript="Please call me.")
    assert not await book.attach_voicemail("CA9", recording="x", transcript="")
    [kept] = await book.callbacks()
    assert kept == replace(PROMISE, recording="CA1/voicemail.wav", transcript="Please call me.")
    await book.close()
