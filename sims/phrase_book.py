"""The first texts that the voice sims ever rendered, kept between runs.

A product renders its fixed lines once and plays them from its own store ever after; no voice sim of a later process
sees them again. This book lets a caller know their words all the same. A bad file is an empty book.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson
from loguru import logger

MAX_LINES = 400
"""Fixed lines come first in a fresh store; later texts are conversation and need no memory."""


@dataclass(frozen=True)
class Line:
    """One text in one voice."""

    text: str
    voice: str


class PhraseBook:
    """An append-only file of lines, which several processes may write; small, so it is read and written in place."""

    def __init__(self, path: Path) -> None:
        """Open the book; its folder is made when missing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._size = 0
        self._lines: dict[Line, None] = {}

    @property
    def lines(self) -> tuple[Line, ...]:
        """Return what is known by now, oldest first."""
        return tuple(self._lines)

    def add(self, line: Line) -> None:
        """Remember a line, unless it is known or the book is full."""
        if line in self._lines or len(self._lines) >= MAX_LINES:
            return
        self._lines[line] = None
        try:
            with self._path.open("ab") as file:
                file.write(orjson.dumps(line) + b"\n")
        except OSError as error:
            logger.warning("sim: the phrase book cannot be written: {}", error)

    def catch_up(self) -> tuple[Line, ...]:
        """Return the lines on file that were not known, oldest first: those of earlier runs, then those of others."""
        size = self._path.stat().st_size if self._path.exists() else 0
        if size == self._size:
            return ()
        self._size = size
        new = tuple(dict.fromkeys(line for line in _read(self._path) if line not in self._lines))
        self._lines.update(dict.fromkeys(new))
        return new


def _read(path: Path) -> list[Line]:
    try:
        return [Line(**orjson.loads(row)) for row in path.read_bytes().splitlines()][:MAX_LINES]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        logger.warning("sim: the phrase book is unreadable: {}", error)
        return []
