"""Processors under test in a real pipeline, with a tail that notes what comes out of them."""

import asyncio
from collections.abc import Callable
from typing import Self, TypeVar

from pipecat.frames.frames import Frame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

Kind = TypeVar("Kind", bound=Frame)


class Tail(FrameProcessor):
    """Stands where the next part would be; in direct mode, so that times are exact."""

    def __init__(self, note: Callable[[Frame], None] | None = None) -> None:
        """`note` is called with each frame while it passes: what it carries may change later."""
        super().__init__(enable_direct_mode=True)
        self.seen: list[tuple[float, Frame]] = []
        """What came from above after the start, with the loop's time in seconds."""
        self._note = note

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM and not isinstance(frame, StartFrame):
            self.seen.append((asyncio.get_running_loop().time(), frame))
            if self._note is not None:
                self._note(frame)
            await asyncio.sleep(0)  # a real part gives way too: others may come in between
        await self.push_frame(frame, direction)

    @property
    def frames(self) -> list[Frame]:
        return [frame for _, frame in self.seen]

    def kinds(self) -> list[type[Frame]]:
        return [type(frame) for frame in self.frames]

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def times(self, kind: type[Frame]) -> list[float]:
        return [at_s for at_s, frame in self.seen if isinstance(frame, kind)]


class PipelineRig:
    """A running pipeline for as long as its block lasts."""

    def __init__(
        self, *processors: FrameProcessor, rate_hz: int = 8000, note: Callable[[Frame], None] | None = None
    ) -> None:
        self.processors = [*processors]
        self.tail = Tail(note)
        self.began_s = 0.0
        """When the start had passed, on the loop's clock."""
        self._params = PipelineParams(audio_in_sample_rate=rate_hz, audio_out_sample_rate=rate_hz)

    async def __aenter__(self) -> Self:
        started = asyncio.Event()

        async def on_started(*_: object) -> None:
            started.set()

        self.worker = PipelineWorker(
            Pipeline([*self.processors, self.tail]),
            params=self._params,
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )
        self.worker.add_event_handler("on_pipeline_started", on_started)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self._running = asyncio.create_task(runner.run())
        await started.wait()
        self.began_s = asyncio.get_running_loop().time()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.cancel()
        await self._running

    async def give(self, *frames: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Hand frames to the first processor."""
        for frame in frames:
            await self.processors[0].queue_frame(frame, direction)
