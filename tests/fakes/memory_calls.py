"""A `CallStore` in memory that can be down, shared by as many "processes" as a test has."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from store.calls import Beat, SavedCall, SaveVerdict, SeenBeat, judge
from store.errors import StoreUnavailableError


@dataclass
class MemoryCallStore:
    """Decides as the real ones do."""

    stored: dict[str, SavedCall] = field(default_factory=dict[str, SavedCall])
    beaten: dict[str, Beat] = field(default_factory=dict[str, Beat])
    writes: list[SavedCall] = field(default_factory=list[SavedCall])
    is_down: bool = False
    takes_s: float = 0.0
    closed: bool = False
    on_lost: Callable[[SavedCall], None] | None = None

    def tell_lost(self, on_lost: Callable[[SavedCall], None]) -> None:
        self.on_lost = on_lost

    async def save(self, call: SavedCall) -> SaveVerdict:
        await self._answer()
        call.to_json()
        verdict = judge(self.stored.get(call.call_sid), call)
        if verdict is SaveVerdict.WRITTEN:
            self.stored[call.call_sid] = call
            self.writes.append(call)
        return verdict

    async def load(self, call_sid: str) -> SavedCall | None:
        await self._answer()
        return self.stored.get(call_sid)

    async def claim(
        self, known: SavedCall, process: str, at: datetime, *, is_resumed: bool = True
    ) -> SavedCall | None:
        await self._answer()
        stored = self.stored.get(known.call_sid)
        if stored is None or stored.is_finished or stored.claim != known.claim:
            return None
        self.stored[known.call_sid] = stored.taken_over(process, at, is_resumed=is_resumed)
        return self.stored[known.call_sid]

    async def finish(self, call: SavedCall, at: datetime) -> SaveVerdict:
        return await self.save(call.finished(at))

    async def calls_of(self, process: str) -> list[SavedCall]:
        await self._answer()
        return [call for call in self.stored.values() if call.process == process and not call.is_finished]

    async def beat(self, beat: Beat) -> None:
        await self._answer()
        self.beaten[beat.process] = beat

    async def beats(self) -> list[SeenBeat]:
        await self._answer()
        return [SeenBeat(beat, 0.0) for beat in self.beaten.values()]

    async def forget(self, process: str) -> None:
        await self._answer()
        self.beaten.pop(process, None)

    async def close(self) -> None:
        self.closed = True

    async def _answer(self) -> None:
        await asyncio.sleep(self.takes_s)
        if self.is_down:
            raise StoreUnavailableError("down")
