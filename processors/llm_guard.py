"""One model to the pipeline, several behind it: an answer comes, is said once, and comes in time, or there is an end.

`GuardedLLM` stands where a model's service would. It asks `AnswerSource`s as `llm_attempts` says: again, at the next
model, or at two at once when the first is late. Of all attempts' words only one's are pushed, at once as they come;
when they break off, another model is asked for the rest (`llm_continuation`). What losers cost is counted. When nothing
helps, `give_up` is called: somebody must tell the caller.

An answer that the caller waited for too long may be dropped and asked for anew (`AnswerDroppedFrame`): the models that
kept them waiting are then asked last.

A turn that is thought ahead is guarded too. When nothing comes of it, it is begun anew once the turn is confirmed.

Models may be of two tiers (`model_tiers`). A turn's answer is got from its tier; the models of the other stand in for
those that fail, and not for one that is late.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from loguru import logger
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    FunctionCallFromLLM,
    InterruptionFrame,
    LLMContextFrame,
    LLMContextUserTurnFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage, MetricsData
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings

from processors.frames import AnswerDroppedFrame
from processors.llm_attempts import (
    Action,
    AttemptPolicy,
    Cancel,
    Failed,
    Failure,
    Finish,
    Late,
    ModelRecord,
    Stage,
    Start,
    TurnAttempts,
)
from processors.llm_continuation import Continuation, continued, ends_sentence
from processors.llm_model import AnswerSource
from processors.model_tiers import ROUTINE, Tier, TierChoice
from processors.speculation import Prices, SpeculativeLLM

GIVE_UP_REASON = "llm_failed"
CHARS_PER_TOKEN = 4
"""For what an attempt has cost whose vendor did not tell."""
INFERENCE_LIMIT_S = 10.0
"""Of one model, asked outside the conversation."""
CLEANUP_LIMIT_S = 0.3
_VENDORS_FAULT = frozenset(Failure) - {Failure.REJECTED}


@dataclass(frozen=True)
class VendorError:
    """What a vendor's exception means."""

    failure: Failure
    retry_after_s: float | None = None
    """Pause that the vendor asks for."""


@dataclass(frozen=True)
class Candidate:
    """A model that can be asked."""

    vendor: str
    """As in `agent.yaml`."""
    model: str
    source: AnswerSource
    record: ModelRecord
    """Shared by all calls."""
    prices: Prices | None = None
    """Of its tokens; None: as the account of thinking ahead has them."""


class GuardListener(Protocol):
    """Told who is asked, what went wrong and what it cost."""

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        """A model is asked for an answer that is to come from this tier, for this reason."""
        ...

    def llm_attempt_failed(
        self, *, vendor: str, model: str, failure: str, stage: str, response: str, cost_s: float
    ) -> None:
        """An attempt failed, for the first time; `response` is what was done about it, and the caller waits longer."""
        ...

    def llm_hedged(self, *, vendor: str) -> None:
        """A model was asked because another one, of this vendor, was late."""
        ...

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        """An attempt was paid for of which nothing was used."""
        ...


class LLMGuard(LLMService[Any]):
    """Pipecat's side of the guard: takes contexts, pushes one answer for each."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        classify: Callable[[BaseException], VendorError],
        policy: AttemptPolicy | None = None,
        give_up: Callable[[str], Awaitable[None]] | None = None,
        listener: GuardListener | None = None,
        tool_timeout_s: float | None = None,
        tiers: Mapping[Tier, Sequence[int]] | None = None,
        choose: Callable[[LLMContext], TierChoice] = lambda _: ROUTINE,
    ) -> None:
        """Create the guard.

        Args:
            candidates: Models in the order in which they are asked, if there are no tiers.
            classify: Says what a vendor's exception means.
            policy: Bounds of one answer.
            give_up: Called once, in a task of its own, when no model answers; nothing is answered afterwards.
            listener: Told of failures.
            tool_timeout_s: Limit of a tool that sets none itself.
            tiers: For each tier its models by their places in `candidates`, in the order in which they are asked.
            choose: Says which tier answers a conversation.

        Raises:
            ValueError: If there is no model, or none in a tier.
        """
        if not candidates:
            raise ValueError("there must be a model")
        everyone = tuple(range(len(candidates)))
        tiers = tiers if tiers is not None else dict.fromkeys(Tier, everyone)
        if not all(tiers.get(tier) for tier in Tier):
            raise ValueError("there must be a model in each tier")
        settings = LLMSettings(
            model=candidates[0].model,
            system_instruction=None,  # the flow's
            temperature=None,  # what follows is each model's own
            max_tokens=None,
            top_p=None,
            top_k=None,
            frequency_penalty=None,
            presence_penalty=None,
            seed=None,
            filter_incomplete_user_turns=False,
            user_turn_completion_config=None,
        )
        super().__init__(settings=settings, function_call_timeout_secs=tool_timeout_s)
        self._candidates = tuple(candidates)
        self._tiers = {tier: tuple(numbers) for tier, numbers in tiers.items()}
        self._choose = choose
        self._classify = classify
        self._policy = policy or AttemptPolicy()
        self._give_up = give_up
        self._listener = listener
        self._barred: set[int] = set()
        """Models that refused us; not asked again in this call."""
        self._has_given_up = False
        self._unanswered: str | None = None
        """What was said of an answer thought ahead of which nothing more came."""
        self._reported = self._candidates[0]
        """Whose usage is being told."""
        self._turn: _Turn | None = None
        """The answer that is being made."""
        self._at_fault: frozenset[int] = frozenset()
        """Models for which an answer was dropped that is about to be asked for anew."""
        self._closing: set[asyncio.Task[None]] = set()
        """Attempts, until they have told what they cost."""
        adapter: Any = candidates[0].source
        self._adapter = adapter.get_llm_adapter()

    def can_generate_metrics(self) -> bool:
        """Usage is told."""
        return True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Answer contexts; forward everything else."""
        if isinstance(frame, EagerEndOfTurnCancelFrame | InterruptionFrame):
            self._unanswered = None
        if isinstance(frame, InterruptionFrame):
            asks_again = isinstance(frame, AnswerDroppedFrame) and frame.asks_again
            self._at_fault = self._turn.drop() if asks_again and self._turn is not None else frozenset()
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame):
            await self._respond(frame.context)
        else:
            await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Stop what is still asked."""
        for task in self._closing:
            task.cancel()
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLEANUP_LIMIT_S)
        await super().cleanup()

    async def run_inference(
        self,
        context: LLMContext,
        max_tokens: int | None = None,
        system_instruction: str | None = None,
        response_schema: dict[str, Any] | None = None,
    ) -> str | None:
        """Ask outside the conversation: one model after the other.

        Raises:
            Exception: What the last model's client raised.
        """
        order = self._order(self._choose(context).tier)
        for place, number in enumerate(order):
            candidate = self._candidates[number]
            source: Any = candidate.source
            instruction = system_instruction or self._settings.system_instruction
            try:
                async with asyncio.timeout(INFERENCE_LIMIT_S):
                    return await source.run_inference(context, max_tokens, instruction, response_schema)
            except Exception as error:  # the next model's turn, whatever it was
                logger.warning("llm inference failed: vendor={} error={!r}", candidate.vendor, error)
                if place == len(order) - 1:
                    raise
        return None

    # One answer

    async def _respond(self, context: LLMContext, *, said: str = "") -> None:
        self._unanswered = None
        if self._has_given_up:
            return
        turn = self._turn = _Turn(self, context, said)
        self._at_fault = frozenset()
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await turn.run()
            await self.run_function_calls(turn.calls)
        finally:
            turn.stop()
            self._turn = None
            await self.push_frame(LLMFullResponseEndFrame())
        if not turn.has_failed:
            return
        if self._speculation_gate.is_speculating:
            self._unanswered = turn.said
        else:
            self._end_it()

    def _end_it(self) -> None:
        self._has_given_up = True
        logger.error("no model answers: the call is given up")
        if self._give_up is not None:
            self.create_task(self._tell(self._give_up), "give_up")

    async def _tell(self, give_up: Callable[[str], Awaitable[None]]) -> None:
        await give_up(GIVE_UP_REASON)

    def _order(self, tier: Tier) -> list[int]:
        """Who is asked, in order: not first who kept this caller waiting or failed just now; else the tier first."""
        now_s = self.get_event_loop().time()
        own = self._tiers[tier]
        everyone = [*own, *(number for number in range(len(self._candidates)) if number not in own)]
        numbers = [number for number in everyone if number not in self._barred]
        # With all of them refused the first is asked all the same: the answer says what is wrong.
        return sorted(
            numbers or own[:1],
            key=lambda number: (number in self._at_fault, self._candidates[number].record.is_resting(now_s)),
        )

    def _note_asked(self, candidate: Candidate, choice: TierChoice) -> None:
        logger.debug(
            "{} is asked: tier={} reason={}", candidate.model, choice.tier.value, choice.reason.value
        )
        if self._listener is not None:
            self._listener.llm_asked(
                vendor=candidate.vendor,
                model=candidate.model,
                tier=choice.tier.value,
                reason=choice.reason.value,
            )

    def _start_attempt(self, attempt: "_Attempt") -> "asyncio.Task[None]":
        task = self.create_task(attempt.run(), f"attempt_{attempt.number}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def _note_failure(self, one: "_Attempt", failed: Failed, cost_s: float) -> None:
        candidate = one.candidate
        if failed.failure is Failure.UNAUTHORIZED:
            self._barred.add(one.model)
        if one.has_failed:  # it was late, which was told, and did not answer after all
            return
        one.has_failed = True
        if failed.failure in _VENDORS_FAULT:
            candidate.record.failed(self.get_event_loop().time())
        if self._listener is not None:
            self._listener.llm_attempt_failed(
                vendor=candidate.vendor,
                model=candidate.model,
                failure=failed.failure,
                stage=failed.stage,
                response=failed.response,
                cost_s=0.0 if self._speculation_gate.is_speculating else cost_s,  # nobody waits yet
            )

    def _note_hedge(self, late: Candidate) -> None:
        logger.info("llm is late, another is asked too: vendor={} model={}", late.vendor, late.model)
        if self._listener is not None:
            self._listener.llm_hedged(vendor=late.vendor)

    async def _report_usage(self, candidate: Candidate, tokens: LLMTokenUsage, *, is_wasted: bool) -> None:
        if is_wasted and self._listener is not None:
            self._listener.llm_wasted(vendor=candidate.vendor, model=candidate.model, tokens=tokens)
        # Read before anything else can run: the next line does not wait.
        self.set_core_metrics_data(MetricsData(processor=candidate.vendor, model=candidate.model))
        self._reported = candidate
        await self.start_llm_usage_metrics(tokens)


class GuardedLLM(SpeculativeLLM, LLMGuard):
    """The guard as the pipeline has it: its answers may go on to the voice before the caller's turn is over."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Begin an answer anew of which nothing came while it was thought ahead."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextUserTurnFrame) and direction is FrameDirection.DOWNSTREAM:
            said, self._unanswered = self._unanswered, None
            if said is not None and self._conversation is not None:
                await self._respond(self._conversation, said=said)

    def _prices_of_report(self) -> Prices | None:
        return self._reported.prices


class _Turn:
    """One answer: the table's shell."""

    def __init__(self, guard: LLMGuard, context: LLMContext, said: str) -> None:
        candidates = guard._candidates
        self._guard = guard
        self._now_s = guard.get_event_loop().time
        self.context = context
        self.said = said
        """What has been pushed."""
        self.calls: Sequence[FunctionCallFromLLM] = ()
        self.has_failed = False
        self.is_stopped = False
        """Whether it was cut off from outside."""
        self._attempts: list[_Attempt] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._has_changed = asyncio.Event()
        self._choice = guard._choose(context)
        own = guard._tiers[self._choice.tier]
        self.table = TurnAttempts(
            guard._order(self._choice.tier),
            [candidate.record.hedge_after_s for candidate in candidates],
            reserve=[number for number in range(len(candidates)) if number not in own],
            policy=guard._policy,
            jitter=random.random,
        )

    async def run(self) -> None:
        """Get the answer; returns when it is whole or given up."""
        self.carry_out(self.table.begin(self._now_s(), has_said=bool(self.said.strip())))
        while not self.table.is_over:
            self._has_changed.clear()
            try:
                async with asyncio.timeout_at(self.table.next_s()):
                    await self._has_changed.wait()
            except TimeoutError:
                self.carry_out(self.table.tick(self._now_s()))

    def stop(self) -> None:
        """Nothing more is wanted."""
        self.is_stopped = not self.table.is_over
        for task in self._tasks:
            task.cancel()

    def drop(self) -> frozenset[int]:
        """The caller waited too long, and it is asked for anew; returns the models that are to be asked last."""
        self.carry_out(self.table.dropped(self._now_s()))
        return self.table.at_fault

    def carry_out(self, actions: Sequence[Action]) -> None:
        """Do what the table says."""
        for action in actions:
            if isinstance(action, Start):
                self._start(action)
            elif isinstance(action, Cancel):
                self._cancel(action.attempt)
            elif isinstance(action, Failed):
                self._note(action)
            elif isinstance(action, Late):
                self._note(Failed(action.attempt, Failure.HANG, Stage.FIRST_TOKEN, action.response))
            elif isinstance(action, Finish):
                one = self._attempts[action.attempt]
                self.calls = one.answer_calls(self.context)
                one.candidate.record.answered()
            else:
                self.has_failed = True
        if actions:
            self.wake()

    def _note(self, failed: Failed) -> None:
        cost_s = self.table.cost_s(failed.attempt, self._now_s())
        self._guard._note_failure(self._attempts[failed.attempt], failed, cost_s)

    def wake(self) -> None:
        """Look at the time again."""
        self._has_changed.set()

    def _start(self, action: Start) -> None:
        candidate = self._guard._candidates[action.model]
        if action.is_hedge:
            self._guard._note_hedge(self._attempts[-1].candidate)
        self._guard._note_asked(candidate, self._choice)
        context = continued(self.context, self.said) if action.continues else self.context
        rest = Continuation(self.said) if action.continues else None
        one = _Attempt(self._guard, self, action, candidate, context, rest)
        self._attempts.append(one)
        self._tasks.append(self._guard._start_attempt(one))

    def _cancel(self, attempt: int) -> None:
        one = self._attempts[attempt]
        if not one.has_answered and self.table.winner is not None:
            # Not its first token, but it was waited for as long: else a slow model would seem quick.
            one.candidate.record.first_token(self.table.waited_s(attempt, self._now_s()))
            one.candidate.record.failed(self._now_s())
        self._tasks[attempt].cancel()


class _Attempt:
    """One request to one model; an `AnswerSink`."""

    def __init__(
        self,
        guard: LLMGuard,
        turn: _Turn,
        start: Start,
        candidate: Candidate,
        context: LLMContext,
        rest: Continuation | None,
    ) -> None:
        self.number = start.attempt
        self.model = start.model
        self.candidate = candidate
        self.has_answered = False
        self.has_failed = False
        """Whether it was told of as failed."""
        self._guard = guard
        self._turn = turn
        self._table = turn.table
        self._context = context
        self._rest = rest
        self._now_s = guard.get_event_loop().time
        self._calls: Sequence[FunctionCallFromLLM] = ()
        self._thoughts: list[Frame] = []
        self._chars = 0
        self._has_sign = False
        self._has_spoken = False
        self._usage: LLMTokenUsage | None = None
        self._error: BaseException | None = None
        self._is_whole = False

    async def run(self) -> None:
        """Ask, and tell the table how it went."""
        instruction: Any = self._guard._settings.system_instruction
        try:
            await self.candidate.source.answer(self._context, self, system_instruction=instruction)
        except Exception as error:  # noqa: BLE001 - whatever a vendor's client does ends this attempt only
            self.broke(error)
        finally:
            await self._report_usage()
        await self._conclude()

    def answer_calls(self, context: LLMContext) -> Sequence[FunctionCallFromLLM]:
        """Return the tools to be run, in the conversation: an answer may have been asked for in a copy of it."""
        return [replace(call, context=context) for call in self._calls]

    async def _conclude(self) -> None:
        now_s = self._now_s()
        if self._error is not None:
            error = self._guard._classify(self._error)
            actions = self._table.failed(self.number, error.failure, now_s, retry_after_s=error.retry_after_s)
        elif not self._is_whole:
            actions = self._table.failed(self.number, Failure.CLOSED, now_s)
        else:
            if self._rest is not None:
                await self._speak(self._rest.flush())
            may_be_empty = self._rest is not None and ends_sentence(self._turn.said)
            actions = self._table.done(self.number, now_s, may_be_empty=may_be_empty)
        self._turn.carry_out(actions)

    # As a sink

    async def text(self, text: str) -> None:
        """Push words, if this attempt is the one whose words are said."""
        self._chars += len(text)
        if actions := self._table.words(self.number, len(text), self._now_s()):
            self._turn.carry_out(actions)
        if self._table.winner != self.number:
            return
        if not self.has_answered:
            await self._begins()
        await self._speak(text if self._rest is None else self._rest.feed(text))

    def sign(self) -> None:
        """Be waited for a little longer."""
        self._table.sign(self.number, self._now_s())
        if not self._has_sign:
            self._has_sign = True
            self._turn.wake()

    async def tool(self) -> None:
        """A tool call is an answer."""
        if actions := self._table.tool(self.number, self._now_s()):
            self._turn.carry_out(actions)
        if self._table.winner == self.number and not self.has_answered:
            await self._begins()

    async def calls(self, calls: Sequence[FunctionCallFromLLM]) -> None:
        """Keep what is to be run."""
        self._calls = calls
        if calls and not self.has_answered:  # a service that does not tell when a call begins
            await self.tool()

    async def frame(self, frame: Frame) -> None:
        """Push what belongs to the answer, not before there is one."""
        if self.has_answered and self._table.winner == self.number:
            await self._guard.push_frame(frame)
        elif not self.has_answered:
            self._thoughts.append(frame)

    def used(self, tokens: LLMTokenUsage) -> None:
        """Keep what it cost."""
        self._usage = tokens

    def whole(self) -> None:
        """The end that comes is the right one."""
        self._is_whole = True

    def broke(self, error: BaseException) -> None:
        """Keep what went wrong, the first time."""
        self._error = self._error or error

    # Inside

    async def _begins(self) -> None:
        self.has_answered = True
        self.candidate.record.first_token(self._table.waited_s(self.number, self._now_s()))
        thoughts, self._thoughts = self._thoughts, []
        for frame in thoughts:
            await self._guard.push_frame(frame)

    async def _speak(self, text: str) -> None:
        if text:
            self._has_spoken = True
            self._turn.said += text
            await self._guard._push_llm_text(text)

    async def _report_usage(self) -> None:
        is_wasted = not (self._has_spoken or self._turn.is_stopped or self._table.winner == self.number)
        tokens = self._usage or (self._estimate() if is_wasted and self._error is None else None)
        if tokens is not None:
            await self._guard._report_usage(self.candidate, tokens, is_wasted=is_wasted)

    def _estimate(self) -> LLMTokenUsage:
        """What a request costs that was cancelled before its vendor told."""
        prompt = (
            *self._context.messages,
            self._guard._settings.system_instruction or "",
            self._context.tools,
        )
        asked = sum(len(str(part)) for part in prompt) // CHARS_PER_TOKEN
        answered = self._chars // CHARS_PER_TOKEN
        return LLMTokenUsage(prompt_tokens=asked, completion_tokens=answered, total_tokens=asked + answered)
