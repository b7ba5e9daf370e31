"""When a call's state is written down. A pure table.

    CLEAN --changed--> DIRTY --written--> CLEAN
    DIRTY --refused--> DIRTY, not before `retry_s`
    any --lost | finished--> OVER: nothing is written any more

What is urgent (a turn, a tool's result) is written at once, but not more often than every `gap_s`; what is not (words
as they are heard) every `lazy_s`.
"""

import math
from typing import Final

GAP_S: Final = 0.1
LAZY_S: Final = 1.0
RETRY_S: Final = 1.0


class SaveSchedule:
    """Tells when the next write is due."""

    def __init__(self, *, gap_s: float = GAP_S, lazy_s: float = LAZY_S, retry_s: float = RETRY_S) -> None:
        """Begin clean; all in seconds, > 0."""
        self._gap_s = gap_s
        self._lazy_s = lazy_s
        self._retry_s = retry_s
        self._due_s = math.inf
        self._not_before_s = -math.inf
        self._lazy_due_s = -math.inf
        self.is_over = False

    def changed(self, now_s: float) -> None:
        """Something happened that must not be lost."""
        self._due_s = min(self._due_s, now_s)

    def due_s(self) -> float:
        """Return when to write next: what is urgent, or what may have come in bit by bit; inf when over."""
        if self.is_over:
            return math.inf
        return max(self._not_before_s, min(self._due_s, self._lazy_due_s))

    def began(self, now_s: float) -> None:
        """A write begins with what is known now: what changes from here on is the next one's."""
        self._due_s = math.inf
        self._not_before_s = now_s + self._gap_s
        self._lazy_due_s = now_s + self._lazy_s

    def refused(self, now_s: float) -> None:
        """The store did not take it."""
        self._due_s = now_s
        self._not_before_s = now_s + self._retry_s

    def over(self) -> None:
        """The call is over, or another's."""
        self.is_over = True
