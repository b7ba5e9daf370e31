"""What a flow's tools and prompts may know of the business and of this call.

`bot/` builds one `Business` per call and puts it and `prompt_facts` into `flow_manager.state` before the
flow starts:

    flow_manager.state["business"] = business
    flow_manager.state.update(prompt_facts(business))
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from flows.spoken import phone_from_text, say_day, say_hours, say_phone, say_time
from integrations.calendar import Calendar, OpeningHours
from integrations.messages import MessageBook


@dataclass(frozen=True)
class Business:
    """The business at the other end of one call."""

    calendar: Calendar
    messages: MessageBook
    timezone: ZoneInfo
    hours: OpeningHours
    call_sid: str
    caller_number: str
    """As the carrier gave it: E.164, or something else ("anonymous") when it is withheld."""
    now: Callable[[], datetime]
    """Current time, aware, in any zone."""
    request_end: Callable[[], None]
    """Ask for the end of the call once the words already on their way were heard. Returns at once."""

    def local_now(self) -> datetime:
        """Current time in the business's zone."""
        return self.now().astimezone(self.timezone)


def prompt_facts(business: Business) -> dict[str, str]:
    """Values for the `{{ … }}` places of a flow's prompts, as plain sentences' parts.

    Keys: `hours` ("Monday to Friday eight AM to six PM; …"), `today` ("Saturday, November 21st, 2026"),
    `time` ("nine AM"), `timezone` ("America/Chicago"), `caller_number` (spoken digits, or "withheld").
    Only `hours` and `timezone` are the same in every call: a prompt that is to be cached across calls
    uses the others behind everything else.
    """
    now = business.local_now()
    number = phone_from_text(business.caller_number)
    return {
        "hours": say_hours(business.hours),
        "today": f"{say_day(now.date())}, {now.year}",
        "time": say_time(now),
        "timezone": business.timezone.key,
        "caller_number": "withheld" if number is None else say_phone(number),
    }
