"""Whole calls while Redis is gone, hangs, is killed and comes back, and the database is locked: the callers notice
nothing or are told honestly, and every row is there once in the end. All calls at the same time.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from bot import voice_lines
from bot.call import Call
from bot.call_life import EndReason
from bot.lines import openers
from integrations.messages_sqlite import SqliteMessageBook
from sims.faults import FaultKind, FaultSpec
from sims.report import CallReport, Measures
from sims.scenario import load_scenario
from store.events import CallEvent, EventKind
from tests.fakes.launcher import Launcher, open_launcher
from tests.fakes.redis_process import RedisProcess

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios"
CALLS = {
    "message": "quick_message.yaml",
    "no_book": "stores/no_book.yaml",
    "questions": "questions.yaml",
}
STAGGER_S = 1.0


@dataclass(frozen=True)
class Played:
    """One call from both ends."""

    report: CallReport
    call: Call

    @property
    def measures(self) -> Measures:
        assert self.report.measures is not None
        return self.report.measures

    @property
    def heard(self) -> str:
        """The agent's words as they came out of the caller's phone."""
        return " ".join(word for word, _, _ in self.measures.agent_words).lower()


@dataclass(frozen=True)
class Evening:
    """All calls of this module, over; every store is back."""

    launcher: Launcher
    calls: Mapping[str, Played]

    async def events_of(self, name: str) -> list[CallEvent]:
        stores = self.launcher.board._resources.stores
        return await stores.events.of_call(self.calls[name].report.call_sid)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    folder = tmp_path_factory.mktemp("stores")
    server = RedisProcess(folder)
    with pytest.MonkeyPatch.context() as patch:
        # No more lines are rendered than are said at the beginning of a reply.
        patch.setattr(voice_lines, "cacheable_lines", lambda config: (config.greeting, *openers("en-US")))
        try:
            async with open_launcher(folder, profile="realistic", redis_url=server.url) as launcher:
                launcher.world.anthropic.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1))
                lock = await _lock(launcher.settings.database_path)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_trouble(server))
                    calls = {
                        name: tasks.create_task(_play(launcher, folder, scenario, number * STAGGER_S))
                        for number, (name, scenario) in enumerate(CALLS.items())
                    }
                lock.execute("ROLLBACK")
                lock.close()
                stores = launcher.board._resources.stores
                assert await stores.state_spool.settled(20)
                assert await stores.books_spool.settled(20)
                yield Evening(launcher, {name: task.result() for name, task in calls.items()})
        finally:
            server.kill()


async def _play(launcher: Launcher, folder: Path, scenario: str, after_s: float) -> Played:
    await asyncio.sleep(after_s)
    report = await launcher.world.twilio.place_call(
        load_scenario(SCENARIOS / scenario), voice_url=launcher.voice_url, out_dir=folder
    )
    return Played(report, await launcher.ended(report.call_sid))


async def _lock(path: Path) -> sqlite3.Connection:
    """Somebody else writes into the database, and does not come to an end."""
    book = SqliteMessageBook(path, timezone=ZoneInfo("UTC"), deadline_s=5)
    await book.messages()  # there is a database now
    await book.close()
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def _trouble(server: RedisProcess) -> None:
    """Redis is not there, comes, hangs, goes on, is killed, and comes back."""
    keeps = ("--appendonly", "yes", "--appendfsync", "always")
    await asyncio.sleep(5.0)
    await asyncio.to_thread(server.start, *keeps)
    await asyncio.sleep(3.0)
    server.freeze()
    await asyncio.sleep(4.0)
    server.thaw()
    await asyncio.sleep(1.0)
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(3.0)
    await asyncio.to_thread(server.start, *keeps)


@pytest.mark.parametrize("name", CALLS)
async def test_failure_11_the_caller_is_answered_as_ever(evening: Evening, name: str) -> None:
    call = evening.calls[name]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.report.warnings == {}
    assert call.call.end_reason is EndReason.AGENT_ENDED
    assert not [turn for turn in call.call.turns.turns() if turn.retries]


@pytest.mark.parametrize("name", CALLS)
async def test_what_happened_is_in_the_event_log_once_and_in_order(evening: Evening, name: str) -> None:
    events = await evening.events_of(name)
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-1]) == (EventKind.CALL_BEGAN, EventKind.CALL_ENDED)
    assert kinds.count(EventKind.CALL_BEGAN) == kinds.count(EventKind.CALL_ENDED) == 1
    assert events == sorted(events, key=lambda event: event.at)
    assert len({event.event_id for event in events}) == len(events)
    assert events[-1].fields["reason"] == "agent_ended"


async def test_a_failure_in_one_of_these_calls_has_its_row(evening: Evening) -> None:
    rows = [
        event.fields
        for name in CALLS
        for event in await evening.events_of(name)
        if event.kind == EventKind.FAILURE and event.fields["kind"] == "overloaded"
    ]
    assert len(rows) == 1
    assert (rows[0]["vendor"], rows[0]["layer"], rows[0]["action"]) == ("anthropic", "llm", "retry")
    cost_ms = rows[0]["cost_ms"]
    assert isinstance(cost_ms, float)
    assert 0 <= cost_ms < 2000


async def test_that_redis_was_down_is_told_and_counted(evening: Evening) -> None:
    page = await evening.launcher.board._resources.stores.events.since()
    rows = [event for event in page.events if not event.call_sid]
    assert [event.kind for event in rows][:2] == [EventKind.FAILURE, EventKind.STORE_BACK]
    assert (rows[0].fields["vendor"], rows[0].fields["action"]) == ("redis", "spooled")
    counted = await evening.launcher.metrics()
    assert counted["store_failures{store=redis}"] >= 1
    assert not [key for key in counted if key.startswith("writes_lost")]


async def test_a_message_left_while_the_database_was_locked_is_in_the_book_once(evening: Evening) -> None:
    path = evening.launcher.settings.database_path
    book = SqliteMessageBook(path, timezone=ZoneInfo("America/Chicago"), deadline_s=5)
    [said] = await book.messages()
    await book.close()
    assert said.call_sid == evening.calls["message"].report.call_sid
    assert (said.name, said.phone) == ("Martin Reyes", "+18505550177")
    assert "crown" in said.text


async def test_the_agent_says_what_it_cannot_do_and_no_more_than_is_true(evening: Evening) -> None:
    assert "can't reach our appointment book" in evening.calls["no_book"].heard
    assert "written that down" in evening.calls["message"].heard
    assert "passed that on" not in evening.calls["message"].heard
