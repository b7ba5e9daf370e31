"""`python -m bench turns`: the people of `bench.turn_corpus` call First Ring and the plain bot, some of them at once.

Each server is measured alone, on a core of its own, in two halves: who goes first in one half goes second in the other.
Then come the callers of `bench.special_calls`, who are counted apart.
"""

import argparse
import asyncio
import contextlib
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from rich.console import Console

from bench.agents import NUMBERS, RECEPTION
from bench.figures import CallerReport
from bench.kept_call import TIMELINE_JSON, keep_call, keep_caller
from bench.load import STAGGER_S, Bench, Row, SimPhone
from bench.machine import on_core
from bench.page import section
from bench.servers import BOTH, Bot, Server, ServerError
from bench.special_calls import (
    CALLS,
    Ending,
    SpecialCall,
    special_faults,
    special_goal,
    special_markdown,
    special_table,
)
from bench.stage import all_servers, cores, machine
from bench.turn_corpus import FULL, QUICK, CorpusCall, Size, build, shares
from bench.turn_figures import faults, measure_turns, terminal_tables, turn_goals, turns_page
from bot.errors import SimProcessError
from bot.sim_process import SimProcess
from bot.timeline import print_timeline, read_timeline
from sims.scenario import Scenario

RESULTS = Path(__file__).parent / "TURNS.md"
HOW = Path(__file__).parent / "how_it_is_measured.md"
KEPT = Path("runs") / "turns"
CALLERS = 4
ALL_SPECIAL = "special"
"""Names all of them on the command line."""
WARM_UP = "hangup_early"
FILES_LIMIT_S = 10.0
HOW_HEADING = "## Turn-taking"
_WASTE = re.compile(
    r"^(?P<name>firstring_specul\w+?)(?:_total)?(?P<labels>\{[^}]*\})? (?P<value>\S+)$", re.MULTILINE
)
_NAMES = {bot.name.lower(): bot for bot in Bot}
_console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Options:
    """The command line."""

    size: Size
    seed: int
    callers: int
    profile: str
    bots: tuple[Bot, ...]
    only: str | None
    keep: bool
    results: Path | None
    check: bool


@dataclass(frozen=True)
class Order:
    """A call to be made."""

    name: str
    scenario: Scenario
    seed: int
    called: str

    @classmethod
    def of(cls, call: CorpusCall) -> "Order":
        """Return the order of a call of the corpus."""
        return cls(call.name, call.scenario, call.seed, NUMBERS[RECEPTION])


@dataclass(frozen=True)
class Played:
    """What a run brought."""

    rows: tuple[Row, ...]
    """Of the corpus."""
    wasted: tuple[tuple[str, float], ...]
    """What First Ring counted of answers begun too early."""
    special_rows: tuple[Row, ...] = ()
    endings: Mapping[Bot, Mapping[str, Ending]] = field(default_factory=dict[Bot, Mapping[str, Ending]])
    """Of the special calls, by name."""

    def reports(self, bot: Bot) -> list[CallerReport]:
        """Return what all callers of one server measured."""
        return [report for row in self.rows if row.bot is bot for report in row.reports]

    def all_reports(self, bot: Bot) -> list[CallerReport]:
        """Return them with those of the special calls."""
        special = [report for row in self.special_rows if row.bot is bot for report in row.reports]
        return self.reports(bot) + special


class TurnBench:
    """Plays calls of a corpus."""

    def __init__(self, bench: Bench, phone: SimPhone, *, callers: int, keep_in: Path | None = None) -> None:
        """Measure with so many on the telephone at once; with `keep_in`, keep what callers heard."""
        self._bench = bench
        self._phone = phone
        self._callers = callers
        self._keep_in = keep_in

    async def play(self, servers: Sequence[Server], calls: Sequence[CorpusCall]) -> list[Row]:
        """Play all calls on each server, in two halves."""
        rows: list[Row] = []
        for number, half in enumerate(halves(calls, self._callers)):
            orders = list(map(Order.of, half))
            in_turn = reversed(servers) if number else servers
            rows += [await self._observe(server, orders) for server in in_turn]
        return rows

    async def play_special(
        self, server: Server, calls: Sequence[SpecialCall], seed: int
    ) -> tuple[Row, dict[str, Ending]]:
        """Play special calls on one server, and look into its books."""
        orders = [Order(call.name, call.scenario(), seed, call.called) for call in calls]
        row = await self._observe(server, orders)
        reports = {report.scenario: report for report in row.reports}
        endings = {
            order.name: Ending(
                reports[order.name], await asyncio.to_thread(server.booked, order.scenario.caller)
            )
            for order in orders
        }
        return row, endings

    async def _observe(self, server: Server, orders: Sequence[Order]) -> Row:
        _console.print(f"{server.bot.value}: {len(orders)} calls, {self._callers} at once …")
        row = await self._bench.observe(server, self._callers, lambda: self._play(server, orders))
        completed = sum(report.outcome == "ok" for report in row.reports)
        _console.print(
            f"  {completed} of {len(row.reports)} calls completed in {row.took_s:.0f} s "
            f"{'; '.join(row.noise.reasons())}"
        )
        return row

    async def _play(self, server: Server, orders: Sequence[Order]) -> list[CallerReport]:
        waiting = iter(orders)

        async def person(number: int) -> list[CallerReport]:
            await asyncio.sleep(number * STAGGER_S)
            return [await self._call(server, order) for order in waiting]

        async with asyncio.TaskGroup() as people:
            tasks = [people.create_task(person(number)) for number in range(self._callers)]
        return [report for task in tasks for report in task.result()]

    async def _call(self, server: Server, order: Order) -> CallerReport:
        out_dir = self._keep_in and self._keep_in / f"{order.name}-{server.bot.name.lower()}"
        return await self._phone.call(
            order.scenario, server.voice_url, seed=order.seed, called=order.called, out_dir=out_dir
        )


def halves(calls: Sequence[CorpusCall], callers: int) -> list[Sequence[CorpusCall]]:
    """Return every other call, and the others; all at once where a half would leave callers without a call."""
    return [calls] if len(calls) < 2 * callers else [calls[::2], calls[1::2]]


def read_waste(exposition: str) -> list[tuple[str, float]]:
    """Return the counters of speculation in a Prometheus exposition, none where there are none."""
    return [
        (match["name"] + (match["labels"] or ""), float(match["value"]))
        for match in _WASTE.finditer(exposition)
        if not match["name"].endswith(("_created", "_bucket"))
    ]


async def play_turns(
    servers: Sequence[Server],
    turn_bench: TurnBench,
    calls: Sequence[CorpusCall],
    special: Sequence[SpecialCall] = (),
    *,
    seed: int = 0,
) -> Played:
    """Play a corpus, and then special calls, on servers that have taken a call before.

    Args:
        servers: The special calls are for those of them that can take part.
        turn_bench: Plays.
        calls: Of the corpus.
        special: In the order in which they begin.
        seed: Of the special calls.
    """
    rows = await turn_bench.play(servers, calls) if calls else []
    ours = next((server for server in servers if server.bot is Bot.OURS), None)
    # Before the special calls: what they waste is not of the corpus.
    wasted = [] if ours is None else read_waste(await asyncio.to_thread(ours.exposition))
    special_rows: list[Row] = []
    endings: dict[Bot, Mapping[str, Ending]] = {}
    for server in servers:
        if mine := [call for call in special if server.bot in call.bots]:
            row, endings[server.bot] = await turn_bench.play_special(server, mine, seed)
            special_rows.append(row)
    return Played(tuple(rows), tuple(wasted), tuple(special_rows), endings)


def print_turns(played: Played) -> bool:
    """Print figures and goals; tell whether no goal was missed."""
    console, is_held = Console(highlight=False), True
    if played.rows:
        figures = measure_turns({row.bot: played.reports(row.bot) for row in played.rows})
        for table in terminal_tables(figures):
            console.print(table)
        is_held = Bot.OURS not in figures or all(goal.is_held is not False for goal in turn_goals(figures))
    if played.endings:
        console.print(special_table(played.endings))
        is_held &= special_goal(played.endings).is_held is not False
    return is_held


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code: 1 when a goal is not held and `--check` was given."""
    options = _options(arguments)
    calls = build(options.seed, options.size)
    special = CALLS if options.size == FULL else ()
    if options.only is not None:
        calls = [call for call in calls if call.name == options.only]
        special = tuple(call for call in CALLS if options.only in (call.name, ALL_SPECIAL))
        if not calls and not special:
            _console.print(f"the corpus of seed {options.seed} has no call {options.only!r}")
            return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the servers before us
    server_core, load_core = cores()
    conditions = machine(server_core)
    try:
        with on_core(load_core), TemporaryDirectory(prefix="firstring-turns-") as folder:
            played = asyncio.run(_run(options, calls, special, Path(folder), server_core))
            kept = _keep(played, Path(folder)) if options.keep else []
    except (ServerError, SimProcessError, aiohttp.ClientError, OSError) as error:
        _console.print(f"the bench could not be run: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    for call_folder in kept:
        print_timeline(read_timeline(call_folder / TIMELINE_JSON))
        _console.print(f"recordings and timeline: {call_folder}/")
    is_held = print_turns(played)
    for fault in faults(played.reports(Bot.OURS)):
        _console.print(f"{fault.call} at {fault.at_s:.1f} s: {fault.what}")
    for bot, endings in played.endings.items():
        for fault in special_faults(endings):
            _console.print(f"{bot.value}, {fault.call} at {fault.at_s:.1f} s: {fault.what}")
    if options.results is not None:
        options.results.write_text(_page(options, calls, played, conditions))
        _console.print(f"written to {options.results}")
    return 1 if options.check and not is_held else 0


async def _run(
    options: Options,
    calls: Sequence[CorpusCall],
    special: Sequence[SpecialCall],
    folder: Path,
    core: int | None,
) -> Played:
    agents = dict.fromkeys([RECEPTION, *(call.agent for call in special)])
    with (
        SimProcess.start(profile=options.profile, seed=options.seed) as sims,
        all_servers(sims, folder, core, options.callers, options.bots, tuple(agents)) as servers,
    ):
        timeout = aiohttp.ClientTimeout(total=None, sock_read=400)
        async with aiohttp.ClientSession(sims.environment["TWILIO_BASE_URL"], timeout=timeout) as session:
            phone = SimPhone(session)
            await asyncio.gather(
                *(phone.call(WARM_UP, server.voice_url, seed=options.seed) for server in servers)
            )
            keep_in = KEPT.resolve() if options.keep else None
            turn_bench = TurnBench(Bench(phone, core), phone, callers=options.callers, keep_in=keep_in)
            played = await play_turns(servers, turn_bench, calls, special, seed=options.seed)
            if options.keep:
                await _wait_for_files(played, folder)
            return played


async def _wait_for_files(played: Played, folder: Path) -> None:
    """Wait until First Ring has let go of its calls; a call that leaves no timeline has none to keep."""
    waiting = [_ours(folder, report) / "timeline.json" for report in played.all_reports(Bot.OURS)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FILES_LIMIT_S):
            while not all(path.exists() for path in waiting):  # noqa: ASYNC110 - another process writes them
                await asyncio.sleep(0.1)


def _keep(played: Played, folder: Path) -> list[Path]:
    """Keep both ends' records of First Ring's calls and return a folder for each; of others' keep the caller's."""
    for bot in set(Bot) - {Bot.OURS}:
        for report in played.all_reports(bot):
            keep_caller(report, _kept(report, bot))
    return [
        keep_call(report, _ours(folder, report), _kept(report, Bot.OURS))
        for report in played.all_reports(Bot.OURS)
    ]


def _kept(report: CallerReport, bot: Bot) -> Path:
    return KEPT / f"{report.scenario}-{bot.name.lower()}"


def _ours(folder: Path, report: CallerReport) -> Path:
    return folder / Bot.OURS.name.lower() / "recordings" / report.call_sid


def _page(options: Options, calls: Sequence[CorpusCall], played: Played, conditions: Sequence[str]) -> str:
    reports = {bot: played.reports(bot) for bot in options.bots}
    return turns_page(
        measure_turns(reports),
        conditions=[
            *conditions,
            f"sims: profile {options.profile}; corpus of seed {options.seed}; {options.callers} callers at once",
        ],
        noise=[
            f"{row.bot.value}: {reason}"
            for row in (*played.rows, *played.special_rows)
            for reason in row.noise.reasons()
        ],
        special=special_markdown(played.endings),
        made_of=shares(calls),
        wasted=played.wasted,
        wrong={
            bot: [*faults(of_bot), *special_faults(played.endings.get(bot, {}))]
            for bot, of_bot in reports.items()
        },
        seeds={call.name: call.seed for call in calls} | {call.name: options.seed for call in CALLS},
        how=_how(),
    )


def _how() -> str:
    return section(HOW.read_text(), HOW_HEADING)


def _options(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m bench turns", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--seed", type=int, default=1, help="of the corpus")
    parser.add_argument("--quick", action="store_true", help="four short calls, under two minutes")
    parser.add_argument("--callers", type=int, default=CALLERS, help="on the telephone at once")
    parser.add_argument("--profile", default="realistic", help="timing of the sims")
    parser.add_argument("--bot", choices=["both", "all", *_NAMES], default="both", help="whom to call")
    parser.add_argument(
        "--only", metavar="CALL", help=f"play this call alone, e.g. t07 or music; {ALL_SPECIAL}: all of those"
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"keep recordings under {KEPT}/ and print timelines"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is not held")
    parser.add_argument("--results", type=Path, help=f"page to write; of a whole run {RESULTS.name}")
    given = parser.parse_args(arguments)
    if given.callers < 1:
        parser.error(f"--callers must be > 0, got {given.callers}")
    bots = {"both": BOTH, "all": tuple(Bot)}.get(given.bot) or (_NAMES[given.bot],)
    is_whole = not given.quick and given.only is None and given.bot in ("both", "all")
    return Options(
        size=QUICK if given.quick else FULL,
        seed=given.seed,
        callers=given.callers,
        profile=given.profile,
        bots=bots,
        only=given.only,
        keep=given.keep,
        results=given.results or (RESULTS if is_whole else None),
        check=given.check,
    )
