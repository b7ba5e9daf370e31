"""Which voices are in order, for all calls of a process: a circuit breaker for each vendor. Pure: times are arguments.

    CLOSED --failed--> OPEN, for a while that doubles each time
    OPEN --time over, one asks to probe--> HALF_OPEN
    HALF_OPEN --it said a word--> CLOSED
    HALF_OPEN --failed--> OPEN, longer
    HALF_OPEN --who probes says nothing--> OPEN, to be probed by another
    any --another process says so--> as it says

A vendor whose breaker is not closed is not begun with, and is tried all the same when no other is left. What it costs
to find out whether it is back is paid by a probe that no caller hears.
"""

import enum
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from processors.voices import FailureKind

FIRST_OPEN_S = 3.0
LASTING_OPEN_S = 60.0
"""For what will hardly be over sooner: a wrong key, an empty account."""
LONGEST_OPEN_S = 120.0
PROBE_LIMIT_S = 6.0
"""Whoever probes has that long to say how it went."""


class BreakerState(enum.StrEnum):
    """Of one vendor."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerNotice:
    """What one process tells the others of a vendor."""

    vendor: str
    state: BreakerState
    left_s: float
    """Seconds until it may be probed, or until a probe counts as lost; 0 if it is closed."""


class CircuitBreaker:
    """One vendor's. Times are seconds of one clock."""

    def __init__(self) -> None:
        """Create it closed."""
        self.state = BreakerState.CLOSED
        self._open_s = 0.0
        self._until_s = 0.0
        """When an open one may be probed, or a probe counts as lost."""

    @property
    def is_closed(self) -> bool:
        """Whether the vendor may be begun with."""
        return self.state is BreakerState.CLOSED

    def failed(self, kind: FailureKind, now_s: float) -> None:
        """The vendor failed, in a call or in a probe. What fails while it is open says nothing new."""
        if self.state is BreakerState.OPEN:
            return
        least_s = LASTING_OPEN_S if kind.is_lasting else FIRST_OPEN_S
        self._open_s = min(max(least_s, 2 * self._open_s), LONGEST_OPEN_S)
        self.state, self._until_s = BreakerState.OPEN, now_s + self._open_s

    def succeeded(self) -> None:
        """The vendor said a text. The first time only closes the breaker; failing again soon keeps it open longer."""
        if self.is_closed:
            self._open_s = 0.0
        self.state = BreakerState.CLOSED

    def claim_probe(self, now_s: float) -> bool:
        """Ask to probe; who gets True must tell how it went."""
        if self.is_closed or now_s < self._until_s:
            return False
        self.state, self._until_s = BreakerState.HALF_OPEN, now_s + PROBE_LIMIT_S
        return True

    def told(self, notice: BreakerNotice, now_s: float) -> None:
        """Another process says how the vendor is. Its probe keeps ours away; its failure is not paid for again here."""
        if notice.state is BreakerState.CLOSED:
            self.state = BreakerState.CLOSED
        elif notice.left_s > 0:
            left_s = min(notice.left_s, LONGEST_OPEN_S)
            until_s = now_s + left_s
            self._until_s = until_s if self.is_closed else max(until_s, self._until_s)
            self.state, self._open_s = BreakerState.OPEN, max(self._open_s, FIRST_OPEN_S)

    def probe_in_s(self, now_s: float) -> float:
        """Return the seconds until a probe may be asked for, 0 if it may."""
        return 0.0 if self.is_closed else max(0.0, self._until_s - now_s)


class VoiceHealth(Protocol):
    """What calls know of the vendors from each other."""

    def is_well(self, vendor: str) -> bool:
        """Whether a vendor may be begun with."""
        ...

    def failed(self, vendor: str, kind: FailureKind, now_s: float) -> None:
        """A vendor failed."""
        ...

    def succeeded(self, vendor: str) -> None:
        """A vendor said a text."""
        ...

    def claim_probe(self, vendor: str, now_s: float) -> bool:
        """Ask to probe a vendor."""
        ...

    def probe_in_s(self, vendor: str, now_s: float) -> float:
        """Return the seconds until a probe of a vendor may be asked for."""
        ...

    def begin(self, vendor: str, most: int | None) -> bool:
        """Count one more context, unless its plan's `most` are open."""
        ...

    def end(self, vendor: str) -> None:
        """Count one context less."""
        ...

    def has_room(self, vendor: str, most: int) -> bool:
        """Whether one more context may be opened beside those that are, of `most`."""
        ...


@dataclass(frozen=True)
class _Books:
    breakers: defaultdict[str, CircuitBreaker]
    open_contexts: Counter[str]


class ProcessVoiceHealth:
    """`VoiceHealth` of the calls of one process, which other processes may be told of and tell."""

    def __init__(self) -> None:
        """Begin with every vendor in order."""
        self._books = _Books(defaultdict(CircuitBreaker), Counter())
        self._tell: Callable[[BreakerNotice], None] | None = None

    def tell(self, tell: Callable[[BreakerNotice], None]) -> None:
        """Have others told of each change that is found out here; `tell` must not block."""
        self._tell = tell

    def told(self, notice: BreakerNotice, now_s: float) -> None:
        """Another process found out how a vendor is."""
        self._books.breakers[notice.vendor].told(notice, now_s)

    def state(self, vendor: str) -> BreakerState:
        """Return the state of a vendor's breaker."""
        return self._books.breakers[vendor].state

    def is_well(self, vendor: str) -> bool:
        """See `VoiceHealth`."""
        return self._books.breakers[vendor].is_closed

    def failed(self, vendor: str, kind: FailureKind, now_s: float) -> None:
        """See `VoiceHealth`."""
        before = self.state(vendor)
        self._books.breakers[vendor].failed(kind, now_s)
        self._tell_change(vendor, before, now_s)

    def succeeded(self, vendor: str) -> None:
        """See `VoiceHealth`."""
        before = self.state(vendor)
        self._books.breakers[vendor].succeeded()
        self._tell_change(vendor, before, 0.0)

    def claim_probe(self, vendor: str, now_s: float) -> bool:
        """See `VoiceHealth`."""
        before = self.state(vendor)
        is_ours = self._books.breakers[vendor].claim_probe(now_s)
        self._tell_change(vendor, before, now_s)
        return is_ours

    def probe_in_s(self, vendor: str, now_s: float) -> float:
        """See `VoiceHealth`."""
        return self._books.breakers[vendor].probe_in_s(now_s)

    def begin(self, vendor: str, most: int | None) -> bool:
        """See `VoiceHealth`."""
        if most is not None and self._books.open_contexts[vendor] >= most:
            return False
        self._books.open_contexts[vendor] += 1
        return True

    def end(self, vendor: str) -> None:
        """See `VoiceHealth`."""
        self._books.open_contexts[vendor] = max(0, self._books.open_contexts[vendor] - 1)

    def has_room(self, vendor: str, most: int) -> bool:
        """See `VoiceHealth`."""
        return self._books.open_contexts[vendor] < most

    def _tell_change(self, vendor: str, before: BreakerState, now_s: float) -> None:
        breaker = self._books.breakers[vendor]
        if self._tell is not None and breaker.state is not before:
            self._tell(BreakerNotice(vendor, breaker.state, breaker.probe_in_s(now_s)))
