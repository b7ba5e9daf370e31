"""A few seeds of `make chaos` in this process: the same plans, callers and verdicts, all of them at the same time."""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from bench.agents import write_agents
from bench.chaos.evidence import Held
from bench.chaos.faults import Cell, Stage, Target
from bench.chaos.plan import plan_of
from bench.chaos.play import play
from bench.chaos.report import Judged
from bench.chaos.stage import AGENTS, Place, Sims, passing_lines
from bench.chaos.verdict import judge
from bench.servers import Bot, Server
from bot import voice_lines
from bot.lines import fixed_lines
from sims.faults import FaultKind
from tests.fakes.launcher import open_launcher

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
STAGGER_S = 0.6
ANYTHING = Held(calls=0, descriptors=1 << 20, threads=1 << 20, tasks=1 << 20)
"""All calls of this process hold its tasks and files together: who left some behind is asked at the end."""
PRODUCT = ("bot", "processors", "flows", "telephony", "integrations", "store")
LINES = ("Sure.", "Okay.", "Thanks.", "Great.")


def first_seed(cell: Cell) -> int:
    """Return the first seed whose caller asks questions while this happens and nothing else."""
    return next(
        seed
        for seed in range(100_000)
        if (plan := plan_of(seed)).caller == "questions" and [one.cell for one in plan.injections] == [cell]
    )


SEEDS = {str(cell): first_seed(cell) for cell in CELLS}


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
            for name, seed in SEEDS.items():
                folder = tmp_path_factory.mktemp(f"chaos-{seed}")
                places[name] = await worlds.enter_async_context(_world(folder, http))
            before = tasks_of_calls()
            calls = {
                name: group.create_task(_play(place, SEEDS[name], number * STAGGER_S))
                for number, (name, place) in enumerate(places.items())
            }
            yield Evening(calls, before)


@contextlib.asynccontextmanager
async def _world(folder: Path, http: aiohttp.ClientSession) -> AsyncGenerator[Place]:
    agents = write_agents(folder / "agents", AGENTS)
    async with open_launcher(folder, profile="realistic", agents_dir=agents) as launcher:
        server = Server(Bot.OURS, launcher.port, os.getpid(), launcher.settings.database_path, folder / "log")
        yield Place(Sims.of(launcher.world.env(), http), server)


async def _play(place: Place, seed: int, after_s: float) -> Judged:
    await asyncio.sleep(after_s)
    folder = place.server.database.parent
    evidence = await play(place, plan_of(seed), before=ANYTHING, out_dir=folder)
    return Judged(evidence, judge(evidence, passing=passing_lines(place)))


@pytest.mark.parametrize("name", SEEDS)
async def test_what_fails_costs_the_caller_nothing_that_was_promised(evening: Evening, name: str) -> None:
    judged = await evening.calls[name]
    assert [str(one) for one in judged.verdict.violations] == [], judged.evidence.plan
    assert judged.verdict.outcome.is_acceptable


async def test_the_faults_hit(evening: Evening) -> None:
    played = await asyncio.gather(*evening.calls.values())
    assert [str(one.evidence.plan) for one in played if not one.evidence.hits] == []


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
