"""`CallStore` in a SQLite file that the processes of one machine share."""

import sqlite3
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from store.calls import BEAT_KEPT_S, Beat, SavedCall, SaveVerdict, SeenBeat, is_same_claim, judge
from store.sqlite_file import SqliteFile, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS saved_calls (
    call_sid TEXT PRIMARY KEY,
    process TEXT NOT NULL,
    phase TEXT NOT NULL,
    started_at TEXT NOT NULL,
    body BLOB NOT NULL,
    expires_s REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS saved_calls_by_process ON saved_calls (process);
CREATE INDEX IF NOT EXISTS saved_calls_by_expiry ON saved_calls (expires_s);
CREATE TABLE IF NOT EXISTS beats (
    process TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    url TEXT NOT NULL,
    pid INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    seen_s REAL NOT NULL
);
"""


class SqliteCallStore:
    """See the module. Ages and expiries are by the wall clock of the one machine."""

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

    async def save(self, call: SavedCall) -> SaveVerdict:
        """See `CallStore.save`."""
        body = call.to_json()

        def write(connection: sqlite3.Connection) -> SaveVerdict:
            with transaction(connection):
                verdict = judge(self._stored(connection, call.call_sid), call)
                if verdict is SaveVerdict.WRITTEN:
                    self._put(connection, call, body)
            return verdict

        return await self._file.run(write)

    async def load(self, call_sid: str) -> SavedCall | None:
        """See `CallStore.load`."""
        return await self._file.run(lambda connection: self._stored(connection, call_sid))

    async def claim(
        self, known: SavedCall, process: str, at: datetime, *, is_resumed: bool = True
    ) -> SavedCall | None:
        """See `CallStore.claim`."""

        def take(connection: sqlite3.Connection) -> SavedCall | None:
            with transaction(connection):
                stored = self._stored(connection, known.call_sid)
                if stored is not None and is_same_claim(stored, known, process, at):
                    return stored
                if stored is None or stored.is_finished or stored.claim != known.claim:
                    return None
                taken = stored.taken_over(process, at, is_resumed=is_resumed)
                self._put(connection, taken, taken.to_json())
            return taken

        return await self._file.run(take)

    async def finish(self, call: SavedCall, at: datetime) -> SaveVerdict:
        """See `CallStore.finish`."""
        return await self.save(call.finished(at))

    async def calls_of(self, process: str) -> list[SavedCall]:
        """See `CallStore.calls_of`."""

        def find(connection: sqlite3.Connection) -> list[SavedCall]:
            rows = connection.execute(
                "SELECT body FROM saved_calls WHERE process = ? AND phase != 'finished' AND expires_s > ?"
                " ORDER BY started_at",
                (process, self._now_s()),
            )
            return [SavedCall.from_json(row["body"]) for row in rows]

        return await self._file.run(find)

    async def beat(self, beat: Beat) -> None:
        """See `CallStore.beat`."""

        def write(connection: sqlite3.Connection) -> None:
            now_s = self._now_s()
            with transaction(connection):
                connection.execute(
                    "INSERT OR REPLACE INTO beats VALUES (?,?,?,?,?,?)",
                    (beat.process, beat.number, beat.url, beat.pid, beat.calls, now_s),
                )
                connection.execute("DELETE FROM beats WHERE seen_s < ?", (now_s - BEAT_KEPT_S,))
                connection.execute("DELETE FROM saved_calls WHERE expires_s <= ?", (now_s,))

        await self._file.run(write)

    async def beats(self) -> list[SeenBeat]:
        """See `CallStore.beats`."""

        def find(connection: sqlite3.Connection) -> list[SeenBeat]:
            now_s = self._now_s()
            rows = connection.execute("SELECT * FROM beats WHERE seen_s >= ?", (now_s - BEAT_KEPT_S,))
            return [
                SeenBeat(
                    Beat(row["process"], row["number"], row["url"], row["pid"], row["calls"]),
                    max(0.0, now_s - row["seen_s"]),
                )
                for row in rows
            ]

        return await self._file.run(find)

    async def forget(self, process: str) -> None:
        """See `CallStore.forget`."""

        def drop(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM beats WHERE process = ?", (process,))

        await self._file.run(drop)

    async def close(self) -> None:
        """See `CallStore.close`."""
        await self._file.close()

    def _stored(self, connection: sqlite3.Connection, call_sid: str) -> SavedCall | None:
        row = connection.execute(
            "SELECT body FROM saved_calls WHERE call_sid = ? AND expires_s > ?", (call_sid, self._now_s())
        ).fetchone()
        return None if row is None else SavedCall.from_json(row["body"])

    def _put(self, connection: sqlite3.Connection, call: SavedCall, body: bytes) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO saved_calls VALUES (?,?,?,?,?,?)",
            (
                call.call_sid,
                call.process,
                call.phase,
                call.started_at.isoformat(),
                body,
                self._now_s() + call.kept_s,
            ),
        )
