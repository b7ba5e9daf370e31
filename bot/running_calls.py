"""The calls of one process: each begun, lived by a task of its own, counted when it is over, and listed for a while.

Knows no line and nobody who lets calls in; is the `bot.resumption.HeldCalls` of the process.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Final

from loguru import logger

from bot.call import Call, CallSetup
from bot.call_files import write_call_files
from bot.call_life import EndReason
from bot.metrics import Metrics
from bot.resources import Resources
from store.calls import SavedCall

KEPT_CALLS: Final = 200
"""Ended calls that stay listed; their files stay on disk."""


class RunningCalls:
    """See the module."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        resources: Resources,
        *,
        release: Callable[[str], bool],
        metrics: Metrics,
    ) -> None:
        """Begin without calls.

        Args:
            tasks: Entered before the first call begins; whoever leaves it waits for them all.
            resources: Shared by all calls.
            release: Gives a call's room back, by its SID; returns whether another worker has taken the call.
            metrics: Counts.
        """
        self._tasks = tasks
        self._resources = resources
        self._release = release
        self._metrics = metrics
        self._live: dict[str, Call] = {}
        self._leaving: set[Call] = set()
        """Whose call goes on here on another line already."""
        self._kept: deque[Call] = deque(maxlen=KEPT_CALLS)
        self._next_call = asyncio.Event()
        """Set when a call begins, then replaced."""
        self._idle = asyncio.Event()
        self._idle.set()

    # One call

    def begin(self, setup: CallSetup) -> Call:
        """Make a call and have it live its life."""
        call = Call(setup, self._resources)
        self._live[setup.call_sid] = call
        self._next_call.set()
        self._next_call = asyncio.Event()
        self._idle.clear()
        self._metrics.call_began(setup.channel)
        self._tasks.create_task(self._run(call), name=f"call {setup.call_sid}")
        return call

    def live(self, call_sid: str) -> Call | None:
        """Return a call that rings or runs."""
        return self._live.get(call_sid)

    def find(self, call_sid: str) -> Call | None:
        """Return a call that is listed, over or not."""
        return next((call for call in self.all() if call.setup.call_sid == call_sid), None)

    def known(self, call_sid: str) -> SavedCall | None:
        """Return what is known of a listed call without asking the store, which may not have the last of it."""
        call = self.find(call_sid)
        return None if call is None else known_of(call)

    async def expect(self, call_sid: str, limit_s: float) -> bool:
        """Wait for a call to begin here; False if it has not within `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                while self.find(call_sid) is None:
                    await self._next_call.wait()
        except TimeoutError:
            return False
        return True

    async def leave_line(self, call_sid: str) -> SavedCall | None:
        """A call comes on another line: end the one that it has here, if it has one.

        Returns:
            What is known of it, written down by then.
        """
        call = self._live.pop(call_sid, None)
        if call is None:
            return None
        self._leaving.add(call)
        call.end(EndReason.LINE_LOST)
        if call.keeper is None:
            return None
        saved = call.keeper.saved
        await call.keeper.flush()
        return saved

    # All calls

    @property
    def live_count(self) -> int:
        """How many ring or run."""
        return len(self._live)

    def all(self) -> list[Call]:
        """Return those that are listed, newest first."""
        return [*reversed(self._live.values()), *reversed(self._kept)]

    async def until_idle(self, limit_s: float) -> bool:
        """Wait until none is left; False if some are after `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def end_all(self, *, moves: bool) -> None:
        """Ask every call to end.

        Args:
            moves: Whether another process goes on with those that are written down.
        """
        for call in list(self._live.values()):
            is_kept = moves and call.keeper is not None
            call.end(EndReason.MOVED if is_kept else EndReason.SERVER_STOPPING)

    # HeldCalls

    def held(self) -> Collection[str]:
        """See `HeldCalls`."""
        return [
            call_sid
            for call_sid, call in self._live.items()
            if call.keeper is not None and not call.keeper.is_over
        ]

    def let_go(self, call_sid: str, *, goes_on_here: bool) -> None:
        """See `HeldCalls`."""
        call = self._live.get(call_sid)
        if call is None:
            return
        if not goes_on_here:
            logger.warning("call {} goes on in another process: it is let go", call_sid)
        call.end(EndReason.LINE_LOST if goes_on_here else EndReason.TAKEN_BY_OTHER_WORKER)

    def lost(self, saved: SavedCall) -> None:
        """A write came too late: let go of the line that it was of, and of no later one."""
        call = self._live.get(saved.call_sid)
        if call is None or call.keeper is None or call.end_reason is not None:
            return
        if call.keeper.claim <= saved.claim:
            self.let_go(saved.call_sid, goes_on_here=False)

    # The end of one

    async def _run(self, call: Call) -> None:
        try:
            await call.run()
        except Exception as error:  # noqa: BLE001 - one call's failure must not end the others'
            logger.exception("call {} failed: {}", call.setup.call_sid, error)
        try:
            self._close_books(call)
            await asyncio.to_thread(write_call_files, call)
        except Exception as error:  # noqa: BLE001 - nor must what is written about it
            logger.exception("the end of call {} was not written down: {}", call.setup.call_sid, error)

    def _close_books(self, call: Call) -> None:
        setup = call.setup
        self._leaving.discard(call)
        # Otherwise its call has another line here, and its room.
        is_latest = self._live.get(setup.call_sid) is call
        if is_latest:
            del self._live[setup.call_sid]
        try:
            is_elsewhere = is_latest and self._release(setup.call_sid)
            if is_elsewhere or call.end_reason is EndReason.TAKEN_BY_OTHER_WORKER:
                self._metrics.call_taken(setup.channel)  # listed and counted where it goes on
            else:
                self._kept.append(call)
                self._count(call)
        finally:
            if not self._live and not self._leaving:
                self._idle.set()

    def _count(self, call: Call) -> None:
        setup, turns, lost = call.setup, call.turns.counts, call.pipeline.counts
        self._metrics.call_ended(
            agent=setup.agent.slug,
            channel=setup.channel,
            outcome=str(call.end_reason),
            duration_s=call.duration_s,
            longest_silence_s=turns.longest_silence_s,
            silence_cause=turns.longest_silence_cause or "none",
        )
        self._metrics.teardown(call.times.release_s)
        self._metrics.marks_lost(lost.marks_lost)
        self._metrics.voice_windows_dropped(lost.windows_dropped)
        if lost.speculation is not None:
            self._metrics.speculation(lost.speculation, agent=setup.agent.slug)


def known_of(call: Call) -> SavedCall | None:
    """Return what is known of a call without asking the store; None when it is not written down."""
    if call.keeper is None:
        return None
    saved = call.keeper.saved
    return saved if call.life.goes_on else saved.finished(datetime.now(UTC))
