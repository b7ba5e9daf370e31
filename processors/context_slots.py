"""Which contexts a vendor has open on one connection, where it allows only so many. Pure but for the wait.

    free --text is to be sent--> taken --it was sent--> known --told to close--> closing --it ended--> free
    taken --told to close--> free: the vendor never heard of it

A context counts until the vendor says that it ended: what was told to close may be spoken on, and counts meanwhile.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass


@dataclass
class _Slot:
    is_known: bool = False
    is_closing: bool = False


class ContextSlots:
    """Those of one connection."""

    def __init__(self, most: int) -> None:
        """Begin with all free.

        Args:
            most: How many there are, > 0.

        Raises:
            ValueError: If `most` is not positive.
        """
        if most <= 0:
            raise ValueError(f"most must be > 0, got {most}")
        self._most = most
        self._slots: dict[str, _Slot] = {}
        """Oldest first."""
        self._freed = asyncio.Event()

    def __contains__(self, context_id: str) -> bool:
        return context_id in self._slots

    @property
    def is_full(self) -> bool:
        """Whether no context may be opened now."""
        return len(self._slots) >= self._most

    def take(self, context_id: str) -> None:
        """Text of a context is to be sent."""
        self._slots.setdefault(context_id, _Slot())

    def sent(self, context_id: str) -> None:
        """The vendor is told of a context."""
        self._slots.setdefault(context_id, _Slot()).is_known = True

    def closing(self, context_id: str) -> None:
        """The vendor is told that a context is over."""
        slot = self._slots.get(context_id)
        if slot is None:
            return
        slot.is_closing = True
        if not slot.is_known:
            self.ended(context_id)

    def ended(self, context_id: str | None) -> None:
        """The vendor says that a context ended."""
        if context_id is not None and self._slots.pop(context_id, None) is not None:
            self._freed.set()

    def left_open(self, wanted: Collection[str]) -> list[str]:
        """Return the contexts, the oldest first, that nobody wants any more and the vendor was not told to close."""
        return [
            context_id
            for context_id, slot in self._slots.items()
            if slot.is_known and not slot.is_closing and context_id not in wanted
        ]

    async def wait(self) -> None:
        """Wait until one is free."""
        while self.is_full:
            self._freed.clear()
            await self._freed.wait()
