import asyncio

import pytest
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    InterruptionFrame,
    StartFrame,
    TextFrame,
    UserStartedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from processors.late_frames import DropsLateFrames


class _Service(FrameProcessor):
    """Notes what it is given; turns and interruptions take it a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, UserStartedSpeakingFrame | InterruptionFrame):
            await asyncio.sleep(0.1)
        if not isinstance(frame, StartFrame):
            self.given.append(frame)
        await self.push_frame(frame, direction)

    def texts(self) -> list[str]:
        return [frame.text for frame in self.given if isinstance(frame, TextFrame)]


class Service(DropsLateFrames, _Service):
    pass


async def given(*frames: Frame) -> list[str]:
    """Give frames to a service all at once; return the texts that it takes."""
    service = Service()
    worker = PipelineWorker(
        Pipeline([service]),
        params=PipelineParams(),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(0.1)
    for frame in frames:
        await service.queue_frame(frame)
    await asyncio.sleep(1.0)
    await worker.cancel()
    await running
    return service.texts()


@pytest.mark.parametrize("ends", [InterruptionFrame, EagerEndOfTurnCancelFrame])
async def test_what_waits_when_it_is_interrupted_is_dropped_and_what_comes_next_is_not(
    ends: type[Frame],
) -> None:
    assert await given(TextFrame("old"), ends(), TextFrame("new")) == ["new"]


async def test_what_waits_behind_another_interruption_is_dropped_too() -> None:
    busy = UserStartedSpeakingFrame()
    assert await given(busy, InterruptionFrame(), TextFrame("old"), InterruptionFrame()) == []


async def test_what_must_not_be_lost_is_not() -> None:
    kept = TextFrame("kept")
    kept.interruptible = False
    assert await given(kept, InterruptionFrame()) == ["kept"]
