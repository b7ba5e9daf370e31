"""The front desk's tools decide what may be booked, whatever a model asks for."""

import asyncio
from typing import Any

import pytest
from pydantic_core import to_jsonable_python

from flows.business import PersonAnswer
from flows.reception import tools
from flows.spoken import say_phone
from integrations.messages import Noted
from tests.fakes.front_desk import FrontDesk

MARIA: dict[str, Any] = {"name": "Maria Lopez", "phone": "8505550199"}


async def offered(desk: FrontDesk, **arguments: str) -> dict[str, Any]:
    wish = {"service": "cleaning", "day": "tuesday"} | arguments
    result, is_answered = await desk.call_tool("find_slots", **wish)
    assert is_answered
    return result


def caller_says(desk: FrontDesk, text: str) -> None:
    desk.messages.append({"role": "user", "content": text})


# find_slots


async def test_two_slots_in_the_clinics_hours_and_words() -> None:
    result = await offered(FrontDesk(), day="next Tuesday", part_of_day="morning")
    assert [slot["start"] for slot in result["slots"]] == ["2026-11-24T08:00", "2026-11-24T09:30"]
    assert (
        result["say"] == "I have Tuesday, November 24th at eight AM or nine thirty AM. Which would you like?"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ({"day": "Sunday"}, "offered", "We're closed on Sunday. I have Monday"),
        ({"day": "any"}, "offered", "I have Saturday, November 21st at ten AM"),
        ({"day": "2026-11-20"}, "unclear", "That day has passed"),
        ({"day": "2027-03-01"}, "unclear", "two months ahead"),
        ({"day": "blue"}, "unclear", "Which day"),
        ({"service": "haircut"}, "unclear", "cleaning, a checkup, a filling"),
        ({"part_of_day": "midnight"}, "offered", "eight AM"),
        ({"day": "saturday", "part_of_day": "afternoon"}, "offered", "noon. Would that suit you?"),
    ],
)
async def test_what_else_can_be_asked_for(arguments: dict[str, str], status: str, says: str) -> None:
    result = await offered(FrontDesk(), **arguments)
    assert result["status"] == status
    assert says in result["say"]


async def test_a_full_day_leads_to_the_next() -> None:
    desk = FrontDesk()
    result = await offered(desk)
    while (start := result["slots"][0]["start"]).startswith("2026-11-24"):
        await book(desk, start)
        result = await offered(desk)
    assert result["say"].startswith("That Tuesday is taken. I have Wednesday, November 25th")


# book_appointment


async def book(desk: FrontDesk, start: str, **change: Any) -> dict[str, Any]:
    await desk.call_tool("book_appointment", start=start, **MARIA | change)
    caller_says(desk, "yes")
    result, _ = await desk.call_tool("book_appointment", start=start, confirmed=True, **MARIA | change)
    return result


async def test_the_read_back_says_what_is_booked() -> None:
    desk = FrontDesk()
    await offered(desk)
    result, _ = await desk.call_tool("book_appointment", start="2026-11-24T08:00", **MARIA)
    assert result["status"] == "needs_confirmation"
    assert result["say"] == (
        "A cleaning on Tuesday, November 24th at eight AM, for Maria Lopez, "
        "at eight five oh, five five five, oh one nine nine. Shall I book it?"
    )
    assert not desk.calendar.booked


async def test_confirmed_after_the_read_back_books() -> None:
    desk = FrontDesk()
    await offered(desk)
    result = await book(desk, "2026-11-24T08:00")
    assert result["status"] == "booked"
    assert result["start"] == "2026-11-24T08:00:00-06:00"
    (booking,) = desk.calendar.booked.values()
    assert (booking.name, booking.phone) == ("Maria Lopez", "+18505550199")


async def test_a_slot_that_was_not_offered_is_never_booked() -> None:
    desk = FrontDesk()
    await offered(desk)
    result = await book(desk, "2026-11-24T11:00")
    assert result["status"] == "unclear"
    assert not desk.calendar.booked


async def test_confirmed_without_a_read_back_books_nothing() -> None:
    desk = FrontDesk()
    await offered(desk)
    result, _ = await desk.call_tool("book_appointment", start="2026-11-24T08:00", confirmed=True, **MARIA)
    assert result["status"] == "needs_confirmation"
    assert not desk.calendar.booked


async def test_confirmed_before_the_caller_answered_books_nothing() -> None:
    desk = FrontDesk()
    await offered(desk)
    for confirmed in (False, True):
        await desk.call_tool("book_appointment", start="2026-11-24T08:00", confirmed=confirmed, **MARIA)
    assert not desk.calendar.booked


@pytest.mark.parametrize("change", [{"name": "Mary Lopez"}, {"phone": "8505550198"}])
async def test_a_change_after_the_read_back_needs_a_new_one(change: dict[str, str]) -> None:
    desk = FrontDesk()
    await offered(desk)
    await desk.call_tool("book_appointment", start="2026-11-24T08:00", **MARIA)
    caller_says(desk, "yes")
    result, _ = await desk.call_tool(
        "book_appointment", start="2026-11-24T08:00", confirmed=True, **MARIA | change
    )
    assert result["status"] == "needs_confirmation"
    assert not desk.calendar.booked


async def test_confirmed_twice_books_once() -> None:
    desk = FrontDesk()
    await offered(desk)
    first = await book(desk, "2026-11-24T08:00")
    second, _ = await desk.call_tool("book_appointment", start="2026-11-24T08:00", confirmed=True, **MARIA)
    assert second == first
    assert len(desk.calendar.booked) == 1


async def test_a_time_that_somebody_else_took_is_answered_with_what_is_left() -> None:
    desk = FrontDesk()
    await offered(desk)
    desk.calendar.taken_from_under = True
    result = await book(desk, "2026-11-24T08:00")
    assert result["status"] == "taken"
    assert result["say"].startswith("I'm sorry, that time has just been taken. I have Tuesday, November 24th")
    desk.calendar.taken_from_under = False
    again = await book(desk, result["slots"][0]["start"])
    assert again["status"] == "booked"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"phone": "555 0199"}, "with the area code"),
        ({"name": " . "}, "your name"),
        ({"name": "4"}, "your name"),
    ],
)
async def test_names_and_numbers_are_checked(change: dict[str, str], says: str) -> None:
    desk = FrontDesk()
    await offered(desk)
    result = await book(desk, "2026-11-24T08:00", **change)
    assert (result["status"], says in result["say"]) == ("unclear", True)


async def test_the_callers_own_number_is_taken_from_the_carrier() -> None:
    desk = FrontDesk()
    await offered(desk)
    await book(desk, "2026-11-24T08:00", phone="same")
    assert [booking.phone for booking in desk.calendar.booked.values()] == ["+18505550142"]


# take_message, end_call


async def test_a_message_is_left_once_after_its_read_back() -> None:
    desk = FrontDesk()
    wish = {"message": "  My crown\n fell out. ", **MARIA}
    result, _ = await desk.call_tool("take_message", **wish)
    assert result["status"] == "needs_confirmation"
    assert not desk.book.left
    caller_says(desk, "yes")
    for _ in range(2):
        result, _ = await desk.call_tool("take_message", confirmed=True, **wish)
        assert result["status"] == "noted"
    (message,) = desk.book.left.values()
    assert (message.text, message.call_sid, message.received_at) == ("My crown fell out.", "CA1", desk.now)


async def test_an_empty_or_endless_message() -> None:
    desk = FrontDesk()
    result, _ = await desk.call_tool("take_message", message=" ", **MARIA)
    assert result["status"] == "unclear"
    result, _ = await desk.call_tool("take_message", message="word " * 1000, **MARIA)
    assert len(result["say"]) < 800


async def test_stores_out_of_reach_are_said() -> None:
    desk = FrontDesk()
    await offered(desk)
    desk.calendar.down = desk.book.down = True
    assert (await offered(desk))["status"] == "unavailable"
    assert (await book(desk, "2026-11-24T08:00"))["status"] == "unavailable"
    wish = {"message": "Call me.", **MARIA}
    await desk.call_tool("take_message", **wish)
    caller_says(desk, "yes")
    result, _ = await desk.call_tool("take_message", confirmed=True, **wish)
    assert result["status"] == "unavailable"


async def test_a_message_that_waits_for_its_book_is_written_down_and_that_is_said() -> None:
    desk = FrontDesk()
    desk.book.noted = Noted.ON_THIS_MACHINE
    wish = {"message": "Call me.", **MARIA}
    await desk.call_tool("take_message", **wish)
    caller_says(desk, "yes")
    result, _ = await desk.call_tool("take_message", confirmed=True, **wish)
    assert (result["status"], "written that down" in result["say"]) == ("noted", True)


@pytest.mark.parametrize("slow_s", [0.9, 60.0])
async def test_a_book_that_takes_its_time_is_said_before_the_tool_is_given_up(slow_s: float) -> None:
    desk = FrontDesk()
    await offered(desk)
    desk.calendar.slow_s, desk.calendar.rivals = slow_s, []
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    # Nothing is free on a Sunday: the book is asked twice, and each answer is in time for itself.
    assert (await offered(desk, day="Sunday"))["status"] == "unavailable"
    assert loop.time() - began_s < tools.TOOL_LIMIT_S
    desk.calendar.taken_from_under = True
    desk.calendar.slow_s = 0.0
    await desk.call_tool("book_appointment", start="2026-11-24T08:00", **MARIA)
    caller_says(desk, "yes")
    desk.calendar.slow_s = slow_s
    began_s = loop.time()
    result, _ = await desk.call_tool("book_appointment", start="2026-11-24T08:00", confirmed=True, **MARIA)
    assert result["status"] == "unavailable"
    assert loop.time() - began_s < tools.TOOL_LIMIT_S


async def test_the_call_ends_only_behind_a_goodbye() -> None:
    desk = FrontDesk()
    result, is_answered = await desk.call_tool("end_call", said_goodbye=False)
    assert (desk.ended, is_answered) == (0, True)
    assert "Goodbye" in result["say"]
    _, is_answered = await desk.call_tool("end_call", said_goodbye=True)
    assert (desk.ended, is_answered) == (1, False)


async def test_a_caller_is_put_through_with_what_is_known_of_them() -> None:
    desk = FrontDesk(person=PersonAnswer.PUT_THROUGH)
    await offered(desk)
    result, is_answered = await desk.call_tool(
        "transfer_to_person", about="  my\n bill ", name=" Maria Lopez."
    )
    assert (result["status"], is_answered) == ("put_through", False)
    assert desk.asked_for_person == ["my bill"]
    assert desk.state["captured"]["name"] == "Maria Lopez"
    assert desk.state["captured"]["service"] == "cleaning"


async def test_a_caller_for_whom_the_flow_has_a_way_of_its_own_is_told_nothing_by_the_model() -> None:
    desk = FrontDesk(person=PersonAnswer.ELSEWHERE)
    result, is_answered = await desk.call_tool("transfer_to_person", about="my bill")
    assert (result, is_answered) == ({"status": "elsewhere"}, False)


@pytest.mark.parametrize("name", ["", "...", "?"])
async def test_a_name_that_is_none_is_not_noted(name: str) -> None:
    desk = FrontDesk(person=PersonAnswer.VOICEMAIL)
    result, is_answered = await desk.call_tool("transfer_to_person", name=name)
    assert (result["status"], is_answered) == ("voicemail", False)
    assert "name" not in desk.state.get("captured", {})


async def test_who_cannot_be_put_through_is_offered_a_message() -> None:
    desk = FrontDesk()
    result, is_answered = await desk.call_tool("transfer_to_person")
    assert (result["status"], is_answered) == ("unavailable", True)
    assert "message" in result["say"]


async def test_what_is_captured_is_what_was_read_back() -> None:
    desk = FrontDesk()
    await offered(desk)
    await book(desk, "2026-11-24T08:00")
    assert desk.state["captured"] == {
        "service": "cleaning",
        "day": "Tuesday, November 24th",
        "name": "Maria Lopez",
        "phone": say_phone("+18505550199"),
        "time": "Tuesday, November 24th at eight AM",
        "booked": "A cleaning on Tuesday, November 24th at eight AM",
    }


def test_every_tool_has_a_time_limit_and_only_reading_ones_are_cancelled_by_speech() -> None:
    functions = FrontDesk().functions
    assert set(functions) == {
        "find_slots",
        "book_appointment",
        "take_message",
        "transfer_to_person",
        "end_call",
    }
    assert not functions["transfer_to_person"].cancel_on_interruption
    assert all(function.timeout_secs for function in functions.values())
    assert not functions["book_appointment"].cancel_on_interruption
    assert not functions["take_message"].cancel_on_interruption


async def test_what_was_offered_and_read_back_outlives_the_process() -> None:
    before = FrontDesk()
    await before.call_tool("find_slots", service="cleaning", day="Monday")
    start = next(iter(before.state["desk"].offered))
    details = {"start": start, "name": "Dana Whitfield", "phone": "8505550142"}
    await before.call_tool("book_appointment", **details)
    before.messages.append({"role": "user", "content": "Yes, that's right."})
    after = FrontDesk(state={"desk": to_jsonable_python(before.state["desk"])})
    after.messages = before.messages
    result, _ = await after.call_tool("book_appointment", **details, confirmed=True)
    assert result["status"] == "booked"
    assert result["start"].startswith(start)
