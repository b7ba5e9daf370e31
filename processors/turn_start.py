"""When does the caller's turn begin? With a voice, with words, or when the recogniser says so.

In the user aggregator, behind `barge_in`: what comes here is speech that counts. Whether it may stop the agent is
asked at that moment, for some lines play to their end.
"""

from collections.abc import Callable

from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_start import BaseUserTurnStartStrategy

_BEGINS = (
    VADUserStartedSpeakingFrame
    | ProposedUserStartedSpeakingFrame
    | TranscriptionFrame
    | InterimTranscriptionFrame
)


class CallerTurnStartStrategy(BaseUserTurnStartStrategy):
    """Begins turns, and asks before it interrupts the agent."""

    def __init__(self, may_interrupt: Callable[[], bool]) -> None:
        """Create the strategy.

        Args:
            may_interrupt: Whether the agent may be stopped now.
        """
        super().__init__()
        self._may_interrupt = may_interrupt

    @property
    def resolves_proposed_turn_start_frames(self) -> bool:
        """A proposal ends here."""
        return True

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Begin a turn; the controller takes no notice while one is open."""
        if isinstance(frame, _BEGINS):
            await self.trigger_user_turn_started(enable_interruptions=self._may_interrupt())
            return ProcessFrameResult.STOP
        return ProcessFrameResult.CONTINUE
