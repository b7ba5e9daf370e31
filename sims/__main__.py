"""`python -m sims serve` starts every vendor; `python -m sims call` places a test call through a running sim.

`serve` prints one JSON line with the settings that point the product here, then runs until SIGTERM, SIGINT or the end
of its standard input, so that an orphan ends by itself. `call` prints the report; exit code 0: the call went well.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Generator
from pathlib import Path
from typing import TypeVar

import aiohttp
import orjson
from loguru import logger

from sims.profiles import PROFILES
from sims.world import SimWorld

VENDORS = (
    "deepgram",
    "assemblyai",
    "anthropic",
    "openai",
    "groq",
    "fireworks",
    "together",
    "elevenlabs",
    "cartesia",
    "aura",
    "twilio",
)
POLL_S = 60.0
MAX_CALL_S = 900.0
Result = TypeVar("Result")


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()
    logger.remove()
    logger.add(sys.stderr, level=options.log_level)
    if options.command == "serve":
        return _run(_serve(options))
    return _run(_call(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sims", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("--log-level", default="WARNING")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="start all vendors")
    serve.add_argument("--profile", choices=sorted(PROFILES), default="realistic")
    serve.add_argument("--seed", type=int, default=0)
    serve.add_argument(
        "--json", action="store_true", help="print nothing but the JSON line (always so on stdout)"
    )
    serve.add_argument("--cache-dir", type=Path, default=Path("data/sims"), help="keep rendered speech here")
    for vendor in VENDORS:
        serve.add_argument(f"--{vendor}-port", type=int, default=0)
    call = commands.add_parser("call", help="place one inbound call and print its report")
    call.add_argument("--scenario", default="booking")
    call.add_argument("--voice-url", required=True)
    call.add_argument("--status-url")
    call.add_argument("--out-dir", type=Path)
    call.add_argument(
        "--sim-url", default=os.environ.get("TWILIO_BASE_URL"), help="default: $TWILIO_BASE_URL"
    )
    return parser


def _run(work: Awaitable[int]) -> int:
    async def body() -> int:
        return await work

    with contextlib.suppress(ImportError):
        import uvloop  # optional: absent on Windows

        return uvloop.run(body())
    return asyncio.run(body())


async def _serve(options: argparse.Namespace) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    ports = {name: getattr(options, f"{name}_port") for name in VENDORS}
    world = SimWorld(
        profile=PROFILES[options.profile], seed=options.seed, cache_dir=options.cache_dir, ports=ports
    )
    async with world:
        # Who plays callers in real time must not stop to look at every module for garbage.
        gc.collect()
        gc.freeze()
        sys.stdout.buffer.write(orjson.dumps(world.env()) + b"\n")
        sys.stdout.buffer.flush()
        with _watched_stdin(loop, stopping):
            await stopping.wait()
    return 0


@contextlib.contextmanager
def _watched_stdin(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> Generator[None]:
    """Set `stopping` when standard input, a pipe or a terminal, comes to its end."""
    descriptor = _waitable_stdin()
    if descriptor is None:
        yield
        return

    def read() -> None:
        if not os.read(descriptor, 4096):
            stopping.set()
            loop.remove_reader(descriptor)

    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)


def _waitable_stdin() -> int | None:
    """Return the descriptor of standard input; None for files and /dev/null, whose end means nothing."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    is_waitable = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
    return descriptor if is_waitable else None


async def _call(options: argparse.Namespace) -> int:
    if not options.sim_url:
        sys.stderr.write("--sim-url or TWILIO_BASE_URL must name a running sim\n")
        return 2
    order = {
        "scenario": options.scenario,
        "voice_url": options.voice_url,
        "status_url": options.status_url,
        "out_dir": str(options.out_dir) if options.out_dir else None,
    }
    async with aiohttp.ClientSession(options.sim_url) as session:
        try:
            report = await _place(session, order)
        except (aiohttp.ClientError, TimeoutError) as error:
            sys.stderr.write(f"no answer from the sim at {options.sim_url}: {error}\n")
            return 2
    sys.stdout.buffer.write(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    return 0 if report.get("outcome") == "ok" else 1


async def _place(session: aiohttp.ClientSession, order: dict[str, str | None]) -> dict[str, object]:
    async with session.post("/sim/calls", json=order) as response:
        answer = await response.json()
        if response.status != 200:
            return answer
    async with asyncio.timeout(MAX_CALL_S):
        while True:
            async with session.get(f"/sim/calls/{answer['call_sid']}?wait_s={POLL_S:g}") as response:
                report = await response.json()
            if report.get("outcome") != "pending":
                return report


if __name__ == "__main__":
    sys.exit(main())
