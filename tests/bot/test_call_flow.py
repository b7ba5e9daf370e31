"""The shipped flow, stepped through by Pipecat's own manager in a real pipeline with stand-ins for the vendors."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pipecat.flows import FlowManager

from bot import call_flow
from bot.call_flow import FLOW_LIMIT_S, CallFlow, ask_again
from bot.flow_check import load_checked_agents
from bot.resumption import new_saved_call
from bot.saved_context import BREAK_NOTE
from flows.business import Business
from store.calls import CallPhase, SavedCall
from tests.fakes.books import MemoryCalendar, MemoryMessageBook
from tests.fakes.call_rig import CallRig
from tests.fakes.conversation import FLOWS
from tests.fakes.front_desk import HOURS, SATURDAY, ZONE

FLOW = load_checked_agents(FLOWS)["reception"].flow
TASK = {"role": "developer", "content": "<call>Today: Friday.</call>"}
GREETED = {"role": "assistant", "content": "Northside Dental, how can I help?"}
ASKED = {"role": "user", "content": "What are your hours?"}


def business() -> Business:
    return Business(
        calendar=MemoryCalendar(HOURS, ZONE, SATURDAY),
        messages=MemoryMessageBook(),
        timezone=ZONE,
        hours=HOURS,
        call_sid="CA1",
        caller_number="+18505550142",
        now=lambda: SATURDAY,
        request_end=lambda: None,
    )


def saved(**fields: Any) -> SavedCall:
    first = new_saved_call("CA1", agent="reception", caller="+1", called="+2", process="a", longest_call_s=9)
    state = {"phase": CallPhase.LIVE, "node": "front_desk", "messages": (TASK, GREETED, ASKED), **fields}
    return first.next(datetime.now(UTC), **state)


def flow_of(rig: CallRig, resumed: SavedCall | None = None) -> CallFlow:
    """Return a flow that is prepared for the rig's pipeline."""
    flow = CallFlow(FLOW, business(), resumed=resumed)
    flow.prepare(rig.graph)
    return flow


async def test_a_new_call_enters_the_first_node_and_its_words_are_in_the_memory_by_then() -> None:
    rig = CallRig()
    flow = flow_of(rig)
    assert flow.to_save() is None
    async with rig.running():
        await flow.enter(rig.graph.worker)
        assert flow.node == "front_desk"
        [task] = rig.talk.messages("developer")
        assert "Saturday, November 21st, 2026" in task
    place = flow.to_save()
    assert place is not None
    assert place["node"] == "front_desk"
    assert place["flow_state"] == {}, "each line fills its own facts anew"


async def test_what_the_tools_noted_is_saved_and_there_on_the_next_line() -> None:
    rig = CallRig()
    flow = flow_of(rig, saved(flow_state={"captured": {"name": "Maria"}, "today": "long ago"}))
    assert flow.state["captured"] == {"name": "Maria"}
    assert flow.state["today"] == "Saturday, November 21st, 2026"
    async with rig.running():
        await flow.enter(rig.graph.worker)
    place = flow.to_save()
    assert place is not None
    assert place["flow_state"] == {"captured": {"name": "Maria"}}


async def test_a_call_on_a_new_line_has_its_memory_back_and_nothing_added() -> None:
    rig = CallRig()
    flow = flow_of(rig, saved())
    async with rig.running():
        await flow.enter(rig.graph.worker)
        assert rig.graph.context.messages == [TASK, GREETED, ASKED]
        assert flow.node == "front_desk"


@pytest.mark.parametrize("node", ["of an older flow", None])
async def test_a_node_that_is_gone_is_the_first_one(node: str | None) -> None:
    rig = CallRig()
    flow = flow_of(rig, saved(node=node))
    async with rig.running():
        await flow.enter(rig.graph.worker)
        assert flow.node == "front_desk"


async def test_a_call_of_which_nothing_was_heard_begins_as_a_new_one() -> None:
    rig = CallRig()
    flow = flow_of(rig, saved(messages=()))
    async with rig.running():
        await flow.enter(rig.graph.worker)
        assert len(rig.talk.messages("developer")) == 1


async def test_who_waits_for_the_flow_goes_on_when_it_is_in_place() -> None:
    rig = CallRig()
    flow = flow_of(rig)
    loop = asyncio.get_running_loop()
    async with rig.running():
        began_s = loop.time()
        waiting = asyncio.create_task(flow.wait_placed())
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await flow.enter(rig.graph.worker)
        await waiting
        assert loop.time() - began_s < FLOW_LIMIT_S


async def test_nobody_waits_for_a_flow_for_ever() -> None:
    flow = CallFlow(FLOW, business(), resumed=None)
    began_s = asyncio.get_running_loop().time()
    await flow.wait_placed()
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(FLOW_LIMIT_S)


async def test_who_waits_for_a_flow_that_fails_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ValueError("no such node")

    rig = CallRig()
    flow = flow_of(rig)
    monkeypatch.setattr(FlowManager, "initialize", fail)
    with pytest.raises(ValueError, match="no such node"):
        await flow.enter(rig.graph.worker)
    await asyncio.wait_for(flow.wait_placed(), 0.1)


async def test_a_memory_that_never_answers_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = CallRig()
    flow = flow_of(rig)
    loop = asyncio.get_running_loop()

    async def hold(*_: object) -> None:
        """Lets nothing through to the memory."""

    async with rig.running():
        monkeypatch.setattr(rig.graph.caller, "push_frame", hold)
        began_s = loop.time()
        await flow.enter(rig.graph.worker)
        assert loop.time() - began_s == pytest.approx(call_flow.FLOW_LIMIT_S, abs=0.1)
        monkeypatch.undo()


async def test_the_callers_last_words_are_answered_on_a_new_line() -> None:
    rig = CallRig()
    flow = flow_of(rig, saved())
    async with rig.running():
        await flow.enter(rig.graph.worker)
        await ask_again(saved(), rig.graph.worker)
        await asyncio.sleep(0.2)
        assert [reply.asked for reply in rig.talk.book.replies] == [ASKED["content"]]
        assert rig.talk.messages("developer")[-1] == BREAK_NOTE.format(heard="")


async def test_a_flow_that_was_let_go_is_nowhere() -> None:
    rig = CallRig()
    flow = flow_of(rig)
    async with rig.running():
        await flow.enter(rig.graph.worker)
    flow.let_go()
    assert flow.node is None
    assert flow.state == {}
    assert flow.to_save() is None
    await flow.go_to("front_desk")  # nobody is there who could
    with pytest.raises(RuntimeError, match="let go"):
        await flow.enter(rig.graph.worker)
