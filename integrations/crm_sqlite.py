"""The embedded customer records: a table in a SQLite file, which the other books may share."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import orjson

from integrations.crm import CrmUnavailableError, HandoffRecord, Said, Speaker
from store.sqlite_file import SqliteFile, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS crm_handoffs (
    key TEXT PRIMARY KEY,
    call_sid TEXT NOT NULL,
    agent TEXT NOT NULL,
    phone TEXT NOT NULL,
    name TEXT NOT NULL,
    reason TEXT NOT NULL,
    summary TEXT NOT NULL,
    slots TEXT NOT NULL,
    transcript TEXT NOT NULL,
    began_utc TEXT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS crm_handoffs_by_time ON crm_handoffs (began_utc);
CREATE INDEX IF NOT EXISTS crm_handoffs_by_phone ON crm_handoffs (phone);
"""


class SqliteCrm:
    """A `Crm` in one SQLite file."""

    def __init__(self, path: Path, *, deadline_s: float = 1.5) -> None:
        """Create it; the file is opened at the first call.

        Args:
            path: The SQLite file; other stores may share it.
            deadline_s: Longest wait for one call.
        """
        self._file = SqliteFile(path, schema=_SCHEMA, deadline_s=deadline_s, unavailable=CrmUnavailableError)

    async def note_handoff(self, record: HandoffRecord) -> None:
        """See `Crm.note_handoff`."""
        row = (
            record.key,
            record.call_sid,
            record.agent,
            record.phone,
            record.name,
            record.reason,
            record.summary,
            orjson.dumps(dict(record.slots)).decode(),
            orjson.dumps([[said.speaker, said.text] for said in record.transcript]).decode(),
            record.began_at.astimezone(UTC).isoformat(),
            record.outcome,
        )

        def write(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                # What a process that has ended left in its spool may come after what another knows by now.
                connection.execute(
                    "INSERT OR REPLACE INTO crm_handoffs SELECT ?,?,?,?,?,?,?,?,?,?,? WHERE ? <> '' "
                    "OR NOT EXISTS (SELECT 1 FROM crm_handoffs WHERE key = ? AND outcome <> '')",
                    (*row, record.outcome, record.key),
                )

        await self._file.run(write)

    async def handoffs(self) -> list[HandoffRecord]:
        """Return everything on record, oldest first.

        Raises:
            CrmUnavailableError: If there is no answer in time.
        """
        return await self._file.run(
            lambda connection: [
                _record(row) for row in connection.execute("SELECT * FROM crm_handoffs ORDER BY began_utc")
            ]
        )

    async def close(self) -> None:
        """Close the file, within the deadline."""
        await self._file.close()


def _record(row: sqlite3.Row) -> HandoffRecord:
    return HandoffRecord(
        key=row["key"],
        call_sid=row["call_sid"],
        agent=row["agent"],
        phone=row["phone"],
        name=row["name"],
        reason=row["reason"],
        summary=row["summary"],
        slots=orjson.loads(row["slots"]),
        transcript=tuple(Said(Speaker(speaker), text) for speaker, text in orjson.loads(row["transcript"])),
        began_at=datetime.fromisoformat(row["began_utc"]),
        outcome=row["outcome"],
    )
