"""Lines that were spoken before: rendered speech in memory and on disk, so that a fixed line needs no vendor.

Asked by the voice stage before it asks a vendor, and filled by it and by `firstring warm`. Several processes may
share the folder. Never renders anything, and never fails a call: what cannot be read is a miss, what cannot be
written stays in memory.
"""

import asyncio
import contextlib
import enum
import hashlib
import os
import struct
import time
import unicodedata
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from loguru import logger

from processors.atomic_file import TEMPORARY_SUFFIX, write_atomically

T = TypeVar("T")

MAGIC = b"FRS1"
_PREAMBLE = struct.Struct("<4sII")
"""Magic, CRC-32 of all that follows, length of the JSON header in bytes; then the header, then the pcm."""
SUFFIX = ".speech"
MEMORY_BYTES = 16 * 2**20
DISK_BYTES = 256 * 2**20
DISK_THREADS = 2
READ_TIMEOUT_S = 0.5
"""A disk slower than this is no faster than a vendor."""
WRITE_TIMEOUT_S = 5.0
EVICT_TO = 0.9
"""An eviction goes down to this share of the bound, so that not every put evicts."""
PUTS_PER_SCAN = 32
"""Other processes write too: the folder's size is read again after so many puts of our own."""
ABANDONED_AFTER_S = 600.0
"""A temporary file this old belongs to a process that died."""
SAMPLE_BYTES = 2
_HEARD_LEVEL = 104
"""Of a sample: -50 dBFS. Below it nothing is heard on a telephone."""
_LEAD_S = 0.002
"""Left of a line's silent lead, so that it does not begin with a click."""
_WORD_BYTES = 120
"""What a word's tuple costs in memory, roughly."""


class CachedWord(NamedTuple):
    """A word and when it is spoken, in seconds from the start of the pcm."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class CachedSpeech:
    """A rendered line: s16le mono."""

    pcm: bytes
    rate_hz: int
    words: tuple[CachedWord, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.pcm) / (SAMPLE_BYTES * self.rate_hz)

    def without_lead(self) -> "CachedSpeech":
        """Return it from where something is heard: what a voice is silent for first, every caller would wait for."""
        loud = np.flatnonzero(np.abs(np.frombuffer(self.pcm, "<i2").astype(np.int32)) >= _HEARD_LEVEL)
        cut = max(int(loud[0]) - int(_LEAD_S * self.rate_hz), 0) if loud.size else 0
        if not cut:
            return self
        cut_s = cut / self.rate_hz
        words = tuple(
            CachedWord(word.text, max(word.start_s - cut_s, 0.0), max(word.end_s - cut_s, 0.0))
            for word in self.words
        )
        return CachedSpeech(self.pcm[cut * SAMPLE_BYTES :], self.rate_hz, words)

    @property
    def memory_bytes(self) -> int:
        """About what it costs to keep."""
        return len(self.pcm) + _WORD_BYTES * len(self.words)


@dataclass(frozen=True)
class SpeechKey:
    """What decides how a line sounds. Build it with `of`."""

    vendor: str
    voice: str
    model: str
    rate_hz: int
    text: str
    """Normalised, see `normalise_text`."""
    settings_digest: str
    """Of everything else that changes the sound, see `digest_settings`."""

    @classmethod
    def of(
        cls, *, vendor: str, voice: str, model: str, rate_hz: int, text: str, settings_digest: str = ""
    ) -> "SpeechKey":
        """Return the key of `text`, normalised."""
        return cls(vendor, voice, model, rate_hz, normalise_text(text), settings_digest)

    @property
    def digest(self) -> str:
        """Name of its file, without suffix."""
        return hashlib.sha256(orjson.dumps(asdict(self))).hexdigest()[:40]


class Lookup(enum.Enum):
    """Where a lookup ended."""

    MEMORY = "memory"
    DISK = "disk"
    MISS = "miss"


def normalise_text(text: str) -> str:
    """Return `text` in Unicode NFC with each run of white space as one space, none at the ends.

    Case and punctuation stay: they change how a line sounds.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def digest_settings(settings: Mapping[str, object]) -> str:
    """Return a short digest of a voice's further settings (speed, stability …), in any order.

    Raises:
        TypeError: If a value is not plain JSON.
    """
    return hashlib.sha256(orjson.dumps(dict(settings), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


class AudioCache:
    """Rendered lines: a bounded memory before a bounded folder, least recently used out first.

    Methods belong to one event loop's thread. The disk is touched in two threads of the cache's own only, so
    that one that hangs holds up nobody else's work.
    """

    def __init__(
        self,
        folder: Path,
        *,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
        on_lookup: Callable[[Lookup], None] | None = None,
    ) -> None:
        """Create the cache; the folder is made at the first put.

        Args:
            folder: Holds the files, may be shared with other processes.
            memory_bytes: Bound of what is kept in memory, >= 0.
            disk_bytes: Bound of the folder, >= 0; several processes overshoot it by some puts each.
            on_lookup: Told where each lookup ended, for metrics.

        Raises:
            ValueError: If a bound is negative.
        """
        if min(memory_bytes, disk_bytes) < 0:
            raise ValueError(f"bounds must be >= 0, got {memory_bytes=} {disk_bytes=}")
        self._memory = _Memory(memory_bytes)
        self._disk = _Folder(folder, disk_bytes)
        self._on_lookup = on_lookup
        self._is_failure_logged = False
        self._is_closed = False
        self._threads = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="audio-cache")

    def close(self) -> None:
        """Let go of the disk; writes that were begun go on, the memory stays readable."""
        self._is_closed = True
        self._threads.shutdown(wait=False)

    def get_now(self, key: SpeechKey) -> CachedSpeech | None:
        """Return the line if it is in memory; never waits. Only a hit counts as a lookup."""
        speech = self._memory.get(key)
        if speech is not None:
            self._tell(Lookup.MEMORY)
        return speech

    async def get(self, key: SpeechKey, *, timeout_s: float = READ_TIMEOUT_S) -> CachedSpeech | None:
        """Return the line from memory or disk, None when it is in neither or the disk is too slow."""
        if (speech := self.get_now(key)) is not None:
            return speech
        speech = await self._on_disk("read", timeout_s, partial(self._disk.load, key))
        if speech is not None:
            self._memory.put(key, speech)
        self._tell(Lookup.MISS if speech is None else Lookup.DISK)
        return speech

    async def put(self, key: SpeechKey, speech: CachedSpeech, *, timeout_s: float = WRITE_TIMEOUT_S) -> bool:
        """Keep a line, without a silent lead; return whether it reached the disk in time.

        In memory it is at once, in any case.

        Raises:
            ValueError: If the speech has another rate than the key or holds half a sample.
        """
        if speech.rate_hz != key.rate_hz:
            raise ValueError(f"rate_hz of speech and key must agree, got {speech.rate_hz} and {key.rate_hz}")
        if len(speech.pcm) % SAMPLE_BYTES:
            raise ValueError(f"pcm must be whole samples of 2 bytes, got {len(speech.pcm)} bytes")
        speech = speech.without_lead()
        self._memory.put(key, speech)
        store = partial(self._disk.store, key, speech, self._memory.keys())
        return bool(await self._on_disk("written", timeout_s, store))

    async def _on_disk(self, what: str, timeout_s: float, work: Callable[[], T]) -> T | None:
        if self._is_closed:
            return None
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:  # TimeoutError too
            self._log_once(what, error)
            return None

    def _tell(self, lookup: Lookup) -> None:
        if self._on_lookup is not None:
            self._on_lookup(lookup)

    def _log_once(self, what: str, error: Exception) -> None:
        if not self._is_failure_logged:
            self._is_failure_logged = True
            reason = str(error) or type(error).__name__
            logger.warning("the audio cache {} cannot be {}: {}", self._disk.folder, what, reason)


class _Memory:
    """Least recently used lines, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._lines: OrderedDict[SpeechKey, CachedSpeech] = OrderedDict()

    def get(self, key: SpeechKey) -> CachedSpeech | None:
        speech = self._lines.get(key)
        if speech is not None:
            self._lines.move_to_end(key)
        return speech

    def put(self, key: SpeechKey, speech: CachedSpeech) -> None:
        old = self._lines.pop(key, None)
        self._used_bytes -= old.memory_bytes if old else 0
        if speech.memory_bytes > self._limit_bytes:
            return
        self._lines[key] = speech
        self._used_bytes += speech.memory_bytes
        while self._used_bytes > self._limit_bytes:
            _, dropped = self._lines.popitem(last=False)
            self._used_bytes -= dropped.memory_bytes

    def keys(self) -> list[SpeechKey]:
        return list(self._lines)


@dataclass(frozen=True)
class _Entry:
    path: Path
    size_bytes: int
    used_at: float


class _Folder:
    """The files. Every method blocks; any process may remove any file at any time.

    A file's modification time is when it was last used.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._known_bytes: int | None = (
            None  # near enough: two threads may lose each other's sum until a scan
        )
        self._puts_since_scan = 0

    def load(self, key: SpeechKey) -> CachedSpeech | None:
        """Return a line, None when there is none; a file that is not sound is removed.

        Raises:
            OSError: If the disk fails.
        """
        path = self._path(key)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            speech = decode(content, key)
        except ValueError as error:
            logger.warning("removed a broken file of the audio cache, {}: {}", path.name, error)
            path.unlink(missing_ok=True)
            return None
        _touch(path)
        return speech

    def store(self, key: SpeechKey, speech: CachedSpeech, in_use: Iterable[SpeechKey]) -> bool:
        """Write a line and make room for it; return whether it fits at all.

        Args:
            key: The line.
            speech: Its sound.
            in_use: Lines held in memory; their files are not read any more but are in use all the same.

        Raises:
            OSError: If the folder cannot be written.
        """
        content = encode(key, speech)
        if len(content) > self._limit_bytes:
            return False
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        self._puts_since_scan += 1
        if self._known_bytes is not None:
            self._known_bytes += len(content)
        if self._is_scan_due():
            self._make_room(in_use)
        return True

    def _path(self, key: SpeechKey) -> Path:
        name = key.digest
        return self.folder / name[:2] / f"{name}{SUFFIX}"

    def _is_scan_due(self) -> bool:
        known_bytes = self._known_bytes
        return (
            known_bytes is None or known_bytes > self._limit_bytes or self._puts_since_scan >= PUTS_PER_SCAN
        )

    def _make_room(self, in_use: Iterable[SpeechKey]) -> None:
        self._puts_since_scan = 0
        entries = self._scan()
        self._known_bytes = sum(entry.size_bytes for entry in entries)
        if self._known_bytes <= self._limit_bytes:
            return
        for key in in_use:
            _touch(self._path(key))
        entries = sorted(self._scan(), key=lambda entry: entry.used_at)
        total_bytes = sum(entry.size_bytes for entry in entries)
        for entry in entries:
            if total_bytes <= self._limit_bytes * EVICT_TO:
                break
            entry.path.unlink(missing_ok=True)
            total_bytes -= entry.size_bytes
        self._known_bytes = total_bytes

    def _scan(self) -> list[_Entry]:
        """List the lines on disk; clear away what dead processes left half written."""
        entries: list[_Entry] = []
        abandoned_before = time.time() - ABANDONED_AFTER_S
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if path.name.endswith(SUFFIX):
                    entries.append(_Entry(path, stat.st_size, stat.st_mtime))
                elif path.name.endswith(TEMPORARY_SUFFIX) and stat.st_mtime < abandoned_before:
                    path.unlink()
        return entries


def encode(key: SpeechKey, speech: CachedSpeech) -> bytes:
    """Return the file of a line."""
    header = orjson.dumps({"key": asdict(key), "words": [list(word) for word in speech.words]})
    body = header + speech.pcm
    return _PREAMBLE.pack(MAGIC, zlib.crc32(body), len(header)) + body


def decode(content: bytes, key: SpeechKey) -> CachedSpeech:
    """Read what `encode` wrote for `key`.

    Raises:
        ValueError: If it is anything else, says what.
    """
    if len(content) < _PREAMBLE.size:
        raise ValueError(f"file must hold {_PREAMBLE.size} bytes or more, got {len(content)}")
    magic, checksum, header_bytes = _PREAMBLE.unpack_from(content)
    body = content[_PREAMBLE.size :]
    if magic != MAGIC:
        raise ValueError(f"file must begin with {MAGIC!r}, got {magic!r}")
    if zlib.crc32(body) != checksum:
        raise ValueError("checksum does not agree")
    try:
        header: dict[str, Any] = orjson.loads(body[:header_bytes])
        is_same_line = header["key"] == asdict(key)
        words = tuple(CachedWord(text, start_s, end_s) for text, start_s, end_s in header["words"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"header has another shape: {error!r}") from error
    if not is_same_line:
        raise ValueError("file is of another line")
    return CachedSpeech(pcm=body[header_bytes:], rate_hz=key.rate_hz, words=words)


def _touch(path: Path) -> None:
    with contextlib.suppress(
        OSError
    ):  # gone, or a folder we may only read: then it only looks older than it is
        os.utime(path)
