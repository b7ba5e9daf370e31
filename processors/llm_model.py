"""One of Pipecat's model services as a source of answers: asked by `llm_guard`, it tells what comes and says nothing.

The service builds the vendor's request and reads the vendor's stream; what it would push, run or report goes to the
`AnswerSink` of the attempt in whose task it runs. So one service can work on two attempts at once. It is never linked
into a pipeline nor set up.

Source: Pipecat 1.14, `services/anthropic/llm.py` and `services/openai/base_llm.py`, `_process_context`.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from pipecat.frames.frames import (
    Frame,
    FunctionCallFromLLM,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
)
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.utils.errors import ErrorCategory


class AnswerSink(Protocol):
    """Takes what comes of one attempt."""

    async def text(self, text: str) -> None:
        """Words to be said."""
        ...

    def sign(self) -> None:
        """Something of an answer came."""
        ...

    async def tool(self) -> None:
        """A tool call began."""
        ...

    async def calls(self, calls: Sequence[FunctionCallFromLLM]) -> None:
        """Tools are to be run."""
        ...

    async def frame(self, frame: Frame) -> None:
        """Something else belongs to the answer: what a model thought."""
        ...

    def used(self, tokens: LLMTokenUsage) -> None:
        """What the attempt cost."""
        ...

    def whole(self) -> None:
        """The vendor says that its answer is complete."""
        ...

    def broke(self, error: BaseException) -> None:
        """The attempt failed."""
        ...


_sink: ContextVar[AnswerSink] = ContextVar("_sink")


class AnswerSource:
    """Mix in before an `LLMService`. Which attempt something belongs to is known by the task it happens in."""

    async def answer(self, context: LLMContext, sink: AnswerSink, *, system_instruction: str | None) -> None:
        """Ask the model; call it in a task of its own.

        Args:
            context: The conversation.
            sink: Takes the answer.
            system_instruction: Of the flow.

        Raises:
            Exception: Whatever the vendor's client raises and the service does not report.
        """
        _sink.set(sink)
        self._settings.system_instruction = system_instruction  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into
        await self._process_context(context)  # pyright: ignore[reportAttributeAccessIssue]

    # What the service does with what comes

    async def _push_llm_text(self, text: str) -> None:
        await _sink.get().text(text)

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Tell a frame of the answer; where it begins and ends is the guard's."""
        if not isinstance(frame, LLMFullResponseStartFrame | LLMFullResponseEndFrame):
            await _sink.get().frame(frame)

    async def run_function_calls(self, function_calls: Sequence[FunctionCallFromLLM]) -> None:
        """Tell what is to be run."""
        await _sink.get().calls(function_calls)

    async def start_llm_usage_metrics(self, tokens: LLMTokenUsage) -> None:
        """Tell what was used."""
        _sink.get().used(tokens)

    async def stop_ttfb_metrics(self, *, end_time: float | None = None) -> None:
        """Take the service's word that content has come; it says so with each piece."""
        _sink.get().sign()

    async def stop_ttfat_metrics(self, *, end_time: float | None = None) -> None:
        """Take the service's word that an answer has begun: with text it is told the text itself."""
        await _sink.get().tool()

    async def push_error(
        self,
        error_msg: str,
        exception: Exception | None = None,
        fatal: bool = False,
        category: ErrorCategory | None = None,
        force_treat_as_permanent: bool = False,
    ) -> None:
        """Tell that the attempt failed."""
        _sink.get().broke(exception or RuntimeError(error_msg))

    async def _call_event_handler(self, event_name: str, *args: Any, **kwargs: Any) -> None:
        if event_name == "on_completion_timeout":  # all that Pipecat's Anthropic service says of a timeout
            _sink.get().broke(TimeoutError("the client waited too long"))
        else:
            await super()._call_event_handler(event_name, *args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]


def answer_is_whole() -> None:
    """Tell the running attempt, if there is one, that its vendor has said that the answer is complete."""
    if (sink := _sink.get(None)) is not None:
        sink.whole()
