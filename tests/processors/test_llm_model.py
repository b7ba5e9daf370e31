import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from pipecat.frames.frames import Frame, FunctionCallFromLLM, LLMFullResponseStartFrame, LLMThoughtStartFrame
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.llm_service import LLMService

from processors.llm_model import AnswerSource, answer_is_whole

USED = LLMTokenUsage(prompt_tokens=1, completion_tokens=2, total_tokens=3)


class Service(AnswerSource, LLMService[Any]):
    """Does to its base what Pipecat's services do."""

    async def _process_context(self, context: LLMContext) -> None:
        await self.push_frame(LLMFullResponseStartFrame())
        await self.stop_ttfb_metrics()
        await self.push_frame(LLMThoughtStartFrame(llm="x"))
        await asyncio.sleep(0.01)
        await self._push_llm_text(str(context.messages))
        await self.stop_ttfat_metrics()
        await self.run_function_calls([])
        answer_is_whole()
        await self.push_error("no", exception=ValueError("odd"))
        await self._call_event_handler("on_completion_timeout")
        await self._call_event_handler("on_error")
        await self.start_llm_usage_metrics(USED)


class Notes:
    def __init__(self) -> None:
        self.told: list[Any] = []

    async def text(self, text: str) -> None:
        self.told.append(text)

    def sign(self) -> None:
        self.told.append("sign")

    async def tool(self) -> None:
        self.told.append("tool")

    async def calls(self, calls: Sequence[FunctionCallFromLLM]) -> None:
        self.told.append(calls)

    async def frame(self, frame: Frame) -> None:
        self.told.append(type(frame))

    def used(self, tokens: LLMTokenUsage) -> None:
        self.told.append(tokens)

    def whole(self) -> None:
        self.told.append("whole")

    def broke(self, error: BaseException) -> None:
        self.told.append(type(error))


def expected(text: str) -> list[Any]:
    return ["sign", LLMThoughtStartFrame, text, "tool", [], "whole", ValueError, TimeoutError, USED]


async def test_two_attempts_of_one_service_are_told_apart_by_their_tasks() -> None:
    service = Service()
    notes = [Notes(), Notes()]
    async with asyncio.TaskGroup() as tasks:
        for number, sink in enumerate(notes):
            context = LLMContext(messages=[{"role": "user", "content": str(number)}])
            tasks.create_task(service.answer(context, sink, system_instruction="Be brief."))
    for number, sink in enumerate(notes):
        assert sink.told == expected(str([{"role": "user", "content": str(number)}]))
    assert service._settings.system_instruction == "Be brief."


def test_outside_an_attempt_nobody_is_told() -> None:
    answer_is_whole()


async def test_what_the_service_raises_comes_out() -> None:
    class Broken(Service):
        async def _process_context(self, context: LLMContext) -> None:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await Broken().answer(LLMContext(), Notes(), system_instruction=None)
