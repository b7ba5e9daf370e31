"""The shipped flow under a real FlowManager and Pipecat's Anthropic service, with typed turns instead of audio."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pipecat.frames.frames import LLMMessagesAppendFrame
from pipecat.workers.runner import WorkerRunner

from flows.reception import tools
from sims.faults import FaultKind, FaultSpec
from tests.fakes.typed_call import FlowGraph, Office, build_flow_graph, open_office

pytestmark = pytest.mark.real_time

PHONE = "eight five oh, five five five, oh one nine nine"


@dataclass
class TypedCall:
    """One call whose caller types."""

    office: Office
    graph: FlowGraph
    ended: asyncio.Event
    said: list[str] = field(default_factory=list[str])
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, text: str, until: str | Callable[[], bool]) -> None:
        """The caller types `text`; returns once the agent's words hold `until`, or it is true."""
        await self.graph.worker.queue_frame(
            LLMMessagesAppendFrame(messages=[{"role": "user", "content": text}], run_llm=True)
        )
        heard = len(self.said)
        await self.wait(lambda: until() if callable(until) else until in " ".join(self.said[heard:]), text)

    async def wait(self, done: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(5):
                while not done():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"after {what!r} the agent had said {self.said}") from None


@asynccontextmanager
async def typed_call(folder: Path) -> AsyncGenerator[TypedCall]:
    ended = asyncio.Event()
    async with open_office(folder) as office:
        graph = build_flow_graph(office, ended.set)
        call = TypedCall(office, graph, ended)

        async def on_turn(_: Any, message: Any) -> None:
            call.said.append(message.content)
            call.changed.set()

        graph.aggregators.assistant().add_event_handler("on_assistant_turn_stopped", on_turn)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(graph.worker)
        running = asyncio.create_task(runner.run())
        await graph.manager.initialize(graph.flow.initial_node)
        try:
            yield call
        finally:
            await graph.worker.cancel()
            await running


async def test_a_booking_ends_in_the_book_in_the_right_zone_and_the_call_ends(tmp_path: Path) -> None:
    async with typed_call(tmp_path) as call:
        await call.say("Hi, I'd like to book a cleaning next Tuesday morning.", "Which would you like?")
        await call.say("Actually, could we make it Wednesday?", "Wednesday, November 25th at eight AM")
        await call.say("The first one.", "What name")
        await call.say("Maria Lopez.", "What phone number")
        await call.say(PHONE, "Shall I book it?")
        assert await call.office.calendar.bookings() == []
        await call.say("Yes, please.", "You're booked for Wednesday, November 25th at eight AM")
        await call.say("No, that's all. Goodbye.", "Goodbye")
        async with asyncio.timeout(5):
            await call.ended.wait()
        (booking,) = await call.office.calendar.bookings()
    assert booking.slot.start.isoformat() == "2026-11-25T08:00:00-06:00"
    assert (booking.slot.service.name, booking.name, booking.phone) == (
        "cleaning",
        "Maria Lopez",
        "+18505550199",
    )


async def test_the_prompt_is_one_stable_prefix_and_the_facts_are_filled_in(tmp_path: Path) -> None:
    async with typed_call(tmp_path) as call:
        await call.say("When are you open?", "Saturday nine AM to one PM")
        await call.say("And where are you?", "412 Harrison Avenue")
        first, second = (request.body for request in call.office.sim.requests)
    assert (first["system"], first["tools"]) == (second["system"], second["tools"])
    assert "{{" not in first["system"][0]["text"]
    assert "November" not in first["system"][0]["text"]  # what changes stands behind the cached part
    assert "Today: Saturday, November 21st, 2026, nine thirty AM" in str(first["messages"][0])


async def test_a_booking_confirmed_twice_is_one_booking(tmp_path: Path) -> None:
    async with typed_call(tmp_path) as call:
        await call.say("Book me a cleaning on Tuesday", "Which would you like?")
        await call.say("first", "What name")
        await call.say("Maria Lopez", "What phone number")
        await call.say(PHONE, "Shall I book it?")
        await call.say("Yes.", "You're booked")
        wish = {"start": "2026-11-24T08:00", "name": "Maria Lopez", "phone": "8505550199", "confirmed": True}
        again, _ = await tools.book_appointment(call.graph.manager, **wish)
        assert again["status"] == "booked"
        assert len(await call.office.calendar.bookings()) == 1


async def test_a_message_is_written_down(tmp_path: Path) -> None:
    async with typed_call(tmp_path) as call:
        await call.say("Please tell Dr. Lee that my crown fell out.", "May I have your name?")
        await call.say("This is Maria Lopez.", "What phone number")
        await call.say("The number I'm calling from.", "Is that right?")
        await call.say("Yes.", "passed that on")
        (message,) = await call.office.messages.messages()
    assert (message.text, message.phone, message.call_sid) == ("my crown fell out.", "+18505550142", "CA1")


async def test_the_flow_goes_on_after_the_model_failed(tmp_path: Path) -> None:
    async with typed_call(tmp_path) as call:
        call.office.sim.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1))
        await call.say(
            "A cleaning on Tuesday please.",
            lambda: call.office.sim.stats["status_529"] == 1 or bool(call.said),
        )
        await call.say("Hello?", "Which would you like?")
