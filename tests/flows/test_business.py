import asyncio
from dataclasses import replace

import pytest

from flows.business import Business, prompt_facts
from integrations.calendar import CalendarUnavailableError
from integrations.messages import MessageBookUnavailableError
from tests.fakes.front_desk import FrontDesk


def business() -> Business:
    return FrontDesk().state["business"]


def test_facts_are_ready_to_be_spoken() -> None:
    assert prompt_facts(business()) == {
        "hours": "Monday to Friday eight AM to six PM; Saturday nine AM to one PM; Sunday closed",
        "today": "Saturday, November 21st, 2026",
        "time": "nine thirty AM",
        "timezone": "America/Chicago",
        "caller_number": "eight five oh, five five five, oh one four two",
    }


def test_a_withheld_number_is_not_read_out() -> None:
    assert prompt_facts(replace(business(), caller_number="anonymous"))["caller_number"] == "withheld"


@pytest.mark.parametrize("error", [CalendarUnavailableError("down"), MessageBookUnavailableError("full")])
async def test_a_book_that_does_not_answer_is_told_with_how_long_it_was_waited_for(error: Exception) -> None:
    told: list[tuple[str, str, Exception, float]] = []
    one = replace(business(), unavailable=lambda *what: told.append(what))

    async def book() -> None:
        with one.asking("calendar", "book"):
            await asyncio.sleep(1.5)
            raise error

    with pytest.raises(type(error)):
        await book()
    [(which, asked, why, waited_s)] = told
    assert (which, asked, why, round(waited_s, 3)) == ("calendar", "book", error, 1.5)


async def test_what_is_wrong_with_the_question_is_no_failure_of_the_book() -> None:
    told: list[object] = []
    one = replace(business(), unavailable=lambda *what: told.append(what))
    with pytest.raises(KeyError), one.asking("calendar", "book"):
        raise KeyError
    assert told == []
