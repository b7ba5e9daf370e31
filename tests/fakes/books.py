"""An appointment book and a message book in memory, for tests that need no disk."""

import asyncio
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from integrations.calendar import (
    Booking,
    BookingRequest,
    CalendarUnavailableError,
    OpeningHours,
    PartOfDay,
    Service,
    Slot,
    SlotTakenError,
    candidate_slots,
)
from integrations.messages import CallerMessage, MessageBookUnavailableError, Noted


@dataclass
class MemoryCalendar:
    hours: OpeningHours
    zone: ZoneInfo
    now: datetime
    booked: dict[str, Booking] = field(default_factory=dict[str, Booking])
    taken_from_under: bool = False
    """Whether somebody else is always quicker."""
    rivals: list[Slot] = field(default_factory=list[Slot])
    """What they took."""
    down: bool = False
    slow_s: float = 0.0
    """For each answer."""

    async def free_slots(
        self, *, first_day: date, last_day: date, service: Service, part_of_day: PartOfDay, limit: int
    ) -> list[Slot]:
        if self.down:
            raise CalendarUnavailableError("down")
        await asyncio.sleep(self.slow_s)
        days = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
        slots = [
            slot
            for day in days
            for slot in candidate_slots(self.hours, self.zone, day, service)
            if slot.start > self.now and part_of_day.covers(slot.start) and self._is_free(slot)
        ]
        return slots[:limit]

    async def book(self, request: BookingRequest) -> Booking:
        if self.down:
            raise CalendarUnavailableError("down")
        await asyncio.sleep(self.slow_s)
        if request.key not in self.booked:
            if self.taken_from_under:
                self.rivals.append(request.slot)
            if not self._is_free(request.slot):
                raise SlotTakenError("taken")
            self.booked[request.key] = Booking("b1", request.slot, request.name, request.phone)
        return self.booked[request.key]

    def _is_free(self, slot: Slot) -> bool:
        taken = [*self.rivals, *(booking.slot for booking in self.booked.values())]
        return all(slot.end_utc <= other.start_utc or slot.start_utc >= other.end_utc for other in taken)


@dataclass
class MemoryMessageBook:
    left: dict[str, CallerMessage] = field(default_factory=dict[str, CallerMessage])
    down: bool = False
    noted: Noted = Noted.IN_THE_BOOK

    async def leave(self, message: CallerMessage) -> Noted:
        if self.down:
            raise MessageBookUnavailableError("down")
        self.left.setdefault(message.key, message)
        return self.noted
