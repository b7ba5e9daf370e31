"""Keys that the caller presses become words: one entry per pause or `#`.

Place between the recogniser and the user aggregator. Pipecat's aggregator runs its idle timer all the time, so the
first key can be cut off from the others when the timer happens to end just then; here the timer starts with a key.
Its first key also interrupts whatever is being said; here it asks.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from pipecat.frames.frames import InputDTMFFrame
from pipecat.processors.aggregators.dtmf_aggregator import DTMFAggregator


class KeypadProcessor(DTMFAggregator):
    """Collect keys until `#` comes or none has come for `timeout` seconds, then push them as a final transcript."""

    def __init__(self, *, may_interrupt: Callable[[], bool] = lambda: True, **options: Any) -> None:
        """Create the processor.

        Args:
            may_interrupt: Whether the agent may be interrupted now.
            options: Those of `DTMFAggregator`.
        """
        super().__init__(**options)
        self._may_interrupt = may_interrupt

    async def broadcast_interruption(self) -> None:
        """Interrupt the agent, unless it says what must be heard to its end."""
        if self._may_interrupt():
            await super().broadcast_interruption()

    async def _handle_dtmf_frame(self, frame: InputDTMFFrame) -> None:
        self._digit_event.set()  # before the interruption that the first key makes, which takes its time
        await super()._handle_dtmf_frame(frame)

    async def _aggregation_task_handler(self) -> NoReturn:
        while True:
            await self._digit_event.wait()
            self._digit_event.clear()
            try:
                async with asyncio.timeout(self._idle_timeout):
                    await self._digit_event.wait()
            except TimeoutError:
                if not self._digit_event.is_set():  # no key came at the very last moment
                    await self._flush_aggregation()
