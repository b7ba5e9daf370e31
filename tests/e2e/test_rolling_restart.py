"""Named for failure 11, deploys cut calls: a server is replaced while callers talk, others ring, and nobody notices."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from bot.call_life import RELEASE_LIMIT_S
from sims.profiles import PROFILES
from sims.report import CallReport
from sims.scenario import Scenario
from sims.world import SimWorld
from store.events import EventKind
from store.events_sqlite import SqliteEventLog
from telephony.capacity import Shortage
from tests.fakes.launcher import eventually
from tests.fakes.ready_balancer import ReadyBalancer, open_ready_balancer
from tests.fakes.served_process import (
    ServedProcess,
    open_process_beside,
    open_served_process,
    wait_until_ready,
)

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(220),
    pytest.mark.asyncio(loop_scope="module"),
]

RING_EVERY_S = 0.8
STAYS = Scenario.model_validate(
    {
        "name": "stays",
        "voice": "caller-3",
        "ended_by": "caller",
        "max_s": 60,
        "steps": [
            {"expect": {"agent": "finishes", "within_s": 15}},
            {"wait_s": 5.0},
            {"say": "Hi, what are your hours on Saturday?"},
            {"expect": {"agent": "finishes", "within_s": 20, "text_contains": "saturday|nine|one|9|1"}},
            {"hang_up": True},
        ],
    }
)
GLANCES = Scenario.model_validate(
    {
        "name": "glances",
        "voice": "caller-1",
        "ended_by": "caller",
        "max_s": 30,
        "steps": [{"expect": {"agent": "starts", "within_s": 10}}, {"wait_s": 0.3}, {"hang_up": True}],
    }
)


async def place(world: SimWorld, scenario: Scenario, url: str) -> CallReport:
    return await world.twilio.place_call(scenario, voice_url=f"{url}/twilio/voice")


@contextlib.asynccontextmanager
async def callers(world: SimWorld, url: str) -> AsyncGenerator[list[CallReport]]:
    """Let people call, one after the other, until the block ends; yields what became of them."""
    reports: list[CallReport] = []
    is_over = asyncio.Event()

    async def one() -> None:
        reports.append(await place(world, GLANCES, url))

    async def ring() -> None:
        async with asyncio.TaskGroup() as people:
            while not is_over.is_set():
                people.create_task(one())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RING_EVERY_S):
                        await is_over.wait()

    ringing = asyncio.create_task(ring())
    try:
        yield reports
    finally:
        is_over.set()
        await ringing


async def assert_all_answered(reports: list[CallReport], folder: Path) -> None:
    """Everybody heard the agent, unless the machine was so busy that a line of the overflow spoke instead."""
    assert len(reports) >= 5
    for report in reports:
        assert report.outcome == "ok", report.reasons
        if report.streams == 0:
            assert await refusal_of(report.call_sid, folder) in {Shortage.BEHIND, Shortage.BACKLOG}
    assert sum(report.streams == 1 for report in reports) >= 0.8 * len(reports)


async def refusal_of(call_sid: str, folder: Path) -> str | None:
    log = SqliteEventLog(folder / "first-ring.db", deadline_s=5.0)
    try:
        refused = [event for event in await log.of_call(call_sid) if event.kind == EventKind.CALL_REFUSED]
    finally:
        await log.close()
    return str(refused[0].fields["reason"]) if refused else None


async def has_left(served: ServedProcess, limit_s: float) -> int | None:
    async with asyncio.timeout(limit_s):
        return await served.process.wait()


async def is_ready(balancer: ReadyBalancer, port: int) -> None:
    await eventually(lambda: port in balancer.ready, 40.0)


async def test_another_server_takes_over_behind_one_address_and_no_call_is_lost(tmp_path: Path) -> None:
    async with (
        SimWorld(profile=PROFILES["instant"], seed=1) as world,
        open_ready_balancer() as balancer,
        open_process_beside(world, tmp_path, name="old", environment={"PUBLIC_URL": balancer.url}) as old,
    ):
        balancer.backends[:] = [old.port]
        await is_ready(balancer, old.port)
        async with open_process_beside(
            world, tmp_path, name="new", environment={"PUBLIC_URL": balancer.url}
        ) as new:
            stays = asyncio.create_task(place(world, STAYS, balancer.url))
            await eventually(lambda: world.twilio.stats["stream-started"] > 0)
            await asyncio.sleep(2.0)
            balancer.backends.append(new.port)
            # As quick as a deploy can be: the balancer has not asked the new one yet, and does not know of the drain.
            async with callers(world, balancer.url) as reports:
                await asyncio.sleep(1.0)
                old.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(4.0)
                before = balancer.taken[old.port]
                await asyncio.sleep(1.0)
                assert balancer.taken[old.port] == before, "new calls still go to the old one"
            report = await stays
            assert report.outcome == "ok", report.reasons
            assert report.streams == 1
            await assert_all_answered(reports, tmp_path)
            assert await has_left(old, RELEASE_LIMIT_S + 15) == -signal.SIGTERM
            assert balancer.refused == 0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ServedProcess]:
    """Serve with two workers."""
    async with open_served_process(tmp_path_factory.mktemp("pair"), workers=2) as served:
        yield served


async def test_the_workers_of_one_server_are_replaced_in_turn(pair: ServedProcess) -> None:
    old = set(pair.workers())
    stays = asyncio.create_task(place(pair.world, STAYS, pair.url))
    await asyncio.sleep(2.0)
    async with callers(pair.world, pair.url) as reports:
        pair.process.send_signal(signal.SIGHUP)
        report = await stays
        # Whoever held the call goes last; both are gone soon after it has ended.
        await eventually(lambda: len(pair.workers()) == 2 and not old & set(pair.workers()), 120.0)
    assert report.outcome == "ok", report.reasons
    assert report.streams == 1
    await assert_all_answered(reports, pair.recordings.parent)
    assert pair.process.returncode is None


async def test_a_worker_that_was_killed_is_replaced_and_one_that_hangs_too(pair: ServedProcess) -> None:
    first, second = pair.workers()
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: len(pair.workers()) == 2 and first not in pair.workers(), 30.0)
    report = await place(pair.world, GLANCES, pair.url)
    assert report.outcome == "ok", report.reasons
    os.kill(second, signal.SIGSTOP)
    await eventually(lambda: len(pair.workers()) == 2 and second not in pair.workers(), 40.0)
    await wait_until_ready(pair)  # on a slow machine the first one's successor may not serve yet either
    report = await place(pair.world, GLANCES, pair.url)
    assert report.outcome == "ok", report.reasons
