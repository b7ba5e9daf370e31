"""What an appointment book is to us: opening hours, slots, bookings, and the `Calendar` Protocol.

Data and arithmetic only; each product is a file of its own (`calendar_sqlite.py`). Nothing here reads
a clock or knows who is calling.
"""

import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol, Self
from zoneinfo import ZoneInfo

SLOT_GRID_MIN = 30
"""Appointments start on multiples of this, counted from the opening of a span."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_PER_DAY = 24 * 60


class CalendarError(Exception):
    """Root of what an appointment book can answer instead of a booking.

    CalendarError
    ├── SlotTakenError          somebody else has it
    ├── SlotRefusedError        in the past or outside the opening hours
    └── CalendarUnavailableError   no answer in time; the same request may be sent again
    """


class SlotTakenError(CalendarError):
    """No chair is free at that time any more."""


class SlotRefusedError(CalendarError):
    """The time is in the past or outside the opening hours."""


class CalendarUnavailableError(CalendarError):
    """The book did not answer in time. Sending the same request again is safe: its key makes it one."""


class PartOfDay(enum.Enum):
    """When on a day the caller can come."""

    ANY = "any"
    MORNING = "morning"
    AFTERNOON = "afternoon"

    def covers(self, start: datetime) -> bool:
        """Whether an appointment that starts at local time `start` is in this part."""
        if self is PartOfDay.ANY:
            return True
        return (start.hour < 12) == (self is PartOfDay.MORNING)


@dataclass(frozen=True)
class Service:
    """What an appointment is for and how long it takes."""

    name: str
    duration_min: int


@dataclass(frozen=True)
class Slot:
    """A time at which one appointment can take place."""

    start: datetime
    """Aware, in the business's zone."""
    service: Service

    @property
    def start_utc(self) -> datetime:
        """The start in UTC."""
        return self.start.astimezone(UTC)

    @property
    def end_utc(self) -> datetime:
        """Absolute end: a clock change in between does not shorten the appointment."""
        return self.start_utc + timedelta(minutes=self.service.duration_min)


@dataclass(frozen=True)
class BookingRequest:
    """One wish to book.

    `key` names the wish (call SID and slot): sending it twice books once.
    """

    slot: Slot
    name: str
    phone: str
    """E.164."""
    key: str


@dataclass(frozen=True)
class Booking:
    """A booking that is on record."""

    booking_id: str
    slot: Slot
    name: str
    phone: str


@dataclass(frozen=True)
class Span:
    """One stretch of opening, in minutes since local midnight; `closes_min` may be 1440."""

    opens_min: int
    closes_min: int


@dataclass(frozen=True)
class OpeningHours:
    """Opening spans of each weekday, Monday first."""

    week: tuple[tuple[Span, ...], ...]

    @classmethod
    def parse(cls, text: Mapping[str, str]) -> Self:
        """Read `{"mon-fri": "08:00-12:00, 13:00-18:00", "sat": "09:00-13:00"}`; days left out are closed.

        Raises:
            ValueError: If a day, a time or an order is not understood, or a day is named twice.
        """
        week: list[tuple[Span, ...] | None] = [None] * 7
        for days, spans in text.items():
            parsed = _parse_spans(spans)
            for day in _parse_days(days):
                if week[day] is not None:
                    raise ValueError(f"hours: {_DAYS[day]} is given twice")
                week[day] = parsed
        return cls(tuple(spans or () for spans in week))

    def on(self, day: date) -> tuple[Span, ...]:
        """Spans of one day, empty when closed."""
        return self.week[day.weekday()]


class Calendar(Protocol):
    """An appointment book. Every call ends within the implementation's deadline."""

    async def free_slots(
        self, *, first_day: date, last_day: date, service: Service, part_of_day: PartOfDay, limit: int
    ) -> list[Slot]:
        """Free slots from `first_day` to `last_day` inclusive, earliest first, at most `limit`.

        Only slots inside the opening hours and in the future are returned.

        Raises:
            CalendarUnavailableError: If there is no answer in time.
        """
        ...

    async def book(self, request: BookingRequest) -> Booking:
        """Book, or return what the same key booked before.

        Raises:
            SlotTakenError: If no chair is free.
            SlotRefusedError: If the slot is in the past or outside the opening hours.
            CalendarUnavailableError: If there is no answer in time.
        """
        ...


def candidate_slots(hours: OpeningHours, zone: ZoneInfo, day: date, service: Service) -> Iterator[Slot]:
    """Every slot of one day that lies wholly inside the opening hours, earliest first.

    Local times that a clock change skips are left out; of a repeated hour the first pass counts.
    """
    for span in hours.on(day):
        closes_utc = _wall(day, span.closes_min, zone).astimezone(UTC)
        for minute in range(span.opens_min, span.closes_min, SLOT_GRID_MIN):
            slot = Slot(_wall(day, minute, zone), service)
            if _exists(slot.start) and slot.end_utc <= closes_utc:
                yield slot


def _wall(day: date, minute: int, zone: ZoneInfo) -> datetime:
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return midnight + timedelta(minutes=minute)  # wall-clock arithmetic within one zone


def _exists(local: datetime) -> bool:
    return local.astimezone(UTC).astimezone(local.tzinfo).replace(tzinfo=None) == local.replace(tzinfo=None)


def _parse_days(text: str) -> list[int]:
    names = [name.strip().lower()[:3] for name in text.split("-")]
    if not all(name in _DAYS for name in names) or len(names) > 2:
        raise ValueError(f"hours: days must look like 'mon' or 'mon-fri', got {text!r}")
    first, last = _DAYS.index(names[0]), _DAYS.index(names[-1])
    if last < first:
        raise ValueError(f"hours: {text!r} runs backwards")
    return list(range(first, last + 1))


def _parse_spans(text: str) -> tuple[Span, ...]:
    spans: list[Span] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*", part)
        if match is None:
            raise ValueError(f"hours: times must look like '08:00-18:00', got {part.strip()!r}")
        opens_h, opens_m, closes_h, closes_m = (int(group) for group in match.groups())
        span = Span(opens_h * 60 + opens_m, closes_h * 60 + closes_m)
        if max(opens_m, closes_m) > 59 or not span.opens_min < span.closes_min <= _MINUTES_PER_DAY:
            raise ValueError(f"hours: {part.strip()!r} does not run forward within one day")
        if spans and span.opens_min < spans[-1].closes_min:
            raise ValueError(f"hours: {text!r} overlaps or is out of order")
        spans.append(span)
    return tuple(spans)
