"""What a flow's tools and prompts may know of the business and of this call.

`bot/` builds one `Business` per call and puts it and `prompt_facts` into `flow_manager.state` before the
flow starts:

    flow_manager.state["business"] = business
    flow_manager.state.update(prompt_facts(business))
"""

import asyncio
import contextlib
import enum
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from flows.heard import phone_from_text
from flows.spoken import say_date, say_hours, say_phone, say_time
from flows.spoken_forms import home_region
from integrations.calendar import Calendar, CalendarUnavailableError, OpeningHours
from integrations.messages import MessageBook, MessageBookUnavailableError


class PersonAnswer(enum.StrEnum):
    """What becomes of a caller who wants to talk to a person."""

    PUT_THROUGH = "put_through"
    """Somebody is rung; the agent says no more in this call, unless nobody comes."""
    VOICEMAIL = "voicemail"
    """Nobody is there at this hour: a message is recorded, and a call back promised."""
    ELSEWHERE = "elsewhere"
    """The flow goes on at a node of its own, by itself: the model has nothing to say to it."""
    NOBODY = "nobody"
    """Nobody can come, and the caller stays with the agent."""


def nobody_comes(_: str) -> PersonAnswer:
    """Answer for a line on which nobody can be put through, such as a browser's."""
    return PersonAnswer.NOBODY


def nobody_is_told(_book: str, _stage: str, _error: Exception, _waited_s: float) -> None:
    """Take no note of a book that did not answer."""


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
    language: str = "en-US"
    """The agent's language tag: what is read back is spoken in it."""
    request_person: Callable[[str], PersonAnswer] = nobody_comes
    """Put the caller through to a person, who is told what they want. Returns at once; asking again changes nothing."""
    unavailable: Callable[[str, str, Exception, float], None] = nobody_is_told
    """Told that a book (`calendar`, `messages`) did not answer: which, what was asked, why, and after how long."""

    @contextlib.contextmanager
    def asking(self, book: str, asked: str) -> Generator[None]:
        """Tell that a book did not answer what it is asked in a block; the error goes on.

        Args:
            book: `calendar` or `messages`.
            asked: What for, e.g. `free_slots`.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            yield
        except (CalendarUnavailableError, MessageBookUnavailableError) as error:
            self.unavailable(book, asked, error, loop.time() - began_s)
            raise

    @property
    def region(self) -> str:
        """Country of a phone number that is given without country code; ISO 3166."""
        return home_region(self.language)

    def local_now(self) -> datetime:
        """Current time in the business's zone."""
        return self.now().astimezone(self.timezone)


def prompt_facts(business: Business) -> dict[str, str]:
    """Values for the `{{ … }}` places of a flow's prompts, as plain sentences' parts in the agent's language.

    Keys: `hours` ("Monday to Friday eight AM to six PM; …"), `today` ("Saturday, November 21st, 2026"),
    `time` ("nine AM"), `timezone` ("America/Chicago"), `caller_number` (spoken digits, or "withheld").
    Only `hours` and `timezone` are the same in every call: a prompt that is to be cached across calls
    uses the others behind everything else.
    """
    now, language = business.local_now(), business.language
    number = phone_from_text(business.caller_number, business.region)
    return {
        "hours": say_hours(business.hours, language),
        "today": f"{say_date(now.date(), language)}, {now.year}",
        "time": say_time(now, language),
        "timezone": business.timezone.key,
        "caller_number": "withheld" if number is None else say_phone(number, language),
    }
