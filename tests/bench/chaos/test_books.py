import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bench.chaos.books import Written, empty, is_locked, read_written
from integrations.callbacks import Callback
from integrations.messages import CallerMessage
from integrations.messages_sqlite import SqliteMessageBook

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.mark.real_time
async def test_rows_are_counted_and_taken_out(tmp_path: Path) -> None:
    database = tmp_path / "books.db"
    assert read_written(database) == Written()
    book = SqliteMessageBook(database, timezone=ZoneInfo("UTC"), deadline_s=5)
    await book.leave(CallerMessage("m1", "CA1", "Martin Reyes", "+18505550177", "My crown.", NOW))
    for sid in ("CA1", "CA2"):
        await book.promise(Callback(sid, sid, "", "+18505550177", "asked", NOW + timedelta(hours=1), NOW))
    await book.attach_voicemail("CA2", recording="CA2/voicemail.wav", transcript="")
    assert read_written(database) == Written(messages=1, callbacks=2, voicemails=1)
    empty(database)
    assert read_written(database) == Written()
    await book.close()


def test_a_lock_is_seen(tmp_path: Path) -> None:
    database = tmp_path / "books.db"
    assert not is_locked(database)
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert is_locked(database)
    other.execute("ROLLBACK")
    other.close()
    assert not is_locked(database)
