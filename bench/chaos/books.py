"""What calls leave in the database of a server: appointments, messages, promises to call back. Blocks."""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

TABLES = ("bookings", "messages", "callbacks")
_WAIT_S = 2.0


@dataclass(frozen=True)
class Written:
    """How many rows there are of each kind."""

    bookings: int = 0
    messages: int = 0
    callbacks: int = 0
    voicemails: int = 0
    """Promises to call back that have what the caller has left."""


def read_written(database: Path) -> Written:
    """Count what there is."""
    with _opened(database) as books:
        bookings, messages, callbacks = (_count(books, f"SELECT count(*) FROM {table}") for table in TABLES)  # noqa: S608 - our own names
        voicemails = _count(books, "SELECT count(*) FROM callbacks WHERE recording != ''")
    return Written(bookings, messages, callbacks, voicemails)


def empty(database: Path) -> None:
    """Take all of it out, so that each call finds the same free times."""
    with _opened(database) as books:
        for table in TABLES:
            with contextlib.suppress(sqlite3.OperationalError):  # nobody has written to it yet
                books.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        books.commit()


def is_locked(database: Path) -> bool:
    """Tell whether nobody can write."""
    with _opened(database) as books:
        try:
            books.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        books.rollback()
    return False


def _opened(database: Path) -> "contextlib.closing[sqlite3.Connection]":
    return contextlib.closing(sqlite3.connect(database, timeout=_WAIT_S))


def _count(books: sqlite3.Connection, query: str) -> int:
    try:
        return books.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # nobody has written to it yet
        return 0
