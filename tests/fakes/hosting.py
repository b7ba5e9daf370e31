"""Hosts one vendor's recogniser or voice without the pipeline that would stand around it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, Self, TypeVar

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor, FrameProcessorSetup
from pipecat.workers.runner import WorkerRunner

RATE = 8000
WAIT_S = 5.0

Listener_contra = TypeVar("Listener_contra", contravariant=True)


class Hostable(Protocol[Listener_contra]):
    """What a `Recogniser` and a `Voice` have in common."""

    async def open(self, setup: FrameProcessorSetup, listener: Listener_contra) -> None:
        """Get ready, without connecting."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class Noted:
    """What was told, kept for the test to look at."""

    async def until(self, is_met: Callable[[Self], Any]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not is_met(self):  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.005)


class _Host(FrameProcessor):
    def __init__(self, hosted: Hostable[Any], listener: object) -> None:
        super().__init__()
        self._hosted = hosted
        self._listener = listener
        self.is_ready = asyncio.Event()

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        await self._hosted.open(setup, self._listener)
        self.is_ready.set()

    async def cleanup(self) -> None:
        await super().cleanup()
        await self._hosted.close()


Listener = TypeVar("Listener")


@contextlib.asynccontextmanager
async def hosting(hosted: Hostable[Listener], listener: Listener) -> AsyncGenerator[None]:
    """Open what is hosted, not connected yet; closed when the block ends.

    Args:
        hosted: The recogniser or voice.
        listener: Told what it does.
    """
    host = _Host(hosted, listener)
    worker = PipelineWorker(
        Pipeline([host]),
        params=PipelineParams(
            audio_in_sample_rate=RATE, audio_out_sample_rate=RATE, enable_usage_metrics=True
        ),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await host.is_ready.wait()
        yield
    finally:
        await worker.cancel()
        await running
