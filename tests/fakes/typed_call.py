"""The reception flow under a real FlowManager and Pipecat's Anthropic service; no audio, no telephone."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from anthropic import AsyncAnthropic
from pipecat.flows import Flow, FlowManager
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.anthropic.llm import AnthropicLLMService

from bot.flow_check import read_flow
from flows.business import Business, prompt_facts
from flows.reception import tools
from integrations.calendar import OpeningHours
from integrations.calendar_sqlite import SqliteCalendar
from integrations.messages_sqlite import SqliteMessageBook
from sims.anthropic import AnthropicSim
from sims.profiles import PROFILES

ZONE = ZoneInfo("America/Chicago")
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=ZONE)
HOURS = OpeningHours.parse({"mon-fri": "08:00-18:00", "sat": "09:00-13:00"})
FLOW_FILE = Path(tools.__file__).with_name("flow.yaml")


@dataclass(frozen=True)
class Office:
    """The business's books and its model."""

    sim: AnthropicSim
    client: AsyncAnthropic
    calendar: SqliteCalendar
    messages: SqliteMessageBook


@dataclass(frozen=True)
class FlowGraph:
    """One call's pipeline with its flow."""

    worker: PipelineWorker
    manager: FlowManager
    aggregators: LLMContextAggregatorPair
    flow: Flow


@asynccontextmanager
async def open_office(folder: Path) -> AsyncGenerator[Office]:
    """Books in `folder` and an Anthropic sim; all closed at the end."""
    calendar = SqliteCalendar(folder / "books.db", hours=HOURS, timezone=ZONE, now=lambda: NOW, deadline_s=5)
    messages = SqliteMessageBook(folder / "books.db", timezone=ZONE, deadline_s=5)
    async with (
        AnthropicSim(PROFILES["instant"]) as sim,
        AsyncAnthropic(api_key="k", base_url=sim.base_url, max_retries=0, timeout=5) as client,
    ):
        yield Office(sim, client, calendar, messages)
        await calendar.close()
        await messages.close()


def build_flow_graph(
    office: Office,
    request_end: Callable[[], None],
    *,
    ahead: tuple[FrameProcessor, ...] = (),
    behind: tuple[FrameProcessor, ...] = (),
    rtvi: bool = False,
) -> FlowGraph:
    """Join model, memory and flow, between a transport's two ends if it has them."""
    llm: Any = AnthropicLLMService(
        api_key="k",
        client=office.client,
        settings=AnthropicLLMService.Settings(model="claude-haiku-4-5", enable_prompt_caching=True),
    )
    pair = LLMContextAggregatorPair(LLMContext())
    pipeline = Pipeline([*ahead, pair.user(), llm, *behind, pair.assistant()])
    worker = PipelineWorker(pipeline, enable_rtvi=rtvi, check_dangling_tasks=False)
    flow = read_flow(FLOW_FILE.parent).flow
    manager = FlowManager(
        llm=llm, context_aggregator=pair, worker=worker, global_functions=flow.global_functions
    )
    business = Business(
        calendar=office.calendar,
        messages=office.messages,
        timezone=ZONE,
        hours=HOURS,
        call_sid="CA1",
        caller_number="+18505550142",
        now=lambda: NOW,
        request_end=request_end,
    )
    manager.state["business"] = business
    manager.state.update(prompt_facts(business))
    return FlowGraph(worker, manager, pair, flow)
