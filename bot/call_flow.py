"""The flow of one call: started behind its pipeline, entered anew or where the call was, and read for what is saved.

The steps are Pipecat's `FlowManager`'s. Never says a fixed line and never ends the call.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final, cast

from loguru import logger
from pipecat.flows import Flow, FlowManager
from pipecat.frames.frames import LLMMessagesTransformFrame, LLMMessagesUpdateFrame
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContextMessage

from bot.pipeline import CallGraph
from bot.saved_context import resumed_node, saved_state, with_break_note, with_lost_turn_note
from flows.business import Business, prompt_facts
from store.calls import SavedCall

FLOW_LIMIT_S: Final = 2.0
"""For the flow to be in place before the model is asked, and for its first words to reach the model's memory."""
_BUSINESS: Final = "business"
"""Where the flow's tools find it, in the flow's state."""


class CallFlow:
    """One call's."""

    def __init__(self, flow: Flow, business: Business, *, resumed: SavedCall | None) -> None:
        """Start nothing yet.

        Args:
            flow: The agent's, shared by all its calls.
            business: What the tools may know and do in this call.
            resumed: What was saved of the call, when this is not its first line.
        """
        self._flow = flow
        self._business = business
        self._resumed = resumed
        self._manager: FlowManager | None = None
        self._own_state: tuple[str, ...] = ()
        """Of the flow's state, what each line fills anew."""
        self._is_placed = asyncio.Event()
        """Set when the first node is on its way into the pipeline, or never will be."""

    @property
    def node(self) -> str | None:
        """Name of the present node."""
        return None if self._manager is None else self._manager.current_node

    @property
    def state(self) -> Mapping[str, Any]:
        """What its tools remember."""
        return {} if self._manager is None else self._manager.state

    def prepare(self, graph: CallGraph) -> None:
        """Make what steps through the flow, before the pipeline runs."""
        manager = FlowManager(
            llm=graph.llm,
            context_aggregator=graph.aggregators,
            worker=graph.worker,
            global_functions=self._flow.global_functions,
        )
        facts = prompt_facts(self._business)
        self._own_state = (_BUSINESS, *facts)
        if self._resumed is not None:
            manager.state.update(self._resumed.flow_state)
        manager.state.update(facts, **{_BUSINESS: self._business})
        self._manager = manager

    async def enter(self, worker: PipelineWorker) -> None:
        """Enter the first node, or the one that the call was in, with what was said before.

        Returns when the model's memory holds what the flow begins with: what was said before comes behind it.

        Args:
            worker: Of the pipeline, which runs.

        Raises:
            FlowError: If a node cannot be entered.
        """
        try:
            await self._place(worker)
        finally:
            self._is_placed.set()
        await _await_memory(worker)

    async def _place(self, worker: PipelineWorker) -> None:
        manager, saved = self._require_manager(), self._resumed
        if saved is None or not saved.messages:
            await manager.initialize(self._flow.initial_node)
            return
        is_known = saved.node is not None and saved.node in self._flow.config.nodes
        node = self._flow.node(saved.node) if is_known and saved.node is not None else self._flow.initial_node
        await manager.initialize(resumed_node(node))
        known = with_lost_turn_note(saved.messages) if saved.is_caller_talking else saved.messages
        await worker.queue_frame(LLMMessagesUpdateFrame(messages=list(cast(Any, known)), run_llm=False))

    async def wait_placed(self) -> None:
        """Wait until the pipeline runs and the flow is in place, no longer than `FLOW_LIMIT_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLOW_LIMIT_S):
                await self._is_placed.wait()

    async def go_to(self, node: str) -> None:
        """Go on at a node of the flow."""
        if self._manager is not None:
            await self._manager.set_node_from_config(self._flow.node(node))

    def to_save(self) -> Mapping[str, Any] | None:
        """Return where the flow is and what its tools remember: fields of `SavedCall`; None until it is in place."""
        if self._manager is None or not self._is_placed.is_set():
            return None
        return {
            "node": self._manager.current_node,
            "flow_state": saved_state(self._manager.state, but=self._own_state),
        }

    def let_go(self) -> None:
        """Keep nothing of the pipeline."""
        self._manager = None

    def _require_manager(self) -> FlowManager:
        if self._manager is None:
            raise RuntimeError("the flow of the call was not prepared, or was let go")
        return self._manager


async def ask_again(saved: SavedCall, worker: PipelineWorker) -> None:
    """Have the caller's last words answered, behind the memory of the lines before."""
    ask = LLMMessagesUpdateFrame(messages=cast(Any, with_break_note(saved.messages)), run_llm=True)
    await worker.queue_frame(ask)


async def _await_memory(worker: PipelineWorker) -> None:
    """Wait until all that was sent to the model's memory so far is in it.

    What the playout tells goes to the memory directly, and could otherwise get there first, or be replaced.
    """
    is_there = asyncio.Event()

    def look(messages: list[LLMContextMessage]) -> list[LLMContextMessage]:
        is_there.set()
        return messages

    await worker.queue_frame(LLMMessagesTransformFrame(transform=look))
    try:
        async with asyncio.timeout(FLOW_LIMIT_S):
            await is_there.wait()
    except TimeoutError:
        logger.warning("the flow's first words did not reach the model's memory in {} s", FLOW_LIMIT_S)
