"""Calls build their pipelines one after the other, and between two of them the event loop belongs to the callers.

To build and start a pipeline blocks the loop for tens of milliseconds. Of fifty calls that come within a second the
last would hear its greeting when all were built; a greeting needs no pipeline (see `PlayoutProcessor.play_ahead`), so
the pipelines wait for each other instead.

    FREE --take--> TAKEN --given back | `TURN_LIMIT_S`--> RESTING, as long as it took --> the next in line, else FREE
"""

import asyncio
from collections import deque
from typing import Final

TURN_LIMIT_S: Final = 0.5
"""A pipeline that takes longer waits for somebody else, and others need not wait for it."""
REST_SHARE: Final = 1.0
"""Rest after a build, per second that it took: half of the loop is the callers'."""
_FIRST_GUESS_S: Final = 0.05
_LEARNS: Final = 0.2
"""Weight of the last build in the mean."""


class Turn:
    """The right to build. Give it back once the pipeline has started; giving it back twice does nothing."""

    def __init__(self, queue: "BuildQueue") -> None:
        """Begin the turn."""
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._limit: asyncio.TimerHandle | None = self._loop.call_later(TURN_LIMIT_S, self.give_back)

    def give_back(self) -> None:
        """Let the next one build."""
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
            self._queue._over(self._loop.time() - self._began_s)


class BuildQueue:
    """See the module. One per process, used on one event loop."""

    def __init__(self) -> None:
        """Begin free."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_taken = False
        """Or resting."""
        self._mean_s = _FIRST_GUESS_S

    @property
    def backlog_s(self) -> float:
        """How long one more call would wait for its turn, by what builds have taken."""
        ahead = len(self._waiting) + self._is_taken
        return ahead * self._mean_s * (1 + REST_SHARE)

    async def take(self) -> Turn:
        """Wait for a turn, first come first served."""
        if self._is_taken:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place in self._waiting:
                    self._waiting.remove(place)
                elif (
                    place.done() and not place.cancelled()
                ):  # the turn was given, and nobody is there to use it
                    self._next()
                raise
        self._is_taken = True
        return Turn(self)

    def _over(self, took_s: float) -> None:
        self._mean_s += _LEARNS * (took_s - self._mean_s)
        asyncio.get_running_loop().call_later(took_s * REST_SHARE, self._next)

    def _next(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._is_taken = False
