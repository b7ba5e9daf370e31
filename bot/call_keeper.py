"""Writes one call down as it goes on, beside it: nothing in the call waits for a store.

One task per call writes, one write at a time; when is `SaveSchedule`'s to say. Each write has a number, and the store
takes none of a process that has lost the call: then `on_lost` is called, once, and nothing is written any more. Where a
spool stands before the store, that comes out later, and whoever spools tells.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from loguru import logger

from bot.save_schedule import SaveSchedule
from store.calls import CallStore, SavedCall, SaveVerdict
from store.errors import StoreUnavailableError

FINISH_LIMIT_S: Final = 0.4
"""For the last write; the end of a call waits no longer for it."""
OWNER_LIMIT_S: Final = 0.2
"""To learn whether the call is still ours to end."""


class CallKeeper:
    """Keeps the saved state of one call in step with it."""

    def __init__(
        self, store: CallStore, saved: SavedCall, *, takes_over: bool = False, on_lost: Callable[[], None]
    ) -> None:
        """Create a keeper that writes nothing before `run`.

        Args:
            store: Where to.
            saved: The call as it is known now, owned by this process.
            takes_over: Whether another process may have written it before; then it is claimed first.
            on_lost: Told when the call is another process's.
        """
        self._store = store
        self._saved = saved
        self._takes_over = takes_over
        self._on_lost = on_lost
        self._read: Callable[[], Mapping[str, Any]] | None = None
        self._written: Mapping[str, Any] = {}
        self._schedule = SaveSchedule()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._is_down = False
        self._was_lost = False
        self._schedule.changed(asyncio.get_running_loop().time())

    @property
    def saved(self) -> SavedCall:
        """The call as of now, written or not."""
        if self._read is not None and not self._schedule.is_over:
            self._saved = self._saved.next(datetime.now(UTC), **self._read())
        return self._saved

    @property
    def claim(self) -> int:
        """Number of the claim under which this line writes."""
        return self._saved.claim

    @property
    def is_over(self) -> bool:
        """Whether nothing is written any more: the call is over here, or another process has it."""
        return self._schedule.is_over

    def follow(self, read: Callable[[], Mapping[str, Any]]) -> None:
        """Write what `read` returns from now on: fields of `SavedCall`, all JSON."""
        self._read = read
        self.changed()

    def changed(self) -> None:
        """Something happened that must not be lost. Returns at once."""
        self._schedule.changed(asyncio.get_running_loop().time())
        self._changed.set()

    async def run(self) -> None:
        """Write until cancelled, or until there is nothing to write any more."""
        loop = asyncio.get_running_loop()
        while not self._schedule.is_over:
            self._changed.clear()
            wait_s = self._schedule.due_s() - loop.time()
            if wait_s > 0:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                continue
            await self._write_if_new()

    async def flush(self, limit_s: float = FINISH_LIMIT_S) -> None:
        """Write what is known now, and nothing later: the call goes on elsewhere."""
        if not self._schedule.is_over:
            try:
                async with asyncio.timeout(limit_s):
                    await self._write(self.saved)
            except TimeoutError:
                logger.warning("the state of the call was not written in {} s", limit_s)
        self._schedule.over()

    async def finish(self, limit_s: float = FINISH_LIMIT_S, *, asks_owner: bool = True) -> bool:
        """Write that the call is over.

        Args:
            limit_s: For the write.
            asks_owner: Whether to ask the store whose call it is, if the write does not tell.

        Returns:
            False if it is not ours to end: another process has it.
        """
        if self._schedule.is_over:
            return not self._was_lost
        verdict: SaveVerdict | None = None
        try:
            async with asyncio.timeout(limit_s):
                verdict = await self._write(self.saved.finished(datetime.now(UTC)))
        except TimeoutError:
            logger.warning("the end of the call was not written in {} s", limit_s)
        self._schedule.over()
        if verdict is SaveVerdict.LOST or not asks_owner:
            return verdict is not SaveVerdict.LOST
        return await self._is_ours()

    async def _is_ours(self) -> bool:
        """Ask who has the call: a write that was spooled may come too late, which nobody knows yet."""
        try:
            async with asyncio.timeout(OWNER_LIMIT_S):
                stored = await self._store.load(self._saved.call_sid)
        except (StoreUnavailableError, TimeoutError):
            return True
        return stored is None or stored.claim == self._saved.claim

    def give_up(self) -> None:
        """Write nothing any more: another process has the call."""
        self._was_lost = True
        self._schedule.over()

    async def _write_if_new(self) -> None:
        fields = {} if self._read is None else self._read()
        loop = asyncio.get_running_loop()
        if fields == self._written and self._saved.revision and not self._is_down:
            self._schedule.began(loop.time())
            return
        self._schedule.began(loop.time())
        if await self._write(self._saved.next(datetime.now(UTC), **fields)) is None:
            self._schedule.refused(loop.time())
        else:
            self._written = fields

    async def _write(self, saved: SavedCall) -> SaveVerdict | None:
        """Write; None if the store gave no answer."""
        async with self._writing:
            if self._schedule.is_over:
                return None
            try:
                if self._takes_over:
                    saved = await self._claim(saved)
                verdict = await self._store.save(saved)
            except (StoreUnavailableError, ValueError) as error:
                if not self._is_down:
                    logger.warning("the state of the call is not written: {}", error)
                self._is_down = True
                return None
            self._saved, self._is_down = saved, False
            if verdict is SaveVerdict.LOST:
                self._lose()
            return verdict

    async def _claim(self, saved: SavedCall) -> SavedCall:
        """Take the call from the process that answered its webhook; return the write under that claim.

        What that process writes of it may be still on its way: whoever has the line comes after it all the same.
        """
        stored = await self._store.load(saved.call_sid)
        if stored is None:
            saved = replace(saved, claim=saved.claim + 1, revision=1)
        elif stored.process != saved.process:
            taken = await self._store.claim(stored, saved.process, datetime.now(UTC), is_resumed=False)
            if taken is not None:
                saved = replace(saved, claim=taken.claim, revision=1, resumes=taken.resumes)
        self._takes_over = False
        return saved

    def _lose(self) -> None:
        self.give_up()
        self._changed.set()
        self._on_lost()
