"""How long those who decide by words wait for late ones. Pure: no clock, no I/O.

    ON TIME --`late`--> WAITED FOR, for `LATE_LIMIT_S`
    WAITED FOR --`late`, another recogniser failed--> longer, `LATES_LIMIT_S` in all
    WAITED FOR --`shown`, they come one after the other--> `SHOWN_LIMIT_S` more, `SHOWN_LIMITS_S` in all
    WAITED FOR --`there`--> ON TIME

A wait that is over is not begun again by what is shown: whoever waited has decided. Times are seconds of one clock.
"""

from typing import Final

LATE_LIMIT_S: Final = 2.0
"""From when a recogniser failed."""
LATES_LIMIT_S: Final = 3.0
"""From when the first of several did."""
SHOWN_LIMIT_S: Final = 1.0
"""From when a recogniser has shown words of what it hears again: the next are as near."""
SHOWN_LIMITS_S: Final = 5.0
"""From when the first failed. The caller hears a line that breaks the silence meanwhile."""
_WORTH_TELLING_S: Final = 0.2


class WordsDelay:
    """See the module. Begins on time."""

    def __init__(self) -> None:
        """Nothing is late."""
        self._since_s: float | None = None
        self._until_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether words are late."""
        return self._since_s is not None

    def late(self, now_s: float) -> float:
        """A recogniser has failed while words were expected. Returns until when to wait for them."""
        if self._since_s is None:
            self._since_s, self._until_s = now_s, now_s
        return self._prolong(min(now_s + LATE_LIMIT_S, self._since_s + LATES_LIMIT_S))

    def shown(self, now_s: float) -> float | None:
        """Late words are shown, not yet the last. Returns until when to wait now, None if as long as before."""
        if self._since_s is None or now_s >= self._until_s:
            return None
        until_s = min(now_s + SHOWN_LIMIT_S, self._since_s + SHOWN_LIMITS_S)
        return self._prolong(until_s) if until_s >= self._until_s + _WORTH_TELLING_S else None

    def there(self) -> bool:
        """The words are there. Returns whether any were late."""
        was_on, self._since_s = self.is_on, None
        return was_on

    def _prolong(self, until_s: float) -> float:
        self._until_s = max(self._until_s, until_s)
        return self._until_s
