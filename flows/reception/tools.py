"""The front desk's tools: look for times, book one, take a message, put through to a person, end the call.

`flow.yaml` names these functions; their docstrings are what the model reads. Each answers within its
time limit with JSON that holds a `status` and a `say`, the sentence to speak. They decide, not the model,
what may be booked: only a time that was offered in this call, and only after the very same details were
read back and the caller has spoken since.
"""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

from loguru import logger
from pipecat.flows import NO_RESPONSE, TRANSITION_IN_YAML, FlowManager
from pipecat.flows.types import flows_tool_options
from pydantic import TypeAdapter

from flows.business import Business, PersonAnswer
from flows.heard import day_from_words, phone_from_text
from flows.spoken import say_datetime, say_day, say_phone, say_time
from integrations.calendar import (
    BookingRequest,
    CalendarUnavailableError,
    PartOfDay,
    Service,
    Slot,
    SlotRefusedError,
    SlotTakenError,
)
from integrations.messages import CallerMessage, MessageBookUnavailableError, Noted

TOOL_LIMIT_S = 2.0
"""Longest run of a tool."""
_BOOK_LIMIT_S = TOOL_LIMIT_S - 0.3
"""For the appointment book, however often it is asked in a tool: the tool says then that it cannot be reached."""

SERVICES = {
    service.name: service
    for service in (
        Service("cleaning", 60),
        Service("checkup", 30),
        Service("filling", 60),
        Service("emergency", 30),
    )
}

_HORIZON_DAYS = 60
_SEARCH_DAYS = 14
_OFFERED_AT_ONCE = 2
_APART = timedelta(minutes=90)
_MAX_MESSAGE_CHARS = 600

ToolResult = tuple[dict[str, Any], object]
"""What the model is given (JSON), and what the flow does next."""


@dataclass(frozen=True)
class ReadBack:
    """Details that were read back to the caller, and when in the conversation."""

    details: tuple[str, ...]
    caller_turns: int


@dataclass
class Desk:
    """What happened at the desk in this call."""

    offered: dict[str, Slot] = field(default_factory=dict[str, Slot])
    read_back: ReadBack | None = None


_DESK = TypeAdapter(Desk)


@flows_tool_options(cancel_on_interruption=True, timeout_secs=TOOL_LIMIT_S)
async def find_slots(
    flow_manager: FlowManager, service: str, day: str, part_of_day: str = "any"
) -> ToolResult:
    """Find free appointment times.

    Use it when the caller wants an appointment, and again when they want another day or time.

    Args:
        service: What it is for. One of: cleaning (clean, hygienist), checkup (check up, exam, examination),
            filling (cavity), emergency (pain, hurts, toothache, broken, chipped).
            Ask: What is the appointment for, a cleaning, a checkup, a filling, or an emergency?
        day: The day in the caller's own words, such as tomorrow, next Tuesday or December third; any if they
            do not mind or want the soonest. Ask: What day would you like to come in?
        part_of_day: One of: morning, afternoon, any (anytime).
    """
    business, desk = _business(flow_manager), _desk(flow_manager)
    wanted = SERVICES.get(service.strip().lower())
    if wanted is None:
        return _answer("unclear", "Is it for a cleaning, a checkup, a filling, or an emergency?")
    _capture(flow_manager, service=wanted.name)
    today = business.local_now().date()
    first_day, last_day, problem = _days_to_search(day, today)
    if problem is not None:
        return _answer("unclear", problem)
    if first_day == last_day:
        _capture(flow_manager, day=say_day(first_day))
    part = _part_of_day(part_of_day)
    try:
        async with _in_time(business, "free_slots"):
            slots, opening = await _search(business, wanted, first_day, last_day, part)
    except CalendarUnavailableError:
        return _answer("unavailable", _CANNOT_REACH_BOOK)
    if not slots:
        return _answer(
            "full", "I have nothing free in that time. Would another day work, or shall I take a message?"
        )
    return _answer("offered", opening + _say_options(slots), slots=_offer(desk, slots))


@flows_tool_options(cancel_on_interruption=False, timeout_secs=TOOL_LIMIT_S)
async def book_appointment(
    flow_manager: FlowManager, start: str, name: str, phone: str, confirmed: bool = False
) -> ToolResult:
    """Book, schedule or make an appointment at a time that find_slots returned.

    The first call, with confirmed false, books nothing and returns the read-back to say.

    Args:
        start: The start of the time the caller chose, as find_slots returned it.
        name: The caller's name, first and last if they gave both. Ask: What name should I put it under?
        phone: The caller's phone number, ten digits; same if they want the number they are calling from.
            Ask: What phone number can we reach you at?
        confirmed: True only when the caller has said yes to the read-back of exactly these details.
    """
    business, desk = _business(flow_manager), _desk(flow_manager)
    slot = desk.offered.get(start.strip())
    if slot is None:
        return _answer(
            "unclear", "Which of the times would you like?", hint="Use a start that find_slots returned."
        )
    who, problem = _caller(business, name, phone)
    if who is None:
        return _answer("unclear", problem)
    _capture(
        flow_manager, name=who[0], phone=say_phone(who[1]), service=slot.service.name, time=_say_slot(slot)
    )
    details = ("book", _slot_id(slot), slot.service.name, *who)
    if not _is_confirmed(flow_manager, desk, details, confirmed):
        say = f"{_say_visit(slot)}, for {who[0]}, at {say_phone(who[1])}. Shall I book it?"
        return _answer("needs_confirmation", say)
    result = await _book(
        business, desk, BookingRequest(slot, *who, key=f"{business.call_sid}:{_slot_id(slot)}")
    )
    if result[0]["status"] == "booked":
        _capture(flow_manager, booked=_say_visit(slot))
    return result


@flows_tool_options(cancel_on_interruption=False, timeout_secs=TOOL_LIMIT_S)
async def take_message(
    flow_manager: FlowManager, message: str, name: str, phone: str, confirmed: bool = False
) -> ToolResult:
    """Take, leave or pass on a message for the team.

    Use it for a call back, a prescription, a bill, a refund, or to cancel, move, change or reschedule an
    existing appointment. The first call, with confirmed false, leaves nothing and returns
    the read-back to say.

    Args:
        message: The message in the caller's own words. Ask: What should I tell the team?
        name: The caller's name. Ask: May I have your name?
        phone: The phone number to call back, ten digits; same if they want the number they are calling from.
            Ask: What phone number should they call back?
        confirmed: True only when the caller has said yes to the read-back of exactly these details.
    """
    business, desk = _business(flow_manager), _desk(flow_manager)
    text = " ".join(message.split())[:_MAX_MESSAGE_CHARS]
    if not text:
        return _answer("unclear", "What should I tell the team?")
    who, problem = _caller(business, name, phone)
    if who is None:
        return _answer("unclear", problem)
    _capture(flow_manager, name=who[0], phone=say_phone(who[1]), message=text)
    details = ("message", text, *who)
    if not _is_confirmed(flow_manager, desk, details, confirmed):
        say = f"A message from {who[0]}, at {say_phone(who[1])}: {text.rstrip('.!?')}. Is that right?"
        return _answer("needs_confirmation", say)
    return await _leave(business, text, *who)


@flows_tool_options(cancel_on_interruption=False, timeout_secs=TOOL_LIMIT_S)
async def transfer_to_person(flow_manager: FlowManager, about: str = "", name: str = "") -> ToolResult:
    """Transfer or connect the caller to a person: a real human, an operator, a representative.

    Use it at once for a caller who wants to speak or talk to someone. Tell it about and name as far as they are known,
    and say nothing behind it: the caller is told what happens.

    Args:
        about: What they want to talk about, in their own words, as far as they have said it.
        name: Their name, if they have said it.
    """
    tidy = _tidy_name(name)
    if _is_name(tidy):
        _capture(flow_manager, name=tidy)
    answer = _business(flow_manager).request_person(" ".join(about.split())[:_MAX_MESSAGE_CHARS])
    if answer is PersonAnswer.NOBODY:
        return _answer(
            "unavailable", "I can't put you through right now. Shall I take a message for the team?"
        )
    if answer is PersonAnswer.ELSEWHERE:
        return {"status": answer.value}, NO_RESPONSE
    say = "I'm putting you through." if answer is PersonAnswer.PUT_THROUGH else "Nobody is here at this hour."
    return {"status": answer.value, "say": say}, NO_RESPONSE


@flows_tool_options(cancel_on_interruption=True, timeout_secs=TOOL_LIMIT_S)
async def end_call(flow_manager: FlowManager, said_goodbye: bool) -> ToolResult:
    """End the call, hang up. Use it when the caller says goodbye or needs nothing more.

    Args:
        said_goodbye: True when this same reply says goodbye to the caller in front of this call.
    """
    if not said_goodbye:
        return _answer(
            "unclear", "Thank you for calling. Goodbye.", hint="Say it, and call end_call with it."
        )
    _business(flow_manager).request_end()
    # Read only if the caller spoke into the goodbye: then it has to be said again.
    return {"status": "ending", "say": "Thank you for calling. Goodbye."}, NO_RESPONSE


_CANNOT_REACH_BOOK = (
    "I can't reach our appointment book right now. May I take a message, so that we call you back?"
)
_CANNOT_REACH_MESSAGES = "I'm sorry, I can't write that down right now. Please call us again a little later."


@contextlib.asynccontextmanager
async def _in_time(business: Business, asked: str) -> AsyncGenerator[None]:
    """Let the appointment book be asked in a block, for as long as a tool has.

    Raises:
        CalendarUnavailableError: If the block takes longer.
    """
    with business.asking("calendar", asked):
        try:
            async with asyncio.timeout(_BOOK_LIMIT_S):
                yield
        except TimeoutError as error:
            raise CalendarUnavailableError(f"no answer within {_BOOK_LIMIT_S} s") from error


async def _search(
    business: Business, service: Service, first_day: date, last_day: date, part: PartOfDay
) -> tuple[list[Slot], str]:
    """Times to offer, and how the offer opens when it is not what was asked for."""
    asked = await business.calendar.free_slots(
        first_day=first_day, last_day=last_day, service=service, part_of_day=part, limit=16
    )
    if asked:
        return _pick(asked), ""
    later = await business.calendar.free_slots(
        first_day=first_day,
        last_day=first_day + timedelta(days=_SEARCH_DAYS),
        service=service,
        part_of_day=PartOfDay.ANY,
        limit=16,
    )
    if first_day != last_day:
        return _pick(later), ""
    closed = not business.hours.on(first_day)
    when = say_day(first_day).split(",")[0]
    return _pick(later), f"We're closed on {when}. " if closed else f"That {when} is taken. "


async def _book(business: Business, desk: Desk, request: BookingRequest) -> ToolResult:
    try:
        async with _in_time(business, "book"):
            try:
                booking = await business.calendar.book(request)
            except (SlotTakenError, SlotRefusedError) as error:
                logger.info("book_appointment: {}", error)
                return await _offer_another(business, desk, request.slot)
    except CalendarUnavailableError:
        return _answer("unavailable", _CANNOT_REACH_BOOK)
    say = f"You're booked for {_say_slot(booking.slot)}. Is there anything else?"
    return _answer("booked", say, booking_id=booking.booking_id, start=booking.slot.start.isoformat())


async def _offer_another(business: Business, desk: Desk, lost: Slot) -> ToolResult:
    """Somebody else was quicker: offer what is left of that day, or what comes next."""
    sorry = "I'm sorry, that time has just been taken."
    day = lost.start.date()
    try:
        with business.asking("calendar", "free_slots"):
            slots, opening = await _search(business, lost.service, day, day, PartOfDay.ANY)
    except CalendarUnavailableError:
        slots, opening = [], ""
    if not slots:
        return _answer("taken", f"{sorry} Which other day would you like?")
    return _answer("taken", f"{sorry} {opening}{_say_options(slots)}", slots=_offer(desk, slots))


async def _leave(business: Business, text: str, name: str, phone: str) -> ToolResult:
    digest = hashlib.sha256("\n".join((text, name, phone)).encode()).hexdigest()[:16]
    message = CallerMessage(
        key=f"{business.call_sid}:{digest}",
        call_sid=business.call_sid,
        name=name,
        phone=phone,
        text=text,
        received_at=business.local_now(),
    )
    try:
        with business.asking("messages", "leave"):
            noted = await business.messages.leave(message)
    except MessageBookUnavailableError:
        return _answer("unavailable", _CANNOT_REACH_MESSAGES)
    done = "passed that on" if noted is Noted.IN_THE_BOOK else "written that down"
    return _answer("noted", f"I've {done}, and the team will call you back. Is there anything else?")


def _is_confirmed(flow_manager: FlowManager, desk: Desk, details: tuple[str, ...], confirmed: object) -> bool:
    """Whether exactly `details` were read back before and the caller has spoken since.

    Otherwise they count as read back from now on: the answer of this call is that read-back.
    """
    turns = sum(
        1
        for message in flow_manager.get_current_context()
        if isinstance(message, dict) and message.get("role") == "user"  # pyright: ignore[reportUnnecessaryIsInstance]  # thoughts are not dicts
    )
    read_back = desk.read_back
    if confirmed is True and read_back is not None and read_back.details == details:
        return turns > read_back.caller_turns
    desk.read_back = ReadBack(details, turns)
    return False


def _caller(business: Business, name: str, phone: str) -> tuple[tuple[str, str] | None, str]:
    """The caller's name and E.164 number, or the sentence that asks for what is wrong."""
    tidy = _tidy_name(name)
    if not _is_name(tidy):
        return None, "May I have your name, please?"
    same = re.fullmatch(r"(the )?same( number)?", phone.strip().lower()) is not None
    number = phone_from_text(business.caller_number if same else phone, business.region, business.language)
    if number is None:
        return None, "Could you give me the phone number again, with the area code?"
    return (tidy, number), ""


def _tidy_name(name: str) -> str:
    return " ".join(name.split()).strip(" .,")[:80]


def _is_name(tidy: str) -> bool:
    return re.search(r"[^\W\d_]{2}", tidy) is not None


def _capture(flow_manager: FlowManager, **known: str) -> None:
    """Note what is known of the caller and their wish: a person who takes over is told."""
    flow_manager.state.setdefault("captured", {}).update(known)


def _days_to_search(text: str, today: date) -> tuple[date, date, str | None]:
    """First and last day to look at, or the sentence that asks for another day."""
    day = day_from_words(text, today)
    if day is None:
        if re.search(r"\b(any|soon|soonest|earliest|first|next available|whenever|week)\b", text.lower()):
            return today, today + timedelta(days=_SEARCH_DAYS), None
        return today, today, "Which day would you like to come in?"
    if day < today:
        return day, day, "That day has passed. Which day would you like to come in?"
    if day > today + timedelta(days=_HORIZON_DAYS):
        return day, day, "I can book up to two months ahead. Which day would you like?"
    return day, day, None


def _part_of_day(text: str) -> PartOfDay:
    try:
        return PartOfDay(text.strip().lower())
    except ValueError:
        return PartOfDay.ANY


def _pick(slots: list[Slot]) -> list[Slot]:
    """The earliest, and one that is a real alternative to it."""
    if len(slots) <= _OFFERED_AT_ONCE:
        return slots
    apart = next((slot for slot in slots if slot.start - slots[0].start >= _APART), slots[1])
    return [slots[0], apart]


def _offer(desk: Desk, slots: list[Slot]) -> list[dict[str, str]]:
    """Remember that these times were offered, and return them as the model reads them."""
    desk.offered |= {_slot_id(slot): slot for slot in slots}
    return [{"start": _slot_id(slot), "say": _say_slot(slot)} for slot in slots]


def _slot_id(slot: Slot) -> str:
    return slot.start.strftime("%Y-%m-%dT%H:%M")


def _say_slot(slot: Slot) -> str:
    return say_datetime(slot.start)


def _say_visit(slot: Slot) -> str:
    article = "An" if slot.service.name[0] in "aeiou" else "A"
    return f"{article} {slot.service.name} on {_say_slot(slot)}"


def _say_options(slots: list[Slot]) -> str:
    if len(slots) == 1:
        return f"I have {_say_slot(slots[0])}. Would that suit you?"
    first, second = slots
    if first.start.date() == second.start.date():
        return f"I have {_say_slot(first)} or {say_time(second.start)}. Which would you like?"
    return f"I have {_say_slot(first)}, or {_say_slot(second)}. Which would you like?"


def _answer(status: str, say: str, **data: object) -> ToolResult:
    return {"status": status, "say": say, **data}, TRANSITION_IN_YAML


def _business(flow_manager: FlowManager) -> Business:
    return flow_manager.state["business"]


def _desk(flow_manager: FlowManager) -> Desk:
    """Return what happened at the desk; behind a cut line it is there as JSON, in times of any zone."""
    desk = flow_manager.state.get("desk")
    if not isinstance(desk, Desk):
        zone = _business(flow_manager).timezone
        desk = flow_manager.state["desk"] = _DESK.validate_python(desk or {})
        desk.offered = {
            key: replace(slot, start=slot.start.astimezone(zone)) for key, slot in desk.offered.items()
        }
    return desk
