from dataclasses import replace
from pathlib import Path

import pytest

from integrations.crm_spooled import SpooledCrm, deliver_to
from integrations.crm_sqlite import SqliteCrm
from store.errors import StoreUnavailableError
from store.spool import Spool
from store.spool_table import SpoolBounds
from tests.integrations.test_crm_sqlite import RECORD

pytestmark = pytest.mark.real_time

OVER = replace(RECORD, outcome="accepted")


class Office:
    """One process with its records and spool."""

    def __init__(self, folder: Path, process: str = "one", bounds: SpoolBounds | None = None) -> None:
        self.behind = SqliteCrm(folder / "books.db", deadline_s=0.3)
        self.spool = Spool(folder / "spool", name="books", process=process, deadline_s=1.0, bounds=bounds)
        deliver_to(self.behind, self.spool)
        self.crm = SpooledCrm(self.spool)

    async def close(self) -> None:
        await self.spool.close()
        await self.behind.close()


async def test_what_is_noted_gets_there_and_its_outcome_too(tmp_path: Path) -> None:
    office = Office(tmp_path)
    office.crm.note_handoff(RECORD)
    assert await office.spool.settled(5)
    assert await office.behind.handoffs() == [RECORD]
    office.crm.note_handoff(OVER)
    assert await office.spool.settled(5)
    assert await office.behind.handoffs() == [OVER]
    await office.close()


async def test_what_was_noted_while_the_records_were_down_outlives_its_process(tmp_path: Path) -> None:
    office = Office(tmp_path)
    (tmp_path / "books.db").mkdir()
    office.crm.note_handoff(RECORD)
    office.crm.note_handoff(OVER)
    assert not await office.spool.settled(0.3)
    await office.close()
    (tmp_path / "books.db").rmdir()
    later = Office(tmp_path, "two")
    later.crm.note_handoff(replace(RECORD, key="CA2"))
    later.spool.start()
    while len(await later.behind.handoffs()) < 2:
        assert await later.spool.settled(5)
    assert OVER in await later.behind.handoffs()
    await later.close()


async def test_without_room_it_says_so(tmp_path: Path) -> None:
    office = Office(tmp_path, bounds=SpoolBounds(writes=1))
    (tmp_path / "books.db").mkdir()
    office.crm.note_handoff(RECORD)
    with pytest.raises(StoreUnavailableError):
        office.crm.note_handoff(replace(RECORD, key="CA2"))
    await office.close()
