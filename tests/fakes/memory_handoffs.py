"""Hand-offs in memory, as several processes share them."""

import asyncio

from store.errors import StoreUnavailableError


class MemoryHandoffStore:
    """A `HandoffStore` that can be down."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[int, str]] = {}
        self.is_down = False

    async def save(self, call_sid: str, version: int, body: str) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailableError("down")
        if version > self.kept.get(call_sid, (-1, ""))[0]:
            self.kept[call_sid] = version, body

    async def load(self, call_sid: str) -> str | None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailableError("down")
        return self.kept.get(call_sid, (0, None))[1]

    async def close(self) -> None:
        pass
