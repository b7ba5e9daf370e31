"""That a pipeline is built in its turn and stopped whatever hangs. It has one processor; the worker is Pipecat's."""

import asyncio
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pipecat.frames.frames import CancelFrame, EndFrame, Frame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from bot.build_queue import BuildQueue
from bot.call_pipeline import CANCEL_LIMIT_S, CallPipeline, PipelineCounts
from bot.pipeline import CallGraph, build_playout
from bot.services import HoldsSocket
from processors.speculation import SpeculationAccount
from processors.turn_record import TurnLedger
from tests.fakes.call_rig import CallRig
from tests.fakes.conversation import RATE, front_desk


class Passes(FrameProcessor):
    """Lets everything through."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Holds(Passes):
    """Holds the frame that cancels; lets itself be cancelled so many times before it gives in."""

    def __init__(self, refusals: float) -> None:
        super().__init__(enable_direct_mode=True)  # others are cancelled in front of the frame
        self._refusals = refusals

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        while isinstance(frame, CancelFrame) and self._refusals > 0:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                self._refusals -= 1
                if self._refusals <= 0:
                    raise
        await super().process_frame(frame, direction)


class Service(HoldsSocket):
    """A recogniser or a voice on a socket."""

    def __init__(self) -> None:
        self.is_dropped = False

    def drop_socket(self) -> None:
        self.is_dropped = True


def graph_of(processor: FrameProcessor) -> CallGraph:
    """As much of a graph as whoever runs it needs."""
    worker = PipelineWorker(
        Pipeline([processor]), enable_rtvi=False, enable_turn_tracking=False, idle_timeout_secs=None
    )
    parts = SimpleNamespace(
        worker=worker,
        caller=SimpleNamespace(windows_dropped=2),
        stt=SimpleNamespace(recognisers=[Service()]),
        tts=SimpleNamespace(voices=[Service(), Service()]),
        account=SpeculationAccount(budget_usd=1.0, prices=cast(Any, None)),
    )
    return cast(CallGraph, parts)


def pipeline_of(builds: BuildQueue | None = None) -> CallPipeline:
    turns = TurnLedger(started_s=0.0)
    playout = build_playout(front_desk().config, rate_hz=RATE, turns=turns, recording=None)
    return CallPipeline(playout, builds or BuildQueue())


def left(limit_s: float) -> Callable[[], float]:
    """Count down from `limit_s`."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + limit_s
    return lambda: max(0.0, deadline_s - loop.time())


async def started(pipeline: CallPipeline, graph: CallGraph) -> "asyncio.Task[None]":
    """Run it until it has started; return the task."""
    is_started = asyncio.Event()

    def listen(built: CallGraph) -> None:
        async def on_started(*_: object) -> None:
            is_started.set()

        assert built is graph
        built.worker.add_event_handler("on_pipeline_started", on_started)

    running = asyncio.create_task(pipeline.run(lambda: graph, listen))
    await is_started.wait()
    await asyncio.sleep(0.1)  # whoever is asked to stop before that is not yet waited for
    return running


async def test_a_pipeline_waits_for_its_turn_and_gives_it_back_once_it_has_started() -> None:
    builds = BuildQueue()
    turn = await builds.take()
    pipeline, graph = pipeline_of(builds), graph_of(Passes())
    starting = asyncio.create_task(started(pipeline, graph))
    await asyncio.sleep(0.1)
    assert pipeline.graph is None
    with pytest.raises(RuntimeError, match="no pipeline"):
        pipeline.require()
    turn.give_back()
    running = await starting
    assert await pipeline.built() is graph
    assert pipeline.require() is graph
    await asyncio.wait_for(builds.take(), 5.0)
    await graph.worker.cancel()
    await running


async def test_a_pipeline_that_ends_by_itself_is_over() -> None:
    pipeline, graph = pipeline_of(), graph_of(Passes())
    running = await started(pipeline, graph)
    await graph.worker.queue_frame(EndFrame())
    await asyncio.wait_for(running, 5.0)


async def test_what_breaks_the_building_is_logged_and_nobody_waits_for_it() -> None:
    def fail() -> CallGraph:
        raise OSError("no model")

    builds = BuildQueue()
    pipeline = pipeline_of(builds)
    await pipeline.run(fail, lambda _: None)
    assert await pipeline.built() is None
    await asyncio.wait_for(builds.take(), 5.0)


@pytest.mark.parametrize("refusals", [1, 2])
async def test_when_there_is_no_time_left_its_tasks_are_cancelled_all_the_same(refusals: int) -> None:
    pipeline = pipeline_of()
    running = await started(pipeline, graph_of(Holds(refusals)))
    await pipeline.stop(running, lambda: 0.0)
    await asyncio.wait({running}, timeout=5.0)
    assert running.done()


async def test_a_pipeline_that_is_asked_stops() -> None:
    pipeline = pipeline_of()
    running = await started(pipeline, graph_of(Passes()))
    began_s = asyncio.get_running_loop().time()
    await pipeline.stop(running, left(2.0))
    assert running.done()
    assert asyncio.get_running_loop().time() - began_s < CANCEL_LIMIT_S


@pytest.mark.parametrize("refusals", [1, 3])
async def test_a_pipeline_that_does_not_stop_is_cancelled_task_by_task(refusals: int) -> None:
    pipeline = pipeline_of()
    running = await started(pipeline, graph_of(Holds(refusals)))
    await pipeline.stop(running, left(1.9))
    assert running.done()


async def test_a_pipeline_that_never_stops_is_left_behind_in_time() -> None:
    pipeline, holds = pipeline_of(), Holds(float("inf"))
    running = await started(pipeline, graph_of(holds))
    began_s = asyncio.get_running_loop().time()
    await pipeline.stop(running, left(1.9))
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(1.9, abs=0.1)
    holds._refusals = 1
    for _ in range(20):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.1)
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_pipeline_that_waits_for_its_turn_is_not_built_any_more() -> None:
    builds = BuildQueue()
    turn = await builds.take()
    pipeline = pipeline_of(builds)
    running = asyncio.create_task(pipeline.run(lambda: graph_of(Passes()), lambda _: None))
    await asyncio.sleep(0.1)
    await pipeline.stop(running, left(1.9))
    assert running.cancelled()
    assert await pipeline.built() is None
    turn.give_back()


async def test_what_a_pipeline_lost_is_known_when_it_was_let_go() -> None:
    pipeline, graph = pipeline_of(), graph_of(Passes())
    pipeline.graph = graph
    assert pipeline.playout is not None
    pipeline.playout._ledger.marks_lost = 3
    await pipeline.let_go()
    assert pipeline.counts == PipelineCounts(marks_lost=3, windows_dropped=2, speculation=graph.account)
    services: list[Any] = [*graph.stt.recognisers, *graph.tts.voices]
    assert all(service.is_dropped for service in services)
    assert pipeline.playout is None
    assert pipeline.graph is None


async def test_a_pipeline_that_was_never_built_is_let_go_too() -> None:
    pipeline = pipeline_of()
    await pipeline.let_go()
    assert pipeline.counts == PipelineCounts()
    assert pipeline.playout is None


async def test_silences_are_watched_from_the_line_until_nobody_wants_that() -> None:
    rig = CallRig("Northside Dental.")
    async with rig.running():
        rig.pipeline.watch_silences()
        await rig.speech.say("Northside Dental.")
        await asyncio.sleep(9.0)
        assert "caller_silent" in dict(rig.happened)
        told = len(rig.happened)
        rig.pipeline.stop_watching()
        await asyncio.sleep(60.0)
        assert len(rig.happened) == told
    pipeline = pipeline_of()
    pipeline.watch_silences()
    pipeline.stop_watching()


async def test_what_is_built_after_its_call_was_asked_to_end_watches_no_silence() -> None:
    rig = CallRig("Northside Dental.")
    async with rig.running():
        graph = rig.pipeline.graph
        rig.pipeline.graph = None
        rig.pipeline.stop_watching()
        rig.pipeline.graph = graph
        rig.pipeline.watch_silences()
        await rig.speech.say("Northside Dental.")
        await asyncio.sleep(60.0)
        assert "caller_silent" not in dict(rig.happened)
