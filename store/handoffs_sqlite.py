"""`HandoffStore` in a SQLite file that the processes of one machine share."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from store.handoffs import HANDOFF_KEPT_S
from store.sqlite_file import SqliteFile, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS handoffs (
    call_sid TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    expires_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS handoffs_by_expiry ON handoffs (expires_s);
"""


class SqliteHandoffStore:
    """See the module. Expiries are by the wall clock of the one machine."""

    def __init__(
        self, path: Path, *, deadline_s: float = 0.3, now_s: Callable[[], float] = time.time
    ) -> None:
        """Create the store; the file is opened at the first call.

        Args:
            path: The file; other stores may share it.
            deadline_s: Longest wait for one call.
            now_s: Unix time.
        """
        self._file = SqliteFile(path, schema=_SCHEMA, deadline_s=deadline_s)
        self._now_s = now_s

    async def save(self, call_sid: str, version: int, body: str) -> None:
        """See `HandoffStore.save`."""

        def write(connection: sqlite3.Connection) -> None:
            now_s = self._now_s()
            with transaction(connection):
                connection.execute("DELETE FROM handoffs WHERE expires_s <= ?", (now_s,))
                connection.execute(
                    "INSERT INTO handoffs VALUES (?,?,?,?) ON CONFLICT (call_sid) DO UPDATE SET "
                    "version = excluded.version, body = excluded.body, expires_s = excluded.expires_s "
                    "WHERE excluded.version > version",
                    (call_sid, version, body, now_s + HANDOFF_KEPT_S),
                )

        await self._file.run(write)

    async def load(self, call_sid: str) -> str | None:
        """See `HandoffStore.load`."""

        def read(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT body FROM handoffs WHERE call_sid = ? AND expires_s > ?", (call_sid, self._now_s())
            ).fetchone()
            return None if row is None else row["body"]

        return await self._file.run(read)

    async def close(self) -> None:
        """Close the file, within the deadline."""
        await self._file.close()
