"""By when somebody can have called back."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integrations.calendar import OpeningHours
from integrations.callbacks import GRID_MIN, callback_due, is_open

CHICAGO = ZoneInfo("America/Chicago")
HOURS = OpeningHours.parse({"mon-fri": "08:00-12:00, 13:00-18:00", "sat": "09:00-13:00"})
NEVER = OpeningHours.parse({})


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=CHICAGO)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-11-23T09:00", "2026-11-23T10:00"),
        ("2026-11-23T09:07", "2026-11-23T10:15"),
        ("2026-11-23T11:30", "2026-11-23T13:30"),
        ("2026-11-23T17:50", "2026-11-24T09:00"),
        ("2026-11-23T03:00", "2026-11-23T09:00"),
        ("2026-11-27T20:00", "2026-11-28T10:00"),
        ("2026-11-28T12:59", "2026-11-30T09:00"),
    ],
)
def test_an_hour_of_opening_from_now(now: str, due: str) -> None:
    assert callback_due(HOURS, CHICAGO, local(now), within_min=60) == local(due)


def test_a_business_without_hours_calls_back_all_the_same() -> None:
    assert callback_due(NEVER, CHICAGO, local("2026-11-23T09:01"), within_min=60) == local("2026-11-23T10:15")


@given(
    st.integers(0, 2 * 365 * 24 * 60),
    st.integers(1, 3000),
    st.sampled_from(["America/Chicago", "Asia/Kathmandu", "Europe/Berlin", "Australia/Lord_Howe"]),
)
def test_what_is_promised_is_ahead_and_while_somebody_is_there(
    minute: int, within_min: int, zone: str
) -> None:
    asked = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
    due = callback_due(HOURS, ZoneInfo(zone), asked, within_min=within_min)
    assert due > asked
    assert due - asked <= timedelta(days=15)
    assert due.minute % GRID_MIN == 0
    assert due.second == 0
    # Closing time itself is the last moment: a minute before it somebody is there.
    assert is_open(HOURS, due - timedelta(minutes=1))


def test_a_promise_takes_some_time() -> None:
    with pytest.raises(ValueError, match="> 0"):
        callback_due(HOURS, CHICAGO, local("2026-11-23T09:00"), within_min=0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23T08:00", True),
        ("2026-11-23T07:59", False),
        ("2026-11-23T12:00", False),
        ("2026-11-23T17:59", True),
        ("2026-11-29T10:00", False),
    ],
)
def test_the_minute_of_closing_is_closed(now: str, expected: bool) -> None:
    assert is_open(HOURS, local(now)) is expected
