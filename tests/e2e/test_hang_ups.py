"""Two hundred callers who hang up at any moment: nothing of them is left."""

import asyncio
import gc
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from loguru import logger
from pipecat.pipeline.worker import PipelineWorker

from bot.call import Call
from bot.call_life import RELEASE_LIMIT_S
from integrations.calendar import PartOfDay, Service, Slot
from sims.carrier import CallPlan
from sims.scenario import EndedBy, Expect, Heard, Say, Scenario, Step
from tests.fakes.held_by import held_by
from tests.fakes.launcher import NUMBER, Launcher, open_launcher
from tests.fakes.media_socket import dial, new_call_sid, token_in

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(120),
    pytest.mark.asyncio(loop_scope="module"),
]

AT_ONCE = 16
SLACK_S = 0.5
"""Of sixteen calls' scheduling."""
Moment = Callable[[Launcher, random.Random], Awaitable[str]]
TOOL_S = 1.5
ASKS = "I'd like a cleaning on Tuesday."
SAYS_GOODBYE = "No thanks, goodbye."


@pytest.fixture(scope="module", autouse=True)
def brief_log() -> Generator[None]:
    logger.remove()
    logger.add(sys.__stderr__ or sys.stderr, level="WARNING")
    yield
    logger.remove()
    logger.add(sys.__stderr__ or sys.stderr)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher"), max_calls=AT_ONCE + 5) as running:
        yield running


@dataclass(frozen=True)
class Held:
    """What a process holds on to."""

    tasks: Counter[str]
    """By what they run: who runs as long as the process does may wait here or there in it."""
    threads: Counter[str]
    """By name."""
    files: int

    @classmethod
    def now(cls) -> "Held":
        return cls(
            tasks=Counter(_place(task) for task in asyncio.all_tasks() - {asyncio.current_task()}),
            threads=Counter(re.sub(r"[\d_-]+$", "", thread.name) for thread in threading.enumerate()),
            files=len(os.listdir("/proc/self/fd")),
        )

    def beyond(self, before: "Held") -> "Held":
        """Return what is held that was not held before."""
        return Held(
            self.tasks - before.tasks, self.threads - before.threads, max(0, self.files - before.files)
        )


NOTHING = Held(Counter(), Counter(), 0)


def _place(task: "asyncio.Task[Any]") -> str:
    frames = task.get_stack(limit=1)
    return frames[-1].f_code.co_qualname if frames else "done"


async def still_held(before: Held, limit_s: float = 3.0) -> Held:
    """Return what is held beyond `before`, once that is nothing or time is over."""
    beyond = Held.now().beyond(before)
    for _ in range(int(limit_s / 0.1)):
        if beyond == NOTHING:
            break
        await asyncio.sleep(0.1)
        beyond = Held.now().beyond(before)
    return beyond


async def fill_pools(launcher: Launcher, moments: list[Moment], rng: random.Random) -> None:
    """Make the connections and threads that a process keeps for its next calls."""
    await play(launcher, moments, rng)
    books = launcher.board._resources.books["reception"]
    day = date(2030, 1, 7)
    await books.calendar.free_slots(
        first_day=day, last_day=day, service=Service("cleaning", 30), part_of_day=PartOfDay.ANY, limit=1
    )
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.1) for _ in range(40)))
    # As many connections to the model as calls can ask for at once: each may have one withdrawn and one running.
    sdk = launcher.board._resources.clients.anthropic.sdk
    await asyncio.gather(*(sdk._client.get(sdk.base_url) for _ in range(2 * AT_ONCE)))
    # And to the carrier: all calls may be hung up at once.
    rest = launcher.board._rest
    await asyncio.gather(*(rest.fetch_call(new_call_sid()) for _ in range(2 * AT_ONCE)))
    await asyncio.sleep(0.5)


async def rings_only(launcher: Launcher, rng: random.Random) -> str:
    """Hang up before Twilio has connected the media socket: only the status callback tells."""
    call_sid = new_call_sid()
    await launcher.ring(call_sid)
    await asyncio.sleep(rng.uniform(0, 0.3))
    async with launcher.webhook("/twilio/status", {"CallSid": call_sid, "CallStatus": "completed"}):
        return call_sid


async def cuts_the_socket(launcher: Launcher, rng: random.Random) -> str:
    """The network goes, without a word, after connected, after start, or in the greeting."""
    call_sid = new_call_sid()
    token = token_in(await launcher.ring(call_sid))
    async with dial(launcher, call_sid) as line:
        await line.connected()
        if before_start := rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 0.05))
        else:
            await line.start(token)
            await asyncio.sleep(rng.uniform(0, 0.8))
        assert line.wire._writer.transport is not None
        line.wire._writer.transport.abort()
    if before_start:
        async with launcher.webhook("/twilio/after-stream", {"CallSid": call_sid}):
            pass
    return call_sid


def person(*steps: Step) -> Scenario:
    return Scenario(
        name="hangs-up",
        voice="caller-1",
        caller="+15550100041",
        ended_by=EndedBy.EITHER,
        max_s=20,
        steps=(Step(expect=Expect(agent=Heard.STARTS)), *steps, Step(hang_up=True)),
    )


async def hangs_up(launcher: Launcher, scenario: Scenario) -> str:
    plan = CallPlan(scenario, scenario.caller, NUMBER, voice_url=launcher.voice_url)
    call = launcher.world.twilio.start_call(plan)
    async with asyncio.timeout(25):
        await call.finished.wait()
    return call.sid


async def in_the_greeting(launcher: Launcher, rng: random.Random) -> str:
    return await hangs_up(launcher, person(Step(wait_s=rng.uniform(0.02, 1.5))))


async def while_a_tool_runs(launcher: Launcher, rng: random.Random) -> str:
    said = Step(say=Say(text=(ASKS,), at_once=True))
    return await hangs_up(launcher, person(said, Step(wait_s=rng.uniform(0.5, 1.5))))


async def in_the_goodbye(launcher: Launcher, rng: random.Random) -> str:
    said = Step(say=Say(text=(SAYS_GOODBYE,), at_once=True))
    return await hangs_up(launcher, person(said, Step(wait_s=rng.uniform(0.3, 2.5))))


MOMENTS: Mapping[Moment, int] = {
    rings_only: 60,
    cuts_the_socket: 100,
    in_the_greeting: 16,
    while_a_tool_runs: 14,
    in_the_goodbye: 10,
}
"""And how many of two hundred hang up then; those who speak cost the most."""


async def play(launcher: Launcher, moments: list[Moment], rng: random.Random) -> list[Call]:
    """Have one caller hang up at each of `moments`, `AT_ONCE` at a time; returns their calls, released."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(moment: Moment) -> Call:
        async with free:
            return await launcher.ended(await moment(launcher, rng))

    return list(await asyncio.gather(*(one(moment) for moment in moments)))


def slow_slots(launcher: Launcher, patch: pytest.MonkeyPatch) -> Counter[str]:
    """Make looking for free times slow, so that callers can hang up meanwhile."""
    books = launcher.board._resources.books["reception"]
    real = books.calendar.free_slots
    seen: Counter[str] = Counter()

    async def slow(**asked: Any) -> list[Slot]:
        seen["asked"] += 1
        await asyncio.sleep(TOOL_S)
        seen["answered"] += 1
        return await real(**asked)

    patch.setattr(books.calendar, "free_slots", slow)
    return seen


async def test_nothing_is_left_of_two_hundred_callers_who_hang_up(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(7)
    await fill_pools(launcher, [*MOMENTS] * 3, rng)
    tools = slow_slots(launcher, monkeypatch)
    before, earlier = Held.now(), pipelines()
    moments = [moment for moment, count in MOMENTS.items() for _ in range(count)]
    rng.shuffle(moments)
    calls = await play(launcher, moments, rng)
    assert len(calls) == 200
    took_s = [released_in(call) for call in calls]
    assert max(took_s) <= RELEASE_LIMIT_S + SLACK_S, sorted(took_s)[-5:]
    assert await still_held(before) == NOTHING
    assert launcher.board.live_calls == 0
    assert tools["asked"] > tools["answered"], "nobody hung up while a tool ran"
    for _ in range(300):  # a leak is for ever; what ends last is on its way out of a loop that is late
        if not pipelines() - earlier:
            break
        await asyncio.sleep(0.1)
    assert not [held_by(one) for one in pipelines() - earlier]
    assert await asyncio.to_thread(unfinished, launcher.settings.recordings_url) == []


async def test_nothing_is_left_of_calls_that_are_stopped_by_force(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(8)
    await fill_pools(launcher, [in_the_greeting] * 8, rng)
    before = Held.now()
    monkeypatch.setattr("bot.call_pipeline.CANCEL_LIMIT_S", 0.0)
    await play(launcher, [rings_only, cuts_the_socket, cuts_the_socket, in_the_greeting] * 8, rng)
    assert await still_held(before) == NOTHING


def pipelines() -> set[PipelineWorker]:
    """All there are: those of calls before this test's may be held by whatever played them."""
    gc.collect()
    return {thing for thing in gc.get_objects() if type(thing) is PipelineWorker}


def released_in(call: Call) -> float:
    """Return the seconds from the end being asked for until everything was released."""
    assert call.times.end_asked_s is not None
    assert call.times.ended_s is not None
    return call.times.ended_s - call.times.end_asked_s


def unfinished(folder: Path) -> list[str]:
    """Return what is neither a recording nor a record of a call."""
    kept = {"audio.wav", "timeline.json", "transcript.txt"}
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name not in kept]
