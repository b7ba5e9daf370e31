"""How calls of one process are begun, listed and counted; their pipelines are left out."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio
from prometheus_client import generate_latest

from bot.call import Call, CallSetup, Channel
from bot.call_keeper import CallKeeper
from bot.call_life import EndReason
from bot.call_pipeline import PipelineCounts
from bot.metrics import Metrics
from bot.resources import Resources
from bot.resumption import new_saved_call
from bot.running_calls import KEPT_CALLS, RunningCalls, known_of
from tests.fakes.memory_calls import MemoryCallStore
from tests.fakes.ringing_board import Board, RingingCall


@dataclass
class Process:
    """A process's calls, and what becomes of their room."""

    folder: Path
    board: Board
    running: RunningCalls = field(init=False)
    tasks: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    metrics: Metrics = field(default_factory=Metrics.create)
    store: MemoryCallStore = field(default_factory=MemoryCallStore)
    released: list[str] = field(default_factory=list[str])
    is_taken: bool = False
    """Whether another worker has the call whose room is given back."""

    def __post_init__(self) -> None:
        resources = cast("Resources", self.board.resources)
        self.running = RunningCalls(self.tasks, resources, release=self.release, metrics=self.metrics)

    def release(self, call_sid: str) -> bool:
        self.released.append(call_sid)
        return self.is_taken

    def begin(self, call_sid: str, *, is_kept: bool = False) -> Call:
        agent = self.board.resources.agents["agent-0"]
        setup = CallSetup(call_sid, agent.agent, agent.flow, agent.events, Channel.PHONE, 8000)
        call = self.running.begin(setup)
        if is_kept:
            saved = new_saved_call(
                call_sid, agent="agent-0", caller="+1", called="+2", process="a", longest_call_s=900
            )
            lost = partial(call.end, EndReason.TAKEN_BY_OTHER_WORKER)
            call.keep(CallKeeper(self.store, saved, on_lost=lost))
        return call

    def counted(self, line: str) -> bool:
        return line in generate_latest(self.metrics._exposed).decode()


@pytest_asyncio.fixture
async def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Process]:
    monkeypatch.setattr("bot.running_calls.Call", RingingCall)
    process = Process(tmp_path, Board(tmp_path, agents=1, max_calls=9))
    async with process.tasks:
        yield process
        process.running.end_all(moves=False)


async def over(call: Call) -> None:
    await call.ended.wait()
    await asyncio.sleep(0)


async def test_a_call_runs_until_it_is_over_and_stays_listed(process: Process) -> None:
    call = process.begin("CA1")
    assert process.running.live("CA1") is call
    assert process.running.live_count == 1
    assert process.running.known("CA1") is None, "it is not written down"
    call.end(EndReason.CALLER_HUNG_UP)
    await over(call)
    assert process.running.live("CA1") is None
    assert process.running.live_count == 0
    assert process.running.find("CA1") is call
    assert process.running.find("CA2") is None
    assert process.released == ["CA1"]
    assert process.counted(
        'firstring_calls_total{agent="agent-0",channel="phone",outcome="caller_hung_up"} 1.0'
    )


async def test_calls_are_listed_newest_first_and_not_for_ever(process: Process) -> None:
    for number in range(KEPT_CALLS + 1):
        process.begin(f"CA{number}").end(EndReason.CALLER_HUNG_UP)
    assert await process.running.until_idle(5.0)
    process.begin("CA")
    listed = [call.setup.call_sid for call in process.running.all()]
    assert listed == ["CA", *(f"CA{number}" for number in range(KEPT_CALLS, 0, -1))]


async def test_what_a_call_lost_is_counted(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    call = process.begin("CA1")

    async def lose() -> None:
        call.pipeline.counts = PipelineCounts(marks_lost=2, windows_dropped=3)

    monkeypatch.setattr(call.pipeline, "let_go", lose)
    call.end(EndReason.CALLER_HUNG_UP)
    await over(call)
    assert process.counted("firstring_marks_lost_total 2.0")
    assert process.counted("firstring_voice_windows_dropped_total 3.0")


@pytest.mark.parametrize("is_taken", [True, False])
async def test_a_call_that_another_worker_has_is_counted_and_listed_there(
    process: Process, is_taken: bool
) -> None:
    process.is_taken = is_taken
    call = process.begin("CA1")
    call.end(EndReason.LINE_NEVER_CAME if is_taken else EndReason.TAKEN_BY_OTHER_WORKER)
    await over(call)
    assert process.running.all() == []
    assert process.counted('firstring_calls_active{channel="phone"} 0.0')
    assert not process.counted("firstring_calls_total{")


async def test_a_call_that_cannot_be_counted_is_not_waited_for(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("counters can only be incremented")

    monkeypatch.setattr(process.metrics, "call_ended", fail)
    process.begin("CA1").end(EndReason.CALLER_HUNG_UP)
    assert await process.running.until_idle(5.0)


async def test_a_call_that_breaks_breaks_no_other(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RuntimeError("no")

    broken, other = process.begin("CA1"), process.begin("CA2")
    monkeypatch.setattr(broken, "run", fail)
    await asyncio.sleep(1.0)
    assert process.running.live("CA1") is None
    assert process.running.live("CA2") is other
    assert not await process.running.until_idle(0.5)


async def test_who_expects_a_call_is_told_when_it_begins(process: Process) -> None:
    expecting = asyncio.create_task(process.running.expect("CA2", 5.0))
    process.begin("CA1")
    await asyncio.sleep(1.0)
    assert not expecting.done()
    process.begin("CA2")
    assert await expecting
    assert not await process.running.expect("CA3", 0.5)


async def test_a_call_that_comes_on_another_line_leaves_the_one_it_had(process: Process) -> None:
    before = process.begin("CA1", is_kept=True)
    saved = await process.running.leave_line("CA1")
    assert saved is not None
    assert saved.call_sid == "CA1"
    assert process.store.stored["CA1"].call_sid == "CA1"
    assert before.end_reason is EndReason.LINE_LOST
    after = process.begin("CA1")
    await over(before)
    assert process.running.live("CA1") is after
    assert process.released == [], "its room is that of its other line"
    assert await process.running.leave_line("CA9") is None


async def test_nothing_is_idle_while_a_line_is_being_left(process: Process) -> None:
    before = process.begin("CA1")
    assert await process.running.leave_line("CA1") is None, "it is not written down"
    assert process.running.live_count == 0
    assert not process.running._idle.is_set()
    await over(before)
    assert process.running._idle.is_set()


async def test_calls_that_are_written_down_move_and_others_end(process: Process) -> None:
    kept, other = process.begin("CA1", is_kept=True), process.begin("CA2")
    assert process.running.held() == ["CA1"]
    process.running.end_all(moves=True)
    assert (kept.end_reason, other.end_reason) == (EndReason.MOVED, EndReason.SERVER_STOPPING)


@pytest.mark.parametrize("goes_on_here", [True, False])
async def test_a_call_that_goes_on_elsewhere_is_let_go(process: Process, goes_on_here: bool) -> None:
    call = process.begin("CA1", is_kept=True)
    process.running.let_go("CA1", goes_on_here=goes_on_here)
    process.running.let_go("CA9", goes_on_here=goes_on_here)
    reason = EndReason.LINE_LOST if goes_on_here else EndReason.TAKEN_BY_OTHER_WORKER
    assert call.end_reason is reason


async def test_a_write_that_came_too_late_ends_its_line_and_no_later_one(process: Process) -> None:
    call = process.begin("CA1", is_kept=True)
    assert call.keeper is not None
    earlier = call.keeper.saved
    call.keeper._saved = earlier.next(earlier.updated_at, claim=earlier.claim + 1)
    process.running.lost(earlier)
    assert call.end_reason is None
    process.running.lost(call.keeper.saved)
    assert call.end_reason is EndReason.TAKEN_BY_OTHER_WORKER


async def test_what_is_known_of_a_call_says_whether_it_is_over(process: Process) -> None:
    cut, left = process.begin("CA1", is_kept=True), process.begin("CA2", is_kept=True)
    cut.end(EndReason.LINE_LOST)
    left.end(EndReason.CALLER_HUNG_UP)
    known = known_of(cut), process.running.known("CA2")
    assert [saved is not None and saved.is_finished for saved in known] == [False, True]
