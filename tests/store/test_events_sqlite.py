import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import StoreUnavailableError
from store.events import EventLog
from store.events_sqlite import SqliteEventLog
from tests.store.event_log_suite import EventLogSuite, event

pytestmark = pytest.mark.real_time


class TestSqliteEventLog(EventLogSuite):
    @pytest.fixture
    def open_log(self, tmp_path: Path) -> Callable[[], EventLog]:
        return lambda: SqliteEventLog(tmp_path / "data" / "events.db", deadline_s=5.0)


async def test_a_locked_file_is_a_typed_failure_in_time_and_half_of_nothing_is_written(
    tmp_path: Path,
) -> None:
    log = SqliteEventLog(tmp_path / "events.db", deadline_s=0.2)
    await log.append([event(1)])
    other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        await log.append([event(2), event(3)])
    other.close()
    assert len(await log.of_call("CA1")) == 1
    await log.close()
