import asyncio
import os
import signal
from types import FrameType

import pytest

from bot import serve
from bot.serve import draining

pytestmark = pytest.mark.real_time


class Server:
    """A server's own SIGTERM handler, as uvicorn installs one."""

    def __init__(self) -> None:
        self.stops = 0
        self._before = signal.signal(signal.SIGTERM, self._stop)

    def close(self) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self.stops += 1


async def test_sigterm_drains_first_and_then_stops_the_server_once() -> None:
    server = Server()
    calls_ended = asyncio.Event()
    limits: list[float] = []

    async def drain(limit_s: float) -> bool:
        limits.append(limit_s)
        await calls_ended.wait()
        return True

    try:
        async with draining(drain):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)  # the supervisor's, beside the process group's
            await asyncio.sleep(0.05)
            assert server.stops == 0
            calls_ended.set()
            await asyncio.sleep(0.05)
            assert server.stops == 1
        assert limits == [serve.DRAIN_LIMIT_S]
    finally:
        server.close()


async def test_the_server_s_own_handler_is_back_afterwards() -> None:
    server = Server()

    async def drain(_: float) -> bool:
        raise AssertionError("nobody asked for it")

    try:
        async with draining(drain):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert server.stops == 1
    finally:
        server.close()
