"""An event loop whose clock jumps to the next timer instead of waiting for it."""

import asyncio
import selectors
from typing import Any

MOST_TURNS = 100_000
"""Turns of the loop in one instant. Whoever needs more waits for a moment that never comes, say by an ulp of it."""


class _JumpingSelector:
    """A selector that never sleeps: a wait moves the loop's clock instead."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now_s = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        """Poll; when nothing is ready, let `timeout` seconds pass at once.

        Raises:
            RuntimeError: Time stands still.
        """
        ready = self._real.select(0)
        self._turns += 1
        if self._turns > MOST_TURNS:
            self._turns = 0  # the tasks must still be ended
            raise RuntimeError(f"the loop turned {MOST_TURNS} times at {self.now_s} s")
        if ready:
            return ready
        if timeout is None:
            # No timer is pending: only another thread can wake the loop, so really wait, a little.
            self._turns = 0
            return self._real.select(0.05)
        if timeout > 0.0:
            self._turns = 0
            self.now_s += timeout
        return []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs timers in order without waiting. Sockets and threads need `real_time` tests instead."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)  # type: ignore[arg-type]

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._jumping.now_s

    def stall(self, seconds: float) -> None:
        """Let time pass in which nothing runs, as in a process that is held up."""
        self._jumping.now_s += seconds
