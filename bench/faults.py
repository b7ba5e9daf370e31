"""`python -m bench faults`: what a caller hears under each fault, of First Ring and of the plain bot; writes FAULTS.md.

The same caller calls either, and the same vendor fails at the same moment; each call has a server of its own.
"""

import argparse
import asyncio
import os
import queue
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from rich.console import Console
from rich.table import Table

from bench.agents import BACKED, NUMBERS, RECEPTION
from bench.chaos.faults import Cell, Injection, Stage, Target
from bench.chaos.play import arm_all, scenario_named
from bench.chaos.stage import Place, Sims, World
from bench.chaos.verdict import Outcome, longest_silence_s, outcome_of
from bench.figures import CallerReport
from bench.load import SimPhone
from bench.page import section
from bench.servers import BOTH, Bot, ServerError
from bench.stage import machine
from bot.errors import SimProcessError
from sims.faults import FaultKind

RESULTS = Path(__file__).parent / "FAULTS.md"
HOW = Path(__file__).parent / "how_it_is_measured.md"
HOW_HEADING = "## Under faults"
CALLER = "asks"
NUMBER = "+15550100077"
AT_ONCE = 4
OPENING_S = 2.0
ASKS_S = 5.0
"""After the greeting of either server, and before the caller's first question."""
IN_QUESTION_S = 6.3
"""Of the caller's audio: in the middle of the first question."""
IN_ANSWER_S = 1.0
"""Of a voice's audio: in the middle of its first sentence."""
IN_STREAM_S = 0.1
"""Of a model's tokens: a few words."""
_LAYERS: Mapping[Target, str] = {
    Target.RECOGNISER: "recogniser",
    Target.MODEL: "model",
    Target.VOICE: "voice",
    Target.CARRIER: "carrier",
}
_WORDS: Mapping[object, str] = {
    FaultKind.REFUSE: "refuses",
    FaultKind.UNAUTHORIZED: "answers 401",
    FaultKind.RATE_LIMITED: "answers 429",
    FaultKind.OVERLOADED: "answers 529",
    FaultKind.HANG_BEFORE_FIRST_BYTE: "accepts and says nothing",
    FaultKind.HANG_AFTER_FIRST_BYTE: "falls silent in the middle",
    FaultKind.CLOSE_MID_STREAM: "cuts the connection in the middle",
    FaultKind.TRICKLE: "trickles",
    FaultKind.GARBAGE: "sends garbage",
    FaultKind.EMPTY: "sends nothing in it",
}
_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Fault:
    """One row of the page."""

    injection: Injection | None
    """None: nothing fails."""

    @property
    def name(self) -> str:
        """Return what the page calls it."""
        if self.injection is None:
            return "nothing fails"
        cell = self.injection.cell
        times = "" if self.injection.count is None else ", once"
        return f"{_LAYERS[cell.target]} {_WORDS[cell.kind]}{times}"


def _for_good(target: Target, kind: FaultKind, after_s: float = 0.0, *, count: int | None = None) -> Fault:
    """Return a fault that begins before the caller's first question and lasts for the rest of the call."""
    is_dialled = target in (Target.RECOGNISER, Target.CARRIER)
    stage = Stage.LISTENING if is_dialled else Stage.LATER
    return Fault(Injection(Cell(target, kind, stage), None if is_dialled else ASKS_S, count, after_s))


_ANSWERS = (FaultKind.REFUSE, FaultKind.RATE_LIMITED, FaultKind.HANG_BEFORE_FIRST_BYTE)
_STREAMS = (FaultKind.HANG_AFTER_FIRST_BYTE, FaultKind.CLOSE_MID_STREAM)
_CONTENT = (FaultKind.TRICKLE, FaultKind.GARBAGE, FaultKind.EMPTY)
FAULTS = (
    Fault(None),
    *(_for_good(Target.RECOGNISER, kind) for kind in _ANSWERS),
    *(_for_good(Target.RECOGNISER, kind, IN_QUESTION_S, count=1) for kind in _STREAMS),
    *(_for_good(Target.RECOGNISER, kind, IN_QUESTION_S) for kind in _CONTENT),
    *(_for_good(Target.MODEL, kind) for kind in (*_ANSWERS, FaultKind.OVERLOADED)),
    *(_for_good(Target.MODEL, kind, IN_STREAM_S) for kind in (*_STREAMS, *_CONTENT)),
    *(_for_good(Target.VOICE, kind) for kind in (*_ANSWERS, FaultKind.UNAUTHORIZED)),
    *(_for_good(Target.VOICE, kind, IN_ANSWER_S) for kind in (*_STREAMS, *_CONTENT)),
    _for_good(Target.CARRIER, FaultKind.HANG_BEFORE_FIRST_BYTE),
)


@dataclass(frozen=True)
class Heard:
    """What a caller heard of one server under one fault."""

    longest_silence_s: float
    lost: int
    repeated: int
    outcome: Outcome

    @classmethod
    def of(cls, report: CallerReport) -> "Heard":
        """Read a caller's report."""
        outcome = outcome_of(report, CALLER)
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
    heard = results.get((fault.name, bot))
    return ("-",) * 4 if heard is None else heard.cells


def _table(results: Results) -> Table:
    table = Table("", title="longest silence in s, words lost, repeated, how it ended", title_justify="left")
    for bot in BOTH:
        table.add_column(bot.value)
    for fault in FAULTS:
        table.add_row(fault.name, *("  ".join(_cells(results, fault, bot)) for bot in BOTH))
    return table


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench faults", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--only", default="", help="part of the names of the faults to play; writes no page")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="calls at a time")
    parser.add_argument("--results", type=Path, help=f"page to write; of a whole run {RESULTS.name}")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the processes before us
    chosen = [fault for fault in FAULTS if given.only in fault.name]
    if not chosen or given.at_once < 1:
        parser.error("nothing to play")
    results: dict[tuple[str, Bot], Heard] = {}
    problems: list[BaseException] = []
    try:
        with TemporaryDirectory(prefix="firstring-faults-") as folder:
            asyncio.run(_run(chosen, Path(folder).resolve(), given.at_once, results))
    except* (ServerError, SimProcessError, aiohttp.ClientError) as group:
        problems += group.exceptions
    except* KeyboardInterrupt as group:
        problems += group.exceptions
    for problem in problems:
        _console.print(f"the faults could not be played to their end: {problem!r}", markup=False)
    if problems:
        return 2
    Console(highlight=False).print(_table(results))
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
            waiting.put((fault, bot))
    async with asyncio.TaskGroup() as worlds:
        for number in range(min(at_once, waiting.qsize())):
            worlds.create_task(_play_waiting(number, waiting, results, folder), name=f"world {number}")


async def _play_waiting(
    number: int,
    waiting: "queue.SimpleQueue[tuple[Fault, Bot]]",
    results: dict[tuple[str, Bot], Heard],
    folder: Path,
) -> None:
    """Play what is waiting, each call on a server that knows nothing of those before."""
    await asyncio.sleep(number * OPENING_S)
    world = World(folder / f"world-{number}")
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        try:
            await asyncio.to_thread(world.open)
            while not waiting.empty():
                fault, bot = waiting.get_nowait()
                server = await asyncio.to_thread(world.serve, bot)
                place = Place(Sims.of(world.environment, http), server)
                report = await _call(place, fault, bot)
                heard = results[fault.name, bot] = Heard.of(report)
                _console.print(f"{bot.value}, {fault.name}: {'  '.join(heard.cells)}", markup=False)
        finally:
            await asyncio.shield(asyncio.to_thread(world.close))


async def _call(place: Place, fault: Fault, bot: Bot) -> CallerReport:
    await place.sims.clear()
    injections = () if fault.injection is None else (fault.injection,)
    is_model = fault.injection is not None and fault.injection.cell.target is Target.MODEL
    called = NUMBERS[BACKED if is_model and bot is Bot.OURS else RECEPTION]
    timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
    async with (
        arm_all(place, injections),
        aiohttp.ClientSession(place.sims.urls["twilio"], timeout=timeout) as session,
    ):
        return await SimPhone(session).call(
            scenario_named(CALLER, NUMBER), place.server.voice_url, seed=1, called=called
        )
