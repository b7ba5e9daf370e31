"""`firstring serve` as processes of its own: workers share the calls, are replaced, and a signal lets them end.

Named for failure 11, deploys cut calls: a server is replaced while callers talk, others ring, and nobody notices.
"""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import wave
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.call_life import RELEASE_LIMIT_S
from bot.refused_calls import MOST_MOVES
from bot.timeline import read_timeline
from sims.profiles import PROFILES
from sims.report import CallReport
from sims.scenario import Scenario
from sims.world import SimWorld
from store.events import EventKind
from store.events_sqlite import SqliteEventLog
from telephony.capacity import Shortage
from tests.fakes.launcher import eventually
from tests.fakes.media_socket import dial, live_call, new_call_sid, token_in
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

FILES = {"audio.wav", "timeline.json", "transcript.txt"}
SLACK_S = 15.0
"""Of a machine that starts other servers meanwhile."""
CALLER = "+15550100001"
"""Who `ring` says is calling."""


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


def recorded_s(folder: Path) -> float:
    with wave.open(str(folder / "audio.wav")) as wav:
        return wav.getnframes() / wav.getframerate()


async def get(served: ServedProcess, path: str) -> Any:
    async with served.http.get(f"{served.url}{path}") as answer:
        return await answer.json()


async def listed(served: ServedProcess, call_sid: str) -> Mapping[str, Any] | None:
    """Return the call as the worker lists it that happens to answer."""
    calls = (await get(served, "/api/calls"))["calls"]
    return next((call for call in calls if call["call_sid"] == call_sid), None)


async def files_of(served: ServedProcess, call_sid: str) -> Path:
    folder = served.recordings / call_sid
    await eventually((folder / "transcript.txt").exists)
    assert {path.name for path in await asyncio.to_thread(lambda: list(folder.iterdir()))} == FILES
    return folder


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[ServedProcess]:
    """Serve with two workers."""
    async with open_served_process(tmp_path_factory.mktemp("pair"), workers=2) as served:
        yield served


async def test_a_call_may_ring_in_one_worker_and_be_held_in_the_other(pair: ServedProcess) -> None:
    first, second = pair.workers()
    call_sid = new_call_sid()
    os.kill(second, signal.SIGSTOP)
    token = token_in(await pair.ring(call_sid))
    os.kill(first, signal.SIGSTOP)
    os.kill(second, signal.SIGCONT)
    async with dial(pair, call_sid) as line:
        await line.connected()
        await line.start(token)
        await line.read(until="media")
        call = await listed(pair, call_sid)
        assert call is not None
        assert (call["state"], call["from"]) == ("live", CALLER)
        os.kill(first, signal.SIGCONT)
        reports = await asyncio.gather(
            *(pair.world.twilio.place_call("hangup_early", voice_url=pair.voice_url) for _ in range(4))
        )
        assert [report.outcome for report in reports] == ["ok"] * 4, reports
        for _ in range(75):
            await line.media()
            await asyncio.sleep(0.02)
        os.kill(second, signal.SIGSTOP)
        assert await listed(pair, call_sid) is None, "the worker that lost it lists it"
        os.kill(second, signal.SIGCONT)
        await line.stop()
        assert await line.read() == "closed"
    folder = await files_of(pair, call_sid)
    await eventually(lambda: recorded_s(folder) >= 1.5)  # a slow disk holds up no call's end
    timeline = read_timeline(folder / "timeline.json")
    assert timeline.ended_reason == "caller_hung_up"
    assert [turn.kind for turn in timeline.turns] == ["greeting"]
    for report in reports:
        its_folder = await files_of(pair, report.call_sid)
        await eventually(lambda its=its_folder: recorded_s(its) > 0)
    counted = await pair.metrics()
    calls = {name: count for name, count in counted.items() if name.startswith("calls{")}
    assert sum(calls.values()) == 5, calls
    # A socket that is closed before a worker this busy reads its last messages is a line that was lost.
    ends = {re.findall("outcome=([a-z_]+)", name)[0] for name in calls}
    assert ends <= {"caller_hung_up", "line_lost"}, calls
    assert counted["calls_active{channel=phone}"] == 0


def is_written_live(folder: Path, call_sid: str) -> bool:
    with sqlite3.connect(folder / "first-ring.db") as store:
        rows = store.execute("SELECT phase FROM saved_calls WHERE call_sid = ?", (call_sid,))
        return rows.fetchone() == ("live",)


async def test_a_worker_that_is_killed_is_replaced_and_its_call_goes_on_in_the_other(
    pair: ServedProcess,
) -> None:
    first, second = pair.workers()
    os.kill(second, signal.SIGSTOP)
    async with live_call(pair) as line:
        await line.read(until="mark")
        await eventually(lambda: is_written_live(pair.recordings.parent, line.call_sid))
        os.kill(second, signal.SIGCONT)
        assert (await pair.metrics())["calls_active{channel=phone}"] == 1
        os.kill(first, signal.SIGKILL)
        assert await line.read() == "closed"
    async with asyncio.timeout(SLACK_S):
        while (await pair.metrics())["calls_active{channel=phone}"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    fields = {"CallSid": line.call_sid, "CallStatus": "in-progress"}
    async with pair.webhook("/twilio/after-stream", fields) as answer:
        twiml = await answer.text()
    assert 'name="resume" value="1"' in twiml
    async with dial(pair, line.call_sid) as again:
        await again.connected()
        await again.start(token_in(twiml), resume="1")
        assert await again.read(until="media") == "media"
        await again.stop()
        assert await again.read() == "closed"
    await eventually(lambda: len(pair.workers()) == 2 and first not in pair.workers(), 20.0)
    assert second in pair.workers()


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


async def test_a_worker_that_hangs_is_replaced(pair: ServedProcess) -> None:
    first, second = pair.workers()
    os.kill(second, signal.SIGSTOP)
    await eventually(lambda: len(pair.workers()) == 2 and second not in pair.workers(), 40.0)
    assert first in pair.workers()
    await wait_until_ready(pair)
    report = await place(pair.world, GLANCES, pair.url)
    assert report.outcome == "ok", report.reasons


async def drains(served: ServedProcess) -> None:
    """Wait until every worker says that it drains."""
    answers = 0
    async with asyncio.timeout(SLACK_S):
        while answers < 10:  # a connection gets to any of them
            answers = answers + 1 if (await get(served, "/readyz"))["status"] == "draining" else 0


async def lets_the_call_that_runs_end(served: ServedProcess, number: signal.Signals) -> None:
    """Send a signal to the first process while a call runs, and see what becomes of that and of new ones."""
    async with live_call(served) as line:
        await line.read(until="media")
        served.process.send_signal(number)
        await drains(served)
        assert "moves=1" in await served.ring(new_call_sid())
        assert "<Say" in await served.ring(new_call_sid(), moves=MOST_MOVES)
        await line.read(until="mark")
        assert served.process.returncode is None
        await line.stop()
        assert await line.read() == "closed"
    timeline = read_timeline(await files_of(served, line.call_sid) / "timeline.json")
    assert timeline.ended_reason == "caller_hung_up"


async def test_on_sigterm_two_workers_let_the_calls_that_run_end(pair: ServedProcess) -> None:
    await lets_the_call_that_runs_end(pair, signal.SIGTERM)
    assert await has_left(pair, RELEASE_LIMIT_S + SLACK_S) == 0


async def test_on_sigterm_one_worker_lets_its_calls_end(tmp_path: Path) -> None:
    async with open_served_process(tmp_path) as served:
        await lets_the_call_that_runs_end(served, signal.SIGTERM)
        assert await has_left(served, RELEASE_LIMIT_S + SLACK_S) == -signal.SIGTERM


async def test_on_sigint_to_their_parent_alone_two_workers_let_the_calls_that_run_end(tmp_path: Path) -> None:
    async with open_served_process(tmp_path, workers=2) as served:
        await lets_the_call_that_runs_end(served, signal.SIGINT)
        assert await has_left(served, RELEASE_LIMIT_S + SLACK_S) == 0


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
            assert await has_left(old, RELEASE_LIMIT_S + SLACK_S) == -signal.SIGTERM
            assert balancer.refused == 0
