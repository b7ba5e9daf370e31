from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations.calendar import OpeningHours, PartOfDay, Service, Slot, Span, candidate_slots

ZONES = [
    ZoneInfo(name) for name in ("America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata")
]
CLEANING = Service("cleaning", 60)


def test_hours_are_read_day_by_day() -> None:
    hours = OpeningHours.parse({"mon-fri": "08:00-12:00, 13:00-18:00", "sat": "09:00-24:00"})
    assert hours.on(date(2026, 11, 23)) == (Span(480, 720), Span(780, 1080))
    assert hours.on(date(2026, 11, 28)) == (Span(540, 1440),)
    assert hours.on(date(2026, 11, 29)) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ({"monday-": "08:00-18:00"}, "days must look like"),
        ({"fri-mon": "08:00-18:00"}, "runs backwards"),
        ({"mon": "8-18"}, "times must look like"),
        ({"mon": "18:00-08:00"}, "run forward"),
        ({"mon": "08:60-09:00"}, "run forward"),
        ({"mon": "08:00-25:00"}, "run forward"),
        ({"mon": "08:00-12:00, 11:00-13:00"}, "overlaps"),
        ({"mon-fri": "08:00-18:00", "tue": "09:00-10:00"}, "tue is given twice"),
    ],
)
def test_bad_hours_are_refused_with_the_reason(text: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        OpeningHours.parse(text)


@pytest.mark.parametrize(
    ("part", "hours"), [(PartOfDay.ANY, 2), (PartOfDay.MORNING, 1), (PartOfDay.AFTERNOON, 1)]
)
def test_parts_of_the_day_meet_at_noon(part: PartOfDay, hours: int) -> None:
    week = OpeningHours.parse({"mon": "11:00-13:00"})
    slots = list(candidate_slots(week, ZONES[0], date(2026, 11, 23), Service("checkup", 60)))
    covered = [slot for slot in slots if part.covers(slot.start) and slot.start.minute == 0]
    assert len(covered) == hours


@settings(max_examples=150)
@given(
    st.sampled_from(ZONES),
    st.dates(date(2026, 1, 1), date(2027, 12, 31)),
    st.integers(0, 1380),
    st.integers(30, 1440),
    st.sampled_from([15, 30, 60, 90]),
)
def test_slots_exist_and_lie_inside_the_hours(
    zone: ZoneInfo, day: date, opens_min: int, length_min: int, duration_min: int
) -> None:
    closes_min = min(1440, opens_min + length_min)
    hours = OpeningHours(tuple((Span(opens_min, closes_min),) for _ in range(7)))
    slots = list(candidate_slots(hours, zone, day, Service("x", duration_min)))
    starts = [slot.start_utc for slot in slots]
    assert starts == sorted(set(starts))
    for slot in slots:
        local = slot.start_utc.astimezone(zone)
        assert local.replace(tzinfo=None) == slot.start.replace(tzinfo=None)  # a time that clocks show
        assert local.date() == day
        assert opens_min <= local.hour * 60 + local.minute < closes_min
        assert slot.end_utc - slot.start_utc == timedelta(minutes=duration_min)


def test_the_hour_that_is_skipped_in_spring_is_not_offered() -> None:
    hours = OpeningHours.parse({"sun": "01:00-04:00"})
    slots = list(candidate_slots(hours, ZONES[0], date(2027, 3, 14), Service("checkup", 30)))
    assert [slot.start.strftime("%H:%M") for slot in slots] == ["01:00", "01:30", "03:00", "03:30"]


def test_an_appointment_over_a_clock_change_keeps_its_length() -> None:
    hours = OpeningHours.parse({"sun": "00:00-04:00"})
    slots = list(candidate_slots(hours, ZONES[0], date(2027, 3, 14), Service("long", 120)))
    assert [slot.start.strftime("%H:%M") for slot in slots] == [
        "00:00",
        "00:30",
        "01:00",
    ]  # ends 04:00, not 03:00
    assert slots[-1].end_utc.astimezone(ZONES[0]).strftime("%H:%M") == "04:00"


def test_a_slot_is_the_same_time_in_every_zone() -> None:
    slot = Slot(
        next(
            candidate_slots(
                OpeningHours.parse({"mon": "08:00-18:00"}), ZONES[0], date(2026, 11, 23), CLEANING
            )
        ).start,
        CLEANING,
    )
    assert slot.start_utc.isoformat() == "2026-11-23T14:00:00+00:00"
    assert slot.end_utc.tzinfo is UTC
