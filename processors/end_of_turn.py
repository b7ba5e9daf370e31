"""When is it our turn? Pipecat's turn-model strategy, with silence as the fallback and no needless wait for text.

The model's verdict comes from `EarlyTurnAnalyzer`. Says it "finished", the turn ends as soon as the text is whole.
Otherwise silence decides: `max_pause_s` of it when the text reads like a whole sentence or the model knows nothing,
`utterance_end_s` when neither sound nor text are finished.
"""

import asyncio
import contextlib

from pipecat.frames.frames import (
    Frame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
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
            max_pause_s: Silence that ends a turn whose text reads finished, or that the model knows nothing about.
            utterance_end_s: Silence that ends any turn.

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
        self._new_text = asyncio.Event()

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Follow the caller's speech and text; see `TurnAnalyzerUserTurnStopStrategy`."""
        now_s = asyncio.get_running_loop().time()  # before the verdict, which takes its time
        if isinstance(frame, VADUserStartedSpeakingFrame):
            await self._stop_silence()
        result = await super().process_frame(frame)
        if isinstance(frame, VADUserStoppedSpeakingFrame) and not self._turn_complete:
            await self._start_silence(now_s - frame.stop_secs)
        elif isinstance(frame, TranscriptionFrame) and self._silence is not None:
            self._new_text.set()
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

    async def _start_silence(self, began_s: float) -> None:
        await self._stop_silence()
        self._new_text.clear()
        self._silence = self.task_manager.create_task(self._end_by_silence(began_s), f"{self}::silence")

    async def _stop_silence(self) -> None:
        silence, self._silence = self._silence, None
        if silence is not None and silence is not asyncio.current_task():
            await self.task_manager.cancel_task(silence)

    async def _end_by_silence(self, began_s: float) -> None:
        now_s = asyncio.get_running_loop().time
        while (wait_s := began_s + self._allowed_silence_s() - now_s()) > 0:
            # The last words may come while we wait, and make the sentence whole.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._new_text.wait()
            self._new_text.clear()
        self._turn_complete = True
        await self._maybe_trigger_user_turn_stopped()

    def _allowed_silence_s(self) -> float:
        reads_finished = self._text.rstrip().endswith((".", "?", "!"))
        return self._max_pause_s if reads_finished or not self._analyzer.is_known else self._utterance_end_s
