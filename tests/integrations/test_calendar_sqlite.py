"""The embedded appointment book on a real file."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
)
from integrations.calendar_sqlite import SqliteCalendar

pytestmark = pytest.mark.real_time

ZONE = ZoneInfo("America/Chicago")
HOURS = OpeningHours.parse({"mon-fri": "08:00-18:00"})
NOW = datetime(2026, 11, 23, 9, 10, tzinfo=ZONE)
CLEANING, CHECKUP = Service("cleaning", 60), Service("checkup", 30)
MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)


def at(hour: int, minute: int = 0, *, day: date = TUESDAY, service: Service = CLEANING) -> Slot:
    return Slot(datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZONE), service)


def wish(slot: Slot, key: str) -> BookingRequest:
    return BookingRequest(slot, "Maria Lopez", "+18505550199", key)


def open_book(path: Path, *, chairs: int = 1, deadline_s: float = 5.0) -> SqliteCalendar:
    return SqliteCalendar(
        path, hours=HOURS, timezone=ZONE, now=lambda: NOW, chairs=chairs, deadline_s=deadline_s
    )


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[SqliteCalendar]:
    book = open_book(tmp_path / "data" / "books.db")
    yield book
    await book.close()


async def free(
    book: SqliteCalendar, day: date, part: PartOfDay = PartOfDay.ANY, limit: int = 99
) -> list[Slot]:
    return await book.free_slots(first_day=day, last_day=day, service=CLEANING, part_of_day=part, limit=limit)


async def test_a_booking_takes_its_time_and_what_overlaps_it(book: SqliteCalendar) -> None:
    before = [slot.start.strftime("%H:%M") for slot in await free(book, TUESDAY, PartOfDay.MORNING)]
    booking = await book.book(wish(at(9), "k1"))
    after = [slot.start.strftime("%H:%M") for slot in await free(book, TUESDAY, PartOfDay.MORNING)]
    assert set(before) - set(after) == {"08:30", "09:00", "09:30"}
    assert await book.bookings() == [booking]
    with pytest.raises(SlotTakenError):
        await book.book(wish(at(9, 30), "k2"))


async def test_the_same_wish_books_once(book: SqliteCalendar) -> None:
    first, second = await asyncio.gather(book.book(wish(at(9), "k")), book.book(wish(at(9), "k")))
    assert first == second
    assert len(await book.bookings()) == 1


async def test_chairs_run_side_by_side(tmp_path: Path) -> None:
    book = open_book(tmp_path / "b.db", chairs=2)
    await book.book(wish(at(9), "a"))
    await book.book(wish(at(9), "b"))
    with pytest.raises(SlotTakenError):
        await book.book(wish(at(9), "c"))
    await book.close()


async def test_neither_the_past_nor_closed_hours_are_offered_or_booked(book: SqliteCalendar) -> None:
    assert (await free(book, MONDAY))[0].start.strftime("%H:%M") == "09:30"
    for slot in (at(9, day=MONDAY), at(18), at(17, 30), at(8, 10), at(9, day=date(2026, 11, 28))):
        with pytest.raises(SlotRefusedError):
            await book.book(wish(slot, "k"))


async def test_times_are_on_file_in_utc_with_their_zone(book: SqliteCalendar, tmp_path: Path) -> None:
    await book.book(wish(at(9), "k"))
    connection = sqlite3.connect(tmp_path / "data" / "books.db")
    row = connection.execute("SELECT start_utc, end_utc, zone, phone FROM bookings").fetchone()
    connection.close()
    assert row == ("2026-11-24T15:00:00Z", "2026-11-24T16:00:00Z", "America/Chicago", "+18505550199")


async def test_two_processes_cannot_book_one_chair_twice(tmp_path: Path) -> None:
    books = [open_book(tmp_path / "b.db") for _ in range(4)]
    wishes = [book.book(wish(at(9), f"k{index}")) for index, book in enumerate(books)]
    results = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(result, Booking) for result in results) == 1
    assert sum(isinstance(result, SlotTakenError) for result in results) == 3
    for book in books:
        await book.close()


async def test_a_locked_file_is_an_answer_in_time_and_the_wish_can_be_repeated(tmp_path: Path) -> None:
    book = open_book(tmp_path / "b.db", deadline_s=0.2)
    await book.bookings()
    other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CalendarUnavailableError):
        await book.book(wish(at(9), "k"))
    other.execute("ROLLBACK")
    other.close()
    await asyncio.sleep(0.1)  # the thread has given up too
    await book.book(wish(at(9), "k"))
    assert len(await book.bookings()) == 1
    await book.close()


async def test_a_book_that_was_closed_says_so(tmp_path: Path) -> None:
    book = open_book(tmp_path / "b.db")
    await book.close()
    with pytest.raises(CalendarUnavailableError, match="closed"):
        await book.bookings()


async def test_no_chair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="chairs"):
        open_book(tmp_path / "b.db", chairs=0)


wishes = st.lists(
    st.tuples(
        st.sampled_from([date(2026, 11, 24) + timedelta(days=n) for n in range(5)]),
        st.integers(7, 18),
        st.sampled_from([0, 15, 30]),
        st.sampled_from([CLEANING, CHECKUP]),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(wishes, st.integers(1, 2))
def test_no_wishes_make_a_double_booking(wanted: list[tuple[date, int, int, Service]], chairs: int) -> None:
    async def carry_out(path: Path) -> list[Booking]:
        book = open_book(path, chairs=chairs)
        for index, (day, hour, minute, service) in enumerate(wanted):
            try:
                await book.book(wish(at(hour, minute, day=day, service=service), f"k{index}"))
            except (SlotTakenError, SlotRefusedError):
                continue
        for slot in (await free(book, TUESDAY))[:1]:
            await book.book(wish(slot, "offered"))  # what is offered can be had
        made = await book.bookings()
        await book.close()
        return made

    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(carry_out(Path(folder) / "b.db"))
    slots = [booking.slot for booking in made]
    for slot in slots:
        running = [other for other in slots if other.start_utc <= slot.start_utc < other.end_utc]
        assert len(running) <= chairs
        local_end = slot.end_utc.astimezone(ZONE)
        assert slot.start.hour >= 8
        assert (local_end.hour, local_end.minute) <= (18, 0)
        assert slot.start.astimezone(UTC) > NOW
