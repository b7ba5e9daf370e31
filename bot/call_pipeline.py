"""A call's pipeline: its playout is there at once, the rest when it is built, and it is stopped whatever hangs.

Greeting a caller needs the playout only; with many calls at once their pipelines are built in turn (`BuildQueue`).
Whoever holds a call's pipeline finds in it what there is at the moment, and nothing once it was let go.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from loguru import logger
from pipecat.frames.frames import InterruptionWorkerFrame
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection
from pipecat.workers.runner import WorkerRunner

from bot.build_queue import BuildQueue, Turn
from bot.pipeline import CallGraph
from bot.services import HoldsSocket
from processors.playout import PlayoutProcessor
from processors.speculation import SpeculationAccount

CANCEL_LIMIT_S: Final = 1.2
"""For the pipeline to stop when it is asked to."""
ESCAPE_LIMIT_S: Final = 0.2
"""For it to stop when what it does is interrupted."""
CANCEL_ROUNDS: Final = 8
"""Who cleans up waits for what it cancels, step by step: each round of cancelling frees one step."""
_ROUND_S: Final = 0.05


@dataclass(frozen=True)
class PipelineCounts:
    """What is known of a pipeline once it was let go."""

    marks_lost: int = 0
    """Marks that the line never returned."""
    windows_dropped: int = 0
    """Windows of the caller's audio that the voice model never saw."""
    speculation: SpeculationAccount | None = None
    """How thinking ahead went; None when nothing was built."""


class CallPipeline:
    """One call's; see the module. Whoever owns the call runs, stops and lets go of it, each once."""

    def __init__(self, playout: PlayoutProcessor, builds: BuildQueue) -> None:
        """Begin with the playout alone.

        Args:
            playout: Made by `build_playout`.
            builds: Says when it is this call's turn to build the rest.
        """
        self.playout: PlayoutProcessor | None = playout
        """None once it was let go."""
        self.graph: CallGraph | None = None
        """None before it is built, and once it was let go."""
        self.counts = PipelineCounts()
        self._builds = builds
        self._built = asyncio.Event()
        self._is_watch_over = False
        """Whether silences matter no more: its call may be asked to end before it is built."""

    async def built(self) -> CallGraph | None:
        """Wait until it is built; returns None if it never will be, or was let go."""
        await self._built.wait()
        return self.graph

    def require(self) -> CallGraph:
        """Return what is built.

        Raises:
            RuntimeError: If nothing is, or it was let go.
        """
        if self.graph is None:
            raise RuntimeError("the call has no pipeline")
        return self.graph

    def watch_silences(self) -> None:
        """Begin to watch for the caller's silence and for ours, unless that is over already."""
        if self._is_watch_over:
            self.stop_watching()
        elif self.graph is not None:
            self.graph.silence.line_up()
            self.graph.watchdog.line_up()

    def stop_watching(self) -> None:
        """Nothing is done about any silence from here on."""
        self._is_watch_over = True
        if self.graph is not None:
            self.graph.silence.stop()
            self.graph.watchdog.stop()

    async def run(self, build: Callable[[], CallGraph], listen: Callable[[CallGraph], None]) -> None:
        """Build it when it is its turn, then run it to its end. Whatever breaks it is logged, not raised.

        Args:
            build: Builds the processors.
            listen: Called before they run, to listen to them.
        """
        try:
            turn = await self._builds.take()
            try:
                self.graph = build()
                self._built.set()
                _give_back_once_started(turn, self.graph.worker)
                listen(self.graph)
                runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
                await runner.add_workers(self.graph.worker)
                await runner.run()
            finally:
                turn.give_back()
        except Exception as error:  # noqa: BLE001 - whatever breaks a pipeline ends this call only
            logger.exception("the pipeline failed: {}", error)
        finally:
            self._built.set()

    async def stop(self, running: "asyncio.Task[None]", left_s: Callable[[], float]) -> None:
        """Stop it: politely, then by escape, then task by task.

        Args:
            running: The task of `run`.
            left_s: Returns how many seconds there are left for it.
        """
        if self.graph is not None and not running.done():
            asking = asyncio.ensure_future(self.graph.worker.cancel())
            await asyncio.wait({running}, timeout=CANCEL_LIMIT_S)
            if not running.done():
                await _force(self.graph.worker, running, left_s)
            asking.cancel()
        elif not running.done():
            running.cancel()
        await asyncio.wait({running}, timeout=left_s())
        if not running.done():
            logger.error("the pipeline cannot be stopped and is left behind")
            if self.graph is not None:
                _cancel(self.graph.worker, running)

    async def let_go(self) -> None:
        """Count what it lost and keep nothing of it: an ended call stays listed, and a browser's transport is large."""
        marks_lost = 0
        if self.playout is not None:
            await self.playout.stop_ahead()
            marks_lost = self.playout.marks_lost
        if self.graph is None:
            self.counts = PipelineCounts(marks_lost)
        else:
            self.counts = PipelineCounts(marks_lost, self.graph.caller.windows_dropped, self.graph.account)
            for service in (*self.graph.stt.recognisers, *self.graph.tts.voices):
                if isinstance(service, HoldsSocket):
                    service.drop_socket()
        self.playout = self.graph = None


def _give_back_once_started(turn: Turn, worker: PipelineWorker) -> None:
    async def on_started(*_: Any) -> None:
        turn.give_back()

    worker.add_event_handler("on_pipeline_started", on_started)


async def _force(worker: PipelineWorker, running: "asyncio.Task[None]", left_s: Callable[[], float]) -> None:
    logger.warning("the pipeline did not stop in {} s: its tasks are cancelled", CANCEL_LIMIT_S)
    with contextlib.suppress(Exception):  # a pipeline this broken may refuse even this
        await worker.queue_frame(InterruptionWorkerFrame(), FrameDirection.UPSTREAM)
    await asyncio.wait({running}, timeout=ESCAPE_LIMIT_S)
    for _ in range(CANCEL_ROUNDS):
        if running.done():
            return
        _cancel(worker, running)  # once at least: who is late has no time left, and would keep it for ever
        if left_s() == 0:
            return
        await asyncio.wait({running}, timeout=_ROUND_S)


def _cancel(worker: PipelineWorker, running: "asyncio.Task[None]") -> None:
    for task in worker.task_manager.current_tasks():
        task.cancel()
    running.cancel()
