"""The caller could not be heard: doubt goes to the model with the words, and what was not understood is asked again.

Place between barge-in (behind the keypad) and the user aggregator, with an `UnheardTurnStopStrategy` among the
aggregator's stop strategies and its `empty_user_turn` None. Words that the recogniser is sure of pass untouched and
at once. Doubtful ones pass with a note in front of them; unclear ones do not pass. A turn of which nothing was
understood is closed here, and the caller is asked by a fixed line: the model is not.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ControlFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMContextUserTurnFrame,
    LLMMessagesAppendFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.turns.types import ProcessFrameResult
from pipecat.turns.user_stop import BaseUserTurnStopStrategy

from processors.confidence import MISSED_NOTE, Thresholds, Trust, doubts, judge, read_result
from processors.frames import CallerStoppedFrame, TranscriptFlushedFrame, WordsDelayedFrame
from processors.language import Language
from processors.repair_lines import lines_of
from processors.repair_policy import RepairParams, RepairPolicy, Unheard

ASK_LIMIT_S = 5.0
"""A line that cannot be started for this long is given up."""


class RepairListener(Protocol):
    """Told of turns that could not be heard."""

    def failed_turn(self, count: int) -> bool:
        """The caller could not be heard, for the `count`-th time in a row; returns whether to ask them again."""
        ...

    def heard(self, trust: Trust) -> None:
        """Words of the caller's were understood, well or with doubt."""
        ...


@dataclass
class UnheardTurnFrame(ControlFrame):
    """The caller has stopped, and nothing they said was understood: their turn is to be closed.

    No system frame, for it must not overtake words; and an interruption does not drop it.
    """

    interruptible: bool = field(init=False, default=False)


class UnheardTurnStopStrategy(BaseUserTurnStopStrategy):
    """Ends the turn when an `UnheardTurnFrame` comes. Beside the strategy that ends turns with words."""

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """End the turn, or leave it to the others."""
        if isinstance(frame, UnheardTurnFrame):
            await self.trigger_user_turn_stopped()
        return ProcessFrameResult.CONTINUE


class RepairProcessor(FrameProcessor):
    """The shell of `RepairPolicy`.

    In direct mode: frames come from several tasks and leave at once, in order; one task knows the time.
    """

    def __init__(
        self,
        language: Language,
        *,
        ask: Callable[[str], Awaitable[object]],
        thresholds: Thresholds | None = None,
        params: RepairParams | None = None,
        listener: RepairListener | None = None,
    ) -> None:
        """Create the processor.

        Args:
            language: What is known about the caller's language.
            ask: Speaks a fixed line; may take its time, and may fail.
            thresholds: Which words count as understood.
            params: How long to wait for words.
            listener: Told of failed turns.
        """
        super().__init__(enable_direct_mode=True)
        self._language = language
        self._ask = ask
        self._thresholds = thresholds or Thresholds()
        self._listener = listener
        self._lines = lines_of(language.tag)
        self._policy = RepairPolicy(self._lines, params)
        self._changed = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def failed_turns(self) -> int:
        """Turns in a row that could not be heard."""
        return self._policy.failed_turns

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Start the task that knows the time."""
        await super().setup(setup)
        self._clock = self.create_task(self._run(), "repair")

    async def cleanup(self) -> None:
        """Stop waiting and asking; called once when the call ends, however it ends."""
        clock, self._clock = self._clock, None
        if clock is not None:
            await self.cancel_task(clock)
        await self._stop_asking()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Judge final words, follow sound and turns, pass everything that was understood."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame) and frame.text.strip():
            await self._take_words(frame, direction)
        else:
            self._follow(frame, self._now_s())
            await self.push_frame(frame, direction)
        self._changed.set()

    # Words

    async def _take_words(self, frame: TranscriptionFrame, direction: FrameDirection) -> None:
        heard = read_result(frame.text, frame.result)
        trust = judge(heard, self._thresholds, self._language)
        is_missing_some = self._policy.words(trust, self._now_s())
        if frame.finalized:
            self._policy.flushed()
        if is_missing_some:
            await self._tell(MISSED_NOTE, frame)
        if trust is Trust.UNHEARD:
            logger.debug("{} unclear words, confidence {:.2f}", self, heard.confidence or 0.0)
            return
        if self._listener:
            self._listener.heard(trust)
        note = doubts(heard, self._thresholds, self._language, self._lines.did_i_hear)
        if note is not None:
            await self._tell(note, frame)
        await self.push_frame(frame, direction)

    async def _tell(self, note: str, words: TranscriptionFrame) -> None:
        """Put a note into the context: at once, and so in front of the words, which go there when the turn ends."""
        frame = LLMMessagesAppendFrame(messages=[{"role": "developer", "content": note}], run_llm=False)
        frame.interruptible = words.interruptible
        await self.push_frame(frame)

    # Sound and turns

    def _follow(self, frame: Frame, now_s: float) -> None:
        policy = self._policy
        if isinstance(frame, VADUserStartedSpeakingFrame):
            policy.sound_started(now_s - frame.start_secs)
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            is_dated = isinstance(frame, CallerStoppedFrame)
            policy.sound_ended(frame.at_s if is_dated else now_s - frame.stop_secs, now_s)
        elif isinstance(frame, TranscriptFlushedFrame):
            policy.flushed()
        elif isinstance(frame, WordsDelayedFrame):
            policy.delayed(frame.until_s, now_s)
        elif isinstance(frame, UserStartedSpeakingFrame):
            policy.turn_started(now_s)
        elif isinstance(frame, UserStoppedSpeakingFrame):
            policy.turn_ended(now_s)
        else:
            self._follow_agent(frame, now_s)

    def _follow_agent(self, frame: Frame, now_s: float) -> None:
        policy = self._policy
        if isinstance(frame, BotStartedSpeakingFrame):
            policy.agent_started()
        elif isinstance(frame, BotStoppedSpeakingFrame):
            policy.agent_stopped()
        elif isinstance(frame, InterruptionFrame):
            policy.interrupted(now_s)
        elif isinstance(
            frame, LLMContextUserTurnFrame | FunctionCallInProgressFrame | FunctionCallResultFrame
        ):
            policy.reply_expected(now_s)

    # Time

    async def _run(self) -> None:
        while True:
            due_s = self._policy.due_s()
            try:
                async with asyncio.timeout(None if due_s is None else max(0.0, due_s - self._now_s())):
                    await self._changed.wait()
                self._changed.clear()
            except TimeoutError:
                unheard = self._policy.decide(self._now_s())
                if unheard is not None:
                    await self._close_turn(unheard)

    async def _close_turn(self, unheard: Unheard) -> None:
        await self.push_frame(UnheardTurnFrame())
        if unheard.line is None:
            return
        await self._stop_asking()
        if self._listener and not self._listener.failed_turn(self._policy.failed_turns):
            return
        self._asking = self.create_task(self._ask_for(unheard.line), "repair_ask")

    async def _ask_for(self, line: str) -> None:
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                await self._ask(line)
        except Exception as error:  # noqa: BLE001 - a caller who is not asked speaks again by themselves
            logger.error("{} could not ask the caller again: {}", self, error)

    async def _stop_asking(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            await self.cancel_task(asking)

    def _now_s(self) -> float:
        return self.get_event_loop().time()
