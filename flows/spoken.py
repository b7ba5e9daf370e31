"""Dates, times and phone numbers between speech and data, both ways, in US English.

Pure functions. What is said here is what is booked: every flow reads dates and numbers back through
this module, and resolves the caller's "next Tuesday" here rather than in the model.
"""

import re
from datetime import date, datetime, timedelta

from integrations.calendar import OpeningHours, Span

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_ONES_TEXT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_ONES = _ONES_TEXT.split()
_TENS = {20: "twenty", 30: "thirty", 40: "forty", 50: "fifty"}

_ORDINALS_TEXT = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_ORDINALS = _ORDINALS_TEXT.split()
_ORDINAL_VALUES = {
    **{word: value for value, word in enumerate(_ORDINALS, start=1)},
    **{f"twenty {word}": 20 + value for value, word in enumerate(_ORDINALS[:9], start=1)},
    "thirtieth": 30,
    "thirty first": 31,
}

_MONTH_NAMES = "|".join(month.lower() for month in MONTHS)
_WEEKDAY_NAMES = "|".join(day.lower() for day in WEEKDAYS)
_DAY_NUMBER = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"


def say_number(value: int) -> str:
    """Spell 0 to 59 in words."""
    if value < len(_ONES):
        return _ONES[value]
    tens, ones = _TENS[value // 10 * 10], value % 10
    return tens if ones == 0 else f"{tens} {_ONES[ones]}"


def say_time(moment: datetime) -> str:
    """Speak a local time: "nine AM", "two thirty PM", "nine oh five AM", "noon"."""
    if (moment.hour, moment.minute) == (12, 0):
        return "noon"
    hour = say_number(moment.hour % 12 or 12)
    half = "AM" if moment.hour < 12 else "PM"
    if moment.minute == 0:
        return f"{hour} {half}"
    minute = f"oh {say_number(moment.minute)}" if moment.minute < 10 else say_number(moment.minute)
    return f"{hour} {minute} {half}"


def say_day(day: date) -> str:
    """Speak a date: "Tuesday, November 24th"."""
    return f"{WEEKDAYS[day.weekday()]}, {MONTHS[day.month - 1]} {day.day}{_suffix(day.day)}"


def say_phone(e164: str) -> str:
    """Speak a phone number digit by digit: "eight five oh, six eight seven, two oh eight five"."""
    digits = re.sub(r"\D", "", e164)
    if len(digits) == 11 and digits.startswith("1"):
        digits = digits[1:]
    groups = [digits[:3], digits[3:6], digits[6:]] if len(digits) == 10 else [digits]
    return ", ".join(" ".join(_say_digit(digit) for digit in group) for group in groups)


def say_hours(hours: OpeningHours) -> str:
    """Speak the opening hours, equal neighbours together: "Monday to Friday eight AM to six PM; …"."""
    parts: list[str] = []
    first = 0
    for day in range(1, 8):
        if day < 7 and hours.week[day] == hours.week[first]:
            continue
        days = WEEKDAYS[first] if day - first == 1 else f"{WEEKDAYS[first]} to {WEEKDAYS[day - 1]}"
        parts.append(f"{days} {_say_spans(hours.week[first])}")
        first = day
    return "; ".join(parts)


def day_from_words(text: str, today: date) -> date | None:
    """Resolve a day as callers say it, relative to `today`; None when no day is named.

    Understands ISO dates, "today", "tomorrow", "the day after tomorrow", weekdays ("Tuesday" and "this
    Tuesday" are the next one, today included; "next Tuesday" is never today), "November 24th",
    "the third of December", "12/3", "the 24th". A date without a year is the next such date.
    """
    words = re.sub(r"[,.!?]|\bof\b|\bthe\b|-(?=[a-z])", " ", text.lower())
    words = re.sub(r"\s+", " ", words).strip()
    return _relative_day(words, today) or _calendar_day(words, today) or _weekday(words, today)


def phone_from_text(text: str) -> str | None:
    """Normalise a North American number to E.164; None when it is not one.

    Takes digits in any punctuation, with or without the country code.
    """
    digits = re.sub(r"[^\d+]", "", text).removeprefix("+")
    if len(digits) == 11 and digits.startswith("1"):
        digits = digits[1:]
    return f"+1{digits}" if re.fullmatch(r"[2-9]\d{2}[2-9]\d{6}", digits) else None


def _say_digit(digit: str) -> str:
    return "oh" if digit == "0" else _ONES[int(digit)]


def _suffix(day: int) -> str:
    if day in (11, 12, 13):
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _say_spans(spans: tuple[Span, ...]) -> str:
    if not spans:
        return "closed"
    return " and ".join(f"{_say_minute(span.opens_min)} to {_say_minute(span.closes_min)}" for span in spans)


def _say_minute(minute: int) -> str:
    if minute == 24 * 60:
        return "midnight"
    return say_time(datetime(2000, 1, 1) + timedelta(minutes=minute))  # noqa: DTZ001 - a time of day


def _relative_day(words: str, today: date) -> date | None:
    if iso := re.search(r"\b(\d{4})-(\d\d)-(\d\d)\b", words):
        return _date(*(int(part) for part in iso.groups()))
    if "day after tomorrow" in words:
        return today + timedelta(days=2)
    if re.search(r"\btomorrow\b", words):
        return today + timedelta(days=1)
    return today if re.search(r"\b(today|tonight|this (morning|afternoon))\b", words) else None


def _calendar_day(words: str, today: date) -> date | None:
    words = _ordinals_to_digits(words)
    for pattern in (
        rf"\b(?P<month>{_MONTH_NAMES}) {_DAY_NUMBER}\b",
        rf"\b{_DAY_NUMBER} (?P<month>{_MONTH_NAMES})\b",
        rf"\b(?P<number>\d{{1,2}})/{_DAY_NUMBER}\b",
    ):
        if match := re.search(pattern, words):
            named = match.groupdict()
            month = int(named["number"]) if "number" in named else _month(named["month"])
            return _next_date(month, int(named["day"]), today)
    if match := re.search(r"\b(?P<day>\d{1,2})(?:st|nd|rd|th)\b", words):
        return _next_day_of_month(int(match["day"]), today)
    return None


def _weekday(words: str, today: date) -> date | None:
    match = re.search(rf"\b(?P<next>next )?(?P<name>{_WEEKDAY_NAMES})\b", words)
    if match is None:
        return None
    ahead = (_weekday_index(match["name"]) - today.weekday()) % 7
    if match["next"] and ahead == 0:
        ahead = 7
    return today + timedelta(days=ahead)


def _ordinals_to_digits(words: str) -> str:
    for word in sorted(_ORDINAL_VALUES, key=len, reverse=True):
        words = re.sub(rf"\b{word}\b", f"{_ORDINAL_VALUES[word]}th", words)
    return words


def _month(name: str) -> int:
    return next(index for index, month in enumerate(MONTHS, start=1) if month.lower() == name)


def _weekday_index(name: str) -> int:
    return next(index for index, day in enumerate(WEEKDAYS) if day.lower() == name)


def _next_date(month: int, day: int, today: date) -> date | None:
    for year in range(today.year, today.year + 9):  # nine years reach the next 29 February
        found = _date(year, month, day)
        if found is not None and found >= today:
            return found
    return None


def _next_day_of_month(day: int, today: date) -> date | None:
    first = today.replace(day=1)
    for _ in range(12):
        found = _date(first.year, first.month, day)
        if found is not None and found >= today:
            return found
        first = (first + timedelta(days=32)).replace(day=1)
    return None


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
