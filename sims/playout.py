"""Twilio's playout buffer: what was sent to the phone is heard later, at 8000 bytes a second.

Pure: positions are samples since the call was answered, passed in by the owner; there is no clock here.
Positions are exact to the sample, not rounded to packets.
"""

from collections import deque
from dataclasses import dataclass, field

from sims.mulaw import RATE_HZ, SILENCE

MAX_BUFFERED_SAMPLES = 600 * RATE_HZ
"""Ten minutes; Twilio documents no limit, a test machine needs one."""


@dataclass(frozen=True)
class DryRun:
    """The buffer ran empty at `start` and got sound again at `end` (samples)."""

    start: int
    end: int


@dataclass
class PlayoutBuffer:
    """One direction of a call: sound pushed, marks placed, sound taken as it is played.

    A mark comes due when the last sample before it was played, at once when nothing is buffered, and at
    once on `clear`. Marks always come due in the order they were placed.

    Source: Twilio Media Streams, "mark" and "clear" messages.
    """

    dry_runs: list[DryRun] = field(default_factory=list[DryRun])
    """Every time the buffer ran empty between two pushes; one after a `clear` is not a dry run."""
    overflow_samples: int = 0
    """Sound refused because the buffer was full."""
    _segments: deque[tuple[int, bytes]] = field(default_factory=deque[tuple[int, bytes]])
    _marks: deque[tuple[int, str]] = field(default_factory=deque[tuple[int, str]])
    _tail: int = 0
    _taken: int = 0
    _may_run_dry: bool = False

    def push(self, ulaw: bytes, now: int) -> None:
        """Append sound received at `now`."""
        if not ulaw:
            return
        start = max(self._tail, now, self._taken)
        if start + len(ulaw) - now > MAX_BUFFERED_SAMPLES:
            self.overflow_samples += len(ulaw)
            return
        if self._may_run_dry and start > self._tail:
            self.dry_runs.append(DryRun(self._tail, start))
        self._segments.append((start, ulaw))
        self._tail = start + len(ulaw)
        self._may_run_dry = True

    def mark(self, name: str, now: int) -> None:
        """Place a mark behind everything pushed so far."""
        self._marks.append((max(self._tail, now), name))

    def clear(self, now: int) -> int:
        """Forget what was not played by `now`; every pending mark comes due. Return the samples dropped."""
        cut = max(now, self._taken)
        kept = deque((start, ulaw[: cut - start]) for start, ulaw in self._segments if start < cut)
        dropped = max(self._tail - cut, 0)
        self._segments = kept
        self._tail = min(self._tail, cut)
        self._marks = deque((min(at, now), name) for at, name in self._marks)
        self._may_run_dry = False
        return dropped

    def due_marks(self, now: int) -> list[str]:
        """Remove and return the marks that are due by `now`, oldest first."""
        due: list[str] = []
        while self._marks and self._marks[0][0] <= now:
            due.append(self._marks.popleft()[1])
        return due

    @property
    def next_mark_at(self) -> int | None:
        """Position of the oldest pending mark."""
        return self._marks[0][0] if self._marks else None

    @property
    def tail(self) -> int:
        """Position behind the last sample pushed: where the buffer runs empty."""
        return self._tail

    def take(self, until: int) -> bytes:
        """Return what was played from the last `take` to `until`, silence where nothing was buffered."""
        if until <= self._taken:
            return b""
        at, self._taken = self._taken, until
        played: list[bytes] = []
        while self._segments and self._segments[0][0] < until:
            start, ulaw = self._segments.popleft()
            if start > at:
                played.append(SILENCE * (start - at))
            room = until - start
            if len(ulaw) > room:
                self._segments.appendleft((until, ulaw[room:]))
                ulaw = ulaw[:room]
            played.append(ulaw)
            at = start + len(ulaw)
        if at < until:
            played.append(SILENCE * (until - at))
        return b"".join(played)
