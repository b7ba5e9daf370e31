"""`firstring serve` as processes of its own: two workers share the calls, and a signal lets them end."""

import asyncio
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
from tests.fakes.launcher import eventually
from tests.fakes.media_socket import dial, live_call, new_call_sid, token_in
from tests.fakes.served_process import ServedProcess, open_served_process

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

FILES = {"audio.wav", "timeline.json", "transcript.txt"}
SLACK_S = 15.0
"""Of a machine that starts other servers meanwhile."""
CALLER = "+15550100001"
"""Who `ring` says is calling."""


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


async def drains(served: ServedProcess) -> None:
    """Wait until every worker says that it drains."""
    answers = 0
    async with asyncio.timeout(SLACK_S):
        while answers < 10:  # a connection gets to any of them
            answers = answers + 1 if (await get(served, "/readyz"))["status"] == "draining" else 0


@pytest.mark.parametrize(
    ("workers", "number", "code"),
    [(1, signal.SIGTERM, -signal.SIGTERM), (2, signal.SIGTERM, 0), (2, signal.SIGINT, 0)],
    ids=["one worker, SIGTERM", "two, SIGTERM", "two, SIGINT to their parent alone"],
)
async def test_a_drain_lets_the_call_that_runs_end(
    tmp_path: Path, workers: int, number: signal.Signals, code: int
) -> None:
    async with open_served_process(tmp_path, workers=workers) as served:
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
        async with asyncio.timeout(RELEASE_LIMIT_S + SLACK_S):
            await served.process.wait()
        assert served.process.returncode == code
        timeline = read_timeline(await files_of(served, line.call_sid) / "timeline.json")
        assert timeline.ended_reason == "caller_hung_up"
