"""Writes on their way to a store that may be down: which are tried when, and which are needless by now. Pure.

    UP --a write fails--> DOWN
    DOWN --pause over, something waits--> REPLAYING
    REPLAYING --a write is done, more wait--> REPLAYING
    REPLAYING --nothing waits any more--> UP
    REPLAYING --a write fails--> DOWN, for longer

Writes are tried one after the other in the order in which they were taken, so that what is written under one key is
never reordered. A write that was taken is tried until the store has it or refuses it for good; one that supersedes
earlier ones of its key makes those needless that are not under way. What is taken is bounded in number and bytes:
beyond that nothing is taken, and the last quarter is kept for what is vital.
"""

import enum
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 5.0
"""The store is back for at most this long before we notice."""
_FOR_ALL: Final = 0.75
"""Share of the room that is not kept for vital writes."""


class SpoolState(enum.StrEnum):
    """Whether the store takes what it is given."""

    UP = "up"
    DOWN = "down"
    REPLAYING = "replaying"
    """It takes writes again, and some of those that waited are still to be done."""


@dataclass(frozen=True)
class Write:
    """One write. `kind` says what it is, `key` what it is about."""

    number: int
    """In the order in which they were taken."""
    kind: str
    key: str
    body: bytes
    supersedes: bool = False
    """Makes earlier writes of its kind and key needless."""
    is_vital: bool = False


@dataclass(frozen=True)
class SpoolBounds:
    """How much may wait."""

    writes: int = 10_000
    size_bytes: int = 16 << 20

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: If a bound is not positive.
        """
        if min(self.writes, self.size_bytes) <= 0:
            raise ValueError(f"the bounds of a spool must be > 0, got {self}")


class SpoolTable:
    """See the module. Times are seconds of one clock."""

    def __init__(
        self, bounds: SpoolBounds | None = None, *, several: AbstractSet[str] = frozenset(), most: int = 64
    ) -> None:
        """Create it empty, with the store taken for up.

        Args:
            bounds: How much may wait.
            several: Kinds of which the store takes several writes at once.
            most: Of those, at most.
        """
        self.state = SpoolState.UP
        self._bounds = bounds or SpoolBounds()
        self._several = several
        self._most = most
        self._waiting: dict[int, Write] = {}
        self._superseding: dict[tuple[str, str], int] = {}
        """Latest write of each key that supersedes others."""
        self._under_way: tuple[Write, ...] = ()
        self._taken_back: set[int] = set()
        """Under way, and not to be tried again."""
        self._one_by_one = 0
        """How many of the next writes are to be tried alone: one of them was refused."""
        self._bytes = 0
        self._number = 0
        self._pause_s = 0.0
        self._retry_s = 0.0

    def __len__(self) -> int:
        """Return how many writes wait or are under way."""
        return len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Bytes of the bodies of those."""
        return self._bytes

    @property
    def done_up_to(self) -> int:
        """The highest number of which nothing up to it waits any more."""
        return next(iter(self._waiting), self._number + 1) - 1

    def is_waiting(self, number: int) -> bool:
        """Whether a write waits or is under way."""
        return number in self._waiting

    def waiting(self) -> tuple[Write, ...]:
        """Return the writes that wait or are under way, in their order."""
        return tuple(self._waiting.values())

    def take(
        self, kind: str, key: str, body: bytes, *, supersedes: bool = False, is_vital: bool = False
    ) -> Write | None:
        """Take a write; None if there is no room for it."""
        needless = self._needless(kind, key) if supersedes else None
        freed_bytes = 0 if needless is None else len(needless.body)
        share = 1.0 if is_vital else _FOR_ALL
        if self._bytes - freed_bytes + len(body) > share * self._bounds.size_bytes:
            return None
        if len(self._waiting) - (needless is not None) + 1 > max(1.0, share * self._bounds.writes):
            return None
        if needless is not None:
            self._drop(needless)
        self._number += 1
        write = Write(self._number, kind, key, body, supersedes, is_vital)
        self._waiting[write.number] = write
        self._bytes += len(body)
        if supersedes:
            self._superseding[kind, key] = write.number
        return write

    def take_back(self, write: Write) -> bool:
        """Drop a write; False if it is done already. One that is under way may be done all the same."""
        if write.number not in self._waiting:
            return False
        if write in self._under_way:
            self._taken_back.add(write.number)
        else:
            self._drop(write)
        return True

    def due(self, now_s: float) -> tuple[Write, ...]:
        """Return what is to be tried now, of one kind; nothing while something is under way.

        Whoever gets something says `done`, `failed` or `refused`.
        """
        if self._under_way or not self._waiting:
            return ()
        if self.state is SpoolState.DOWN:
            if now_s < self._retry_s:
                return ()
            self.state = SpoolState.REPLAYING
            self._under_way = (next(iter(self._waiting.values())),)  # one is enough to find out
        else:
            self._under_way = self._next()
        return self._under_way

    def due_at_s(self) -> float | None:
        """Return when `due` may have something, if nothing else happens; None if then neither."""
        if self._under_way or not self._waiting:
            return None
        return self._retry_s if self.state is SpoolState.DOWN else 0.0

    def done(self) -> None:
        """The store has what was under way."""
        self._one_by_one = max(0, self._one_by_one - len(self._under_way))
        for write in self._under_way:
            self._drop(write)
        self._under_way = ()
        self._answered()

    def failed(self, now_s: float) -> None:
        """The store did not take what was under way: it is down."""
        under_way, self._under_way = self._under_way, ()
        for write in under_way:
            is_latest = self._superseding.get((write.kind, write.key)) == write.number
            if write.number in self._taken_back or (write.supersedes and not is_latest):
                self._drop(write)
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self.state, self._retry_s = SpoolState.DOWN, now_s + self._pause_s

    def refused(self) -> tuple[Write, ...]:
        """The store is up and will never take what was under way.

        Returns:
            What is given up: the one write, or nothing when there were several, which are then tried one by one.
        """
        under_way, self._under_way = self._under_way, ()
        if len(under_way) > 1:
            self._one_by_one = len(under_way)
            return ()
        self._one_by_one = max(0, self._one_by_one - 1)
        for write in under_way:
            self._drop(write)
        self._answered()
        return under_way

    def _answered(self) -> None:
        self._pause_s = 0.0
        if not self._waiting:
            self.state = SpoolState.UP

    def _needless(self, kind: str, key: str) -> Write | None:
        """Return what a superseding write of a key makes needless."""
        number = self._superseding.get((kind, key))
        write = None if number is None else self._waiting[number]
        return None if write in self._under_way else write

    def _next(self) -> tuple[Write, ...]:
        waiting = iter(self._waiting.values())
        found = [next(waiting)]
        most = self._most if found[0].kind in self._several and not self._one_by_one else 1
        for write in waiting:
            if len(found) >= most or write.kind != found[0].kind:
                break
            found.append(write)
        return tuple(found)

    def _drop(self, write: Write) -> None:
        del self._waiting[write.number]
        self._taken_back.discard(write.number)
        self._bytes -= len(write.body)
        if self._superseding.get((write.kind, write.key)) == write.number:
            del self._superseding[write.kind, write.key]
