"""A mixin for Pipecat's services: an interruption drops all that was given to them before it.

Pipecat's processors take system frames out of their queue first, and an interruption empties only what has left that
queue. A token that waits in it, behind a system frame that takes its time or for its turn of the event loop, would be
spoken after the interruption; a question that waits in it would be answered. So each frame is stamped when it comes.
Source: `pipecat.processors.frame_processor.FrameProcessor.queue_frame`.
"""

from pipecat.frames.frames import EagerEndOfTurnCancelFrame, Frame, InterruptionFrame, SystemFrame
from pipecat.processors.frame_processor import FrameCallback, FrameDirection

_STAMP = "interruptions_before"


class DropsLateFrames:
    """Mix in before a `FrameProcessor` that has a queue."""

    _interruptions_queued = 0
    """Those that came, withdrawals of a reply made ahead included."""

    async def queue_frame(
        self,
        frame: Frame,
        direction: FrameDirection = FrameDirection.DOWNSTREAM,
        callback: FrameCallback | None = None,
    ) -> None:
        """Stamp what comes down the pipeline."""
        if direction is FrameDirection.DOWNSTREAM:
            if isinstance(frame, InterruptionFrame | EagerEndOfTurnCancelFrame):
                self._interruptions_queued += 1
            elif not isinstance(frame, SystemFrame):
                frame.metadata[_STAMP] = self._interruptions_queued
        await super().queue_frame(frame, direction, callback)  # pyright: ignore[reportAttributeAccessIssue] - of the processor it is mixed into

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Drop what an interruption has overtaken."""
        came_after = frame.metadata.get(_STAMP, self._interruptions_queued)
        is_data = direction is FrameDirection.DOWNSTREAM and not isinstance(frame, SystemFrame)
        if is_data and frame.interruptible and came_after < self._interruptions_queued:
            return
        await super().process_frame(frame, direction)  # pyright: ignore[reportAttributeAccessIssue]
