"""The embedded message book: a table in a SQLite file, which the appointment book may share."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from integrations.callbacks import Callback
from integrations.messages import CallerMessage, MessageBookUnavailableError, Noted
from store.sqlite_file import SqliteFile, transaction

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
CREATE TABLE IF NOT EXISTS callbacks (
    key TEXT PRIMARY KEY,
    call_sid TEXT NOT NULL,
    name TEXT NOT NULL,
    phone TEXT NOT NULL,
    reason TEXT NOT NULL,
    due_utc TEXT NOT NULL,
    asked_utc TEXT NOT NULL,
    zone TEXT NOT NULL,
    recording TEXT NOT NULL DEFAULT '',
    transcript TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS callbacks_by_due ON callbacks (due_utc);
"""


class SqliteMessageBook:
    """A `MessageBook` and `CallbackBook` in one SQLite file."""

    def __init__(self, path: Path, *, timezone: ZoneInfo, deadline_s: float = 1.5) -> None:
        """Create the book; the file is opened at the first call.

        Args:
            path: The SQLite file; other stores may share it.
            timezone: The business's zone, stored beside each time that has no zone by name.
            deadline_s: Longest wait for one call.
        """
        self._file = SqliteFile(
            path, schema=_SCHEMA, deadline_s=deadline_s, unavailable=MessageBookUnavailableError
        )
        self._zone = timezone

    async def leave(self, message: CallerMessage) -> Noted:
        """See `MessageBook.leave`."""
        zone = message.received_at.tzinfo
        zone_name = zone.key if isinstance(zone, ZoneInfo) else self._zone.key

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
                        zone_name,
                    ),
                )

        await self._file.run(write)
        return Noted.IN_THE_BOOK

    async def promise(self, callback: Callback) -> None:
        """See `CallbackBook.promise`."""
        row = (
            callback.key,
            callback.call_sid,
            callback.name,
            callback.phone,
            callback.reason,
            callback.due_at.astimezone(UTC).isoformat(),
            callback.asked_at.astimezone(UTC).isoformat(),
            self._zone.key,
            callback.recording,
            callback.transcript,
        )

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "INSERT INTO callbacks VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key) DO NOTHING", row
                )

        await self._file.run(write)

    async def attach_voicemail(self, key: str, *, recording: str, transcript: str) -> bool:
        """See `CallbackBook.attach_voicemail`."""

        def write(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                changed = connection.execute(
                    "UPDATE callbacks SET recording = coalesce(nullif(?, ''), recording), "
                    "transcript = coalesce(nullif(?, ''), transcript) WHERE key = ?",
                    (recording, transcript, key),
                )
                return changed.rowcount > 0

        return await self._file.run(write)

    async def callbacks(self) -> list[Callback]:
        """Every promise on record, the one due first first.

        Raises:
            MessageBookUnavailableError: If there is no answer in time.
        """
        return await self._file.run(
            lambda connection: [
                _callback(row) for row in connection.execute("SELECT * FROM callbacks ORDER BY due_utc")
            ]
        )

    async def messages(self) -> list[CallerMessage]:
        """Everything on record, oldest first.

        Raises:
            MessageBookUnavailableError: If there is no answer in time.
        """
        return await self._file.run(
            lambda connection: [
                _message(row) for row in connection.execute("SELECT * FROM messages ORDER BY received_utc")
            ]
        )

    async def close(self) -> None:
        """Close the file, within the deadline."""
        await self._file.close()


def _message(row: sqlite3.Row) -> CallerMessage:
    received_at = datetime.fromisoformat(row["received_utc"]).astimezone(ZoneInfo(row["zone"]))
    return CallerMessage(row["key"], row["call_sid"], row["name"], row["phone"], row["text"], received_at)


def _callback(row: sqlite3.Row) -> Callback:
    zone = ZoneInfo(row["zone"])
    return Callback(
        row["key"],
        row["call_sid"],
        row["name"],
        row["phone"],
        row["reason"],
        due_at=datetime.fromisoformat(row["due_utc"]).astimezone(zone),
        asked_at=datetime.fromisoformat(row["asked_utc"]).astimezone(zone),
        recording=row["recording"],
        transcript=row["transcript"],
    )
