"""What both end-of-turn strategies do when their tables speak: think ahead, withdraw it, end the turn.

What is thought ahead is Pipecat's own speculation (`UserTurnSpeculation`): a provisional context, one inference when
the final text matches. Its answer is held by `processors.speculation`. It is not begun before what the caller heard of
an interrupted reply stands in the context: an answer that is confirmed is never asked for again.
"""

import asyncio
from typing import Protocol

from pipecat.turns.types import UserTurnSpeculation
from pipecat.turns.user_stop import BaseUserTurnStopStrategy

from processors.end_of_turn_table import Action, Speculate, Withdraw

SETTLE_LIMIT_S = 0.25
"""Time for what the caller heard of an interrupted reply to reach the context, before an answer is thought of."""
SPECULATION_LIMIT_S = 5.0
"""A turn thought ahead for and not ended by then is not likely over."""


class SpeculationBudget(Protocol):
    """Decides whether thinking ahead is wanted and paid for."""

    def may_start(self) -> bool:
        """Whether it is."""
        ...


class HeardContext(Protocol):
    """What the caller heard of the agent, on its way to the model's context."""

    @property
    def is_settled(self) -> bool:
        """Whether all of it is there."""
        ...

    async def wait_until_settled(self, timeout_s: float) -> None:
        """Wait until it is, no longer than `timeout_s` seconds."""
        ...


class SpeculatingStopStrategy(BaseUserTurnStopStrategy):
    """Carries out a table's actions.

    NONE --Speculate--> WAITING until the context is whole --> RUNNING
    WAITING --End--> ended without an answer ahead            RUNNING --End--> confirmed
    WAITING, RUNNING --Withdraw | `SPECULATION_LIMIT_S`--> NONE
    """

    def __init__(
        self, *, account: SpeculationBudget | None = None, heard: HeardContext | None = None
    ) -> None:
        """Create the strategy.

        Args:
            account: Of thinking ahead; None never does.
            heard: What the caller heard of the agent; an answer is not thought of before it is in the context.
        """
        super().__init__()
        self._account = account
        self._heard = heard
        self._waiting: asyncio.Task[None] | None = None
        """Waits to begin an answer ahead."""
        self._limit: asyncio.TimerHandle | None = None

    @property
    def may_speculate(self) -> bool:
        """Whether thinking ahead is wanted and paid for."""
        return self._account is not None and self._account.may_start()

    def forget_speculation(self) -> bool:
        """Tell the table that its turn was not likely over; return whether it had an answer thought of."""
        raise NotImplementedError

    async def carry_out(self, action: Action) -> None:
        """Do what the table wants."""
        if isinstance(action, Speculate):
            await self._speculate(action.text)
        elif isinstance(action, Withdraw):
            await self.withdraw()
        elif action.confirms and not self._stop_waiting():
            self._stop_limit()
            await self.trigger_user_turn_finalized(confirms_speculation=True)
        else:
            self._stop_limit()
            await self.trigger_user_turn_stopped()

    async def withdraw(self) -> None:
        """Drop what is thought ahead."""
        self._stop_limit()
        if not self._stop_waiting():
            await self.trigger_user_turn_speculation_cancelled()

    async def cleanup(self) -> None:
        """The call is over."""
        self._stop_waiting()
        self._stop_limit()
        await super().cleanup()

    # Inside

    async def _speculate(self, text: str) -> None:
        self._stop_limit()
        self._stop_waiting()
        self._limit = asyncio.get_running_loop().call_later(SPECULATION_LIMIT_S, self._too_long)
        speculation = UserTurnSpeculation(text=text)
        if self._heard is None or self._heard.is_settled:
            await self.trigger_user_turn_inference_triggered(speculation=speculation)
        else:
            waiting = self._speculate_later(self._heard, speculation)
            self._waiting = self.task_manager.create_task(waiting, f"{self}::speculate")

    async def _speculate_later(self, heard: HeardContext, speculation: UserTurnSpeculation) -> None:
        await heard.wait_until_settled(SETTLE_LIMIT_S)
        self._waiting = None  # from here on it has begun
        await self.trigger_user_turn_inference_triggered(speculation=speculation)

    def _stop_waiting(self) -> bool:
        """Forget an answer that has not been begun; tell whether there was one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        return waiting is not None

    def _too_long(self) -> None:
        self._limit = None
        if self.forget_speculation():
            self.task_manager.create_task(self.withdraw(), f"{self}::withdraw")

    def _stop_limit(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
