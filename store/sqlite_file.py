"""One SQLite file behind one thread: short pieces of work, each with a deadline.

The stores on SQLite sit on it, here and in `integrations`. The connection lives in its thread only; the event loop
never waits for the disk. WAL, so that other processes read while one writes.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from store.errors import StoreUnavailableError

_T = TypeVar("_T")

_MAX_WAITING = 64
_WAL_RETRY_S = 0.01
_BUSY_SHARE = 0.8
"""Of the deadline: a lock is given up before the wait is, so that what was given up is not done a moment later."""


class SqliteFile:
    """Runs functions of a connection in one worker thread, in order."""

    def __init__(
        self,
        path: Path,
        *,
        schema: str,
        deadline_s: float,
        unavailable: Callable[[str], Exception] = StoreUnavailableError,
    ) -> None:
        """Create a store that opens its file at the first `run`.

        Args:
            path: The file; it and its folder are created when missing.
            schema: SQL script of `CREATE … IF NOT EXISTS`, run once per connection.
            deadline_s: Longest wait for one piece of work, in seconds, > 0.
            unavailable: Makes what `run` raises: a book's callers know its own error.

        Raises:
            ValueError: If `deadline_s` is not positive.
        """
        if deadline_s <= 0:
            raise ValueError(f"deadline_s must be > 0, got {deadline_s}")
        self._path = path
        self._schema = schema
        self._deadline_s = deadline_s
        self._unavailable = unavailable
        self._connection: sqlite3.Connection | None = None  # touched by the worker thread only
        self._opened: tuple[int, int] | None = None
        """Which file the connection has, as `_identity` tells."""
        self._room = threading.BoundedSemaphore(_MAX_WAITING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{path.stem}")

    async def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in the thread and return what it returns.

        Work that has begun when the deadline passes is finished in the background; work that has not
        begun is dropped. Callers that write must therefore be able to repeat themselves.

        Raises:
            Exception: `unavailable`'s, if the deadline passes, too much work waits, SQLite fails, or the file was
                deleted or replaced since it was opened.
        """
        if not self._room.acquire(blocking=False):
            raise self._unavailable(f"{_MAX_WAITING} pieces of work wait for {self._path.name}")
        try:
            job = self._thread.submit(self._in_thread, work)
        except RuntimeError as error:  # closed
            self._room.release()
            raise self._unavailable(f"{self._path.name} is closed") from error
        job.add_done_callback(lambda _: self._room.release())
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise self._unavailable(
                f"{self._path.name} gave no answer within {self._deadline_s} s"
            ) from error
        except (sqlite3.Error, OSError) as error:
            raise self._unavailable(f"{self._path.name}: {error}") from error

    async def close(self) -> None:
        """Finish the work that has begun, drop the rest and close the file, within the deadline."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        closer = threading.Thread(target=self._close_in_thread, name="sqlite-close", daemon=True)
        closer.start()
        await asyncio.to_thread(closer.join, self._deadline_s)

    def _close_in_thread(self) -> None:
        self._thread.shutdown(wait=True)  # the worker has gone: the connection is ours now
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _in_thread(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._connection is None:
            self._connection = self._open()
            self._opened = self._identity()
        elif self._identity() != self._opened:
            # What we have nobody else will ever read. It stays open: closed, it would take a new one's log with it.
            raise OSError("deleted or replaced while it is open")
        return work(self._connection)

    def _identity(self) -> tuple[int, int] | None:
        """Return what tells the file at our path from any other, None if there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level=None: transactions are opened by `transaction` and nothing else.
        # check_same_thread=False: the closing thread takes over once the worker is gone.
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SHARE * self._deadline_s, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        _switch_to_wal(connection, time.monotonic() + self._deadline_s)
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(self._schema)
        return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Hold the write lock for a block: commit at its end, roll back when it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _switch_to_wal(connection: sqlite3.Connection, give_up_s: float) -> None:
    """Switch a file to WAL, at the latest at `give_up_s` on the monotonic clock.

    While another connection opens the same new file, SQLite refuses this at once, whatever its timeout is.
    """
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_s:
                raise
            time.sleep(_WAL_RETRY_S)
        else:
            return
