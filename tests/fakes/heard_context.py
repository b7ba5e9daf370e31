"""What the caller heard of the agent, on its way to the model's context: it arrives when the test says."""

import asyncio


class FakeHeardContext:
    """A `HeardContext` that is whole `after_s` seconds after somebody began to wait for it."""

    def __init__(self, *, after_s: float) -> None:
        self.is_settled = after_s == 0.0
        self._after_s = after_s

    async def wait_until_settled(self, timeout_s: float) -> None:
        """Take the time there is."""
        await asyncio.sleep(min(self._after_s, timeout_s))
        self.is_settled = self._after_s <= timeout_s
