"""A timer that follows a deadline which moves: the clock of a table that says by `deadline_s` when to ask it.

Used by processors that are shells of such a table; decides nothing.

    IDLE --follow, there is a deadline--> SET --the deadline has come--> IDLE, `on_deadline`, and follows anew
    IDLE, SET --stop--> STOPPED, for good
"""

import asyncio
from collections.abc import Callable


class DeadlineTimer:
    """Calls once for each deadline. Times are those of the event loop's clock, in seconds."""

    def __init__(self, deadline_s: Callable[[], float | None], on_deadline: Callable[[float], None]) -> None:
        """Create it; nothing runs before `follow`.

        Args:
            deadline_s: Returns when to call next, None when not to.
            on_deadline: Called then, with the time, which is never before the deadline.
        """
        self._deadline_s = deadline_s
        self._on_deadline = on_deadline
        self._handle: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # uvloop's handles cannot say it
        self.is_stopped = False

    def follow(self) -> None:
        """Look at the deadline again: it may have moved."""
        due_s = None if self.is_stopped else self._deadline_s()
        if self._handle is not None and self._due_s == due_s:
            return
        self._clear()
        if due_s is not None:
            self._due_s = due_s
            self._handle = asyncio.get_running_loop().call_at(due_s, self._fire)

    def stop(self) -> None:
        """Call no more."""
        self.is_stopped = True
        self._clear()

    def _clear(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()

    def _fire(self) -> None:
        self._handle = None
        # A loop may wake a little before the time it was asked for.
        self._on_deadline(max(asyncio.get_running_loop().time(), self._due_s))
        self.follow()
