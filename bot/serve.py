"""Runs the launcher: one process or several, with a drain before the end.

SIGTERM: no new calls, those that run may end, at most `DRAIN_LIMIT_S`; SIGINT ends at once. A second SIGTERM
changes nothing: a worker gets one from its supervisor and often another with its process group.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
from loguru import logger

from bot.settings import Settings

DRAIN_LIMIT_S = 120.0
MAX_MESSAGE_BYTES = 1 << 20
"""A larger WebSocket message closes its socket (1009): Twilio's are about 350 bytes."""


def serve(settings: Settings, environment: Mapping[str, str] | None = None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: Checked.
        environment: Settings that are not in the environment (those of the sims), for worker processes.
    """
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "log_level": "warning",
        "access_log": False,
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "timeout_graceful_shutdown": 5,
        "lifespan": "on",
    }
    if settings.workers == 1:
        from server import create_app  # the application imports what only a worker needs

        uvicorn.run(create_app(settings), **options)
        return
    shared = Path(tempfile.mkdtemp(prefix="firstring-metrics-"))
    os.environ.update(environment or {}, PROMETHEUS_MULTIPROC_DIR=str(shared))
    try:
        uvicorn.run("server:create_app", factory=True, workers=settings.workers, **options)
    finally:
        shutil.rmtree(shared, ignore_errors=True)


@contextlib.asynccontextmanager
async def draining(drain: Callable[[float], Awaitable[bool]]) -> AsyncGenerator[None]:
    """While inside, SIGTERM drains before the server's own handler gets it.

    Uvicorn closes every socket at once when told to stop, which would cut the calls.
    """
    loop = asyncio.get_running_loop()
    servers_own = signal.getsignal(signal.SIGTERM)
    tasks: list[asyncio.Task[None]] = []

    def hand_back() -> None:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, servers_own)

    async def drain_then_stop() -> None:
        if not await drain(DRAIN_LIMIT_S):
            logger.warning("calls are still running after {} s: they are ended", DRAIN_LIMIT_S)
        hand_back()
        signal.raise_signal(signal.SIGTERM)

    def begin() -> None:
        if not tasks:
            tasks.append(asyncio.ensure_future(drain_then_stop()))

    loop.add_signal_handler(signal.SIGTERM, begin)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        hand_back()
