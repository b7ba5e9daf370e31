"""What a call says first on a new line, and what it leaves for the next one. Its pipeline is real, its line not."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from pipecat.frames.frames import LLMMessagesAppendFrame

from bot.call_life import EndReason
from bot.lines import fixed_lines
from bot.resumption import new_saved_call
from bot.save_schedule import SaveSchedule
from bot.saved_context import LOST_TURN_NOTE, heard_since_caller
from store.calls import CallPhase, SavedCall
from tests.fakes.launcher import Launcher, eventually, open_launcher
from tests.fakes.memory_calls import MemoryCallStore
from tests.fakes.one_call import OneCall

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio(loop_scope="module")]

LINES = fixed_lines("en")
GREETING = "Northside Dental, how can I help?"
NOTICE = "This call may be recorded."
TASK = {"role": "developer", "content": "<call>Today: Friday.</call>"}
GREETED = {"role": "assistant", "content": GREETING}
ASKED = {"role": "user", "content": "What are your hours?"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def launcher(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Launcher]:
    async with open_launcher(tmp_path_factory.mktemp("launcher")) as running:
        yield running


def saved(*messages: dict[str, Any], **fields: Any) -> SavedCall:
    first = new_saved_call(
        "CA1", agent="reception", caller="+1", called="+2", process="a", longest_call_s=900
    )
    now = datetime.now(UTC)
    state = {"phase": CallPhase.LIVE, "node": "front_desk", "messages": messages, "resumes": (now,), **fields}
    return first.next(now, **state)


async def release(one: OneCall) -> None:
    one.call.end(EndReason.CALLER_HUNG_UP)
    await one.over()


def memory_of(one: OneCall) -> list[Any]:
    assert one.call.pipeline.graph is not None
    return one.call.pipeline.graph.context.messages


async def test_the_question_that_waits_is_asked_again_behind_the_regret(launcher: Launcher) -> None:
    one = OneCall(launcher, resumed=saved(TASK, GREETED, ASKED, about_to_say="Which day would suit you?"))
    await one.answer()
    await eventually(lambda: one.heard() == f"{LINES.cut_off} Which day would suit you?")
    assert memory_of(one)[:3] == [TASK, GREETED, ASKED]
    assert one.call.flow.node == "front_desk"
    await release(one)


async def test_who_waited_for_an_answer_gets_it(launcher: Launcher) -> None:
    one = OneCall(launcher, resumed=saved(TASK, GREETED, ASKED, {"role": "assistant", "content": "We're —"}))
    await one.answer()
    await eventually(lambda: one.heard().startswith(LINES.cut_off) and "eight AM to six PM" in one.heard())
    assert one.heard().count("We're open") == 1
    assert GREETING not in one.heard()
    await release(one)


async def test_who_was_interrupting_is_asked_to_say_it_again(launcher: Launcher) -> None:
    cut = {"role": "assistant", "content": "We're at —"}
    resumed = saved(TASK, GREETED, ASKED, cut, about_to_say="We're at 412.", is_caller_talking=True)
    one = OneCall(launcher, resumed=resumed)
    await one.answer()
    await eventually(lambda: one.heard() == f"{LINES.cut_off} {LINES.say_again}")
    assert {"role": "developer", "content": LOST_TURN_NOTE} in memory_of(one)
    again = LLMMessagesAppendFrame(messages=cast(Any, [ASKED]), run_llm=True)
    await one.call.pipeline.require().worker.queue_frame(again)
    await eventually(lambda: "eight AM to six PM" in one.heard())
    await release(one)


async def test_a_goodbye_is_said_and_ends_the_call(launcher: Launcher) -> None:
    one = OneCall(launcher, resumed=saved(TASK, GREETED, ASKED, about_to_say="Goodbye.", is_ending=True))
    await one.answer()
    assert await one.over() is EndReason.AGENT_ENDED
    assert one.heard() == f"{LINES.cut_off} Goodbye."
    assert len(one.hang_ups) == 1


async def test_the_limit_of_a_call_counts_all_its_lines(launcher: Launcher) -> None:
    began = datetime.now(UTC) - timedelta(minutes=20)
    one = OneCall(launcher, resumed=saved(TASK, GREETED, ASKED, about_to_say="Which day?", started_at=began))
    await one.answer()
    assert await one.over() is EndReason.MAX_LENGTH
    assert LINES.max_length_goodbye in one.heard()


async def test_what_is_heard_and_to_be_said_is_written_as_it_comes(launcher: Launcher) -> None:
    store = MemoryCallStore()
    one = OneCall(launcher, store=store)
    await one.answer()
    await eventually(lambda: one.heard() == GREETING)
    await eventually(lambda: store.stored["CA1"].about_to_say == GREETING)
    await eventually(lambda: store.stored["CA1"].messages[-1] == GREETED)
    assert store.stored["CA1"].node == "front_desk"
    await release(one)
    assert store.stored["CA1"].is_finished


async def test_what_a_tool_returned_is_written_before_any_word_of_it_is_heard(launcher: Launcher) -> None:
    store = MemoryCallStore()
    one = OneCall(launcher, store=store)
    assert one.call.keeper is not None
    one.call.keeper._schedule = SaveSchedule(lazy_s=60.0)  # nothing by the way
    await one.answer()
    await eventually(lambda: one.heard() == GREETING)
    asked: Any = {"role": "user", "content": "I'd like a cleaning on Monday."}
    await one.call.pipeline.require().worker.queue_frame(
        LLMMessagesAppendFrame(messages=[asked], run_llm=True)
    )
    await eventually(lambda: "I have" in one.heard())
    knows = [write for write in store.writes if any(m.get("role") == "tool" for m in write.messages)]
    assert knows, "somebody hears the offer, and nobody else knows of it"
    assert "I have" not in heard_since_caller(knows[0].messages, "")
    assert "I have" in knows[-1].about_to_say, "all of it is known before it is said"
    assert knows[-1].about_to_say.endswith("?")
    await release(one)


@pytest.mark.parametrize("reason", [EndReason.LINE_LOST, EndReason.MOVED, EndReason.FAILED])
async def test_a_call_that_may_go_on_is_not_hung_up(launcher: Launcher, reason: EndReason) -> None:
    store = MemoryCallStore()
    one = OneCall(launcher, store=store)
    await one.answer()
    await eventually(lambda: one.heard() != "")
    one.call.end(reason)
    assert await one.over() is reason
    assert one.hang_ups == []
    assert store.stored["CA1"].phase is CallPhase.LIVE
    assert store.stored["CA1"].messages[-1]["role"] == "assistant"


async def test_a_call_that_another_process_has_is_not_hung_up_by_us(launcher: Launcher) -> None:
    store = MemoryCallStore()
    one = OneCall(launcher, store=store)
    await one.answer()
    await eventually(lambda: "CA1" in store.stored)
    await store.claim(store.stored["CA1"], "b", datetime.now(UTC))
    one.call.end(EndReason.STUCK)
    await one.over()
    assert one.hang_ups == []
    assert not store.stored["CA1"].is_finished


async def test_a_line_that_was_not_counted_replaces_no_recording(launcher: Launcher, tmp_path: Path) -> None:
    (tmp_path / "audio-2.wav").write_bytes(b"kept")
    one = OneCall(launcher, folder=tmp_path, resumed=saved(TASK, GREETED, ASKED, about_to_say="Which day?"))
    await one.answer()
    await eventually(lambda: one.heard() != "")
    await release(one)
    assert (tmp_path / "audio-2.wav").read_bytes() == b"kept"
    assert (tmp_path / "audio-3.wav").exists()
