"""Hand-offs that are under way, for whichever process the carrier asks next, and the `HandoffStore` Protocol.

What is in one is its writer's business: here it is text with a version. Of two writes the higher version stands,
however late the other comes.
"""

from typing import Final, Protocol

HANDOFF_KEPT_S: Final = 5 * 3600.0
"""From its last write; the carrier ends a call after four hours, and the conversation with the person with it."""


class HandoffStore(Protocol):
    """Where hand-offs are written down. Every method answers within a fraction of a second or raises."""

    async def save(self, call_sid: str, version: int, body: str) -> None:
        """Write a hand-off down, unless a higher version of it stands already.

        Raises:
            StoreUnavailableError: If there is no answer in time. Saving the same again is safe.
        """
        ...

    async def load(self, call_sid: str) -> str | None:
        """Return a hand-off's body; None if there is none, or it has expired.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections, within a deadline."""
        ...
