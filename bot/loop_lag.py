"""How late the event loop is: what every caller would hear if playout had no lead."""

import asyncio
from collections.abc import Callable

_EVERY_S = 0.25


async def watch_loop_lag(*observers: Callable[[float], None]) -> None:
    """Tell `observers`, four times a second, how many seconds late a timer fired. Runs until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _EVERY_S
        await asyncio.sleep(_EVERY_S)
        lag_s = max(0.0, loop.time() - due_s)
        for observe in observers:
            observe(lag_s)
