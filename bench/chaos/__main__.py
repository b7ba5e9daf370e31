"""`python -m bench.chaos`: seeded calls against the real server while the sims fail; exit code 1 if one was not held.

Each of `--at-once` worlds has sims and a server as processes of their own and one call at a time, so that a fault meets
the call that it is meant for. `--only SEED` plays one call again, in a fresh world, and prints its timeline. A run of
300 calls or more writes its record, `bench/CHAOS.md`.
"""

import argparse
import asyncio
import contextlib
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import orjson
from loguru import logger
from rich.console import Console

from bench.agents import NUMBERS
from bench.chaos.evidence import Evidence, Held, read_held
from bench.chaos.faults import RECOGNISERS, VOICES, Injection
from bench.chaos.front import opened
from bench.chaos.plan import Plan, plan_of
from bench.chaos.play import play
from bench.chaos.redis_server import RedisServer
from bench.chaos.report import Judged, failures, page, table
from bench.chaos.stage import AGENTS, Place, Sims, World, passing_lines
from bench.chaos.verdict import judge
from bench.kept_call import TIMELINE_JSON, keep_call, keep_caller
from bench.load import SimPhone
from bench.servers import ServerError
from bench.stage import machine
from bot.errors import SimProcessError
from bot.timeline import print_timeline, read_timeline
from sims.faults import FaultKind

KEPT = Path("runs") / "chaos"
RESULTS = Path(__file__).parent.parent / "CHAOS.md"
HOW = Path(__file__).parent / "how.md"
DEFAULT_CALLS = 300
DEFAULT_AT_ONCE = 6
OPENING_S = 2.0
"""Between the starts of two worlds: a server that starts keeps a core busy."""
PAUSE_S = 3.2
"""Between two calls of a world: what a breaker shuts out for once, it lets be probed again."""
LONGEST_CALL_S = 200.0
"""From the order of a call to all of its evidence; beyond that the world has hung."""
_LASTING = frozenset({FaultKind.UNAUTHORIZED})
"""Faults that shut a vendor out for longer than the pause."""
_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Options:
    """The command line."""

    seeds: tuple[int, ...]
    at_once: int
    is_replay: bool


def main() -> int:
    """Run the command line; return the exit code."""
    options = _options(sys.argv[1:])
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the processes before us
    began_s = time.monotonic()
    played: list[Judged] = []
    problems: list[BaseException] = []
    try:
        with TemporaryDirectory(prefix="firstring-chaos-") as folder:
            asyncio.run(_run(options, Path(folder).resolve(), played))
    except* (ServerError, SimProcessError, aiohttp.ClientError, TimeoutError) as group:
        problems += group.exceptions
    except* KeyboardInterrupt as group:
        problems += group.exceptions
    for problem in problems:
        _console.print(f"chaos could not be run to its end: {problem!r}", markup=False, soft_wrap=True)
    if not played:
        return 2
    if options.is_replay:
        for one in played:
            _print_replay(one)
    else:
        Console(highlight=False, width=150).print(table(played))
    if not problems and _is_whole(options):
        RESULTS.write_text(page(played, conditions=_conditions(options, began_s), how=HOW.read_text()))
        _console.print(f"written to {RESULTS}", markup=False)
    for line in failures(played):
        _console.print(line, markup=False, soft_wrap=True)
    _console.print(f"{sum(one.is_held for one in played)} of {len(played)} calls as their callers may expect")
    return 2 if problems else 0 if all(one.is_held for one in played) else 1


def _is_whole(options: Options) -> bool:
    """Tell whether a run is one whose figures are published."""
    return not options.is_replay and len(options.seeds) >= DEFAULT_CALLS


def _conditions(options: Options, began_s: float) -> list[str]:
    minutes = (time.monotonic() - began_s) / 60
    return [
        *machine(None)[:1],
        *machine(None)[2:],
        f"seeds {options.seeds[0]} to {options.seeds[-1]}, {options.at_once} calls at once, each in a world of its "
        f"own, in {minutes:.0f} minutes; at the end {os.getloadavg()[2]:.0f} processes wanted one of "
        f"{os.cpu_count()} cores",
    ]


async def _run(options: Options, folder: Path, played: list[Judged]) -> None:
    """Play all seeds in so many worlds; `played` takes each call when it is over."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for seed in options.seeds:
        waiting.put(seed)
    async with asyncio.TaskGroup() as worlds:
        for number in range(min(options.at_once, len(options.seeds))):
            playing = _play_world(
                number, waiting, folder / f"world-{number}", played, keeps_all=options.is_replay
            )
            worlds.create_task(playing, name=f"world {number}")


async def _play_world(
    number: int,
    waiting: "queue.SimpleQueue[int]",
    folder: Path,
    played: list[Judged],
    *,
    keeps_all: bool,
) -> None:
    """Play what is waiting, call by call."""
    await asyncio.sleep(number * OPENING_S)
    world = World(folder, agents=AGENTS)
    connector = aiohttp.TCPConnector(
        force_close=True
    )  # a connection that is kept would be held by the server
    async with aiohttp.ClientSession(connector=connector) as http:
        try:
            await asyncio.to_thread(world.open)
            idle: Idle | None = None
            while (seed := _next(waiting)) is not None:
                plan = plan_of(seed)
                call = folder / f"call-{seed}"
                if plan.needs_standby or plan.is_on_redis:
                    async with _own(world, http, plan, call) as own:
                        judged = await _play_one(own, plan, call, keeps_all=keeps_all)
                    idle = None
                else:
                    idle = idle or await _fresh(world, http)
                    judged = await _play_one(idle, plan, call, keeps_all=keeps_all)
                played.append(judged)
                _console.print(_progress(judged), markup=False, soft_wrap=True)
                if _leaves_marks(plan) or not judged.is_held:
                    idle = None
                elif not waiting.empty():
                    await asyncio.sleep(PAUSE_S)
        finally:
            await asyncio.shield(asyncio.to_thread(world.close))


@dataclass(frozen=True)
class Idle:
    """A server that waits for its next call."""

    place: Place
    held: Held
    lost_held: Held | None = None
    """Of the one whose process will be lost; `held` is then that of the other."""


async def _fresh(world: World, http: aiohttp.ClientSession, redis: RedisServer | None = None) -> Idle:
    """Start a server, and let one call go well: what is loaded for the first call is not what a call leaves behind."""
    server = await asyncio.to_thread(world.serve, redis=redis)
    return await _warmed(Place(Sims.of(world.environment, http), server, redis=redis))


@contextlib.asynccontextmanager
async def _own(world: World, http: aiohttp.ClientSession, plan: Plan, folder: Path) -> AsyncGenerator[Idle]:
    """Start what a plan asks for that cannot be left to the next call: Redis, two servers at one address."""
    async with contextlib.AsyncExitStack() as stack:
        redis: RedisServer | None = None
        if plan.is_on_redis:
            redis = RedisServer(folder)
            stack.push_async_callback(asyncio.to_thread, redis.kill)
            await asyncio.to_thread(folder.mkdir, parents=True)
            await asyncio.to_thread(redis.start)
        if plan.needs_standby:
            yield await stack.enter_async_context(_two(world, http, redis))
        else:
            yield await _fresh(world, http, redis)
        await asyncio.to_thread(world.close_servers)  # before Redis is gone: they have something to write


@contextlib.asynccontextmanager
async def _two(world: World, http: aiohttp.ClientSession, redis: RedisServer | None) -> AsyncGenerator[Idle]:
    """Start two servers at one address."""
    first, second = await asyncio.to_thread(world.serve_two, redis=redis)
    sims = Sims.of(world.environment, http)
    async with opened((second.port, first.port), first.public_port or 0) as front:
        warm = await _warmed(Place(sims, second, redis=redis))
        front.ports = (first.port, second.port)
        lost = await _warmed(Place(sims, first, redis=redis))
        yield Idle(Place(sims, first, standby=second, redis=redis), warm.held, lost.held)


async def _warmed(place: Place) -> Idle:
    await place.sims.clear()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    async with aiohttp.ClientSession(place.sims.urls["twilio"], timeout=timeout) as session:
        await SimPhone(session).call(
            "hangup_early", place.server.voice_url, seed=1, called=NUMBERS[AGENTS[0]]
        )
    await asyncio.sleep(PAUSE_S)
    return Idle(place, await read_held(place))


async def _play_one(idle: Idle, plan: Plan, folder: Path, *, keeps_all: bool) -> Judged:
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    logged_bytes = await asyncio.to_thread(lambda: idle.place.server.log.stat().st_size)
    async with asyncio.timeout(LONGEST_CALL_S):
        evidence = await play(idle.place, plan, before=idle.held, out_dir=folder, lost_before=idle.lost_held)
    judged = Judged(evidence, judge(evidence, passing=passing_lines(idle.place)))
    if keeps_all or not judged.is_held:
        await asyncio.to_thread(_keep, judged, idle.place, logged_bytes)
    return judged


def _keep(judged: Judged, place: Place, logged_bytes: int) -> None:
    """Keep both ends' records of a call, what the server has logged since, and what did not hold."""
    evidence = judged.evidence
    target = KEPT / str(evidence.plan.seed)
    shutil.rmtree(target, ignore_errors=True)
    if evidence.timeline is None:
        keep_caller(evidence.report, target)
    else:
        keep_call(evidence.report, place.recordings / evidence.report.call_sid, target)
    with place.server.log.open("rb") as log:
        log.seek(logged_bytes)
        (target / "server.log").write_bytes(log.read())
    lines = [str(evidence.plan), str(judged.verdict.outcome), *map(str, judged.verdict.violations)]
    (target / "asked.json").write_bytes(orjson.dumps(list(evidence.asked), option=orjson.OPT_INDENT_2))
    (target / "verdict.txt").write_text("\n".join(lines) + "\n")


def _leaves_marks(plan: Plan) -> bool:
    """Tell whether a plan's faults are remembered for longer than the pause between two calls."""
    return any(_is_lasting(injection) for injection in plan.injections)


def _is_lasting(injection: Injection) -> bool:
    return injection.cell.target in (*RECOGNISERS, *VOICES) and injection.cell.kind in _LASTING


def _next(waiting: "queue.SimpleQueue[int]") -> int | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None


def _progress(judged: Judged) -> str:
    verdict, report = judged.verdict, judged.evidence.report
    found = [violation.rule.value for violation in verdict.violations]
    return (
        f"{'FAIL' if found else 'ok  '} {report.duration_s:5.1f} s, silence {verdict.longest_silence_s:.2f} s, "
        f"{verdict.outcome}, hit {judged.evidence.hits}; " + "; ".join([str(judged.evidence.plan), *found])
    )


def _print_replay(judged: Judged) -> None:
    folder = KEPT / str(judged.evidence.plan.seed)
    with contextlib.suppress(OSError):
        print_timeline(read_timeline(folder / TIMELINE_JSON), Console(highlight=False))
    for at_s, text in _phrases(judged.evidence):
        _console.print(f"  {at_s:6.2f}  {text}", markup=False, soft_wrap=True)
    _console.print(f"{judged.evidence.plan}; {judged.verdict.outcome}; kept in {folder}/")


def _phrases(evidence: Evidence) -> list[tuple[float, str]]:
    """Return what was said and heard on the caller's side, in order."""
    said = [(turn.start_s, f"caller: {turn.text}") for turn in evidence.report.turns]
    heard: list[tuple[float, str]] = []
    last_s = -1.0
    for word, start_s, end_s in evidence.report.agent_words:
        if heard and start_s - last_s < 0.5:
            heard[-1] = (heard[-1][0], f"{heard[-1][1]} {word}")
        else:
            heard.append((start_s, f"agent: {word}"))
        last_s = end_s
    return sorted(said + heard)


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos", description=(__doc__ or "").splitlines()[0]
    )
    number: Callable[[str], int] = _count
    parser.add_argument("--calls", type=number, default=DEFAULT_CALLS, help=f"default {DEFAULT_CALLS}")
    parser.add_argument("--seed", type=int, default=0, help="the first call's; the others follow")
    parser.add_argument(
        "--only", type=int, nargs="+", metavar="SEED", help="play these calls and print their timelines"
    )
    parser.add_argument(
        "--at-once", type=number, default=DEFAULT_AT_ONCE, help="calls at a time, each in its world"
    )
    given = parser.parse_args(arguments)
    if min([given.seed, *(given.only or ())]) < 0:
        parser.error("a seed is >= 0")
    if given.only is not None:
        return Options(tuple(given.only), given.at_once, True)
    return Options(tuple(range(given.seed, given.seed + given.calls)), given.at_once, False)


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(f"must be > 0, got {count}")
    return count


if __name__ == "__main__":
    sys.exit(main())
