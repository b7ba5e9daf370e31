import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from loguru import logger

from store.errors import StoreUnavailableError
from store.events import EventKind, failure
from store.events_spooled import SpooledEventLog
from store.events_sqlite import SqliteEventLog
from store.spool import Spool, SpoolFullError
from store.spool_table import SpoolBounds, SpoolState
from tests.fakes.launcher import eventually
from tests.store.event_log_suite import event

pytestmark = pytest.mark.real_time


class Log:
    def __init__(self, folder: Path, *, bounds: SpoolBounds | None = None) -> None:
        self.path = folder / "events.db"
        self.spool = Spool(folder / "spool", name="state", process="one", deadline_s=1.0, bounds=bounds)
        self.behind = SqliteEventLog(self.path, deadline_s=1.0)
        self.log = SpooledEventLog(self.behind, self.spool)

    async def close(self) -> None:
        await self.spool.close()
        await self.log.close()


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = Log(tmp_path)
    yield log
    await log.close()


async def test_what_is_on_its_way_is_read_behind_what_is_written(log: Log) -> None:
    events = [event(number) for number in range(4)]
    await log.log.append(events[:2])
    assert await log.spool.settled(5)
    log.log.note(events[2])
    log.log.note(event(9, "CA10"))
    log.log.note(events[3])
    assert await log.log.of_call("CA1") == events
    assert await log.spool.settled(5)
    assert await log.log.of_call("CA1") == events
    assert [one.call_sid for one in (await log.log.since()).events] == ["CA1"] * 3 + ["CA10", "CA1"]


async def test_each_failure_is_a_line_in_the_log_too(log: Log) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    row = failure(
        "CA1", vendor="cartesia", kind="closed", stage="speaking", action="next:elevenlabs", cost_ms=180.04
    )
    log.log.note(row)
    log.log.note(silence := event(1))
    logger.remove(sink)
    assert [line.strip() for line in lines] == [
        "failure: call=CA1 vendor=cartesia kind=closed stage=speaking action=next:elevenlabs cost_ms=180.0"
    ]
    assert await log.log.of_call("CA1") == [row, silence]


async def test_a_log_that_is_locked_gets_every_event_once_and_in_order(log: Log) -> None:
    events = [event(number) for number in range(30)]
    await log.log.append(events[:1])
    assert await log.spool.settled(5)
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for one in events[1:]:
        log.log.note(one)
    await eventually(lambda: log.spool.state is SpoolState.DOWN)
    assert await log.log.of_call("CA1") == events
    other.execute("ROLLBACK")
    other.close()
    assert await log.spool.settled(15)
    assert (await log.behind.since()).events == tuple(events)


async def test_a_note_that_cannot_be_taken_disturbs_nobody(tmp_path: Path) -> None:
    log = Log(tmp_path, bounds=SpoolBounds(writes=1))
    (tmp_path / "events.db").mkdir()
    log.log.note(replace(event(1), fields={"x": object()}))  # pyright: ignore[reportArgumentType]
    for number in range(5):
        log.log.note(event(number))
    with pytest.raises(SpoolFullError):
        await log.log.append([event(9)])
    await eventually(lambda: log.spool.state is SpoolState.DOWN)
    with pytest.raises(StoreUnavailableError):
        await log.log.of_call("CA2")
    assert [one.kind for one in await log.log.of_call("CA1")] == [EventKind.SILENCE]
    await log.close()
