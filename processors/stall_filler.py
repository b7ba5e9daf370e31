"""Lines that break a silence of ours: which comes next. Pure but for its look into the cache.

When one is due decides `silence_watchdog_table`, and the playout says it. A filler comes from memory or not at all: it
is needed when a vendor is slow, so it must not need one.
"""

from collections.abc import Callable, Sequence

from loguru import logger

from processors.audio_cache import CachedSpeech


class Fillers:
    """The lines of one call, in turn: never the same twice in a row."""

    def __init__(
        self,
        lines: Sequence[str],
        *,
        lookup: Callable[[str], CachedSpeech | None],
        on_miss: Callable[[str], None],
    ) -> None:
        """Take the lines.

        Args:
            lines: At least two that differ.
            lookup: Returns a line's sound if it is in memory, at once.
            on_miss: Told a line whose sound is not, so that it is there next time.

        Raises:
            ValueError: If there are not two different lines.
        """
        self._lines = tuple(dict.fromkeys(lines))
        if len(self._lines) < 2:
            raise ValueError(f"there must be at least two different fillers, got {list(lines)}")
        self._lookup = lookup
        self._on_miss = on_miss
        self._next = 0
        self._last: str | None = None

    def next(self) -> tuple[str, CachedSpeech] | None:
        """Return the next line with its sound, None when no other than the last one is in memory."""
        for offset in range(len(self._lines)):
            place = (self._next + offset) % len(self._lines)
            line = self._lines[place]
            if line == self._last:
                continue
            speech = self._lookup(line)
            if speech is None:
                logger.warning("a filler is not in memory and is left out: {!r}", line)
                self._on_miss(line)
                continue
            self._next, self._last = (place + 1) % len(self._lines), line
            return line, speech
        return None
