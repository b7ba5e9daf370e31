"""Callers for whom there is no room: everybody who counts is told; the documents are `tests/bot/test_overflow.py`'s."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from bot.agent import Agent
from bot.refused_calls import MOST_MOVES, RefusedCalls
from bot.resources import Resources
from flows.spoken import say_datetime
from integrations.calendar import OpeningHours
from integrations.callbacks import Callback
from store.events import EventKind
from telephony.admission import AdmissionVerdict
from telephony.signature import PublicAddress
from tests.fakes.ringing_board import Board

CALLER = "+15550001111"
DUE = datetime(2026, 1, 5, 17, 0, tzinfo=UTC)


class Promises:
    """A book of calls back, and the business's hours."""

    def __init__(self) -> None:
        self.kept: dict[str, Callback] = {}
        self.is_down = False
        self.callbacks = self
        self.timezone = ZoneInfo("America/Chicago")
        self.hours = OpeningHours.parse({"mon-fri": "08:00-18:00"})

    async def promise(self, callback: Callback) -> None:
        if self.is_down:
            raise OSError("disk full")
        self.kept.setdefault(callback.key, callback)

    @property
    def made(self) -> list[Callback]:
        return list(self.kept.values())


class Refusing:
    def __init__(self, folder: Path, tasks: asyncio.TaskGroup) -> None:
        self.board = Board(folder, agents=1, max_calls=1)
        self.promises = Promises()
        self.board.resources.books = {"agent-0": self.promises}
        self.calls = RefusedCalls(
            tasks,
            cast("Resources", self.board.resources),
            address=PublicAddress("https://phone.example.com"),
            metrics=self.board.metrics,
        )

    @property
    def agent(self) -> Agent:
        return self.board.resources.agents["agent-0"].agent

    def takes_messages(self) -> None:
        overflow = self.agent.config.overflow.model_copy(update={"voicemail": True})
        config = self.agent.config.model_copy(update={"overflow": overflow})
        checked: Any = self.board.resources.agents["agent-0"]
        object.__setattr__(checked.agent, "config", config)

    async def recorded(self, due_at: datetime | None) -> str:
        form = {"CallSid": "CA1", "From": CALLER}
        return await self.calls.answer("recorded", "agent-0", 0, form, due_at=due_at)

    def refuse(self, reason: AdmissionVerdict, moves: int = MOST_MOVES) -> str:
        return self.calls.refuse("CA1", self.agent, reason, caller=CALLER, moves=moves)


@pytest_asyncio.fixture
async def refusing(tmp_path: Path) -> AsyncGenerator[Refusing]:
    async with asyncio.TaskGroup() as tasks:
        yield Refusing(tmp_path, tasks)


async def test_a_caller_without_room_hears_so_and_everybody_who_counts_is_told(refusing: Refusing) -> None:
    assert "All our lines are busy" in refusing.refuse(AdmissionVerdict.FULL)
    assert refusing.board.counted('firstring_calls_refused_total{reason="full"} 1.0')
    [row] = refusing.board.events
    assert (row.kind, row.call_sid) == (EventKind.CALL_REFUSED, "CA1")
    assert row.fields == {"agent": "agent-0", "reason": "full", "step": "line", "person": 0}


async def test_a_process_that_is_about_to_stop_sends_callers_back_but_not_for_ever(
    refusing: Refusing,
) -> None:
    moved = refusing.refuse(AdmissionVerdict.DRAINING, moves=2)
    assert "https://phone.example.com/twilio/voice?moves=3" in moved
    assert refusing.board.counted('firstring_calls_refused_total{reason="moved"} 1.0')
    assert refusing.board.events == []
    assert "<Say" in refusing.refuse(AdmissionVerdict.DRAINING)


async def test_who_is_here_already_is_nobody_to_ring_for(refusing: Refusing) -> None:
    refusing.takes_messages()
    assert "<Record" not in refusing.refuse(AdmissionVerdict.DUPLICATE)
    assert refusing.board.events == []


async def test_who_may_leave_a_message_is_promised_a_call_back(refusing: Refusing) -> None:
    refusing.takes_messages()
    assert "<Record" in refusing.refuse(AdmissionVerdict.FULL)
    await asyncio.sleep(0.1)
    [promise] = refusing.promises.made
    assert (promise.key, promise.phone, promise.reason) == ("CA1", CALLER, "no line was free")
    assert promise.due_at > promise.asked_at


async def test_a_promise_that_cannot_be_written_down_takes_nothing_with_it(refusing: Refusing) -> None:
    refusing.takes_messages()
    refusing.promises.is_down = True
    assert "<Record" in refusing.refuse(AdmissionVerdict.FULL)
    await asyncio.sleep(0.1)
    assert refusing.promises.made == []
    [_, failed] = refusing.board.events
    assert failed.kind == EventKind.FAILURE
    assert (failed.fields["stage"], failed.fields["action"]) == ("overflow", "not_promised")


async def test_a_call_back_is_confirmed_with_the_time_that_is_written_down(refusing: Refusing) -> None:
    refusing.takes_messages()
    refusing.refuse(AdmissionVerdict.FULL)
    await asyncio.sleep(0.1)
    [promise] = refusing.promises.made
    thanks = await refusing.recorded(promise.due_at)
    assert f"We will call you back by {say_datetime(promise.due_at)}." in thanks
    assert refusing.promises.made == [promise]


async def test_what_could_not_be_written_down_when_it_rang_is_before_it_is_confirmed(
    refusing: Refusing,
) -> None:
    refusing.takes_messages()
    refusing.promises.is_down = True
    refusing.refuse(AdmissionVerdict.FULL)
    await asyncio.sleep(0.1)
    refusing.promises.is_down = False
    assert "call you back" in await refusing.recorded(DUE)
    [promise] = refusing.promises.made
    assert (promise.key, promise.phone, promise.due_at) == ("CA1", CALLER, DUE)


async def test_without_its_row_no_call_back_is_promised(refusing: Refusing) -> None:
    refusing.takes_messages()
    refusing.promises.is_down = True
    assert "call you back" not in await refusing.recorded(DUE)
    assert "call you back" not in await refusing.recorded(None)
    assert refusing.promises.made == []


async def test_what_the_carrier_asks_next_is_answered_and_told(refusing: Refusing) -> None:
    refusing.takes_messages()
    form = {"CallSid": "CA1", "From": CALLER, "DialCallStatus": "no-answer"}
    assert "<Record" in await refusing.calls.answer("dialled", "agent-0", 0, form)
    assert await refusing.calls.answer("whisper", "agent-0", 0, form)
    assert await refusing.calls.answer("screened", "agent-0", 0, form)
    assert await refusing.calls.answer("recorded", "agent-0", 0, form)
    assert [row.fields["step"] for row in refusing.board.events] == ["message", "thanks"]


@pytest.mark.parametrize(("step", "agent"), [("sung", "agent-0"), ("whisper", "nobody")])
async def test_nobody_answers_for_a_step_or_an_agent_that_there_is_not(
    refusing: Refusing, step: str, agent: str
) -> None:
    with pytest.raises(KeyError):
        await refusing.calls.answer(step, agent, 0, {})
