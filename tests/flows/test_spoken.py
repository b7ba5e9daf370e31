from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.spoken import (
    day_from_words,
    phone_from_text,
    say_day,
    say_hours,
    say_number,
    say_phone,
    say_time,
)
from integrations.calendar import OpeningHours

SATURDAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("words", "day"),
    [
        ("today", "2026-11-21"),
        ("this afternoon", "2026-11-21"),
        ("tomorrow morning", "2026-11-22"),
        ("the day after tomorrow", "2026-11-23"),
        ("Tuesday", "2026-11-24"),
        ("next Tuesday", "2026-11-24"),
        ("on Saturday", "2026-11-21"),
        ("next Saturday", "2026-11-28"),
        ("November 24th", "2026-11-24"),
        ("Tuesday, November 24", "2026-11-24"),
        ("the third of December", "2026-12-03"),
        ("December twenty-third", "2026-12-23"),
        ("the 24th", "2026-11-24"),
        ("the 2nd", "2026-12-02"),
        ("the twenty first", "2026-11-21"),
        ("12/3", "2026-12-03"),
        ("January fifth", "2027-01-05"),
        ("2026-12-01", "2026-12-01"),
        ("February 29", "2028-02-29"),
    ],
)
def test_days_as_callers_say_them(words: str, day: str) -> None:
    assert day_from_words(words, SATURDAY) == date.fromisoformat(day)


@pytest.mark.parametrize("words", ["", "any day", "soon", "February 30th", "2026-13-01", "the 35th"])
def test_what_names_no_day_is_none(words: str) -> None:
    assert day_from_words(words, SATURDAY) is None


days = st.dates(date(2026, 1, 1), date(2032, 12, 31))


@given(days, st.integers(0, 300))
def test_a_spoken_day_is_understood_as_the_same_day(today: date, ahead: int) -> None:
    day = today + timedelta(days=ahead)
    assert day_from_words(say_day(day), today) == day


@given(st.text(max_size=40), days)
def test_no_words_break_it(words: str, today: date) -> None:
    assert day_from_words(words, today) is None or isinstance(day_from_words(words, today), date)


@pytest.mark.parametrize(
    ("clock", "spoken"),
    [
        ("00:00", "twelve AM"),
        ("09:00", "nine AM"),
        ("09:05", "nine oh five AM"),
        ("12:00", "noon"),
        ("12:30", "twelve thirty PM"),
        ("14:45", "two forty five PM"),
        ("23:59", "eleven fifty nine PM"),
    ],
)
def test_times(clock: str, spoken: str) -> None:
    hour, minute = (int(part) for part in clock.split(":"))
    assert say_time(datetime(2026, 11, 21, hour, minute, tzinfo=ZoneInfo("America/Chicago"))) == spoken


def test_numbers_and_dates() -> None:
    assert [say_number(value) for value in (0, 13, 20, 21, 59)] == [
        "zero",
        "thirteen",
        "twenty",
        "twenty one",
        "fifty nine",
    ]
    assert [say_day(date(2026, 12, day)).split()[-1] for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st")
    ]


def test_hours() -> None:
    hours = OpeningHours.parse(
        {"mon-thu": "08:00-12:00, 13:00-18:00", "fri": "08:00-12:00", "sat": "09:00-24:00"}
    )
    assert say_hours(hours) == (
        "Monday to Thursday eight AM to noon and one PM to six PM; Friday eight AM to noon; "
        "Saturday nine AM to midnight; Sunday closed"
    )


@pytest.mark.parametrize(
    "text", ["850 687 2085", "(850) 687-2085", "+1 850-687-2085", "18506872085", "8506872085"]
)
def test_numbers_in_any_dress(text: str) -> None:
    assert phone_from_text(text) == "+18506872085"
    assert say_phone("+18506872085") == "eight five oh, six eight seven, two oh eight five"


@pytest.mark.parametrize(
    "text", ["", "687 2085", "1506872085", "850 187 2085", "anonymous", "+4930123456", "85068720851"]
)
def test_what_is_no_north_american_number_is_refused(text: str) -> None:
    assert phone_from_text(text) is None
