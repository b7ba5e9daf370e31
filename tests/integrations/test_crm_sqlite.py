import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from integrations.crm import CrmUnavailableError, HandoffRecord, Said, Speaker
from integrations.crm_sqlite import SqliteCrm

pytestmark = pytest.mark.real_time

RECORD = HandoffRecord(
    key="CA1/2026-11-27T15:10:00+00:00",
    call_sid="CA1",
    agent="reception",
    phone="+18505550199",
    name="Maria Ó Briain",
    reason="asked",
    summary="A caller for Northside Dental.\n\tMaria Ó Briain.",
    slots={"service": "cleaning", "day": "Monday"},
    transcript=(Said(Speaker.AGENT, "How can I help?"), Said(Speaker.CALLER, 'I want "somebody".')),
    began_at=datetime(2026, 11, 27, 15, 10, tzinfo=UTC),
)


async def test_what_is_noted_can_be_read_again(tmp_path: Path) -> None:
    crm = SqliteCrm(tmp_path / "books.db")
    later = replace(RECORD, key="CA2", call_sid="CA2", began_at=datetime(2026, 11, 28, tzinfo=UTC), slots={})
    await crm.note_handoff(later)
    await crm.note_handoff(RECORD)
    assert await crm.handoffs() == [RECORD, later]
    await crm.close()


async def test_the_outcome_takes_the_place_of_none_and_stays(tmp_path: Path) -> None:
    crm = SqliteCrm(tmp_path / "books.db")
    over = replace(RECORD, outcome="accepted")
    for record in (RECORD, over, RECORD):  # the last was late
        await crm.note_handoff(record)
    assert await crm.handoffs() == [over]
    again = replace(over, outcome="no_answer")
    await crm.note_handoff(again)
    assert await crm.handoffs() == [again]
    await crm.close()


async def test_records_that_are_locked_say_so_in_time(tmp_path: Path) -> None:
    crm = SqliteCrm(tmp_path / "books.db", deadline_s=0.2)
    await crm.handoffs()
    other = sqlite3.connect(tmp_path / "books.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CrmUnavailableError):
        await crm.note_handoff(RECORD)
    other.execute("ROLLBACK")
    other.close()
    await crm.note_handoff(RECORD)
    assert await crm.handoffs() == [RECORD]
    await crm.close()
