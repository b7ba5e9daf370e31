"""A model that answers as it is told to, on the clock of the test."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipecat.adapters.llm.services.open_ai_adapter import OpenAILLMAdapter
from pipecat.frames.frames import Frame, FunctionCallFromLLM
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext

from processors.llm_model import AnswerSink, AnswerSource

HANGS = 1000.0
"""Seconds that nobody waits."""
WHOLE = "whole"
"""A step: the vendor says that the answer is complete."""


@dataclass(frozen=True)
class Tool:
    """A step: a call with its arguments."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


Step = float | str | Tool | Frame | LLMTokenUsage | Exception
"""Seconds to wait, words, `WHOLE`, a call, a frame, what it cost, or an error."""


class ScriptedSource(AnswerSource):
    """Plays one script after the other; the last one again and again."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self._scripts = deque(scripts)
        self.asked: list[LLMContext] = []
        self.instructions: list[str | None] = []
        self.cancelled = 0

    def get_llm_adapter(self) -> OpenAILLMAdapter:
        return OpenAILLMAdapter()

    async def answer(self, context: LLMContext, sink: AnswerSink, *, system_instruction: str | None) -> None:
        self.asked.append(context)
        self.instructions.append(system_instruction)
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        try:
            for step in script:
                await self._play(step, context, sink)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def run_inference(self, context: LLMContext, *_: Any) -> str | None:
        self.asked.append(context)
        script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
        for step in script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
        return "".join(step for step in script if isinstance(step, str) and step != WHOLE)

    async def _play(self, step: Step, context: LLMContext, sink: AnswerSink) -> None:
        if isinstance(step, float):
            await asyncio.sleep(step)
        elif step == WHOLE:
            sink.whole()
        elif isinstance(step, str):
            sink.sign()
            await sink.text(step)
        elif isinstance(step, Tool):
            await sink.tool()
            call = FunctionCallFromLLM(
                context=context, tool_call_id="t1", function_name=step.name, arguments=step.arguments
            )
            await sink.calls([call])
        elif isinstance(step, Frame):
            await sink.frame(step)
        elif isinstance(step, LLMTokenUsage):
            sink.used(step)
        elif isinstance(step, Exception):
            raise step
