from dataclasses import replace

from flows.business import Business, prompt_facts
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
