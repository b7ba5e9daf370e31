"""Thinking ahead: the model and the voice answer a turn that has likely ended, and nobody hears it before it has.

Three parts around Pipecat's speculation, which holds the model's text only: `PassingGate` lets the text go on to the
voice; `SpeculationGateProcessor` stands directly before the playout and holds what the voice made of it; and
`SpeculationAccount` counts what was thought ahead for nothing, and stops it when that costs too much. Tools never run
ahead: `SpeculativeLLM` keeps a call until the turn is confirmed.

    OPEN --reply to a turn that is not over--> HOLDING --turn over--> OPEN, what was held goes on
    HOLDING --withdrawn | interruption--> OPEN, what was held is dropped
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    EndFrame,
    Frame,
    FunctionCallFromLLM,
    InterruptionFrame,
    LLMContextUserTurnFrame,
    LLMFullResponseStartFrame,
    SystemFrame,
    TTSAudioRawFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.turns.speculation_gate import GatedFrame, SpeculationGate

from processors.frames import CachedSpeechFrame, SpeculationStartedFrame
from processors.late_frames import DropsLateFrames

if TYPE_CHECKING:
    from pipecat.services.llm_service import LLMService
    from pipecat.services.tts_service import TTSService

MAX_HELD_FRAMES = 4096
"""About a minute of speech; a reply is far shorter."""


# The account


@dataclass(frozen=True)
class Prices:
    """What thinking ahead costs, in US dollars."""

    per_input_token: float = 0.0
    per_output_token: float = 0.0
    per_character: float = 0.0
    """Of text given to the voice."""


@dataclass(frozen=True)
class Waste:
    """What was paid for and never heard."""

    input_tokens: int = 0
    """Those from a prompt cache too."""
    output_tokens: int = 0
    characters: int = 0

    def __add__(self, other: "Waste") -> "Waste":
        return Waste(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.characters + other.characters,
        )

    def cost_usd(self, prices: Prices) -> float:
        """Return what it cost, in US dollars."""
        return (
            self.input_tokens * prices.per_input_token
            + self.output_tokens * prices.per_output_token
            + self.characters * prices.per_character
        )


class SpeculationAccount:
    """One call's: how often thinking ahead was right, and what it cost when it was not. Pure."""

    def __init__(self, *, budget_usd: float, prices: Prices, is_enabled: bool = True) -> None:
        """Open the account.

        Args:
            budget_usd: What may be wasted in one call; beyond it nothing is thought ahead any more.
            prices: Of the model and the voice, unless what is spent is told with its own.
            is_enabled: The off switch.
        """
        self._budget_usd = budget_usd
        self._prices = prices
        self._is_enabled = is_enabled
        self._open: Waste | None = None
        self._open_usd = 0.0
        self._is_late = False
        self.started = 0
        self.confirmed = 0
        self.withdrawn = 0
        self.wasted = Waste()
        self.cost_usd = 0.0
        """What was wasted so far, in US dollars."""

    def may_start(self) -> bool:
        """Whether thinking ahead is wanted and paid for."""
        return self._is_enabled and self.cost_usd < self._budget_usd

    def begin(self) -> None:
        """A reply is begun ahead."""
        self.started += 1
        self._open, self._open_usd, self._is_late = Waste(), 0.0, False

    def spent(self, waste: Waste, prices: Prices | None = None) -> None:
        """Something was paid for; it counts as wasted when it was, or later turns out to be, for nothing.

        Args:
            waste: What.
            prices: Of the model that was asked, when a call has several.
        """
        usd = waste.cost_usd(prices or self._prices)
        if self._open is not None:
            self._open += waste
            self._open_usd += usd
        elif self._is_late:  # a cancelled stream tells its tokens when it is over
            self.wasted += waste
            self.cost_usd += usd

    def confirm(self) -> None:
        """The turn was over: the reply is heard."""
        if self._open is not None:
            self.confirmed += 1
            self._open = None

    def withdraw(self) -> None:
        """The turn was not over."""
        if self._open is not None:
            self.withdrawn += 1
            self.wasted += self._open
            self.cost_usd += self._open_usd
            self._open, self._is_late = None, True

    def ordinary(self) -> None:
        """A reply to a turn that is over is begun: what is paid for from now on is not wasted."""
        self._is_late = False


# The model's side


class PassingGate(SpeculationGate):
    """Pipecat's gate in a model's service, told all and holding nothing: it knows whether a turn is confirmed."""

    def process(self, frame: Frame, direction: FrameDirection) -> list[GatedFrame]:
        """Take note of a frame that the service pushes, and let it go."""
        if direction is FrameDirection.DOWNSTREAM:
            if isinstance(frame, EagerEndOfTurnCancelFrame | InterruptionFrame):
                self._speculating = False
            elif isinstance(frame, UserStoppedSpeakingFrame):
                self._turn_ended, self._speculating = True, False
            elif isinstance(frame, UserStartedSpeakingFrame):
                self._turn_ended = False
        return [(frame, direction)]


class SpeculativeLLM(DropsLateFrames):
    """Lets a model's answer go on to the voice before the turn is over; keeps its tool call until it is.

    Mix in before an `LLMService`: `class Model(SpeculativeLLM, AnthropicLLMService)`.
    """

    _account: SpeculationAccount | None = None
    _conversation: LLMContext | None = None
    _held_calls: Sequence[FunctionCallFromLLM] = ()

    def think_ahead(self, account: SpeculationAccount, conversation: LLMContext) -> None:
        """Join the call's account.

        Args:
            account: Counts what is spent.
            conversation: The call's real context; a call made ahead was made on a copy.
        """
        self._account = account
        self._conversation = conversation
        service = cast("LLMService[Any]", self)
        service._speculation_gate = PassingGate(name=f"{service}::PassingGate")

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Announce a reply that is made ahead."""
        if isinstance(frame, LLMFullResponseStartFrame) and self._account is not None:
            if self._is_speculating:
                self._account.begin()
                await super().push_frame(SpeculationStartedFrame())  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into
            else:
                self._account.ordinary()
        await super().push_frame(frame, direction)  # pyright: ignore[reportAttributeAccessIssue]

    async def run_function_calls(self, function_calls: Sequence[FunctionCallFromLLM]) -> None:
        """Run tools, or keep them until the turn is confirmed."""
        if function_calls and self._account is not None and self._is_speculating:
            self._held_calls = tuple(function_calls)
            return
        await super().run_function_calls(function_calls)  # pyright: ignore[reportAttributeAccessIssue]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Follow the turn: what was kept runs when the caller's words are in the context, or is forgotten."""
        if isinstance(frame, EagerEndOfTurnCancelFrame | InterruptionFrame):
            self._held_calls = ()
        if isinstance(frame, EagerEndOfTurnCancelFrame) and direction is FrameDirection.DOWNSTREAM:
            # Pipecat stops an inference that runs; one that waits in the queue must not begin either.
            await cast("LLMService[Any]", self)._start_interruption()
        await super().process_frame(frame, direction)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(frame, LLMContextUserTurnFrame) and direction is FrameDirection.DOWNSTREAM:
            calls, self._held_calls = self._held_calls, ()
            if calls and self._conversation is not None:
                real = [replace(call, context=self._conversation) for call in calls]
                await super().run_function_calls(real)  # pyright: ignore[reportAttributeAccessIssue]

    async def start_llm_usage_metrics(self, tokens: LLMTokenUsage) -> None:
        """Count what an inference cost."""
        if self._account is not None:
            cached = (tokens.cache_creation_input_tokens or 0) + (tokens.cache_read_input_tokens or 0)
            spent = Waste(tokens.prompt_tokens + cached, tokens.completion_tokens)
            self._account.spent(spent, self._prices_of_report())
        await super().start_llm_usage_metrics(tokens)  # pyright: ignore[reportAttributeAccessIssue]

    def _prices_of_report(self) -> Prices | None:
        """Return what the model costs whose usage is being told; None: as the account has it."""
        return None

    @property
    def _is_speculating(self) -> bool:
        return cast("LLMService[Any]", self)._speculation_gate.is_speculating


# The voice's side


class SpeculativeTTS(DropsLateFrames):
    """Stops speaking an answer that was withdrawn, and counts its characters.

    Mix in before a `TTSService`.
    """

    _account: SpeculationAccount | None = None

    def think_ahead(self, account: SpeculationAccount) -> None:
        """Join the call's account."""
        self._account = account

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take a withdrawal as what it is for a voice: an interruption."""
        if isinstance(frame, EagerEndOfTurnCancelFrame) and direction is FrameDirection.DOWNSTREAM:
            # Whatever has come through so far: the announcement itself may still wait in the queue.
            service = cast("TTSService", self)
            await service._start_interruption()
            await service._handle_interruption(InterruptionFrame(), direction)
        await super().process_frame(frame, direction)  # pyright: ignore[reportAttributeAccessIssue]

    async def start_tts_usage_metrics(self, text: str) -> None:
        """Count what is given to the voice."""
        if self._account is not None:
            self._account.spent(Waste(characters=len(text)))
        await super().start_tts_usage_metrics(text)  # pyright: ignore[reportAttributeAccessIssue]


# Before the playout


class SpeculationListener(Protocol):
    """Told how thinking ahead goes. Times are those of the event loop's clock, in seconds."""

    def speculation_audio(self, now_s: float) -> None:
        """The first audio of a reply that is held is there."""
        ...


class SpeculationGateProcessor(FrameProcessor):
    """Place directly before the playout. Runs in direct mode: it has no queue in which a verdict could be overtaken."""

    def __init__(self, account: SpeculationAccount, *, listener: SpeculationListener | None = None) -> None:
        """Create the gate, open.

        Args:
            account: Told how each reply ended.
            listener: Told of audio that waits.
        """
        super().__init__(enable_direct_mode=True)
        self._account = account
        self._listener = listener
        self._is_holding = False
        self._is_turn_over = False
        self._held: deque[Frame] = deque()
        self._has_audio = False
        self._lock = asyncio.Lock()
        """What is released must be out before anything that comes behind it."""

    @property
    def is_holding(self) -> bool:
        """Whether a reply waits for its turn to be confirmed."""
        return self._is_holding

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Hold, release or drop."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.UPSTREAM:
            await self.push_frame(frame, direction)
        elif isinstance(frame, SystemFrame):
            await self.push_frame(frame, direction)
            await self._judge(frame)
        else:
            async with self._lock:
                await self._pass(frame)

    async def _judge(self, frame: SystemFrame) -> None:
        if isinstance(frame, UserStartedSpeakingFrame):
            self._is_turn_over = False
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._is_turn_over = True
            self._account.confirm()
            async with self._lock:
                await self._open(release=True)
        elif isinstance(frame, EagerEndOfTurnCancelFrame | InterruptionFrame):
            self._account.withdraw()
            async with self._lock:
                await self._open(release=False)

    async def _pass(self, frame: Frame) -> None:
        if isinstance(frame, SpeculationStartedFrame):
            await self._open(release=False)  # another reply takes the place of the one held
            # Confirmed on its way here: it answers a turn that is over.
            self._is_holding = not self._is_turn_over
            return
        if isinstance(frame, EndFrame):
            await self._open(release=False)
        if not self._is_holding:
            await self.push_frame(frame)
            return
        self._held.append(frame)
        if len(self._held) > MAX_HELD_FRAMES:
            await self._open(release=False)
        elif isinstance(frame, TTSAudioRawFrame | CachedSpeechFrame) and not self._has_audio:
            self._has_audio = True
            if self._listener is not None:
                self._listener.speculation_audio(self.get_event_loop().time())

    async def _open(self, *, release: bool) -> None:
        held, self._held = self._held, deque()
        self._is_holding = self._has_audio = False
        for frame in held:
            if release or not frame.interruptible:
                await self.push_frame(frame)
