"""`python -m bench faults`: what a caller hears under each fault, of First Ring and of the plain bot; writes FAULTS.md.

The same caller calls either, and the same thing fails at the same moment; each call has a server of its own. What fails
`bench/fault_rows.py` says.
"""

import argparse
import asyncio
import os
import queue
import signal
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.agents import BACKED, NUMBERS, RECEPTION
from bench.chaos.faults import Target
from bench.chaos.play import arm_all, scenario_named
from bench.chaos.stage import Place, World
from bench.chaos.verdict import Outcome, longest_silence_s, outcome_of
from bench.fault_rows import ASKS, FAULTS, LEAVES_MESSAGE, Fault
from bench.fault_stage import in_trouble, place_for
from bench.figures import CallerReport
from bench.load import SimPhone
from bench.page import section
from bench.servers import BOTH, Bot, ServerError
from bench.stage import machine
from bot.errors import SimProcessError

RESULTS = Path(__file__).parent / "FAULTS.md"
HOW = Path(__file__).parent / "how_it_is_measured.md"
HOW_HEADING = "## Under faults"
NUMBER = "+15550100077"
AT_ONCE = 4
SPARE_WORLDS = 1
"""In which a server starts while calls are played in the others."""
OPENING_S = 2.0
WRITTEN_DOWN = "written that down"
"""What whoever leaves a message hears when it is kept and not yet in the book."""
NOTHING_TO_FAIL = "has none"
_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Heard:
    """What a caller heard of one server under one fault."""

    longest_silence_s: float
    lost: int
    repeated: int
    outcome: Outcome

    @classmethod
    def of(cls, report: CallerReport, caller: str = ASKS) -> "Heard":
        """Read the report of a caller who plays a scenario."""
        outcome = outcome_of(report, caller)
        heard = " ".join(word for word, _, _ in report.agent_words).lower()
        if outcome is Outcome.PARTLY and caller == LEAVES_MESSAGE and WRITTEN_DOWN in heard:
            outcome = Outcome.SERVED
        since_s = report.turns[0].start_s if report.turns else 0.0
        return cls(longest_silence_s(report, since_s), report.lost_words, report.repeated_words, outcome)

    @property
    def cells(self) -> tuple[str, ...]:
        """Return it as text."""
        return (f"{self.longest_silence_s:.1f}", str(self.lost), str(self.repeated), self.outcome.value)


Results = Mapping[tuple[str, Bot], Heard]
"""By the fault's name and the server."""


def page(results: Results, *, conditions: Sequence[str], how: str) -> str:
    """Return FAULTS.md. Pure."""
    heads = [f"{bot.value}: {what}" for bot in BOTH for what in ("silence, s", "lost", "repeated", "ended")]
    lines = [
        "# What the caller hears when something fails",
        "",
        *(f"- {condition}" for condition in conditions),
        "",
        f"| | {' | '.join(heads)} |",
        "|---" + "|---:|---:|---:|---" * len(BOTH) + "|",
    ]
    for fault in FAULTS:
        cells = [cell for bot in BOTH for cell in _cells(results, fault, bot)]
        lines.append(f"| {fault.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", how.rstrip(), ""])


def _cells(results: Results, fault: Fault, bot: Bot) -> tuple[str, ...]:
    if not fault.is_for(bot):
        return ("-", "-", "-", NOTHING_TO_FAIL)
    heard = results.get((fault.name, bot))
    return ("-",) * 4 if heard is None else heard.cells


def _table(results: Results, chosen: Sequence[Fault]) -> Table:
    table = Table("", title="longest silence in s, words lost, repeated, how it ended", title_justify="left")
    for bot in BOTH:
        table.add_column(bot.value)
    for fault in chosen:
        table.add_row(fault.name, *("  ".join(_cells(results, fault, bot)) for bot in BOTH))
    return table


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="of the names of the faults to play; writes no page",
    )
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="calls at a time")
    parser.add_argument("--results", type=Path, help=f"page to write; of a whole run {RESULTS.name}")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the processes before us
    parts = given.only or [""]
    chosen = [fault for fault in FAULTS if any(part in fault.name for part in parts)]
    if not chosen or given.at_once < 1:
        parser.error("nothing to play")
    results: dict[tuple[str, Bot], Heard] = {}
    problems: list[BaseException] = []
    try:
        with TemporaryDirectory(prefix="firstring-faults-") as folder:
            asyncio.run(_run(chosen, Path(folder).resolve(), given.at_once, results))
    except* (ServerError, SimProcessError, aiohttp.ClientError, sqlite3.Error) as group:
        problems += group.exceptions
    except* KeyboardInterrupt as group:
        problems += group.exceptions
    for problem in problems:
        _console.print(f"the faults could not be played to their end: {problem!r}", markup=False)
    if problems:
        return 2
    Console(highlight=False).print(_table(results, chosen))
    target = given.results or (None if given.only else RESULTS)
    if target is not None:
        conditions = [
            *machine(None)[:1],
            *machine(None)[2:],
            f"{given.at_once} calls at once, each in a world of its own; at the end {os.getloadavg()[2]:.0f} "
            f"processes wanted one of {os.cpu_count()} cores, on a quiet machine under 4",
        ]
        target.write_text(page(results, conditions=conditions, how=section(HOW.read_text(), HOW_HEADING)))
        _console.print(f"written to {target}")
    return 0


async def _run(
    chosen: Sequence[Fault], folder: Path, at_once: int, results: dict[tuple[str, Bot], Heard]
) -> None:
    waiting: queue.SimpleQueue[tuple[Fault, Bot]] = queue.SimpleQueue()
    for fault in chosen:
        for bot in BOTH:
            if fault.is_for(bot):
                waiting.put((fault, bot))
    lines = asyncio.Semaphore(at_once)
    async with asyncio.TaskGroup() as worlds:
        for number in range(min(at_once + SPARE_WORLDS, waiting.qsize())):
            playing = _play_waiting(number, waiting, results, folder / f"world-{number}", lines)
            worlds.create_task(playing, name=f"world {number}")


async def _play_waiting(
    number: int,
    waiting: "queue.SimpleQueue[tuple[Fault, Bot]]",
    results: dict[tuple[str, Bot], Heard],
    folder: Path,
    lines: asyncio.Semaphore,
) -> None:
    """Play what is waiting, each call on a server that knows nothing of those before."""
    await asyncio.sleep(number * OPENING_S)
    world = World(folder)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        try:
            await asyncio.to_thread(world.open)
            while not waiting.empty():
                fault, bot = waiting.get_nowait()
                async with place_for(fault, bot, world, http, folder) as place, lines:
                    report = await _call(place, fault, bot)
                heard = results[fault.name, bot] = Heard.of(report, fault.caller)
                _console.print(f"{bot.value}, {fault.name}: {'  '.join(heard.cells)}", markup=False)
        finally:
            await asyncio.shield(asyncio.to_thread(world.close))


async def _call(place: Place, fault: Fault, bot: Bot) -> CallerReport:
    await place.sims.clear()
    called = NUMBERS[BACKED if Target.MODEL in fault.targets and bot is Bot.OURS else RECEPTION]
    timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
    async with (
        arm_all(place, fault.injections),
        in_trouble(place, fault),
        aiohttp.ClientSession(place.sims.urls["twilio"], timeout=timeout) as session,
    ):
        return await SimPhone(session).call(
            scenario_named(fault.caller, NUMBER), place.server.voice_url, seed=1, called=called
        )
