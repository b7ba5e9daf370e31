"""What every run of the bench stands on: cores, the sims' vendors, the servers, and a line about the machine."""

import contextlib
import os
import platform
import subprocess
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.agents import RECEPTION
from bench.servers import BOTH, Bot, Server, running
from bot.settings import Vendor, VendorSource
from bot.sim_process import SimProcess, sim_environment

_HERE = Path(__file__).parent


@contextlib.contextmanager
def all_servers(
    sims: SimProcess,
    folder: Path,
    core: int | None,
    calls: int,
    bots: Sequence[Bot] = BOTH,
    agents: Sequence[str] = (RECEPTION,),
) -> Generator[list[Server]]:
    """Run the servers of `bots` against the same sims for as long as the block lasts.

    Args:
        sims: All vendors.
        folder: Gets a folder for each.
        core: Where all run; None is anywhere.
        calls: At once.
        bots: Whose.
        agents: Who answers their numbers.

    Raises:
        ServerError: If one is not ready in time.
    """
    vendors = {
        **sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), sims.environment),
        "SIMS": "off",
    }
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                running(
                    bot,
                    vendors=vendors,
                    folder=folder / bot.name.lower(),
                    core=core,
                    max_calls=calls + 2,
                    agents=agents,
                )
            )
            for bot in bots
        ]


def cores() -> tuple[int | None, int | None]:
    """Return the measured core and the one for sims, callers and this process; None where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[-1], usable[0]) if len(usable) > 1 else (None, None)


def machine(core: int | None) -> list[str]:
    """Return when, of what and on what was measured, one line each.

    Args:
        core: Where the servers ran.
    """
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    packages = ("pipecat-ai", "onnxruntime", "uvloop", "websockets", "anthropic", "deepgram-sdk")
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}",
        f"{model}, {os.cpu_count()} cores, Linux {platform.release()}; "
        + (
            "one core for the measured server"
            if core is not None
            else "ONE CORE FOR EVERYTHING: figures are void"
        ),
        f"Python {platform.python_version()}; " + ", ".join(f"{name} {version(name)}" for name in packages),
    ]


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - whichever git there is
            capture_output=True,
            text=True,
            check=True,
            cwd=_HERE,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
