"""Runs the launcher: one process or several, with a drain before the end.

SIGTERM: no new calls, those that run may end, at most `DRAIN_LIMIT_S`; SIGINT: they are ended. A second SIGTERM
changes nothing: a worker gets one from its supervisor and often another with its process group. The supervisor
passes a SIGINT on as SIGTERM; Ctrl-C at a terminal ends the calls all the same, since each worker gets one of its own.
SIGHUP to the supervisor replaces the workers in turn: the old one stops accepting, which its siblings do, and drains.
"""

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from loguru import logger

from bot.settings import Settings
from bot.supervisor import RETIRE, Supervisor, stop_accepting

if TYPE_CHECKING:
    from fastapi import FastAPI

DRAIN_LIMIT_S = 120.0
_LIMITS_S = {signal.SIGTERM: DRAIN_LIMIT_S, signal.SIGINT: 0.0}
"""How long calls may go on after each signal."""
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
        uvicorn.run(make_app(settings), **options)
        return
    shared = Path(tempfile.mkdtemp(prefix="firstring-metrics-"))
    os.environ.update(environment or {}, PROMETHEUS_MULTIPROC_DIR=str(shared))
    try:
        config = uvicorn.Config("bot.serve:make_app", factory=True, workers=settings.workers, **options)
        with contextlib.closing(config.bind_socket()) as address:
            Supervisor(config, [address]).run()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def make_app(settings: Settings | None = None) -> "FastAPI":
    """Import the application, which imports what only a worker needs, and make it.

    Half a second of three is what the garbage collector would take to look at all that again and again.

    Args:
        settings: None reads them from the environment.
    """
    gc.disable()
    try:
        from server import create_app
    finally:
        gc.enable()
    return create_app(settings)


@contextlib.asynccontextmanager
async def draining(drain: Callable[[float], Awaitable[bool]]) -> AsyncGenerator[None]:
    """While inside, SIGTERM drains and SIGINT ends all calls before the server's own handler gets the signal.

    A worker that is told to retire drains, too, and leaves its address to the others at once. Uvicorn closes every
    socket at once when told to stop, which would cut the calls without hanging up.
    """
    loop = asyncio.get_running_loop()
    servers_own = {number: signal.getsignal(number) for number in _LIMITS_S}
    tasks: dict[signal.Signals, asyncio.Task[None]] = {}

    def hand_back() -> None:
        loop.remove_signal_handler(RETIRE)
        for number, handler in servers_own.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    def stop(number: signal.Signals) -> None:
        hand_back()
        signal.raise_signal(number)

    async def drain_then_stop(number: signal.Signals) -> None:
        if not await drain(_LIMITS_S[number]):
            logger.warning("calls were still running after {} s: they were ended", _LIMITS_S[number])
        stop(number)

    def begin(number: signal.Signals) -> None:
        if number is signal.SIGINT and number in tasks:  # asked twice: at once
            tasks[number].cancel()  # it would ask uvicorn a second time, which then skips its shutdown
            stop(number)
        elif number not in tasks and signal.SIGINT not in tasks:
            for task in tasks.values():
                task.cancel()
            tasks[number] = asyncio.ensure_future(drain_then_stop(number))

    def retire() -> None:
        stop_accepting()
        begin(signal.SIGTERM)

    for number in _LIMITS_S:
        loop.add_signal_handler(number, begin, number)
    loop.add_signal_handler(RETIRE, retire)
    try:
        yield
    finally:
        for task in tasks.values():
            task.cancel()
        hand_back()
