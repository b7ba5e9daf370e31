"""A `CallStore` that may be down: writes go through the spool, reads know what is still on its way.

What the other processes of a machine left in the spool when they ended is known as soon as it is adopted. While the
store is down a process can go on with its own calls only: whether another has claimed one nobody could say.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from loguru import logger

from store.calls import Beat, CallStore, SavedCall, SaveVerdict, SeenBeat, newest
from store.errors import StoreUnavailableError
from store.spool import Sink, Spool

_KIND: Final = "call"
_LOST_KEPT: Final = 1000
"""Calls that were lost are remembered; the oldest are forgotten beyond this."""


class SpooledCallStore:
    """See the module. Closing it closes the store behind it, not the spool, which others use too."""

    def __init__(self, store: CallStore, spool: Spool, *, process: str) -> None:
        """Join a store and a spool.

        Args:
            store: Behind it.
            spool: On its way to it.
            process: Of this process, see `new_process_id`.
        """
        self._store = store
        self._spool = spool
        self._process = process
        self._lost: dict[str, int] = {}
        """SID to the claim that was lost."""
        self._on_lost: Callable[[SavedCall], None] | None = None
        spool.serve(_KIND, Sink(self._deliver))

    def tell_lost(self, on_lost: Callable[[SavedCall], None]) -> None:
        """Have `on_lost` told each write of this process that came too late. It must not block.

        The call has another owner by now: another process, or this one under a later claim; or it is finished.
        """
        self._on_lost = on_lost

    async def save(self, call: SavedCall) -> SaveVerdict:
        """See `CallStore.save`. With the store down it returns at once: the write is spooled.

        Returns:
            `LOST` if it is known by now that the call has another owner, otherwise `WRITTEN`: it is in the store, or
            on its way to it.

        Raises:
            StoreUnavailableError: If the store is down and the spool full.
            ValueError: As in `CallStore.save`.
        """
        if self._is_lost(call):
            return SaveVerdict.LOST
        # Not by SID alone: a write of an earlier owner, adopted late, must not make ours needless.
        key = f"{call.call_sid}/{call.claim}/{call.process}"
        number = self._spool.put(_KIND, key, call.to_json(), supersedes=True, is_vital=True)
        await self._spool.tried(number)  # whoever reads it next may be another process
        return SaveVerdict.LOST if self._is_lost(call) else SaveVerdict.WRITTEN

    async def load(self, call_sid: str) -> SavedCall | None:
        """See `CallStore.load`; with the store down, what is still on its way to it."""
        waiting = self._waiting(call_sid)
        try:
            stored = await self._store.load(call_sid)
        except StoreUnavailableError:
            if waiting is None:
                raise
            return waiting
        return newest([stored, waiting])

    async def claim(
        self, known: SavedCall, process: str, at: datetime, *, is_resumed: bool = True
    ) -> SavedCall | None:
        """See `CallStore.claim`; with the store down, a process may still shut an earlier owner of its own out."""
        waiting = self._waiting(known.call_sid)
        try:
            taken = await self._store.claim(known, process, at, is_resumed=is_resumed)
            if taken is None and waiting is not None and await self._store.load(known.call_sid) is None:
                return await self._claim_here(waiting, known, process, at, is_resumed=is_resumed)
        except StoreUnavailableError:
            if waiting is None or known.process != self._process:
                raise
            return await self._claim_here(waiting, known, process, at, is_resumed=is_resumed)
        if taken is None or waiting is None or waiting.claim != known.claim:
            return taken
        # The store gave what it had; of the owner's last writes it may lack some.
        whole = replace(
            waiting,
            process=process,
            claim=taken.claim,
            revision=taken.revision + 1,
            resumes=taken.resumes,
            updated_at=at,
        )
        await self.save(whole)
        return whole

    async def finish(self, call: SavedCall, at: datetime) -> SaveVerdict:
        """See `CallStore.finish`; returns as `save` does."""
        return await self.save(call.finished(at))

    async def calls_of(self, process: str) -> list[SavedCall]:
        """See `CallStore.calls_of`; what is still on its way counts."""
        # First what waits: what leaves the spool meanwhile is in the store, and not the other way about.
        waiting = [SavedCall.from_json(body) for body in self._spool.waiting(_KIND)]
        calls = {call.call_sid: call for call in await self._store.calls_of(process)}
        for call in waiting:
            if call.process == process:
                latest = newest([calls.get(call.call_sid), call])
                calls[call.call_sid] = latest if latest is not None else call
        open_calls = [call for call in calls.values() if not call.is_finished]
        return sorted(open_calls, key=lambda call: call.started_at)

    async def beat(self, beat: Beat) -> None:
        """See `CallStore.beat`. Not spooled: an old beat says nothing."""
        await self._store.beat(beat)

    async def beats(self) -> list[SeenBeat]:
        """See `CallStore.beats`."""
        return await self._store.beats()

    async def forget(self, process: str) -> None:
        """See `CallStore.forget`."""
        await self._store.forget(process)

    async def close(self) -> None:
        """Close the store behind it; the spool must be closed before."""
        await self._store.close()

    async def _deliver(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            call = SavedCall.from_json(body)
            if await self._store.save(call) is SaveVerdict.LOST and call.process == self._process:
                self._note_lost(call)

    def _note_lost(self, call: SavedCall) -> None:
        logger.warning("call {} has another owner than claim {}", call.call_sid, call.claim)
        self._lost.pop(call.call_sid, None)
        self._lost[call.call_sid] = call.claim
        if len(self._lost) > _LOST_KEPT:
            del self._lost[next(iter(self._lost))]
        if self._on_lost is not None:
            self._on_lost(call)

    async def _claim_here(
        self, waiting: SavedCall, known: SavedCall, process: str, at: datetime, *, is_resumed: bool
    ) -> SavedCall | None:
        """Claim what the store does not know, or cannot be asked about."""
        if waiting.claim != known.claim or waiting.is_finished:
            return None
        taken = waiting.taken_over(process, at, is_resumed=is_resumed)
        await self.save(taken)
        return taken

    def _is_lost(self, call: SavedCall) -> bool:
        return self._lost.get(call.call_sid, 0) >= call.claim

    def _waiting(self, call_sid: str) -> SavedCall | None:
        return newest([SavedCall.from_json(body) for body in self._spool.waiting(_KIND, f"{call_sid}/")])
