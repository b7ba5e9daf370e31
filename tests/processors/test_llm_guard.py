import asyncio
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import pytest
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMContextUserTurnFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    LLMThoughtStartFrame,
    LLMUpdateSettingsFrame,
    MetricsFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage, LLMUsageMetricsData
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.settings import LLMSettings

from processors.confidence import MISSED_NOTE
from processors.frames import AnswerDroppedFrame, SpeculationStartedFrame
from processors.llm_attempts import USUAL_HEDGE_S, AttemptPolicy, Failure, ModelRecord
from processors.llm_continuation import NOTE
from processors.llm_guard import GIVE_UP_REASON, Candidate, GuardedLLM, VendorError
from processors.model_tiers import Tier, TierRule
from processors.speculation import Prices, SpeculationAccount
from tests.fakes.answer_source import HANGS, WHOLE, ScriptedSource, Step, Tool
from tests.fakes.pipeline_rig import PipelineRig

ANSWER: list[Step] = [0.3, "We're", 0.01, " open", 0.01, " nine", 0.01, " to", 0.01, " five.", WHOLE]
HEARD = "We're open nine to five."
USED = LLMTokenUsage(prompt_tokens=100, completion_tokens=7, total_tokens=107)
BUSY: list[Step] = [0.05, ConnectionError("busy")]


class Listener:
    def __init__(self) -> None:
        self.failed: list[tuple[str, str, str, str]] = []
        self.costs_s: list[float] = []
        self.hedged: list[str] = []
        self.wasted: list[tuple[str, str, int]] = []
        self.asked: list[tuple[str, str, str]] = []

    def llm_asked(self, *, vendor: str, model: str, tier: str, reason: str) -> None:
        assert model == f"{vendor}-model"
        self.asked.append((vendor, tier, reason))

    def llm_attempt_failed(
        self, *, vendor: str, model: str, failure: str, stage: str, response: str, cost_s: float
    ) -> None:
        assert model == f"{vendor}-model"
        assert cost_s >= 0
        self.costs_s.append(round(cost_s, 3))
        self.failed.append((vendor, failure, stage, response))

    def llm_hedged(self, *, vendor: str) -> None:
        self.hedged.append(vendor)

    def llm_wasted(self, *, vendor: str, model: str, tokens: LLMTokenUsage) -> None:
        self.wasted.append((vendor, model, tokens.total_tokens))


def classify(error: BaseException) -> VendorError:
    return VendorError(Failure.UNAUTHORIZED if isinstance(error, PermissionError) else Failure.OVERLOADED)


class Rig(PipelineRig):
    """A guard over scripted models, `first` and `second`."""

    def __init__(
        self,
        *sources: ScriptedSource,
        policy: AttemptPolicy | None = None,
        tiers: Mapping[Tier, Sequence[int]] | None = None,
        prices: Sequence[Prices | None] = (None, None, None),
    ) -> None:
        self.sources = sources
        self.given_up: list[str] = []
        self.listener = Listener()
        self.records = [ModelRecord() for _ in sources]
        names = ("first", "second", "third")
        self.guard = GuardedLLM(
            [
                Candidate(name, f"{name}-model", source, record, cost)
                for name, source, record, cost in zip(names, sources, self.records, prices, strict=False)
            ],
            classify=classify,
            policy=policy,
            give_up=self._note_give_up,
            listener=self.listener,
            tiers=tiers,
            choose=lambda context: TierRule().choose(context.messages),
        )
        super().__init__(self.guard)
        self._params.enable_usage_metrics = True

    async def _note_give_up(self, reason: str) -> None:
        self.given_up.append(reason)

    async def ask(
        self, wait_s: float = 10.0, *, context: LLMContext | None = None, ahead: bool = False
    ) -> LLMContext:
        context = context or LLMContext(messages=[{"role": "user", "content": "When are you open?"}])
        await self.give(LLMContextFrame(context, speculation=ahead))
        await asyncio.sleep(wait_s)
        return context

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.tail.of(LLMTextFrame))

    def kinds(self) -> list[type[Frame]]:
        """What makes up answers, in its order."""
        answers = (LLMFullResponseStartFrame, LLMFullResponseEndFrame, LLMTextFrame, LLMThoughtStartFrame)
        return [kind for kind in self.tail.kinds() if issubclass(kind, answers)]

    def usage(self) -> list[tuple[str, str | None, int]]:
        reports = [data for frame in self.tail.of(MetricsFrame) for data in frame.data]
        return [
            (data.processor, data.model, data.value.total_tokens)
            for data in reports
            if isinstance(data, LLMUsageMetricsData)
        ]


async def test_words_go_on_at_once_between_one_start_and_one_end() -> None:
    async with Rig(ScriptedSource([*ANSWER, USED]), ScriptedSource(ANSWER)) as rig:
        await rig.give(
            LLMUpdateSettingsFrame(delta=LLMSettings(system_instruction="Be brief."))
        )  # as a flow does
        await rig.ask()
        assert rig.kinds() == [LLMFullResponseStartFrame, *[LLMTextFrame] * 5, LLMFullResponseEndFrame]
        came_s = [at_s - rig.began_s for at_s in rig.tail.times(LLMTextFrame)]
        assert came_s == pytest.approx([0.3, 0.31, 0.32, 0.33, 0.34])
        assert rig.text == HEARD
        assert rig.usage() == [("first", "first-model", 107)]
        assert (rig.sources[0].instructions, rig.sources[1].asked) == (["Be brief."], [])
        assert (rig.listener.failed, rig.listener.wasted, rig.given_up) == ([], [], [])


async def test_an_ordinary_token_costs_a_handful_of_steps_and_no_timer() -> None:
    words: list[Step] = [f" word{number}" for number in range(200)]
    async with Rig(ScriptedSource([0.1, "Well", *words, WHOLE])) as rig:
        steps: Counter[str] = Counter()
        loop = asyncio.get_running_loop()
        timers = 0
        call_at = loop.call_at

        def counted_call_at(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_at(*args, **kwargs)

        def count(frame: FrameType, event: str, _: object) -> None:
            name = frame.f_code.co_filename.rpartition("/")[2]
            if event == "call" and name in (
                "llm_guard.py",
                "llm_attempts.py",
                "llm_model.py",
                "llm_continuation.py",
            ):
                steps[frame.f_code.co_qualname] += 1

        loop.call_at = counted_call_at  # pyright: ignore[reportAttributeAccessIssue]
        sys.setprofile(count)
        await rig.ask(1.0)
        sys.setprofile(None)
        del loop.call_at
    per_word = {name: number for name, number in steps.items() if number >= len(words)}
    # Five calls, and four times going on where the tail gave way.
    assert sum(per_word.values()) / len(words) < 10, per_word
    assert timers <= 8


async def test_a_late_model_is_overtaken_by_the_next_and_what_it_cost_is_counted() -> None:
    first, second = ScriptedSource([HANGS]), ScriptedSource([*ANSWER, USED])
    async with Rig(first, second) as rig:
        await rig.ask()
        assert rig.text == HEARD
        assert rig.tail.times(LLMTextFrame)[0] - rig.began_s == pytest.approx(USUAL_HEDGE_S + 0.3)
        assert first.cancelled == 1
        assert rig.listener.hedged == ["first"]
        [(vendor, model, tokens)] = rig.listener.wasted
        assert (vendor, model, tokens > 0) == ("first", "first-model", True)
        assert [report[0] for report in rig.usage()] == ["first", "second"]


async def test_when_the_late_one_comes_first_after_all_the_hedge_is_the_loser() -> None:
    first, second = ScriptedSource([1.3, "Yes.", WHOLE]), ScriptedSource([0.5, "No.", USED, WHOLE])
    async with Rig(first, second) as rig:
        await rig.ask()
        assert (rig.text, second.cancelled) == ("Yes.", 1)
        assert [vendor for vendor, _, _ in rig.listener.wasted] == ["second"]


async def test_three_failures_give_up_once_and_nothing_is_answered_afterwards() -> None:
    source = ScriptedSource(BUSY)
    async with Rig(source) as rig:
        await rig.ask(3.0)
        assert rig.given_up == [GIVE_UP_REASON]
        assert len(source.asked) == 3
        assert rig.listener.failed == [
            ("first", "overloaded", "first_token", response) for response in ("retry", "retry", "give_up")
        ]
        assert rig.kinds() == [LLMFullResponseStartFrame, LLMFullResponseEndFrame]
        await rig.ask(3.0)
        assert (rig.given_up, len(source.asked)) == ([GIVE_UP_REASON], 3)


async def test_the_cost_of_a_failure_is_how_much_later_the_next_is_asked() -> None:
    async with Rig(ScriptedSource([0.5, ConnectionError("busy")], ANSWER)) as rig:
        await rig.ask(3.0)
        assert rig.text == HEARD
        [cost_s] = rig.listener.costs_s
        pause_s = AttemptPolicy().retry_pause_s
        assert 0.5 + pause_s / 2 <= cost_s <= 0.5 + 1.5 * pause_s


async def test_a_model_that_only_hangs_is_given_up_in_time() -> None:
    source = ScriptedSource([HANGS])
    async with Rig(source) as rig:
        await rig.ask(AttemptPolicy().turn_limit_s + 0.1)
        assert rig.given_up == [GIVE_UP_REASON]
        assert [kind for _, kind, _, _ in rig.listener.failed] == ["hang"] * 3  # each is told once
        assert (len(source.asked), source.cancelled) == (3, 3)


async def test_a_model_that_is_far_too_late_answers_after_all_and_once() -> None:
    source = ScriptedSource([9.0, "Yes.", WHOLE])
    async with Rig(source) as rig:
        await rig.ask(30.0)
        assert (rig.text, rig.given_up, source.cancelled) == ("Yes.", [], 2)


@pytest.mark.parametrize(
    ("rest", "instead"),
    [
        ([0.3, " nine to five.", WHOLE], "the rest"),
        ([0.3, "open nine", " to five.", WHOLE], "with the last word once more"),
        ([0.3, HEARD, WHOLE], "from the start"),
    ],
)
@pytest.mark.parametrize("end", [ConnectionError("gone"), HANGS, 0.0], ids=["error", "hang", "clean end"])
async def test_an_answer_that_breaks_off_goes_on_with_every_word_once(
    rest: Sequence[Step], instead: str, end: Step
) -> None:
    first, second = ScriptedSource([0.3, "We're", " open", end]), ScriptedSource(rest)
    async with Rig(first, second) as rig:
        asked = await rig.ask()
        assert rig.text == HEARD, instead
        kinds = rig.kinds()
        assert (kinds[0], kinds[-1]) == (LLMFullResponseStartFrame, LLMFullResponseEndFrame)
        assert len(set(kinds[1:-1])) == 1
        assert second.asked[0].messages == [
            *asked.messages,
            {"role": "assistant", "content": "We're open"},
            {"role": "developer", "content": NOTE},
        ]
        assert len(asked.messages) == 1
        assert rig.listener.wasted == []


async def test_an_answer_that_cannot_be_gone_on_with_ends_honestly() -> None:
    async with Rig(
        ScriptedSource([0.3, "We're", ConnectionError("gone")], BUSY), ScriptedSource(BUSY)
    ) as rig:
        await rig.ask()
        assert (rig.text, rig.given_up) == ("We're", [GIVE_UP_REASON])
        assert rig.listener.failed[0] == ("first", "overloaded", "answer", "next")


async def test_nothing_more_to_say_is_a_whole_answer() -> None:
    async with Rig(ScriptedSource([0.3, "We're open.", 0.0]), ScriptedSource([0.3, WHOLE])) as rig:
        await rig.ask()
        assert (rig.text, rig.given_up) == ("We're open.", [])


async def test_an_interruption_stops_every_attempt_and_none_of_them_counts_as_failed() -> None:
    first, second = ScriptedSource([HANGS]), ScriptedSource([HANGS])
    async with Rig(first, second) as rig:
        await rig.ask(USUAL_HEDGE_S + 0.2)
        await rig.give(InterruptionFrame())
        await asyncio.sleep(5.0)
        assert (first.cancelled, second.cancelled) == (1, 1)
        assert (rig.given_up, rig.listener.failed, rig.listener.wasted) == ([], [], [])
        assert rig.tail.kinds().count(LLMFullResponseEndFrame) == 1
    assert rig.guard._closing == set()


async def test_words_that_come_after_an_interruption_are_dropped() -> None:
    async with Rig(ScriptedSource([0.3, "One", 0.2, " two", WHOLE])) as rig:
        await rig.ask(0.4)
        await rig.give(InterruptionFrame())
        await asyncio.sleep(1.0)
        assert rig.text == "One"


TRICKLE: list[Step] = [0.3, "We're open.", *[step for _ in range(20) for step in (0.9, " a")], WHOLE]


async def drop(rig: Rig) -> None:
    """As the silence watchdog does."""
    await rig.give(AnswerDroppedFrame())
    await asyncio.sleep(0.01)


async def test_an_answer_dropped_because_it_trickles_is_asked_for_at_the_next_model() -> None:
    first, second = ScriptedSource(TRICKLE), ScriptedSource(ANSWER)
    async with Rig(first, second) as rig:
        await rig.ask(2.8)
        assert second.asked == []
        await drop(rig)
        await rig.ask(2.0)
        assert (len(first.asked), len(second.asked)) == (1, 1)
        assert rig.text.endswith(HEARD)
        assert rig.listener.failed == [("first", "trickle", "answer", "next")]


async def test_an_answer_dropped_when_the_next_model_has_begun_it_is_asked_for_there_again() -> None:
    first, second = ScriptedSource(TRICKLE), ScriptedSource([HANGS], ANSWER)
    async with Rig(first, second) as rig:
        await rig.ask(4.0)
        assert len(second.asked) == 1
        await drop(rig)
        await rig.ask(2.0)
        assert (len(first.asked), len(second.asked)) == (1, 2)
        assert rig.text.endswith(HEARD)


async def test_who_kept_a_caller_waiting_is_asked_first_again_in_the_next_turn() -> None:
    first, second = ScriptedSource(TRICKLE, ANSWER), ScriptedSource(ANSWER)
    async with Rig(first, second) as rig:
        await rig.ask(2.8)
        await drop(rig)
        await rig.ask(2.0)
        await rig.ask(2.0)
        assert (len(first.asked), len(second.asked)) == (2, 1)


async def test_an_answer_that_was_whole_and_not_heard_is_asked_for_at_the_same_model() -> None:
    first, second = ScriptedSource(ANSWER), ScriptedSource(ANSWER)
    async with Rig(first, second) as rig:
        await rig.ask(2.8)
        await drop(rig)
        await rig.ask(2.0)
        assert (len(first.asked), len(second.asked)) == (2, 0)


async def test_the_end_of_the_pipeline_ends_attempts() -> None:
    source = ScriptedSource([HANGS])
    async with Rig(source) as rig:
        await rig.ask(0.1)
    assert source.cancelled == 1


async def test_a_vendor_that_refuses_us_is_not_asked_in_the_next_turn() -> None:
    first, second = ScriptedSource([PermissionError("401")]), ScriptedSource(ANSWER)
    async with Rig(first, second) as rig:
        await rig.ask(2.0)
        await rig.ask(2.0)
        assert rig.text == HEARD * 2
        assert (len(first.asked), len(second.asked)) == (1, 2)


async def test_a_model_that_failed_just_now_is_asked_last_for_a_while() -> None:
    first = ScriptedSource(BUSY, BUSY, ANSWER)
    async with Rig(first, ScriptedSource(ANSWER)) as rig:
        await rig.ask(2.0)
        await rig.ask(2.0)
        assert len(first.asked) == 2
        await asyncio.sleep(20.0)
        await rig.ask(2.0)
        assert len(first.asked) == 3
        assert rig.text == HEARD * 3


async def test_a_model_that_was_overtaken_twice_is_asked_last_for_a_while() -> None:
    first, second = ScriptedSource([HANGS]), ScriptedSource(ANSWER)
    async with Rig(first, second) as rig:
        for _ in range(3):
            await rig.ask(3.0)
        assert (len(first.asked), len(second.asked)) == (2, 3)
        assert rig.text == HEARD * 3


async def test_thoughts_come_before_the_answer_they_belong_to_and_a_losers_not_at_all() -> None:
    lost, kept = LLMThoughtStartFrame(llm="lost"), LLMThoughtStartFrame(llm="kept")
    first, second = ScriptedSource([0.1, lost, HANGS]), ScriptedSource([0.1, kept, "Yes.", WHOLE])
    async with Rig(first, second) as rig:
        await rig.ask()
        assert rig.kinds() == [
            LLMFullResponseStartFrame,
            LLMThoughtStartFrame,
            LLMTextFrame,
            LLMFullResponseEndFrame,
        ]
        assert rig.tail.of(LLMThoughtStartFrame) == [kept]


# Tools


async def booked(rig: Rig) -> list[tuple[LLMContext, Any]]:
    ran: list[tuple[LLMContext, Any]] = []

    async def book(params: Any) -> None:
        ran.append((params.context, params.arguments))
        await params.result_callback({"ok": True})

    rig.guard.register_function("book", book)
    return ran


async def test_a_tool_runs_once_in_the_real_conversation_also_after_the_words_broke_off() -> None:
    first = ScriptedSource([0.3, "Great, one moment.", 0.0])
    second = ScriptedSource([0.3, Tool("book", {"day": "Monday"}), WHOLE])
    async with Rig(first, second) as rig:
        ran = await booked(rig)
        asked = await rig.ask()
        assert [arguments for _, arguments in ran] == [{"day": "Monday"}]
        assert ran[0][0] is asked
        assert rig.text == "Great, one moment."


async def test_a_losers_tool_does_not_run() -> None:
    first, second = ScriptedSource([1.3, "Yes.", WHOLE]), ScriptedSource([0.5, Tool("book"), WHOLE])
    async with Rig(first, second) as rig:
        ran = await booked(rig)
        await rig.ask()
        assert (rig.text, ran) == ("Yes.", [])


# Thinking ahead


class Ahead(Rig):
    def __init__(self, *sources: ScriptedSource) -> None:
        super().__init__(*sources)
        self.account = SpeculationAccount(budget_usd=1.0, prices=Prices())
        self.real = LLMContext(messages=[{"role": "user", "content": "When are you open?"}])
        self.guard.think_ahead(self.account, self.real)

    async def confirm(self) -> None:
        await self.give(UserStoppedSpeakingFrame(), LLMContextUserTurnFrame("When are you open?", "now"))
        await asyncio.sleep(3.0)


async def test_a_failure_of_what_is_thought_ahead_costs_nobody_anything() -> None:
    async with Ahead(ScriptedSource([0.5, ConnectionError("busy")], ANSWER)) as rig:
        await rig.give(UserStartedSpeakingFrame())
        await rig.ask(3.0, ahead=True)
        assert (rig.text, rig.listener.costs_s) == (HEARD, [0.0])


async def test_an_answer_thought_ahead_is_announced_and_goes_on() -> None:
    async with Ahead(ScriptedSource([*ANSWER, USED])) as rig:
        await rig.give(UserStartedSpeakingFrame())
        await rig.ask(1.0, ahead=True)
        assert SpeculationStartedFrame in rig.tail.kinds()
        assert rig.text == HEARD
        await rig.give(EagerEndOfTurnCancelFrame())
        assert rig.account.started == 1


async def test_a_withdrawal_stops_every_attempt() -> None:
    first, second = ScriptedSource([HANGS]), ScriptedSource([HANGS])
    async with Ahead(first, second) as rig:
        await rig.give(UserStartedSpeakingFrame())
        await rig.ask(USUAL_HEDGE_S + 0.2, ahead=True)
        await rig.give(EagerEndOfTurnCancelFrame())
        await asyncio.sleep(6.0)
        assert (first.cancelled, second.cancelled, rig.given_up) == (1, 1, [])
        await rig.confirm()
        assert (len(first.asked), rig.given_up) == (1, [])


async def test_a_tool_waits_until_the_turn_is_confirmed() -> None:
    async with Ahead(ScriptedSource([0.3, "One moment.", Tool("book"), WHOLE])) as rig:
        ran = await booked(rig)
        await rig.give(UserStartedSpeakingFrame())
        await rig.ask(1.0, ahead=True)
        assert ran == []
        await rig.confirm()
        assert [context is rig.real for context, _ in ran] == [True]


async def test_an_answer_ahead_that_failed_is_begun_anew_when_the_turn_is_confirmed() -> None:
    first = ScriptedSource([0.1, "We're", ConnectionError("gone")], BUSY, BUSY, [0.3, " open.", WHOLE])
    async with Ahead(first) as rig:
        await rig.give(UserStartedSpeakingFrame())
        await rig.ask(2.0, ahead=True)
        assert (rig.text, rig.given_up) == ("We're", [])
        await rig.confirm()
        assert (rig.text, rig.given_up) == ("We're open.", [])
        assert first.asked[-1].messages[0] == rig.real.messages[0]


# Outside the conversation


async def test_an_inference_goes_to_the_next_model_and_tells_when_there_is_none() -> None:
    context = LLMContext()
    async with Rig(ScriptedSource([ConnectionError("busy")]), ScriptedSource(["A summary."])) as rig:
        assert await rig.guard.run_inference(context) == "A summary."
    async with Rig(ScriptedSource([HANGS]), ScriptedSource([ConnectionError("busy")])) as rig:
        with pytest.raises(ConnectionError):
            await rig.guard.run_inference(context)


def test_there_must_be_a_model() -> None:
    with pytest.raises(ValueError, match="must be a model"):
        GuardedLLM([], classify=classify)


async def test_other_frames_pass() -> None:
    async with Rig(ScriptedSource(ANSWER)) as rig:
        frame: Frame = UserStoppedSpeakingFrame()
        await rig.give(frame)
        await asyncio.sleep(0.1)
        assert frame in rig.tail.frames


# Tiers


TIERS = {Tier.LIGHT: [0], Tier.STRONG: [1, 2]}


def hard() -> LLMContext:
    """A conversation whose last turn is for the strong models."""
    note: Any = {"role": "developer", "content": MISSED_NOTE}
    return LLMContext(messages=[note, {"role": "user", "content": "When are you open?"}])


def sources_saying(*scripts: Sequence[Step]) -> list[ScriptedSource]:
    return [ScriptedSource(script) for script in scripts]


async def test_each_turn_asks_its_tier() -> None:
    async with Rig(*sources_saying(ANSWER, ANSWER, ANSWER), tiers=TIERS) as rig:
        await rig.ask()
        await rig.ask(context=hard())
        await rig.ask()
        assert [len(source.asked) for source in rig.sources] == [2, 1, 0]
        assert rig.listener.asked == [
            ("first", "light", "routine"),
            ("second", "strong", "doubt"),
            ("first", "light", "routine"),
        ]


async def test_a_late_model_is_hedged_in_its_tier() -> None:
    late: list[Step] = [HANGS, "never"]
    async with Rig(*sources_saying(ANSWER, late, ANSWER), tiers=TIERS) as rig:
        await rig.ask(context=hard())
        assert rig.text == HEARD
        assert [len(source.asked) for source in rig.sources] == [0, 1, 1]
        assert rig.listener.hedged == ["second"]


async def test_a_late_model_that_is_alone_in_its_tier_is_asked_again_itself() -> None:
    late = ScriptedSource([HANGS, "never"], ANSWER)
    async with Rig(late, ScriptedSource(ANSWER), tiers={Tier.LIGHT: [0], Tier.STRONG: [1]}) as rig:
        await rig.ask()
        assert rig.text == HEARD
        assert [len(source.asked) for source in rig.sources] == [2, 0]


async def test_the_other_tier_answers_when_its_own_has_failed() -> None:
    async with Rig(*sources_saying(ANSWER, BUSY, BUSY), tiers=TIERS) as rig:
        await rig.ask(context=hard(), wait_s=3.0)
        assert rig.given_up == ["llm_failed"]  # three attempts: the tier's own
    refused: list[Step] = [0.05, PermissionError("no such model")]
    async with Rig(*sources_saying(ANSWER, refused, refused), tiers=TIERS) as rig:
        await rig.ask(context=hard())
        assert rig.text == HEARD
        await rig.ask(context=hard())
        assert rig.listener.asked[-1] == ("first", "strong", "doubt")
        assert [len(source.asked) for source in rig.sources] == [2, 1, 1]


async def test_a_strong_model_that_rests_leaves_the_turn_to_the_light_one() -> None:
    async with Rig(*sources_saying(ANSWER, ANSWER), tiers={Tier.LIGHT: [0], Tier.STRONG: [1]}) as rig:
        for _ in range(2):
            rig.records[1].failed(asyncio.get_running_loop().time())
        await rig.ask(context=hard())
        assert [len(source.asked) for source in rig.sources] == [1, 0]


async def test_an_answer_thought_ahead_comes_from_the_turns_tier_and_counts_at_its_price() -> None:
    spent: list[Step] = [*ANSWER, USED]
    strong = Prices(per_input_token=3e-6, per_output_token=15e-6)
    light = Prices(per_input_token=1e-6, per_output_token=5e-6)
    book = SpeculationAccount(budget_usd=1.0, prices=light)
    async with Rig(
        *sources_saying(spent, spent),
        tiers={Tier.LIGHT: [0], Tier.STRONG: [1]},
        prices=(light, strong),
    ) as rig:
        for context in (hard(), LLMContext(messages=[{"role": "user", "content": "When?"}])):
            rig.guard.think_ahead(book, context)
            await rig.give(UserStartedSpeakingFrame())
            await rig.ask(context=context, ahead=True)
            await rig.give(EagerEndOfTurnCancelFrame())
            book.withdraw()
        assert [tier for _, tier, _ in rig.listener.asked] == ["strong", "light"]
        assert [vendor for vendor, _, _ in rig.usage()] == ["second", "first"]
    assert book.cost_usd == pytest.approx(100 * 4e-6 + 7 * 20e-6)


async def test_an_inference_outside_the_conversation_asks_its_tier_first() -> None:
    async with Rig(*sources_saying(["light"], ["strong"]), tiers={Tier.LIGHT: [0], Tier.STRONG: [1]}) as rig:
        assert await rig.guard.run_inference(hard()) == "strong"


async def test_a_tier_without_a_model_is_refused() -> None:
    candidate = Candidate("first", "m", ScriptedSource(ANSWER), ModelRecord())
    with pytest.raises(ValueError, match="in each tier"):
        GuardedLLM([candidate], classify=classify, tiers={Tier.LIGHT: [0], Tier.STRONG: []})
