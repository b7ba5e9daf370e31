import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    EndFrame,
    Frame,
    FunctionCallFromLLM,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMContextUserTurnFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TextFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService

from processors.frames import SpeculationStartedFrame
from processors.speculation import (
    Prices,
    SpeculationAccount,
    SpeculationGateProcessor,
    SpeculativeLLM,
    Waste,
)
from tests.fakes.pipeline_rig import PipelineRig

PRICES = Prices(per_input_token=1e-6, per_output_token=5e-6, per_character=1e-5)


def account(*, budget_usd: float = 0.01, is_enabled: bool = True) -> SpeculationAccount:
    return SpeculationAccount(budget_usd=budget_usd, prices=PRICES, is_enabled=is_enabled)


# The account


def test_what_was_confirmed_is_not_wasted() -> None:
    book = account()
    book.begin()
    book.spent(Waste(input_tokens=1000, output_tokens=20))
    book.confirm()
    book.spent(Waste(characters=100))
    assert (book.started, book.confirmed, book.withdrawn, book.wasted) == (1, 1, 0, Waste())


def test_what_was_withdrawn_is_and_its_late_tokens_too() -> None:
    book = account()
    book.begin()
    book.spent(Waste(characters=100))
    book.withdraw()
    book.spent(Waste(1000, 20))
    book.ordinary()
    book.spent(Waste(5000, 50))
    assert book.wasted == Waste(1000, 20, 100)
    assert book.cost_usd == pytest.approx(0.001 + 0.0001 + 0.001)


def test_each_model_counts_at_its_own_price() -> None:
    book = account()
    strong = Prices(per_input_token=3e-6, per_output_token=15e-6)
    book.begin()
    book.spent(Waste(1000, 20), strong)
    book.spent(Waste(1000, 20))
    book.withdraw()
    book.spent(Waste(100, 0), strong)
    assert book.wasted == Waste(2100, 40)
    assert book.cost_usd == pytest.approx(0.0033 + 0.0011 + 0.0003)


def test_a_spent_budget_and_the_off_switch_end_it() -> None:
    book = account(budget_usd=0.001)
    assert book.may_start()
    book.begin()
    book.spent(Waste(characters=100))
    book.withdraw()
    assert not book.may_start()
    assert not account(is_enabled=False).may_start()
    assert not account(budget_usd=0.0).may_start()


@given(st.lists(st.sampled_from(["begin", "confirm", "withdraw", "ordinary", "spend"]), max_size=40))
def test_every_reply_is_settled_at_most_once(events: list[str]) -> None:
    book = account()
    for event in events:
        if event == "spend":
            book.spent(Waste(1, 1, 1))
        else:
            getattr(book, event)()
    assert book.confirmed + book.withdrawn <= book.started
    assert 0 <= book.wasted.characters <= events.count("spend")


# The gate


class Rig(PipelineRig):
    async def give(self, *frames: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        await super().give(*frames, direction=direction)
        await asyncio.sleep(0.02)

    def texts(self) -> list[str]:
        return [frame.text for frame in self.tail.of(TextFrame)]


def reply(*texts: str) -> list[Frame]:
    return [LLMFullResponseStartFrame(), *(TextFrame(text) for text in texts), LLMFullResponseEndFrame()]


class Ears:
    def __init__(self) -> None:
        self.audio: list[float] = []

    def speculation_audio(self, now_s: float) -> None:
        self.audio.append(now_s)


async def test_a_reply_made_ahead_is_heard_when_the_turn_is_over_and_in_order() -> None:
    book = account()
    async with Rig(SpeculationGateProcessor(book)) as rig:
        book.begin()
        await rig.give(UserStartedSpeakingFrame(), SpeculationStartedFrame(), *reply("one", "two"))
        assert rig.texts() == []
        await rig.give(UserStoppedSpeakingFrame(), TextFrame("three"))
        assert rig.texts() == ["one", "two", "three"]
        assert book.confirmed == 1
        assert SpeculationStartedFrame not in rig.tail.kinds()


@pytest.mark.parametrize("verdict", [EagerEndOfTurnCancelFrame, InterruptionFrame])
async def test_what_is_withdrawn_is_never_heard(verdict: type[Frame]) -> None:
    book = account()
    async with Rig(SpeculationGateProcessor(book)) as rig:
        book.begin()
        await rig.give(UserStartedSpeakingFrame(), SpeculationStartedFrame(), *reply("one", "two"))
        await rig.give(verdict())
        await rig.give(UserStoppedSpeakingFrame(), *reply("three"))
        assert rig.texts() == ["three"]
        assert book.withdrawn == 1


async def test_what_must_not_be_lost_is_not() -> None:
    async with Rig(SpeculationGateProcessor(account())) as rig:
        result = FunctionCallResultFrame("tool", "id", {}, {"ok": True})
        await rig.give(UserStartedSpeakingFrame(), SpeculationStartedFrame(), *reply("one"), result)
        assert result not in rig.tail.frames
        await rig.give(EagerEndOfTurnCancelFrame())
        assert result in rig.tail.frames
        assert rig.texts() == []


async def test_a_turn_confirmed_before_its_reply_comes_holds_nothing() -> None:
    async with Rig(SpeculationGateProcessor(account())) as rig:
        await rig.give(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame())
        await rig.give(SpeculationStartedFrame(), *reply("one"))
        assert rig.texts() == ["one"]


async def test_another_reply_takes_the_place_of_the_one_held() -> None:
    async with Rig(SpeculationGateProcessor(account())) as rig:
        await rig.give(UserStartedSpeakingFrame(), SpeculationStartedFrame(), *reply("one"))
        await rig.give(SpeculationStartedFrame(), *reply("two"))
        await rig.give(UserStoppedSpeakingFrame())
        assert rig.texts() == ["two"]


async def test_the_first_audio_that_waits_is_told_once() -> None:
    ears = Ears()
    async with Rig(SpeculationGateProcessor(account(), listener=ears)) as rig:
        audio = [TTSAudioRawFrame(bytes(320), 8000, 1) for _ in range(3)]
        await rig.give(UserStartedSpeakingFrame(), SpeculationStartedFrame(), TTSStartedFrame(), *audio)
        assert len(ears.audio) == 1


async def test_the_end_of_the_call_passes() -> None:
    async with Rig(SpeculationGateProcessor(account())) as rig:
        await rig.give(UserStartedSpeakingFrame(), SpeculationStartedFrame(), *reply("one"), EndFrame())
        assert isinstance(rig.tail.frames[-1], EndFrame)
        assert rig.texts() == []


# The model


class Model(SpeculativeLLM, LLMService[Any]):
    """Says a word, then wants a tool, then says how many tokens that took."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[LLMContext] = []
        self.ran: list[FunctionCallFromLLM] = []
        self.takes_s = 0.0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        self.asked.append(frame.context)
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await asyncio.sleep(self.takes_s)
            await self.push_frame(LLMTextFrame("Sure."))
            call = FunctionCallFromLLM("find_slots", "id1", {}, frame.context)
            await self.run_function_calls([call])
        finally:
            await self.push_frame(LLMFullResponseEndFrame())
            await self.start_llm_usage_metrics(
                LLMTokenUsage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
            )

    def can_generate_metrics(self) -> bool:
        return False


class ModelRig(Rig):
    def __init__(self) -> None:
        self.model = Model()
        self.context = LLMContext()
        self.account = account()
        self.model.think_ahead(self.account, self.context)
        super().__init__(self.model)

    async def ahead(self) -> None:
        copy = LLMContext(messages=[{"role": "user", "content": "hello"}])
        await self.give(UserStartedSpeakingFrame(), LLMContextFrame(context=copy, speculation=True))


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pipecat's own running of tools is not what these tests are about."""

    async def note(self: Model, function_calls: list[FunctionCallFromLLM]) -> None:
        self.ran += function_calls

    monkeypatch.setattr(LLMService, "run_function_calls", note)


async def test_text_goes_on_ahead_and_is_announced_and_the_tool_waits() -> None:
    async with ModelRig() as rig:
        await rig.ahead()
        kinds = rig.tail.kinds()
        assert kinds.index(SpeculationStartedFrame) < kinds.index(LLMFullResponseStartFrame)
        assert rig.texts() == ["Sure."]
        assert rig.model.ran == []


async def test_the_tool_runs_once_the_callers_words_are_in_the_context() -> None:
    async with ModelRig() as rig:
        await rig.ahead()
        await rig.give(UserStoppedSpeakingFrame())
        assert rig.model.ran == []
        await rig.give(LLMContextUserTurnFrame("hello", ""))
        assert [call.function_name for call in rig.model.ran] == ["find_slots"]
        assert rig.model.ran[0].context is rig.context
        await rig.give(LLMContextUserTurnFrame("hello", ""))
        assert len(rig.model.ran) == 1


@pytest.mark.parametrize("verdict", [EagerEndOfTurnCancelFrame, InterruptionFrame])
async def test_a_tool_that_was_withdrawn_never_runs(verdict: type[Frame]) -> None:
    async with ModelRig() as rig:
        await rig.ahead()
        await rig.give(verdict(), UserStoppedSpeakingFrame(), LLMContextUserTurnFrame("hello", ""))
        assert rig.model.ran == []


async def test_a_withdrawn_stream_is_stopped_and_its_tokens_are_wasted() -> None:
    async with ModelRig() as rig:
        rig.model.takes_s = 1.0
        await rig.ahead()
        await rig.give(EagerEndOfTurnCancelFrame())
        rig.account.withdraw()  # as the gate does
        await asyncio.sleep(2.0)
        assert rig.texts() == []
        assert rig.account.started == 1


async def test_an_inference_that_waited_when_it_was_withdrawn_never_begins() -> None:
    async with ModelRig() as rig:
        rig.model.takes_s = 1.0
        await rig.give(LLMContextFrame(context=LLMContext()))
        await rig.ahead()
        await rig.give(EagerEndOfTurnCancelFrame())
        await asyncio.sleep(3.0)
        assert len(rig.model.asked) == 1


async def test_an_ordinary_inference_runs_its_tools_at_once() -> None:
    async with ModelRig() as rig:
        await rig.give(LLMContextFrame(context=rig.context))
        assert len(rig.model.ran) == 1
        assert rig.account.started == 0
