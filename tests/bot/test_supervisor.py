"""Real processes, with a server that is next to nothing; whole workers are in `tests/e2e/test_serve.py`."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.fakes.launcher import ROOT

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(60)]

APP = """
import asyncio, os, signal
from bot.supervisor import RETIRE, stop_accepting

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        asyncio.get_running_loop().add_signal_handler(RETIRE, stop_accepting)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = str(os.getpid()).encode()
    headers = [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""
PARENT = """
import socket, sys, uvicorn
from bot.supervisor import Supervisor
if __name__ == "__main__":
    address = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(sys.argv[2], workers=2, log_level="warning", lifespan="on")
    Supervisor(config, [address]).run()
"""


class Fleet:
    """A supervisor with two workers, behind one address."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self._port = port

    async def asked(self) -> int:
        """Return the process id of the worker that answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        writer.close()
        worker = int(answer.rpartition(b"\r\n\r\n")[2])
        assert worker > 1
        return worker

    async def answering(self, rounds: int = 20) -> set[int]:
        return {await self.asked() for _ in range(rounds)}


@contextlib.asynccontextmanager
async def open_fleet(folder: Path, app: str = APP) -> AsyncGenerator[Fleet]:
    (folder / "small_app.py").write_text(app)
    (folder / "parent.py").write_text(PARENT)
    with socket.create_server(("127.0.0.1", 0)) as address:
        address.set_inheritable(True)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(folder / "parent.py"), str(address.fileno()), "small_app:app"),
            pass_fds=[address.fileno()],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        port = address.getsockname()[1]
        try:
            yield Fleet(process, port)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def until(fleet: Fleet, gone: set[int]) -> set[int]:
    """Wait until none of `gone` answers; return who does."""
    async with asyncio.timeout(30):
        while gone & (there := await fleet.answering()):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.2)
    return there


async def test_a_worker_that_leaves_the_address_is_asked_no_more_and_nobody_is_refused(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        one = await fleet.asked()
        os.kill(one, signal.SIGUSR1)
        others = await until(fleet, {one})
        os.kill(one, 0)  # it is there: nobody told it to end
        assert one not in others


async def test_a_worker_that_was_killed_is_replaced(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        one = await fleet.asked()
        os.kill(one, signal.SIGKILL)
        assert await until(fleet, {one})


async def test_a_worker_that_was_killed_before_any_was_seen_to_serve_is_replaced(tmp_path: Path) -> None:
    """So is what runs out of memory at the start: its server goes on trying."""
    kills_itself_once = f"""
import os, pathlib, signal
killed = pathlib.Path({str(tmp_path / "killed")!r})
if not killed.exists():
    killed.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    async with open_fleet(tmp_path, kills_itself_once + APP) as fleet, asyncio.timeout(30):
        await fleet.asked()
        while len(await fleet.answering()) < 2:  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.2)


async def test_a_term_ends_all_of_them(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        await fleet.asked()
        fleet.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await fleet.process.wait() == 0


async def test_a_server_that_cannot_start_says_so_with_its_exit_code(tmp_path: Path) -> None:
    async with open_fleet(tmp_path, "raise RuntimeError('broken')") as fleet:
        async with asyncio.timeout(30):
            assert await fleet.process.wait() == 3
