"""`EventLog` in a SQLite file that the processes of one machine share."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from store.events import CallEvent, EventPage
from store.sqlite_file import SqliteFile, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    call_sid TEXT NOT NULL,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_call ON events (call_sid, position);
"""


class SqliteEventLog:
    """See the module."""

    def __init__(self, path: Path, *, deadline_s: float = 0.3) -> None:
        """Create the log; the file is opened at the first call.

        Args:
            path: The file; other stores may share it.
            deadline_s: Longest wait for one call.
        """
        self._file = SqliteFile(path, schema=_SCHEMA, deadline_s=deadline_s)

    async def append(self, events: Sequence[CallEvent]) -> None:
        """See `EventLog.append`."""
        rows = [
            (event.event_id, event.call_sid, event.at.isoformat(), event.kind, event.to_json())
            for event in events
        ]

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(
                    "INSERT OR IGNORE INTO events (event_id, call_sid, at, kind, body) VALUES (?,?,?,?,?)",
                    rows,
                )

        await self._file.run(write)

    async def of_call(self, call_sid: str) -> list[CallEvent]:
        """See `EventLog.of_call`."""

        def find(connection: sqlite3.Connection) -> list[CallEvent]:
            rows = connection.execute(
                "SELECT body FROM events WHERE call_sid = ? ORDER BY position", (call_sid,)
            )
            return [CallEvent.from_json(row["body"]) for row in rows]

        return await self._file.run(find)

    async def since(self, cursor: str = "", limit: int = 500) -> EventPage:
        """See `EventLog.since`."""
        if cursor and not cursor.isdecimal():
            raise ValueError(f"not a cursor of this log: {cursor!r}")

        def find(connection: sqlite3.Connection) -> EventPage:
            rows = connection.execute(
                "SELECT position, body FROM events WHERE position > ? ORDER BY position LIMIT ?",
                (int(cursor or 0), limit),
            ).fetchall()
            events = tuple(CallEvent.from_json(row["body"]) for row in rows)
            return EventPage(events, str(rows[-1]["position"]) if rows else cursor)

        return await self._file.run(find)

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._file.close()
