"""`python -m bench burst`: many people call within a second. Who hears a greeting, who hears why not, and how soon?

The server is a process on a core of its own, and the sims with all callers are on another. Each caller listens to the
greeting, asks one question and hangs up; who is not let in hears the overflow. The plain bot lets everybody in.
"""

import argparse
import asyncio
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from rich.console import Console

from bench.burst_figures import BurstFigures, BurstReport, burst_figures, burst_goals, burst_lines
from bench.figures import CallerReport
from bench.load import Bench, Row, SimPhone
from bench.machine import on_core
from bench.page import goal_markdown, goal_table, line_table, markdown
from bench.servers import Bot, Server, ServerError, running
from bench.stage import cores, machine
from bot.errors import SimProcessError
from bot.settings import Vendor, VendorSource
from bot.sim_process import SimProcess, sim_environment
from sims.scenario import Scenario

RESULTS = Path(__file__).parent / "BURST.md"
HOW = Path(__file__).parent / "how_it_is_measured.md"
HOW_HEADING = "## Bursts"
WARM_UP = "hours"
PAUSE_S = 3.0
"""Between two bursts: calls are let go of, and the server is idle again."""
CALLER = Scenario.model_validate(
    {
        "name": "burst",
        "voice": "caller-3",
        "ended_by": "either",
        "may_end_from": 2,
        "max_s": 60,
        "steps": [
            {"expect": {"agent": "starts", "within_s": 30}},
            {"expect": {"agent": "finishes", "within_s": 15}},
            {"say": "Hi, what are your hours on Saturday?"},
            {"expect": {"agent": "finishes", "within_s": 20}},
            {"hang_up": True},
        ],
    }
)
_BOTS = {"ours": (Bot.OURS,), "plain": (Bot.PLAIN,), "both": (Bot.OURS, Bot.PLAIN)}
_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Options:
    """The command line."""

    callers: int
    within_s: float
    max_calls: int
    repeats: int
    seed: int
    bots: tuple[Bot, ...]
    results: Path | None
    check: bool


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code: 1 when a goal is not held and `--check` was given."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the servers before us
    server_core, load_core = cores()
    conditions = machine(server_core)
    try:
        with on_core(load_core), TemporaryDirectory(prefix="firstring-burst-") as folder:
            figures = asyncio.run(_run(options, Path(folder), server_core))
    except (ServerError, SimProcessError, aiohttp.ClientError) as error:
        _console.print(f"the bench could not be run: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    shown = figures.get(Bot.OURS) or figures[Bot.PLAIN]
    lines = burst_lines(shown, figures.get(Bot.PLAIN) if Bot.OURS in figures else None)
    goals = burst_goals(shown)
    for table in (line_table("burst", lines), goal_table("", goals)):
        Console(highlight=False).print(table)
    if options.results is not None:
        noise = [f"- {bot.value}: {reason}" for bot, one in figures.items() for reason in one.noise]
        page = [
            "# A burst of calls",
            "",
            f"{options.callers} people call within {options.within_s:g} s, {options.repeats} time(s); First Ring takes "
            f"{options.max_calls} at once (`MAX_CALLS`), the plain bot everybody.",
            "",
            *(f"- {condition}" for condition in conditions),
            "",
            *markdown(lines),
            "",
            *goal_markdown(goals),
            "",
            *(["Noise:", "", *noise, ""] if noise else []),
            (HOW_HEADING + HOW.read_text().partition(HOW_HEADING)[2].partition("\n## ")[0]).rstrip(),
        ]
        options.results.write_text("\n".join(page) + "\n")
        _console.print(f"written to {options.results}")
    return 1 if options.check and not all(goal.is_held for goal in goals) else 0


async def _run(options: Options, folder: Path, core: int | None) -> dict[Bot, BurstFigures]:
    with SimProcess.start(profile="realistic", seed=options.seed) as sims:
        vendors = {
            **sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), sims.environment),
            "SIMS": "off",
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_read=240)
        connector = aiohttp.TCPConnector(limit=0)  # nobody waits for another's call
        async with aiohttp.ClientSession(
            sims.environment["TWILIO_BASE_URL"], timeout=timeout, connector=connector
        ) as session:
            phone, figures = SimPhone(session), dict[Bot, BurstFigures]()
            bench = Bench(phone, core)
            for bot in options.bots:
                with running(
                    bot,
                    vendors=vendors,
                    folder=folder / bot.name.lower(),
                    core=core,
                    max_calls=options.max_calls,
                ) as server:
                    await phone.call(WARM_UP, server.voice_url, seed=options.seed)
                    figures[bot] = await _bursts(options, bench, phone, server)
            return figures


async def _bursts(options: Options, bench: Bench, phone: SimPhone, server: Server) -> BurstFigures:
    rows: list[Row] = []
    reports: list[BurstReport] = []

    async def play(repeat: int) -> list[CallerReport]:
        found = await _burst(options, phone, server, repeat)
        reports.extend(found)
        return list(found)

    for repeat in range(options.repeats):
        await asyncio.sleep(PAUSE_S)
        _console.print(f"{server.bot.value}: {options.callers} calls within {options.within_s:g} s …")
        rows.append(await bench.observe(server, options.callers, lambda repeat=repeat: play(repeat)))
    return burst_figures(
        reports,
        cpu_s=sum(row.cpu_s for row in rows),
        lag_p99_s=max((row.lag_p99_s for row in rows if row.lag_p99_s is not None), default=None),
        noise=[reason for row in rows for reason in row.noise.reasons()],
    )


async def _burst(options: Options, phone: SimPhone, server: Server, repeat: int) -> list[BurstReport]:
    dice = random.Random(f"{options.seed}/{repeat}")
    rings = sorted(dice.uniform(0.0, options.within_s) for _ in range(options.callers))

    async def ring(after_s: float, seed: int) -> BurstReport:
        await asyncio.sleep(after_s)
        return await phone.call(CALLER, server.voice_url, seed=seed, kind=BurstReport)

    async with asyncio.TaskGroup() as people:
        tasks = [people.create_task(ring(after_s, dice.randrange(1 << 31))) for after_s in rings]
    return [task.result() for task in tasks]


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench burst", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--within", type=float, default=1.0, help="seconds in which all of them ring")
    parser.add_argument("--max-calls", type=int, default=20, help="MAX_CALLS of First Ring")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bot", choices=tuple(_BOTS), default="both")
    parser.add_argument("--results", type=Path, help=f"page to write, e.g. bench/{RESULTS.name}")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not held")
    given = parser.parse_args(arguments)
    if min(given.callers, given.max_calls, given.repeats) < 1 or given.within <= 0:
        parser.error("--callers, --max-calls, --repeats and --within must be > 0")
    return Options(
        callers=given.callers,
        within_s=given.within,
        max_calls=given.max_calls,
        repeats=given.repeats,
        seed=given.seed,
        bots=_BOTS[given.bot],
        results=given.results,
        check=given.check,
    )
