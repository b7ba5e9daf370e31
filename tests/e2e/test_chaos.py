"""A few seeds of `make chaos` in this process: the same plans, callers and verdicts, all of them at the same time.

One call has a server of its own as a process, which is killed, and another one beside it.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from bench.agents import write_agents
from bench.chaos.evidence import Held
from bench.chaos.faults import Cell, ProcessFault, Stage, Target
from bench.chaos.front import opened
from bench.chaos.plan import Plan, plan_of
from bench.chaos.play import play
from bench.chaos.report import Judged
from bench.chaos.stage import AGENTS, Place, Sims, passing_lines
from bench.chaos.verdict import GONE_S, Outcome, Rule, judge
from bench.servers import Bot, Server, free_port
from bot import voice_lines
from bot.lines import fixed_lines
from sims.faults import FaultKind
from sims.world import SimWorld
from tests.fakes.launcher import open_launcher
from tests.fakes.served_process import open_process_beside

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

CELLS = (
    Cell(Target.RECOGNISER, FaultKind.CLOSE_MID_STREAM, Stage.LISTENING),
    Cell(Target.MODEL, FaultKind.HANG_BEFORE_FIRST_BYTE, Stage.FIRST),
    Cell(Target.VOICE, FaultKind.HANG_AFTER_FIRST_BYTE, Stage.FIRST),
    Cell(Target.OTHER_VOICE, FaultKind.TRICKLE, Stage.LATER),
    Cell(Target.LINE, FaultKind.CLOSE_MID_STREAM, Stage.TALK),
)
"""Of the table; the first seed that has one of them alone is played."""
PAIR = {Target.MODEL, Target.VOICE}
"""Who fails in the same call."""
KILLED = Cell(Target.SERVER, ProcessFault.KILL, Stage.TALK)
SLACK_S = 4.0
"""Of a machine that runs other tests beside the servers, until another one has a call."""
STAGGER_S = 0.6
ANYTHING = Held(calls=0, descriptors=1 << 20, threads=1 << 20, tasks=1 << 20)
"""All calls of this process hold its tasks and files together: who left some behind is asked at the end."""
PRODUCT = ("bot", "processors", "flows", "telephony", "integrations", "store")
LINES = ("Sure.", "Okay.", "Thanks.", "Great.")


def first_plan(is_wanted: Callable[[Plan], bool]) -> Plan:
    """Return the first plan like that of whoever asks questions."""
    plans = (plan_of(seed) for seed in range(100_000))
    return next(plan for plan in plans if plan.caller == "questions" and is_wanted(plan))


def has_alone(cell: Cell) -> Callable[[Plan], bool]:
    return lambda plan: [one.cell for one in plan.injections] == [cell]


def is_the_pair(plan: Plan) -> bool:
    are_over_soon = all(one.count is not None for one in plan.injections)
    return are_over_soon and {one.cell.target for one in plan.injections} == PAIR


def is_killed(plan: Plan) -> bool:
    return has_alone(KILLED)(plan) and plan.agent == AGENTS[0] and not plan.is_on_redis


PLANS = {str(cell): first_plan(has_alone(cell)) for cell in CELLS} | {"two at once": first_plan(is_the_pair)}
"""By what fails, in this process."""
ALL_PLANS = PLANS | {str(KILLED): first_plan(is_killed)}


@dataclass(frozen=True)
class Standby:
    """A server in this process, that will have the call of another one."""

    place: Place
    world: SimWorld


@dataclass(frozen=True)
class Evening:
    """All calls of this module."""

    calls: Mapping[str, "asyncio.Task[Judged]"]
    """By what fails."""
    tasks_before: int


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    fixed = fixed_lines("en-US")
    farewells = (fixed.trouble_goodbye, fixed.try_again, *fixed.still_there)
    with pytest.MonkeyPatch.context() as patch:
        # Of so many worlds no more lines are rendered than are said.
        patch.setattr(
            voice_lines,
            "cacheable_lines",
            lambda config: (config.greeting, *config.patience.stall_lines, *farewells, *LINES),
        )
        async with contextlib.AsyncExitStack() as worlds, asyncio.TaskGroup() as group:
            http = await worlds.enter_async_context(aiohttp.ClientSession())
            places: dict[str, Place] = {}
            standby = await worlds.enter_async_context(_standby(tmp_path_factory.mktemp("killed"), http))
            killed = group.create_task(worlds.enter_async_context(_beside(standby)))
            for name, plan in PLANS.items():
                folder = tmp_path_factory.mktemp(f"chaos-{plan.seed}")
                places[name] = await worlds.enter_async_context(_world(folder, http))
            before = tasks_of_calls()
            calls = {
                name: group.create_task(_play(place, PLANS[name], number * STAGGER_S))
                for number, (name, place) in enumerate(places.items())
            }
            calls[str(KILLED)] = group.create_task(_play_killed(killed))
            yield Evening(calls, before)


@contextlib.asynccontextmanager
async def _world(folder: Path, http: aiohttp.ClientSession) -> AsyncGenerator[Place]:
    agents = write_agents(folder / "agents", AGENTS)
    async with open_launcher(folder, profile="realistic", agents_dir=agents) as launcher:
        server = Server(Bot.OURS, launcher.port, os.getpid(), launcher.settings.database_path, folder / "log")
        yield Place(Sims.of(launcher.world.env(), http), server)


@contextlib.asynccontextmanager
async def _standby(folder: Path, http: aiohttp.ClientSession) -> AsyncGenerator[Standby]:
    """Run the one of two servers at one address that outlives the other."""
    agents, public = write_agents(folder / "agents", AGENTS[:1]), free_port()
    url = f"http://127.0.0.1:{public}"
    async with open_launcher(folder, profile="realistic", agents_dir=agents, public_url=url) as launcher:
        server = Server(
            Bot.OURS, launcher.port, os.getpid(), launcher.settings.database_path, folder / "log", public
        )
        yield Standby(Place(Sims.of(launcher.world.env(), http), server), launcher.world)


@contextlib.asynccontextmanager
async def _beside(standby: Standby) -> AsyncGenerator[Place]:
    """Run the other one, as a process: it gets the calls as long as it is well."""
    server, folder = standby.place.server, standby.place.server.database.parent
    environment = {
        "AGENTS_DIR": str(folder / "agents"),
        "PUBLIC_URL": f"http://127.0.0.1:{server.public_port}",
    }
    async with (
        open_process_beside(standby.world, folder, environment=environment) as process,
        opened([process.port, server.port], server.public_port or 0),
    ):
        first = Server(
            Bot.OURS, process.port, process.process.pid, server.database, process.log, server.public_port
        )
        yield Place(standby.place.sims, first, standby=server)


async def _play_killed(place: "asyncio.Task[Place]") -> Judged:
    return await _play(await place, ALL_PLANS[str(KILLED)], 0.0)


async def _play(place: Place, plan: Plan, after_s: float) -> Judged:
    await asyncio.sleep(after_s)
    folder = place.server.database.parent
    evidence = await play(place, plan, before=ANYTHING, out_dir=folder)
    return Judged(evidence, judge(evidence, passing=passing_lines(place)))


@pytest.mark.parametrize("name", PLANS)
async def test_what_fails_costs_the_caller_nothing_that_was_promised(evening: Evening, name: str) -> None:
    judged = await evening.calls[name]
    assert [str(one) for one in judged.verdict.violations] == [], judged.evidence.plan
    assert judged.verdict.outcome.is_acceptable


async def test_a_process_that_is_killed_costs_the_caller_no_more_than_a_moment(evening: Evening) -> None:
    judged = await evening.calls[str(KILLED)]
    found = judged.verdict.violations
    assert [str(one) for one in found if one.rule is not Rule.SILENCE] == [], judged.evidence.plan
    assert judged.verdict.longest_silence_s < GONE_S[ProcessFault.KILL] + SLACK_S
    assert judged.verdict.outcome is Outcome.SERVED
    assert judged.evidence.report.streams == 2


async def test_the_faults_hit(evening: Evening) -> None:
    played = await asyncio.gather(*evening.calls.values())
    assert [str(one.evidence.plan) for one in played if not one.evidence.hits] == []
    assert evening.calls["two at once"].result().evidence.hit == PAIR


async def test_no_call_leaves_a_task_behind(evening: Evening) -> None:
    await asyncio.wait(evening.calls.values())
    async with asyncio.timeout(5):
        while tasks_of_calls() > evening.tasks_before:  # noqa: ASYNC110 - nobody tells; this test is one
            await asyncio.sleep(0.05)


def tasks_of_calls() -> int:
    """Count the tasks of the product and of Pipecat; the sims and the web server have some of their own."""
    codes = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    files = [Path(code.co_filename) for code in codes if code is not None]
    return sum("pipecat" in file.parts or file.parent.name in PRODUCT for file in files)
