"""When is it our turn, with a recogniser that proposes it? Stands where `end_of_turn` stands when Flux listens.

In the user aggregator. Flux's predicted end of a turn starts an inference ahead; its end of a turn ends ours, unless
the caller is heard again by then or the words promise more (a number that is not whole), which Flux cannot know.
`FluxTurnTable` decides: no clock, no I/O. Its answers mean what they mean in `end_of_turn_table`.

    OPEN --end proposed--> PROPOSED --quiet for as long as the words want--> (END)
    PROPOSED --Flux: turn begins | words--> OPEN

Speculation runs beside it: NONE --end predicted--> RUNNING --caller speaks | other words | END--> NONE.
"""

import asyncio
from collections.abc import Callable, Sequence

from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    Frame,
    InterimTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.turns.types import ProcessFrameResult

from processors.end_of_turn_table import Action, End, Speculate, Withdraw, normalised
from processors.frames import CallerResumedFrame, TranscriptFlushedFrame, WordsDelayedFrame
from processors.turn_speculation import HeardContext, SpeculatingStopStrategy, SpeculationBudget

SOUND_LIMIT_S = 1.0
"""A sound without words holds an end that Flux has proposed for no longer than this."""


class FluxTurnTable:
    """One call's turns, one after the other. Times are seconds of one clock."""

    def __init__(self, hold_s: Callable[[str], float]) -> None:
        """Start before the first turn.

        Args:
            hold_s: Returns how much longer than Flux to wait for more, given the words of the turn.
        """
        self._hold_s = hold_s
        self.speculated: str | None = None
        """The text that is being answered ahead."""
        self._finals: list[str] = []
        self._is_begun = False
        self._is_hearing = False
        self._is_sounding = False
        self._quiet_since_s = 0.0
        self._proposed_s: float | None = None
        self._held_until_s: float | None = None

    @property
    def text(self) -> str:
        """Words of this turn that are final."""
        return " ".join(self._finals)

    @property
    def due_s(self) -> float | None:
        """When `tick` will end the turn if nothing happens, None if it will not."""
        if self._proposed_s is None:
            return None
        hold_s = self._hold_s(self.text)
        if self._is_sounding:
            due_s = self._proposed_s + hold_s + SOUND_LIMIT_S
        else:  # A sound after the proposal was held for; before it, the silence since then is Flux's affair.
            due_s = max(self._proposed_s, self._quiet_since_s) + hold_s
        return due_s if self._held_until_s is None else max(due_s, self._held_until_s)

    def begin(self) -> None:
        """A turn begins."""
        self._finals.clear()
        self.speculated = self._proposed_s = None
        self._is_begun = True

    def over(self) -> list[Action]:
        """The turn has ended, whoever ended it."""
        actions = self._withdraw()
        self.begin()
        self._is_begun = False
        return actions

    # What happens

    def hears(self) -> list[Action]:
        """Flux: the caller's turn begins, which may be more of ours."""
        self._is_hearing = True
        self._proposed_s = None
        return self._withdraw()

    def interim(self, text: str) -> list[Action]:
        """Flux: words so far of what it takes for a turn."""
        if not text.strip():
            return []
        self._is_hearing = True
        self._proposed_s = None
        return self._withdraw_unless(self._with(text))

    def predicted(self, text: str, *, may_speculate: bool) -> list[Action]:
        """Flux: the turn is likely over; nobody's turn is answered before it has begun."""
        whole = self._with(text)
        if not self._is_begun or not whole or self._hold_s(whole) > 0:
            return []
        actions = self._withdraw_unless(whole)
        if self.speculated is None and may_speculate:
            self.speculated = whole
            actions.append(Speculate(whole))
        return actions

    def final(self, text: str) -> list[Action]:
        """Flux: the words of its turn."""
        if text.strip():
            self._finals.append(text.strip())
        return self._withdraw_unless(self.text)

    def proposed(self, now_s: float) -> list[Action]:
        """Flux: the turn is over."""
        self._is_hearing = False
        self._proposed_s = now_s
        return self.tick(now_s)

    def typed(self, text: str, now_s: float) -> list[Action]:
        """A whole entry came by the keypad: it ends the turn, but for words that are on their way."""
        self._finals.append(text.strip())
        actions = self._withdraw()
        return actions if self._is_hearing else [*actions, *self._end()]

    def sounded(self) -> list[Action]:
        """The caller is heard to speak."""
        self._is_sounding = True
        return self._withdraw()

    def quiet(self, now_s: float) -> list[Action]:
        """The caller is quiet."""
        self._is_sounding = False
        self._quiet_since_s = now_s
        return self.tick(now_s)

    def flushed(self) -> list[Action]:
        """Flux has no words for the sound so far: a turn that a mere noise began is over."""
        is_waiting = self._held_until_s is not None
        is_empty = not (self._is_hearing or self._is_sounding or self._finals or is_waiting)
        return self._end() if is_empty else []

    def delayed(self, until_s: float | None, now_s: float) -> list[Action]:
        """Words are late, and waited for until then; None: they are there."""
        self._held_until_s = until_s
        return self.tick(now_s)

    def resumed(self) -> list[Action]:
        """The caller went on after a moment of quiet."""
        return self._withdraw()

    def tick(self, now_s: float) -> list[Action]:
        """Time has passed."""
        due_s = self.due_s
        return self._end() if due_s is not None and now_s >= due_s - 1e-6 else []

    # Inside

    def _with(self, text: str) -> str:
        return " ".join([*self._finals, text.strip()]).strip()

    def _withdraw(self) -> list[Action]:
        if self.speculated is None:
            return []
        self.speculated = None
        return [Withdraw()]

    def _withdraw_unless(self, text: str) -> list[Action]:
        is_same = self.speculated is not None and normalised(self.speculated) == normalised(text)
        return [] if is_same else self._withdraw()

    def _end(self) -> list[Action]:
        actions = self._withdraw_unless(self.text)
        was_begun, confirms = self._is_begun, self.speculated is not None
        self.begin()
        self._is_begun = False
        return [*actions, End(confirms)] if was_begun else actions


class FluxEndOfTurnStrategy(SpeculatingStopStrategy):
    """Shell of `FluxTurnTable`: one timer."""

    def __init__(
        self,
        *,
        hold_s: Callable[[str], float] = lambda _: 0.0,
        account: SpeculationBudget | None = None,
        heard: HeardContext | None = None,
    ) -> None:
        """Create the strategy.

        Args:
            hold_s: Returns how much longer than Flux to wait for more, in seconds, given the words of the turn.
            account: Of thinking ahead; None never does.
            heard: What the caller heard of the agent; an answer is not thought of before it is in the context.
        """
        super().__init__(account=account, heard=heard)
        self._table = FluxTurnTable(hold_s)
        self._timer: asyncio.Task[None] | None = None

    @property
    def resolves_proposed_turn_stop_frames(self) -> bool:
        """Whether proposals end here: they do."""
        return True

    async def process_frame(self, frame: Frame) -> ProcessFrameResult:
        """Follow what Flux proposes and the caller's voice."""
        actions = self._take(frame)
        if actions is not None:
            await self._act(actions)
        return ProcessFrameResult.CONTINUE

    async def handle_user_turn_started(self) -> None:
        """A turn begins."""
        await super().handle_user_turn_started()
        self._table.begin()

    async def handle_user_turn_stopped(self) -> None:
        """The turn is over, whoever ended it."""
        await super().handle_user_turn_stopped()
        await self._stop_timer()
        if self._table.over():
            await self.withdraw()

    def forget_speculation(self) -> bool:
        """Think no more ahead of this turn."""
        return bool(self._table.resumed())

    async def cleanup(self) -> None:
        """The call is over."""
        await self._stop_timer()
        await super().cleanup()

    def _take(self, frame: Frame) -> list[Action] | None:
        now_s, table = asyncio.get_running_loop().time(), self._table
        match frame:
            case ProposedUserStartedSpeakingFrame():
                return table.hears()
            case ProposedUserStoppedSpeakingFrame():
                return table.proposed(now_s)
            case InterimTranscriptionFrame():
                return table.interim(frame.text)
            case EagerTranscriptionFrame():
                return table.predicted(frame.text, may_speculate=self.may_speculate)
            case TranscriptionFrame() if frame.finalized and frame.result is None:
                return table.typed(frame.text, now_s)
            case TranscriptionFrame():
                return table.final(frame.text)
            case VADUserStartedSpeakingFrame():
                return table.sounded()
            case VADUserStoppedSpeakingFrame():
                return table.quiet(now_s)
            case TranscriptFlushedFrame():
                return table.flushed()
            case WordsDelayedFrame():
                return table.delayed(frame.until_s, now_s)
            case CallerResumedFrame():
                return table.resumed()
            case _:
                return None

    async def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            await self.carry_out(action)
        await self._arm()

    async def _arm(self) -> None:
        await self._stop_timer()
        due_s = self._table.due_s
        if due_s is not None:
            self._timer = self.task_manager.create_task(self._wait(due_s), f"{self}::hold")

    async def _wait(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(due_s - loop.time(), 0.0))
        await self._act(self._table.tick(max(loop.time(), due_s)))

    async def _stop_timer(self) -> None:
        # Its task may be the one that ends the turn.
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            await self.task_manager.cancel_task(timer)
