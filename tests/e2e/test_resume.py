"""Processes are killed, stopped and replaced under calls that go on: servers as processes, one address, one database.

All calls run at the same time, each judged at the caller's end.
"""

import asyncio
import contextlib
import re
import signal
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from bot.lines import fixed_lines
from sims.carrier import CallPlan
from sims.mulaw import RATE_HZ
from sims.phone_call import PhoneCall
from sims.profiles import PROFILES
from sims.report import CallReport, Measures
from sims.scenario import Scenario
from sims.world import SimWorld
from tests.fakes.balancer import Balancer, open_balancer
from tests.fakes.lateness import Lateness, watch_lateness
from tests.fakes.launcher import eventually
from tests.fakes.served_process import ServedProcess, open_process_beside

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(200),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "resume"
CUT_OFF = fixed_lines("en-US").cut_off
KILLED_S, HANGS_S = 4.0, 8.0
"""The caller hears the agent again so soon after their process was killed, or stopped."""
QUESTIONS = ("how can i help", "which would you like", "what name", "number can we reach", "shall i book it")
BOOKED_ON = {"killed_first": "Monday", "killed": "Tuesday", "killed_last": "Wednesday", "stopped": "Thursday"}
KILLED = [name for name in BOOKED_ON if name.startswith("killed")]
CUT = list(BOOKED_ON)


def scenario(name: str, *, day: str = "") -> Scenario:
    text = (SCENARIOS / f"{name}.yaml").read_text().replace("{day}", day)
    return Scenario.model_validate({"name": name, **yaml.safe_load(text)})


@dataclass
class LiveCall:
    """A call that runs, heard from the caller's end."""

    call: PhoneCall
    cut_at: int | None = None
    """Position of the line at which its process was killed or stopped."""

    @property
    def heard(self) -> str:
        line = self.call._line
        return "" if line is None else " ".join(word.text for word in line.words).lower()

    @property
    def lines(self) -> int:
        return 0 if self.call._verbs is None else len(self.call._verbs.media)

    def cut(self) -> None:
        assert self.call._line is not None
        self.cut_at = self.call._line.position

    async def report(self) -> CallReport:
        await self.call.finished.wait()
        return self.call.report

    async def measures(self) -> Measures:
        report = await self.report()
        assert report.measures is not None
        return report.measures

    @property
    def again_at(self) -> int:
        """Position at which the line began that followed."""
        assert self.call._verbs is not None
        return self.call._verbs.media[1].started_at

    @property
    def back_at(self) -> int:
        """Position of the first word of the agent's on that line."""
        assert self.call._line is not None
        return next(word.start for word in self.call._line.words if word.start >= self.again_at)

    @property
    def waits_from(self) -> int:
        """Position from which the caller waited for that word: where they were cut off, or had finished themselves."""
        assert self.call._line is not None
        assert self.cut_at is not None
        own = [said.end for said in self.call._line.utterances if self.cut_at < said.end <= self.back_at]
        return max([self.cut_at, *own])

    def took_s(self, from_at: int, to_at: int, lateness: Lateness) -> float:
        """Return the seconds between two positions that were not the machine's doing."""
        line = self.call._line
        assert line is not None
        return (to_at - from_at) / RATE_HZ - lateness.between_s(line.time_of(from_at), line.time_of(to_at))

    def said_on(self) -> tuple[str, str]:
        """Return what was heard on the line that was cut, and on the one that followed."""
        assert self.call._line is not None
        words = self.call._line.words
        before = [word.text for word in words if word.start < self.again_at]
        after = [word.text for word in words if word.start >= self.again_at]
        return " ".join(before).lower(), " ".join(after).lower()


@dataclass
class Evening:
    """All that happens in this module."""

    world: SimWorld
    balancer: Balancer
    folder: Path
    calls: Mapping[str, LiveCall]
    doing: "asyncio.Task[None]"
    servers: Mapping[str, ServedProcess]
    lateness: Lateness

    async def over(self, name: str) -> LiveCall:
        await eventually(lambda: name in self.calls or self.doing.done(), 60.0)
        if self.doing.done():
            self.doing.result()
        call = self.calls[name]
        await call.report()
        return call


async def told(call: LiveCall, words: str, limit_s: float = 60.0) -> None:
    """Wait until the caller has heard `words` as the last thing."""
    await eventually(lambda: re.search(words, call.heard) is not None, limit_s)


class Plot:
    """What is done to the servers, and when."""

    def __init__(
        self, world: SimWorld, balancer: Balancer, folder: Path, servers: Mapping[str, ServedProcess]
    ) -> None:
        self.world, self.balancer, self.folder = world, balancer, folder
        self.calls: dict[str, LiveCall] = {}
        self.servers = servers

    def ring(self, name: str, script: Scenario, to: str) -> LiveCall:
        self.balancer.send_to(self.servers[to].port)
        plan = CallPlan(
            script,
            script.caller,
            "+18506872085",
            voice_url=f"{self.balancer.url}/twilio/voice",
            out_dir=self.folder,
        )
        self.calls[name] = LiveCall(self.world.twilio.start_call(plan))
        return self.calls[name]

    def book(self, name: str, to: str) -> LiveCall:
        return self.ring(name, scenario("booking", day=BOOKED_ON[name]), to)

    async def play(self) -> None:
        first = self.book("killed_first", "a")
        await asyncio.sleep(3.0)
        second = self.book("killed", "a")
        await asyncio.sleep(1.0)
        stopped = self.book("stopped", "b")
        await asyncio.sleep(3.0)
        third = self.book("killed_last", "a")
        await told(third, "northside")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.kill([first, second, third]))
            group.create_task(self.stop(stopped))

    async def kill(self, calls: list[LiveCall]) -> None:
        await told(calls[0], "a cleaning on .* for dana")
        # Who speaks on a new line is listened to, not told anything.
        await eventually(lambda: not any(call.call._senses.is_speaking for call in calls))
        self.balancer.send_to(self.servers["c"].port)
        for call in calls:
            call.cut()
        self.servers["a"].signal(signal.SIGKILL)

    async def stop(self, call: LiveCall) -> None:
        """Stop a process and wake it up again; then restart it with a call on it, while who calls gets to another."""
        await told(call, "what name")
        self.balancer.send_to(self.servers["c"].port)
        call.cut()
        self.servers["b"].signal(signal.SIGSTOP)
        await told(call, "cut off for a moment")
        self.servers["b"].signal(signal.SIGCONT)
        await asyncio.sleep(2.0)
        for name in KILLED:  # whose new lines are not to come to this one
            await eventually(lambda call=self.calls[name]: call.lines == 2)
        drained = self.ring("drained", scenario("hours"), "b")
        await told(drained, "northside")
        self.servers["b"].process.send_signal(signal.SIGTERM)
        self.ring("newer", scenario("hours"), "c")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    folder = tmp_path_factory.mktemp("resume")
    async with contextlib.AsyncExitStack() as running:
        lateness = await running.enter_async_context(watch_lateness())
        world = await running.enter_async_context(SimWorld(profile=PROFILES["instant"], seed=1))
        balancer = await running.enter_async_context(open_balancer())
        servers: dict[str, ServedProcess] = {}

        async def serve(name: str) -> None:
            opening = open_process_beside(world, folder, name=name, environment={"PUBLIC_URL": balancer.url})
            servers[name] = await running.enter_async_context(opening)

        await serve("a")  # renders the lines for all
        await asyncio.gather(serve("b"), serve("c"))
        lateness.pids.add(servers["c"].process.pid)  # with which the calls go on
        for vendor in world.vendors:
            vendor.profile = PROFILES["realistic"]
        plot = Plot(world, balancer, folder, servers)
        doing = asyncio.create_task(plot.play())
        yield Evening(world, balancer, folder, plot.calls, doing, servers, lateness)
        doing.cancel()


def faults_of(report: CallReport) -> list[str]:
    """Why a call went wrong, but for the stream that broke off."""
    return [reason for reason in report.reasons if not reason.startswith("Twilio 31903")]


@pytest.mark.parametrize("name", CUT)
async def test_failure_11_a_call_whose_process_is_gone_goes_on_to_its_end(
    evening: Evening, name: str
) -> None:
    call = await evening.over(name)
    report = await call.report()
    assert faults_of(report) == [], (call.heard, report.first_warnings)
    assert report.streams == 2


@pytest.mark.parametrize("name", KILLED)
async def test_the_agent_is_heard_again_soon_after_a_kill(evening: Evening, name: str) -> None:
    assert_heard_again(await evening.over(name), evening.lateness, KILLED_S)


async def test_the_agent_is_heard_again_soon_after_its_process_hangs(evening: Evening) -> None:
    assert_heard_again(await evening.over("stopped"), evening.lateness, HANGS_S)


def assert_heard_again(call: LiveCall, lateness: Lateness, limit_s: float) -> None:
    """Assert that there is a new line in time, and that the caller, once they listen, hears a word on it in time."""
    assert call.cut_at is not None
    line_s = call.took_s(call.cut_at, call.again_at, lateness)
    heard_s = call.took_s(call.waits_from, call.back_at, lateness)
    gross_s = (call.back_at - call.cut_at) / RATE_HZ
    print(f"line_s={line_s:.2f} heard_s={heard_s:.2f} gross_s={gross_s:.2f}")
    assert max(line_s, heard_s) <= limit_s, (line_s, heard_s, gross_s)


@pytest.mark.parametrize("name", CUT)
async def test_it_says_sorry_once_and_asks_nothing_again_but_what_it_was_at(
    evening: Evening, name: str
) -> None:
    call = await evening.over(name)
    plain = call.heard
    # Who begins to speak at that very moment is not talked over.
    assert plain.count("cut off for a moment") in ((0, 1) if name in KILLED[1:] else (1,)), plain
    before, after = call.said_on()
    for question in QUESTIONS:
        asked, again = before.count(question), after.count(question)
        is_at = re.search(rf"{question}[^.?!]*[.?!]?$", before) is not None
        assert asked + again == 1 or (is_at and (asked, again) == (1, 1)), (question, before, after)


async def test_a_sentence_that_was_cut_is_said_again_from_its_start(evening: Evening) -> None:
    call = await evening.over("killed_first")
    before, _, after = call.heard.partition("sorry, we were cut off for a moment.")
    assert re.search("a cleaning on .* for dana", before)
    assert re.match(r"\s*a cleaning on .* shall i book it", after), after


async def test_each_appointment_is_made_once(evening: Evening) -> None:
    for name in CUT:
        await evening.over(name)
    with sqlite3.connect(evening.folder / "first-ring.db") as book:
        keys = [str(key) for (key,) in book.execute("SELECT key FROM bookings")]
    sids = sorted(key.partition(":")[0] for key in keys)
    assert sids == sorted(evening.calls[name].call.sid for name in CUT)


@pytest.mark.parametrize("name", CUT)
async def test_each_line_of_a_call_has_its_own_recording(evening: Evening, name: str) -> None:
    call = await evening.over(name)
    folder = evening.folder / "recordings" / call.call.sid
    await eventually((folder / "transcript-2.txt").exists)
    assert (folder / "audio.wav").exists()
    assert (folder / "audio-2.wav").exists()
    assert (folder / "timeline-2.json").exists()


async def test_a_process_that_wakes_up_leaves_the_call_alone(evening: Evening) -> None:
    call = await evening.over("stopped")
    report = await call.report()
    assert report.ended_by == "agent"
    folder = evening.folder / "recordings" / call.call.sid
    await eventually((folder / "timeline.json").exists)  # it let go of its line, and wrote down what it knew
    with sqlite3.connect(evening.folder / "first-ring.db") as store:
        (body,) = store.execute(
            "SELECT body FROM saved_calls WHERE call_sid = ?", (call.call.sid,)
        ).fetchone()
    assert b'"finished"' in body


async def test_failure_11_no_call_is_lost_in_a_restart(evening: Evening) -> None:
    for name in ("drained", "newer"):
        call = await evening.over(name)
        report = await call.report()
        assert report.outcome == "ok", (report.reasons, call.heard)
        assert report.streams == 1
    assert "draining: 1 calls" in evening.servers["b"].log.read_text(), "its call was another's"
    async with asyncio.timeout(10):
        assert await evening.servers["b"].process.wait() == -signal.SIGTERM
