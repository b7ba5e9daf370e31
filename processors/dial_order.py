"""Which of a call's recognisers is dialled next. Pure: no clock, no I/O.

Each failure puts a vendor behind the others; words that were understood make them all equal again, and then the order
of failover counts.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from processors.recognisers import Recogniser
from processors.voices import FailureKind


class DialOrder:
    """One call's."""

    def __init__(self, recognisers: Sequence[Recogniser]) -> None:
        """Begin with nobody blamed.

        Args:
            recognisers: In the order of failover.
        """
        self._recognisers = tuple(recognisers)
        self._failures: Counter[str] = Counter()
        """By vendor, since words were last understood."""

    def next(
        self, *, tried: Collection[str], is_well: Callable[[str], bool], doubted: Recogniser | None
    ) -> Recogniser:
        """Return who is to be dialled.

        Args:
            tried: Vendors that failed in this round; they come last.
            is_well: Whether a vendor is in order, as far as the process knows.
            doubted: Who heard no word where another is to be asked.
        """
        return min(
            self._recognisers,
            key=lambda one: (
                one.vendor in tried,
                self.keeps_failing(one.vendor),
                one is doubted,  # its own opinion is none, so somebody is asked who has failed
                self._failures[one.vendor],
                not is_well(one.vendor),
                self._recognisers.index(one),
            ),
        )

    def has_failed(self, vendor: str) -> bool:
        """Whether a vendor has failed since words were last understood."""
        return self._failures[vendor] > 0

    def keeps_failing(self, vendor: str) -> bool:
        """Whether it has done so more than once."""
        return self._failures[vendor] > 1

    def dial_failed(self, recogniser: Recogniser) -> None:
        """A dial was in vain."""
        self._failures[recogniser.vendor] += 1

    def lost(self, recogniser: Recogniser, kind: FailureKind) -> bool:
        """Whoever listened cannot go on.

        Returns:
            Whether the vendor is to blame: not for its first connection lost, which happens and is dialled again at
            once, nor for a silence that another may hear words in.
        """
        if kind is FailureKind.SILENT:  # it may be in order, and is asked again if no other is
            return False
        is_first_drop = kind is FailureKind.CLOSED and not self.has_failed(recogniser.vendor)
        self._failures[recogniser.vendor] += 1
        if is_first_drop:  # the same comes first, and only then another
            for other in self._recognisers:
                if other is not recogniser:
                    self._failures[other.vendor] = max(self._failures[other.vendor], 1)
        return not is_first_drop

    def understood(self) -> None:
        """Final words came: nobody is blamed for what was before."""
        self._failures.clear()
