"""The embedded appointment book: one SQLite file, several chairs, no overlap on a chair.

Times are stored in UTC beside the zone's name. Two processes may share the file: a booking is decided
under SQLite's write lock.
"""

import sqlite3
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from integrations.calendar import (
    Booking,
    BookingRequest,
    CalendarUnavailableError,
    OpeningHours,
    PartOfDay,
    Service,
    Slot,
    SlotRefusedError,
    SlotTakenError,
    candidate_slots,
)
from store.sqlite_file import SqliteFile, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS bookings (
    booking_id TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    chair INTEGER NOT NULL,
    start_utc TEXT NOT NULL,
    end_utc TEXT NOT NULL,
    zone TEXT NOT NULL,
    service TEXT NOT NULL,
    duration_min INTEGER NOT NULL,
    name TEXT NOT NULL,
    phone TEXT NOT NULL,
    created_utc TEXT NOT NULL,
    UNIQUE (chair, start_utc)
);
CREATE INDEX IF NOT EXISTS bookings_by_start ON bookings (start_utc);
"""

_UTC_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # sorts as text


class SqliteCalendar:
    """A `Calendar` in one SQLite file."""

    def __init__(
        self,
        path: Path,
        *,
        hours: OpeningHours,
        timezone: ZoneInfo,
        now: Callable[[], datetime],
        chairs: int = 2,
        deadline_s: float = 1.5,
    ) -> None:
        """Create the book; the file is opened at the first call.

        Args:
            path: The SQLite file; other stores may share it.
            hours: Opening hours in local time.
            timezone: The business's zone.
            now: The current time, aware.
            chairs: Appointments that can run side by side, >= 1.
            deadline_s: Longest wait for one call.

        Raises:
            ValueError: If `chairs` is less than 1.
        """
        if chairs < 1:
            raise ValueError(f"chairs must be >= 1, got {chairs}")
        self._file = SqliteFile(
            path, schema=_SCHEMA, deadline_s=deadline_s, unavailable=CalendarUnavailableError
        )
        self._hours = hours
        self._zone = timezone
        self._now = now
        self._chairs = chairs

    async def free_slots(
        self, *, first_day: date, last_day: date, service: Service, part_of_day: PartOfDay, limit: int
    ) -> list[Slot]:
        """See `Calendar.free_slots`."""
        now = self._now()

        def find(connection: sqlite3.Connection) -> list[Slot]:
            found: list[Slot] = []
            day = max(first_day, now.astimezone(self._zone).date())
            while day <= last_day and len(found) < limit:
                taken = self._taken(connection, day)
                found += [
                    slot
                    for slot in candidate_slots(self._hours, self._zone, day, service)
                    if slot.start > now and part_of_day.covers(slot.start) and self._free_chair(slot, taken)
                ]
                day += timedelta(days=1)
            return found[:limit]

        return await self._file.run(find)

    async def book(self, request: BookingRequest) -> Booking:
        """See `Calendar.book`."""
        now = self._now()

        def decide(connection: sqlite3.Connection) -> Booking:
            with transaction(connection):
                return self._existing(connection, request) or self._insert(connection, request, now)

        return await self._file.run(decide)

    async def bookings(self) -> list[Booking]:
        """Everything on record, by time.

        Raises:
            CalendarUnavailableError: If there is no answer in time.
        """
        return await self._file.run(
            lambda connection: [
                _booking(row)
                for row in connection.execute("SELECT * FROM bookings ORDER BY start_utc, chair")
            ]
        )

    async def close(self) -> None:
        """Close the file, within the deadline."""
        await self._file.close()

    def _existing(self, connection: sqlite3.Connection, request: BookingRequest) -> Booking | None:
        row = connection.execute("SELECT * FROM bookings WHERE key = ?", (request.key,)).fetchone()
        return None if row is None else _booking(row)

    def _insert(self, connection: sqlite3.Connection, request: BookingRequest, now: datetime) -> Booking:
        slot = request.slot
        local = slot.start.astimezone(self._zone)
        if slot.start <= now or not any(
            slot.start_utc == offered.start_utc
            for offered in candidate_slots(self._hours, self._zone, local.date(), slot.service)
        ):
            raise SlotRefusedError(f"{local.isoformat()} is in the past or outside the opening hours")
        chair = self._free_chair(slot, self._taken(connection, local.date()))
        if chair is None:
            raise SlotTakenError(f"no chair is free at {local.isoformat()}")
        booking_id = uuid.uuid4().hex
        connection.execute(
            "INSERT INTO bookings VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                booking_id,
                request.key,
                chair,
                _text(slot.start_utc),
                _text(slot.end_utc),
                self._zone.key,
                slot.service.name,
                slot.service.duration_min,
                request.name,
                request.phone,
                _text(now),
            ),
        )
        return Booking(booking_id, Slot(local, slot.service), request.name, request.phone)

    def _taken(self, connection: sqlite3.Connection, day: date) -> Sequence[sqlite3.Row]:
        """Bookings that touch `day`; a day either side covers every zone and every clock change."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        window = (_text(midnight + timedelta(days=2)), _text(midnight - timedelta(days=1)))
        return connection.execute(
            "SELECT chair, start_utc, end_utc FROM bookings WHERE start_utc < ? AND end_utc > ?", window
        ).fetchall()

    def _free_chair(self, slot: Slot, taken: Sequence[sqlite3.Row]) -> int | None:
        start, end = _text(slot.start_utc), _text(slot.end_utc)
        busy = {row["chair"] for row in taken if row["start_utc"] < end and row["end_utc"] > start}
        return next((chair for chair in range(1, self._chairs + 1) if chair not in busy), None)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_UTC_FORMAT)


def _booking(row: sqlite3.Row) -> Booking:
    start = datetime.strptime(row["start_utc"], _UTC_FORMAT).replace(tzinfo=UTC)
    service = Service(row["service"], row["duration_min"])
    return Booking(
        row["booking_id"], Slot(start.astimezone(ZoneInfo(row["zone"])), service), row["name"], row["phone"]
    )
