"""`python -m bench`: the same calls through First Ring and through a plain Pipecat bot, side by side.

One process of sims holds all vendors and all callers and stays on one core; each server is a process on the other
core, and the one that is not measured idles. Loads are played from light to heavy, each on both servers in turn.
Then comes the short corpus of turn-taking; `python -m bench turns` plays the whole one, alone,
`python -m bench burst` has many people call within a second, and `python -m bench faults` has vendors fail.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from loguru import logger
from rich.console import Console

from bench import burst, faults, turn_corpus, turns
from bench.load import EXPECTED_S, STAGGER_S, Bench, Plan, Row, SimPhone
from bench.machine import on_core
from bench.servers import BOTH, Bot, Server, ServerError
from bench.stage import all_servers, cores, machine
from bench.summary import goals, measure, results_page, terminal_tables
from bot.errors import SimProcessError
from bot.sim_process import SimProcess

RESULTS = Path(__file__).parent / "RESULTS.md"
HOW = Path(__file__).parent / "how_it_is_measured.md"
MIX = ("booking", "hours", "message")
QUICK_MIX = ("hours",)
DEFAULT_CALLS = (1, 5, 10)
QUICK_CALLS = (5,)
DEFAULT_MINUTES = 9.5
QUICK_MINUTES = 1.9
MIN_WINDOW_S = 27.0
_STARTS_S = 25.0
"""Both servers' start and end, and the sims'."""
_ROW_OVERHEAD_S = 5.0
"""Of a row, beyond the time in which calls begin: calibration and calls that last longer than expected."""
_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Options:
    """The command line."""

    calls: tuple[int, ...]
    minutes: float
    repeats: int
    seed: int
    profile: str
    mix: tuple[str, ...]
    warm_up: str
    """Scenario of the first call, which is not measured."""
    results: Path | None
    check: bool
    has_turns: bool
    """Play the short corpus of turn-taking, too."""

    @property
    def window_s(self) -> float:
        """Seconds in which each row begins calls, so that the whole run takes `minutes`."""
        rows = 2 * self.repeats * len(self.calls)
        waiting_s = 2 * self.repeats * sum(self.calls) * STAGGER_S
        left_s = self.minutes * 60 - _STARTS_S - EXPECTED_S[self.warm_up] - waiting_s
        return max(left_s / rows - _ROW_OVERHEAD_S, MIN_WINDOW_S)


def main() -> int:
    """Run the command line; return the exit code: 1 when a goal is not held and `--check` was given."""
    for name, part in (("turns", turns), ("burst", burst), ("faults", faults)):
        if sys.argv[1:2] == [name]:
            logger.remove()
            logger.add(sys.stderr, level="WARNING")
            return part.main(sys.argv[2:])
    options = _options(sys.argv[1:])
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the servers before us
    server_core, load_core = cores()
    try:
        with on_core(load_core), TemporaryDirectory(prefix="firstring-bench-") as folder:
            rows, idle_mb, played = asyncio.run(_run(options, Path(folder), server_core))
    except (ServerError, SimProcessError, aiohttp.ClientError) as error:
        _console.print(f"the bench could not be run: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    measured = measure(rows)
    for table in terminal_tables(measured, idle_mb):
        Console(highlight=False).print(table)
    if options.results is not None:
        conditions = [
            *machine(server_core),
            f"sims: profile {options.profile}, seed {options.seed}; calls: {', '.join(options.mix)}; "
            f"{options.window_s:.0f} s per row, {options.repeats} time(s)",
        ]
        how = HOW.read_text().partition(burst.HOW_HEADING)[0].partition(turns.HOW_HEADING)[0]
        page = results_page(measured, idle_mb, conditions=conditions, how=how)
        options.results.write_text(page)
        _console.print(f"written to {options.results}")
    is_held = all(goal.is_held is not False for goal in goals(measured))
    if played is not None:
        is_held &= turns.print_turns(played)
    return 1 if options.check and not is_held else 0


async def _run(
    options: Options, folder: Path, core: int | None
) -> tuple[list[Row], dict[Bot, float], turns.Played | None]:
    """Play every row; return them, both servers' resident memory before the first call, and the corpus's rows."""
    with (
        SimProcess.start(profile=options.profile, seed=options.seed) as sims,
        all_servers(
            sims,
            folder,
            core,
            max(*options.calls, turns.CALLERS),
            tuple(Bot) if options.has_turns else BOTH,
        ) as servers,
    ):
        idle_mb = {server.bot: server.memory().resident_mb for server in servers}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=240)
        async with aiohttp.ClientSession(sims.environment["TWILIO_BASE_URL"], timeout=timeout) as session:
            phone = SimPhone(session)
            await asyncio.gather(
                *(phone.call(options.warm_up, server.voice_url, seed=options.seed) for server in servers)
            )
            bench = Bench(phone, core)
            rows = await _play(options, bench, [server for server in servers if server.bot in BOTH])
            if not options.has_turns:
                return rows, idle_mb, None
            turn_bench = turns.TurnBench(bench, phone, callers=turns.CALLERS)
            calls = turn_corpus.build(options.seed, turn_corpus.QUICK)
            return rows, idle_mb, await turns.play_turns(servers, turn_bench, calls)


async def _play(options: Options, bench: Bench, servers: Sequence[Server]) -> list[Row]:
    rows: list[Row] = []
    for repeat in range(options.repeats):
        for number, calls in enumerate(options.calls):
            plan = Plan(calls, options.window_s, options.mix, options.seed + repeat)
            # Whoever went first goes second at the next load: a machine that slows down favours neither.
            for server in servers if (number + repeat) % 2 == 0 else reversed(servers):
                _console.print(f"{server.bot.value}: {calls} at once, about {options.window_s:.0f} s …")
                row = await bench.play(server, plan)
                completed = sum(report.outcome == "ok" for report in row.reports)
                _console.print(
                    f"  {completed} of {len(row.reports)} calls completed in {row.took_s:.0f} s, "
                    f"{row.cpu_s:.1f} CPU-s {'; '.join(row.noise.reasons())}"
                )
                rows.append(row)
    return rows


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=_numbers, help="calls at once, e.g. 1,3,5,10")
    parser.add_argument(
        "--minutes", type=float, help="length of the run, about; a row is never shorter than its longest call"
    )
    parser.add_argument("--repeats", type=int, default=1, help="how often every load is played")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--profile", default="realistic", help="timing of the sims")
    parser.add_argument("--mix", type=_names, help=f"scenarios, of {', '.join(EXPECTED_S)}")
    parser.add_argument("--quick", action="store_true", help="one load, short calls, under two minutes")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not held")
    parser.add_argument("--no-turns", action="store_true", help="leave turn-taking out, about two minutes")
    parser.add_argument("--results", type=Path, help=f"page to write; without --quick {RESULTS.name}")
    given = parser.parse_args(arguments)
    if given.repeats < 1:
        parser.error(f"--repeats must be > 0, got {given.repeats}")
    quick = given.quick
    return Options(
        calls=given.calls or (QUICK_CALLS if quick else DEFAULT_CALLS),
        minutes=given.minutes or (QUICK_MINUTES if quick else DEFAULT_MINUTES),
        repeats=given.repeats,
        seed=given.seed,
        profile=given.profile,
        mix=given.mix or (QUICK_MIX if quick else MIX),
        warm_up="hangup_early" if quick else "hours",
        results=given.results or (None if quick else RESULTS),
        check=given.check,
        has_turns=not (quick or given.no_turns),
    )


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(sorted({int(part) for part in text.split(",")}))
    if numbers[0] < 1:
        raise ValueError(f"calls at once must be > 0, got {numbers[0]}")
    return numbers


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(EXPECTED_S):
        raise ValueError(f"unknown scenarios: {', '.join(sorted(unknown))}")
    return names


if __name__ == "__main__":
    sys.exit(main())
