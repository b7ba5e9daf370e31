"""Callers who ask for a person, in a flow that has a way of its own for them. The pipeline is real, the line is not."""

import shutil
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from pipecat.frames.frames import LLMMessagesAppendFrame

from bot.call_life import EndReason
from bot.flow_check import CheckedAgent, check_agent
from bot.resources import Books
from flows.business import PersonAnswer
from integrations.calendar import OpeningHours
from tests.fakes.launcher import ROOT, Launcher, eventually, open_launcher
from tests.fakes.one_call import OneCall

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

ABOUT = "Sure. What is it about?"
CLOSED = "Everybody has gone home. May I take a message?"
GOODBYE = "Nobody is here. Please call again. Goodbye."
NODE = """\
  {name}:
    respond_immediately: false
    task_messages: [{{role: developer, content: "<call>Take it down.</call>"}}]
    functions: [{{name: take_message}}, {{name: transfer_to_person}}, {{name: end_call}}]
"""
BRANCHES = f"""\
events:
  human_requested: {{say: "{ABOUT}", then: before_a_person}}
  out_of_hours: {{say: "{CLOSED}", then: message}}
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher")) as running:
        yield running


def agent(
    folder: Path, events: str = BRANCHES, nodes: tuple[str, ...] = ("before_a_person", "message")
) -> CheckedAgent:
    """Write the shipped agent with branches of its own."""
    folder = folder / "reception"
    shutil.copytree(ROOT / "flows" / "reception", folder)
    flow = (folder / "flow.yaml").read_text().replace("events:\n", events)
    (folder / "flow.yaml").write_text(flow + "".join(NODE.format(name=name) for name in nodes))
    return check_agent(folder)


@pytest.fixture
def at_hours(launcher: Launcher) -> Any:
    """Open or close the business, until the test is over."""
    books = cast("dict[str, Books]", launcher.board._resources.books)
    before = books["reception"]

    def open_or_close(*, is_open: bool) -> None:
        another_day = (datetime.now(UTC) + timedelta(days=3)).strftime("%a").lower()
        hours = {"mon-sun": "00:00-24:00"} if is_open else {another_day: "08:00-18:00"}
        books["reception"] = replace(before, hours=OpeningHours.parse(hours))

    yield open_or_close
    books["reception"] = before


async def ask_for_a_person(one: OneCall) -> None:
    await one.answer()
    await eventually(lambda: one.heard() != "")
    asked = {"role": "user", "content": "I want to talk to a person about my bill."}
    frame = LLMMessagesAppendFrame(messages=cast(Any, [asked]), run_llm=True)
    await one.call.pipeline.require().worker.queue_frame(frame)


def node(one: OneCall) -> str | None:
    return one.call.flow.node


@pytest.mark.parametrize(
    ("is_open", "line", "name"), [(True, ABOUT, "before_a_person"), (False, CLOSED, "message")]
)
async def test_who_asks_for_a_person_goes_where_the_flow_has_them_go_and_is_put_through_the_second_time(
    launcher: Launcher, tmp_path: Path, at_hours: Any, *, is_open: bool, line: str, name: str
) -> None:
    at_hours(is_open=is_open)
    one = OneCall(launcher, checked=agent(tmp_path))
    await ask_for_a_person(one)
    await eventually(lambda: one.heard().endswith(line))
    await eventually(lambda: node(one) == name)
    assert "I'm putting you through" not in one.heard()
    again = [one.call.persons.asked("my bill") for _ in range(2)]
    expected = [PersonAnswer.NOBODY] * 2 if is_open else [PersonAnswer.ELSEWHERE, PersonAnswer.NOBODY]
    assert again == expected, "out of hours the other branch stands yet; nobody is rung on this line"
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()


async def test_out_of_hours_a_flow_may_end_with_a_word(
    launcher: Launcher, tmp_path: Path, at_hours: Any
) -> None:
    at_hours(is_open=False)
    events = f'events:\n  out_of_hours: {{say: "{GOODBYE}", then: end}}\n'
    one = OneCall(launcher, checked=agent(tmp_path, events, ()))
    await ask_for_a_person(one)
    assert await one.over() is EndReason.AGENT_ENDED
    assert one.heard().endswith(GOODBYE)


async def test_without_a_branch_nobody_is_held_up(launcher: Launcher, at_hours: Any) -> None:
    at_hours(is_open=True)
    one = OneCall(launcher)
    await ask_for_a_person(one)
    await eventually(lambda: "take a message" in one.heard())
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()
