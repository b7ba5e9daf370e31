"""The spool's file: writes that a store does not have yet, for whoever comes after this process. Blocks; no asyncio.

Append-only. A line is a checksum, a header and the write's body, or the number up to which everything is done. A line
that a crash or a full disk cut short is left out. Each process has a file of its own and holds its lock while it lives;
a file whose lock is free is an orphan, and another process of the machine adopts what is in it.
"""

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from store.spool_table import Write

SUFFIX: Final = ".spool"
REFUSED_NAME: Final = "refused.jsonl"
MOST_REFUSED_BYTES: Final = 1 << 20
_BESIDE: Final = ".new"
_TIDY_BYTES: Final = 256 * 1024
"""A file in which nothing waits is emptied when it is larger than this."""


class SpoolFile:
    """One process's. Its methods must be called by one thread at a time."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        """Name the file; nothing is touched before the first write.

        Args:
            path: The file.
            most_bytes: Beyond this it is written anew with what still waits.
        """
        self._path = path
        self._most_bytes = most_bytes
        self._file: int | None = None
        self._size_bytes = 0
        self._is_synced = True

    def append(self, writes: Iterable[Write], done_up_to: int) -> None:
        """Add writes.

        Raises:
            OSError: If the disk refuses; then nothing of them is there.
        """
        lines = b"".join([_line({"d": done_up_to}, b""), *map(_write_line, writes)])
        file = self._open()
        try:
            _write_all(file, lines)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(file, self._size_bytes)
            raise
        self._size_bytes += len(lines)
        self._is_synced = False

    def sync(self) -> None:
        """Return when all that was added outlives the machine.

        Raises:
            OSError: If the disk refuses.
        """
        if self._file is not None and not self._is_synced:
            os.fsync(self._file)
            self._is_synced = True

    def tidy(self, waiting: Iterable[Write]) -> None:
        """Keep the file small, given all that still waits.

        Raises:
            OSError: If the disk refuses; the file is as it was.
        """
        if self._file is None:
            return
        waiting = tuple(waiting)
        if not waiting and self._size_bytes > _TIDY_BYTES:
            os.ftruncate(self._file, 0)
            self._size_bytes = 0
        elif waiting and self._size_bytes > self._most_bytes:
            self._write_anew(waiting)

    def close(self, waiting: Iterable[Write]) -> None:
        """Leave a file with what waits, or none.

        Raises:
            OSError: If the disk refuses.
        """
        waiting = tuple(waiting)
        try:
            if waiting:
                self._write_anew(waiting)
            elif self._file is not None:
                self._path.unlink(missing_ok=True)
        finally:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def _open(self) -> int:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _create_locked(self._path)
            self._size_bytes = os.fstat(self._file).st_size
        return self._file

    def _write_anew(self, waiting: Iterable[Write]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(_BESIDE)
        new = _create_locked(beside)
        try:
            os.ftruncate(new, 0)
            _write_all(new, b"".join(map(_write_line, waiting)))
            os.fsync(new)
            beside.replace(self._path)
        except OSError:
            os.close(new)
            beside.unlink(missing_ok=True)
            raise
        old, self._file = self._file, new
        if old is not None:
            os.close(old)
        self._size_bytes, self._is_synced = os.fstat(new).st_size, True


class Orphan:
    """The file of a process that has ended. Locked until it is let go."""

    def __init__(self, path: Path, file: int) -> None:
        """Use `next_orphan`."""
        self._path = path
        self._file = file

    def writes(self) -> list[Write]:
        """Return what waits in it, in its order.

        Raises:
            OSError: If it cannot be read.
        """
        return read_writes(self._path.read_bytes())

    def remove(self) -> None:
        """Everything in it stands elsewhere.

        Raises:
            OSError: If it cannot be removed.
        """
        self._path.unlink(missing_ok=True)
        self._path.with_suffix(_BESIDE).unlink(
            missing_ok=True
        )  # it may have ended while it wrote the file anew

    def let_go(self) -> None:
        """Unlock it."""
        os.close(self._file)


def next_orphan(folder: Path, ending: str) -> Orphan | None:
    """Return a file in `folder` that ends with `ending` and whose process has ended, locked; None if there is none.

    Raises:
        OSError: If the folder cannot be read.
    """
    for path in sorted(folder.glob(f"*{ending}")) if folder.is_dir() else ():
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:  # another process was quicker, or it is not ours to read
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):
                return Orphan(path, file)
        except OSError:
            pass  # its process lives, or it has just been adopted
        os.close(file)
    return None


def keep_refused(folder: Path, writes: Iterable[Write], reason: str) -> None:
    """Note what a store refused for good, for a person to look at; not beyond `MOST_REFUSED_BYTES`.

    Raises:
        OSError: If the disk refuses.
    """
    path = folder / REFUSED_NAME
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for write in writes:
            row = {
                "kind": write.kind,
                "key": write.key,
                "reason": reason,
                "body": write.body.decode(errors="replace"),
            }
            line = orjson.dumps(row) + b"\n"
            if file.tell() + len(line) <= MOST_REFUSED_BYTES:
                file.write(line)


def read_writes(content: bytes) -> list[Write]:
    """Return what waits in a spool's content; damaged lines are left out."""
    done_up_to = 0
    writes: dict[int, Write] = {}  # one whose place on disk was in doubt is there twice
    for line in content.split(b"\n"):
        checksum, _, rest = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(rest):
            continue
        head, _, body = rest.partition(b"\t")
        header = orjson.loads(head)
        if "d" in header:
            done_up_to = max(done_up_to, header["d"])
        else:
            number = header["n"]
            writes[number] = Write(number, header["k"], header["y"], body, header["s"], header["v"])
    return [writes[number] for number in sorted(writes) if number > done_up_to]


def _write_line(write: Write) -> bytes:
    header: dict[str, object] = {
        "n": write.number,
        "k": write.kind,
        "y": write.key,
        "s": write.supersedes,
        "v": write.is_vital,
    }
    return _line(header, write.body)


def _line(header: dict[str, object], body: bytes) -> bytes:
    """Neither header nor body holds a tab or a line break: they are JSON, which writes them as escapes."""
    rest = orjson.dumps(header) + b"\t" + body
    return b"%08x %s\n" % (zlib.crc32(rest), rest)


def _create_locked(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
