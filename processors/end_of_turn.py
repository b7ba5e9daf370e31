"""When is it our turn? Pipecat's stop strategy around `TurnEndTable`: silence, text, turn model, and thinking ahead.

In the user aggregator. Ends the turn, starts an inference before its end when the caller has likely finished, and
withdraws it when they go on. Never waits inside the aggregator's frame loop: the turn model is asked in a task.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult

from processors.end_of_turn_table import (
    Judge,
    Patience,
    TurnAction,
    TurnEndTable,
    TurnLanguage,
    Withdraw,
)
from processors.frames import (
    CallerPausedFrame,
    CallerResumedFrame,
    CallerStoppedFrame,
    TranscriptFlushedFrame,
    WordsDelayedFrame,
)
from processors.turn_speculation import HeardContext, SpeculatingStopStrategy, SpeculationBudget


class TurnModel(Protocol):
    """Says how finished the caller sounds. Each answer costs 25 ms of CPU and more."""

    async def turn_verdict(self) -> float | None:
        """Return the probability that the turn is over, None if that is not known in time."""
        ...

    def end_turn(self) -> None:
        """Forget the caller's audio so far: the next turn is judged by itself."""
        ...


class EndOfTurnStrategy(SpeculatingStopStrategy):
    """Shell of `TurnEndTable`: one timer, one question to the turn model at a time."""

    def __init__(
        self,
        model: TurnModel,
        language: TurnLanguage,
        *,
        patience: Callable[[], Patience],
        agent_text: Callable[[], str] | None = None,
        account: SpeculationBudget | None = None,
        heard: HeardContext | None = None,
    ) -> None:
        """Create the strategy.

        Args:
            model: The turn model, with the caller's audio.
            language: The caller's.
            patience: Returns the silences that end the turn that begins now.
            agent_text: Returns what the agent said last.
            account: Of thinking ahead; None never does.
            heard: What the caller heard of the agent; an answer is not thought of before it is in the context.
        """
        super().__init__(account=account, heard=heard)
        self._model = model
        self._patience = patience
        self._table = TurnEndTable(language, patience())
        self._agent_text = agent_text
        self._timer: asyncio.Task[None] | None = None
        self._timer_due_s = 0.0
        self._question: asyncio.Task[None] | None = None

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Follow the caller's speech and text."""
        now_s = asyncio.get_running_loop().time()
        table = self._table
        table.may_speculate = self.may_speculate
        actions: list[TurnAction] = []
        if isinstance(frame, VADUserStartedSpeakingFrame | CallerResumedFrame):
            self._stop_question()
            actions = table.started(now_s)
        elif isinstance(frame, CallerPausedFrame):
            actions = table.paused(frame.at_s, now_s)
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            at_s = frame.at_s if isinstance(frame, CallerStoppedFrame) else now_s - frame.stop_secs
            actions = table.stopped(at_s, now_s)
        elif isinstance(frame, TranscriptionFrame):
            is_typed = frame.finalized and frame.result is None
            actions = (
                table.typed(frame.text, now_s)
                if is_typed
                else table.transcript(frame.text, final=True, now_s=now_s)
            )
        elif isinstance(frame, InterimTranscriptionFrame):
            actions = table.transcript(frame.text, final=False, now_s=now_s)
        elif isinstance(frame, TranscriptFlushedFrame):
            actions = table.flushed(now_s)
        elif isinstance(frame, WordsDelayedFrame):
            actions = table.delayed(frame.until_s, now_s)
        else:
            return ProcessFrameResult.CONTINUE
        await self._act(actions)
        return ProcessFrameResult.CONTINUE

    async def handle_user_turn_started(self) -> None:
        """A turn begins."""
        await super().handle_user_turn_started()
        self._table.begin()
        self._table.patience = self._patience()
        if self._agent_text is not None:
            self._table.asked(self._agent_text())

    async def handle_user_turn_stopped(self) -> None:
        """The turn is over, whoever ended it."""
        await super().handle_user_turn_stopped()
        was_ours = not self._table.text and self._table.speculated is None
        actions: Sequence[TurnAction] = () if was_ours else self._table.ended()
        self._stop_question()
        self._model.end_turn()
        if any(isinstance(action, Withdraw) for action in actions):
            await self.withdraw()
        await self._stop_timer()

    def forget_speculation(self) -> bool:
        """Think no more ahead in this turn."""
        return self._table.given_up()

    async def cleanup(self) -> None:
        """The call is over."""
        self._stop_question()
        await self._stop_timer()
        await super().cleanup()

    # Inside

    async def _act(self, actions: Sequence[TurnAction]) -> None:
        for action in actions:
            if isinstance(action, Judge):
                self._ask()
            else:
                await self.carry_out(action)
        await self._arm()

    # The turn model

    def _ask(self) -> None:
        self._stop_question()
        self._question = self.task_manager.create_task(self._judge(), f"{self}::turn_model")

    async def _judge(self) -> None:
        try:
            probability = await self._model.turn_verdict()
        except Exception as error:  # noqa: BLE001 - without the model, silence decides
            logger.error("{} turn model failed: {}", self, error)
            probability = None
        await self._act(self._table.judged(probability, asyncio.get_running_loop().time()))

    def _stop_question(self) -> None:
        # Its task may be the one that ends the turn.
        question, self._question = self._question, None
        if question is not None and question is not asyncio.current_task():
            question.cancel()

    # The timer

    async def _arm(self) -> None:
        due_s = self._table.next_due_s()
        if due_s is None:
            await self._stop_timer()
        elif self._timer is None or self._timer.done() or due_s != self._timer_due_s:
            await self._stop_timer()
            self._timer_due_s = due_s
            self._timer = self.task_manager.create_task(self._wait(due_s), f"{self}::silence")

    async def _wait(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(due_s - loop.time(), 0.0))
        await self._act(self._table.tick(loop.time()))

    async def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            await self.task_manager.cancel_task(timer)
