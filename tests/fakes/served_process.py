"""`firstring serve` as it is run: processes of its own, whose vendors are sims in this one."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from sims.profiles import PROFILES
from sims.world import SimWorld
from tests.fakes import rendered_lines
from tests.fakes.launcher import ROOT, Served
from tests.scheduling import catch_up, starting

READY_LIMIT_S = 60.0
"""Two workers load their models and render their lines, beside other tests."""


@dataclass(frozen=True)
class ServedProcess(Served):
    """A server that was started by its command."""

    process: Process
    """The one that a service manager would signal."""
    recordings: Path
    log: Path

    def signal(self, number: signal.Signals) -> None:
        """Signal it and its workers."""
        os.killpg(self.process.pid, number)

    def workers(self) -> list[int]:
        """Return the process ids of the workers, when there are several."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(child) for child in children if "spawn_main" in _command(child)]


@contextlib.asynccontextmanager
async def open_served_process(
    folder: Path, *, workers: int = 1, world: SimWorld | None = None, **environment: str
) -> AsyncGenerator[ServedProcess]:
    """Run the command until the block ends; ready for calls when it begins.

    Args:
        folder: Gets the database, recordings, caches and the log; several processes may share it.
        workers: How many.
        world: The vendors; None makes them.
        environment: More settings.
    """
    async with (
        SimWorld(profile=PROFILES["instant"], seed=1) as world,
        open_process_beside(world, folder, workers=workers) as served,
    ):
        yield served


@contextlib.asynccontextmanager
async def open_process_beside(
    world: SimWorld, folder: Path, *, workers: int = 1, name: str = "log", environment: Mapping[str, str] = {}
) -> AsyncGenerator[ServedProcess]:
    """As `open_served_process`, with vendors that others use too.

    Args:
        world: The vendors.
        folder: Shared by processes that are to share calls.
        workers: How many.
        name: Of the log.
        environment: More settings.
    """
    port = _free_port()
    complete = {
        **os.environ,
        **world.env(),
        **{
            f"{vendor}_API_KEY": "sim"
            for vendor in ("DEEPGRAM", "ASSEMBLYAI", "ANTHROPIC", "ELEVENLABS", "CARTESIA")
        },
        "PYTHONPATH": str(ROOT),
        "AGENTS_DIR": str(ROOT / "flows"),
        "DATABASE_URL": f"sqlite:///{folder / 'first-ring.db'}",
        "RECORDINGS_URL": str(folder / "recordings"),
        "PORT": str(port),
        "TMPDIR": str(folder),  # who is killed leaves there what it leaves
        "WORKERS": str(workers),
        "SIMS": "off",
        **environment,
    }
    log = folder / f"{name}.txt"
    await rendered_lines.lend(folder, world)
    with log.open("wb") as written, starting():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "serve"),
            cwd=folder,
            env=complete,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,  # with its workers it can be ended as one
        )
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
            served = ServedProcess(world, port, http, process, folder / "recordings", log)
            await wait_until_ready(served)
            catch_up(process.pid)
            rendered_lines.keep(folder)
            yield served
    finally:
        rendered_lines.release()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def wait_until_ready(served: ServedProcess) -> None:
    """Wait until a worker takes calls."""
    async with asyncio.timeout(READY_LIMIT_S):
        while not await _is_ready(served):
            assert served.process.returncode is None, served.log.read_text()
            await asyncio.sleep(0.1)


def _command(pid: str) -> str:
    """Return how a process was started; nothing of one that has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


async def _is_ready(served: ServedProcess) -> bool:
    try:
        async with served.http.get(f"{served.url}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:  # nothing listens yet
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
