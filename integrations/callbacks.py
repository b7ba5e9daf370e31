"""What a promise to call back is to us: the `CallbackBook` Protocol, and the time that can be promised."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from integrations.calendar import OpeningHours

GRID_MIN = 15
"""A promised time is a multiple of this: nobody promises 10:07."""
_DAYS_AHEAD = 14


@dataclass(frozen=True)
class Callback:
    """Somebody wanted a person, got none, and was promised a call.

    `key` names it (call SID): promising it twice writes it once.
    """

    key: str
    call_sid: str
    name: str
    """Empty when they did not give it."""
    phone: str
    """As the carrier had it; empty when it was withheld."""
    reason: str
    """What it is about, for whoever calls back."""
    due_at: datetime
    """Promised to the caller: by then they are called. Aware; its zone is the business's."""
    asked_at: datetime
    """Aware; its zone is the business's."""
    recording: str = ""
    """Name of the voicemail's file below the recordings; empty while there is none."""
    transcript: str = ""
    """What the caller said into the voicemail, as far as it was understood."""


class CallbackBook(Protocol):
    """Where promises are written down."""

    async def promise(self, callback: Callback) -> None:
        """Write it down, once per key.

        Raises:
            MessageBookUnavailableError: If there is no answer in time.
        """
        ...

    async def attach_voicemail(self, key: str, *, recording: str, transcript: str) -> bool:
        """Add what the caller left to the promise made under `key`; empty values keep what is there.

        Returns:
            Whether there is such a promise.

        Raises:
            MessageBookUnavailableError: If there is no answer in time.
        """
        ...


def is_open(hours: OpeningHours, local: datetime) -> bool:
    """Whether the business is open at `local`, aware and in its zone."""
    minute = local.hour * 60 + local.minute
    return any(span.opens_min <= minute < span.closes_min for span in hours.on(local.date()))


def callback_due(hours: OpeningHours, zone: ZoneInfo, now: datetime, *, within_min: int) -> datetime:
    """Return the time by which somebody of the business can have called back.

    That is `within_min` minutes of opening hours from now, counted on: what does not fit before closing goes on at the
    next opening. Rounded up to a quarter of an hour, but not beyond closing time.

    Args:
        hours: Opening hours; with none at all the business counts as always open.
        zone: Its zone.
        now: Aware.
        within_min: > 0.

    Returns:
        Aware, in `zone`, later than `now`.

    Raises:
        ValueError: If `within_min` is not positive.
    """
    if within_min <= 0:
        raise ValueError(f"within_min must be > 0, got {within_min}")
    left = timedelta(minutes=within_min)
    today = now.astimezone(zone).date()
    for ahead in range(_DAYS_AHEAD + 1):
        day = today + timedelta(days=ahead)
        for span in hours.on(day):
            midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
            opens = (midnight + timedelta(minutes=span.opens_min)).astimezone(UTC)
            closes = (midnight + timedelta(minutes=span.closes_min)).astimezone(UTC)
            begins = max(opens, now.astimezone(UTC))
            if begins + left <= closes:
                return min(_round_up(begins + left), closes).astimezone(zone)
            left -= max(timedelta(), closes - begins)
    return _round_up(now.astimezone(UTC) + timedelta(minutes=within_min)).astimezone(zone)


def _round_up(moment: datetime) -> datetime:
    """Return the next multiple of `GRID_MIN`; every zone's offset today is a multiple of it."""
    grid_s = GRID_MIN * 60
    return datetime.fromtimestamp(-(-moment.timestamp() // grid_s) * grid_s, UTC)
