"""The embedded message book: a table in a SQLite file, which the appointment book may share."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

from integrations.messages import CallerMessage, MessageBookUnavailableError
from integrations.sqlite_file import SqliteFile, StoreUnavailableError, transaction

_T = TypeVar("_T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    key TEXT PRIMARY KEY,
    call_sid TEXT NOT NULL,
    name TEXT NOT NULL,
    phone TEXT NOT NULL,
    text TEXT NOT NULL,
    received_utc TEXT NOT NULL,
    zone TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_time ON messages (received_utc);
"""


class SqliteMessageBook:
    """A `MessageBook` in one SQLite file."""

    def __init__(self, path: Path, *, timezone: ZoneInfo, deadline_s: float = 1.5) -> None:
        """Create the book; the file is opened at the first call.

        Args:
            path: The SQLite file; other stores may share it.
            timezone: The business's zone, stored beside each time.
            deadline_s: Longest wait for one call.
        """
        self._file = SqliteFile(path, schema=_SCHEMA, deadline_s=deadline_s)
        self._zone = timezone

    async def leave(self, message: CallerMessage) -> None:
        """See `MessageBook.leave`."""

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "INSERT INTO messages VALUES (?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING",
                    (
                        message.key,
                        message.call_sid,
                        message.name,
                        message.phone,
                        message.text,
                        message.received_at.astimezone(UTC).isoformat(),
                        self._zone.key,
                    ),
                )

        await self._run(write)

    async def messages(self) -> list[CallerMessage]:
        """Everything on record, oldest first.

        Raises:
            MessageBookUnavailableError: If there is no answer in time.
        """
        return await self._run(
            lambda connection: [
                _message(row) for row in connection.execute("SELECT * FROM messages ORDER BY received_utc")
            ]
        )

    async def close(self) -> None:
        """Close the file, within the deadline."""
        await self._file.close()

    async def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return await self._file.run(work)
        except StoreUnavailableError as error:
            raise MessageBookUnavailableError(str(error)) from error


def _message(row: sqlite3.Row) -> CallerMessage:
    received_at = datetime.fromisoformat(row["received_utc"]).astimezone(ZoneInfo(row["zone"]))
    return CallerMessage(row["key"], row["call_sid"], row["name"], row["phone"], row["text"], received_at)
