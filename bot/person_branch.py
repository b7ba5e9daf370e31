"""Where a flow has a caller go who asks for a person: the branches `human_requested` and `out_of_hours`.

Each is taken once in a call: who asks again is put through. Never rings anybody.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from loguru import logger

from bot.call_flow import CallFlow
from bot.call_life import EndReason
from bot.call_pipeline import CallPipeline
from bot.call_speech import CallSpeech
from bot.farewell import Farewell
from bot.flow_events import Branch, FlowEvent, FlowEvents

RESULT_LIMIT_S: Final = 1.0
"""For a tool's result to be in the model's memory, before the flow goes on elsewhere."""


class PersonBranch:
    """One call's."""

    def __init__(
        self,
        branches: FlowEvents,
        pipeline: CallPipeline,
        *,
        speech: CallSpeech,
        farewell: Farewell,
        flow: CallFlow,
        is_anybody_there: Callable[[], bool],
    ) -> None:
        """Take no branch yet.

        Args:
            branches: Of the flow.
            pipeline: Runs what is done, and knows which tools still run.
            speech: Says the branch's line.
            farewell: Says it, where the call ends with it.
            flow: Goes on at the branch's node.
            is_anybody_there: Returns whether the business is open.
        """
        self._branches = branches
        self._pipeline = pipeline
        self._speech = speech
        self._farewell = farewell
        self._flow = flow
        self._is_anybody_there = is_anybody_there
        self._taken: set[FlowEvent] = set()

    def take(self) -> bool:
        """The caller asks for a person; returns whether the flow goes on elsewhere, by itself. Returns at once."""
        events = [FlowEvent.HUMAN_REQUESTED]
        if not self._is_anybody_there():
            events.insert(0, FlowEvent.OUT_OF_HOURS)
        for event in events:
            branch = self._branches.own(event)
            if branch is not None and event not in self._taken:
                self._taken.add(event)
                logger.info("the flow takes a branch: event={} node={}", event.value, branch.node)
                self._pipeline.require().worker.create_task(self._go(branch), "branch")
                return True
        return False

    async def _go(self, branch: Branch) -> None:
        graph = self._pipeline.require()
        aggregator = graph.aggregators.assistant_half
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESULT_LIMIT_S):
                while aggregator.has_function_calls_in_progress:  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.01)
        if branch.node is None:
            await self._farewell.say(branch.say or "", EndReason.AGENT_ENDED)
            return
        if branch.say:
            await self._speech.say(branch.say)
        graph.silence.go_on()
        await self._flow.go_to(branch.node)
