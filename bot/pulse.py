"""Which processes have stopped, by the numbers of their beats. A pure table, by the watcher's own clock.

    UNKNOWN --seen--> ALIVE --no new number for `limit_s`--> STOPPED --a new number--> ALIVE
    any --not listed any more--> UNKNOWN

Clocks of other machines do not matter, and neither does how long a store took to answer. A watcher that was itself
held up (stopped and continued, or a busy machine) has seen nothing meanwhile: it gives everybody their time anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BEAT_EVERY_S: Final = 1.0
STOPPED_AFTER_S: Final = 3.0
AGAIN_AFTER_S: Final = 5.0
"""A process that stays stopped is told of again: it may have had calls that nobody could help yet."""
_HELD_UP_S: Final = 2.0


@dataclass
class _Seen:
    number: int
    since_s: float
    told_s: float | None = None


class PulseWatch:
    """Watches the beats of all other processes."""

    def __init__(
        self,
        *,
        limit_s: float = STOPPED_AFTER_S,
        held_up_s: float = _HELD_UP_S,
        again_s: float = AGAIN_AFTER_S,
    ) -> None:
        """Create a watcher that has seen nobody.

        Args:
            limit_s: Without a new beat for so long a process has stopped, > 0.
            held_up_s: Two looks further apart than this mean that the watcher was held up, > 0.
            again_s: Between two reports of the same process, > 0.

        Raises:
            ValueError: If one is not positive.
        """
        if min(limit_s, held_up_s, again_s) <= 0:
            raise ValueError(f"limits must be > 0, got {limit_s}, {held_up_s} and {again_s}")
        self._limit_s = limit_s
        self._held_up_s = held_up_s
        self._again_s = again_s
        self._seen: dict[str, _Seen] = {}
        self._looked_s: float | None = None

    def look(self, numbers: Mapping[str, int], now_s: float) -> list[str]:
        """Take what the store lists.

        Args:
            numbers: The last beat of each other process.
            now_s: Of a clock that does not go backwards.

        Returns:
            Who has stopped, of those not told of lately.
        """
        was_held_up = self._looked_s is not None and now_s - self._looked_s > self._held_up_s
        self._looked_s = now_s
        self._seen = {process: seen for process, seen in self._seen.items() if process in numbers}
        stopped: list[str] = []
        for process, number in numbers.items():
            seen = self._seen.get(process)
            if seen is None or seen.number != number:
                self._seen[process] = _Seen(number, now_s)
            elif was_held_up:
                seen.since_s = now_s
            elif now_s - seen.since_s >= self._limit_s and self._is_due(seen, now_s):
                seen.told_s = now_s
                stopped.append(process)
        return stopped

    def is_alive(self, process: str, now_s: float) -> bool:
        """Whether `process` was seen to beat within the limit."""
        seen = self._seen.get(process)
        return seen is not None and now_s - seen.since_s < self._limit_s

    def _is_due(self, seen: _Seen, now_s: float) -> bool:
        return seen.told_s is None or now_s - seen.told_s >= self._again_s
