"""When is it our turn? Pipecat's turn-model strategy, with silence as the fallback and no needless wait for text.

The model's verdict comes from `EarlyTurnAnalyzer`. Says it "finished", the turn ends as soon as the text is whole.
Says it "not finished", the turn ends after `utterance_end_s` of silence; says it nothing, after `max_pause_s`.
"""

import asyncio

from pipecat.frames.frames import Frame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy

from processors.caller_audio import EarlyTurnAnalyzer
from processors.frames import TranscriptFlushedFrame


class EndOfTurnStrategy(TurnAnalyzerUserTurnStopStrategy):
    """Turn model plus silence."""

    def __init__(
        self, analyzer: EarlyTurnAnalyzer, *, max_pause_s: float = 0.5, utterance_end_s: float = 1.0
    ) -> None:
        """Create the strategy.

        Args:
            analyzer: The model's verdict.
            max_pause_s: Silence that ends a turn the model knows nothing about.
            utterance_end_s: Silence that ends a turn the model thinks unfinished.

        Raises:
            ValueError: If the two are not in order.
        """
        if not 0 < max_pause_s <= utterance_end_s:
            raise ValueError(f"need 0 < max_pause_s <= utterance_end_s, got {max_pause_s}, {utterance_end_s}")
        super().__init__(turn_analyzer=analyzer)
        self._analyzer = analyzer
        self._max_pause_s = max_pause_s
        self._utterance_end_s = utterance_end_s
        self._silence: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Follow the caller's speech and text; see `TurnAnalyzerUserTurnStopStrategy`."""
        if isinstance(frame, VADUserStartedSpeakingFrame):
            await self._stop_silence()
        result = await super().process_frame(frame)
        if isinstance(frame, VADUserStoppedSpeakingFrame) and not self._turn_complete:
            await self._start_silence(frame.stop_secs)
        elif isinstance(frame, TranscriptFlushedFrame) and self._text:
            self._transcript_finalized = True
            await self._maybe_trigger_user_turn_stopped()
        return result

    async def handle_user_turn_stopped(self) -> None:
        """Stop waiting: the turn is over."""
        await self._stop_silence()
        await super().handle_user_turn_stopped()

    async def cleanup(self) -> None:
        """Stop waiting: the call is over."""
        await self._stop_silence()
        await super().cleanup()

    async def _start_silence(self, silent_s: float) -> None:
        await self._stop_silence()
        limit_s = self._utterance_end_s if self._analyzer.is_known else self._max_pause_s
        wait_s = max(0.0, limit_s - silent_s)
        self._silence = self.task_manager.create_task(self._end_after(wait_s), f"{self}::silence")

    async def _stop_silence(self) -> None:
        silence, self._silence = self._silence, None
        if silence is not None and silence is not asyncio.current_task():
            await self.task_manager.cancel_task(silence)

    async def _end_after(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        self._turn_complete = True
        await self._maybe_trigger_user_turn_stopped()
