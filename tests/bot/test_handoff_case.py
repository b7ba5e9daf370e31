"""What is kept of a hand-off, and what is said around it."""

from dataclasses import replace
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agent import read_agent
from bot.handoff_case import (
    MAX_TRANSCRIPT,
    Briefing,
    Documents,
    HandoffCase,
    brief,
    briefing_of,
    callback_number,
    can_be_called,
    record_of,
)
from bot.handoff_lines import handoff_lines
from bot.handoff_reasons import HandoffReason
from bot.handoff_table import Handoff
from bot.saved_context import transcript
from integrations.crm import Said, Speaker
from telephony.signature import PublicAddress
from tests.fakes.launcher import ROOT

CONFIG = read_agent(ROOT / "flows" / "reception").config
LINES = handoff_lines("en")
DOCUMENTS = Documents(CONFIG, PublicAddress("https://phone.example.com"))
DUE = datetime(2026, 11, 23, 16, 15, tzinfo=UTC)
KNOWN = Briefing(
    "Maria Lopez",
    "a bill",
    "Can I talk to somebody about a bill?",
    {"phone": "eight five oh, five five five, oh one nine nine", "service": "cleaning"},
)


def case(
    humans: tuple[str, ...] = ("+15551230000",), *, reason: HandoffReason = HandoffReason.ASKED
) -> HandoffCase:
    table = Handoff(humans, takes_voicemail=True, can_agent_talk=reason.can_agent_talk)
    return HandoffCase(
        "CA1", "reception", "+15550100001", reason, table, datetime(2026, 11, 23, 15, tzinfo=UTC), KNOWN
    )


def said(document: str) -> str:
    root = ElementTree.fromstring(document.encode())  # noqa: S314 - our own document
    return " ".join(say.text or "" for say in root.iter("Say"))


def test_a_person_is_told_who_why_and_what_is_known() -> None:
    assert brief(CONFIG, case()) == (
        "A caller for Northside Dental. The name is Maria Lopez. They asked for a person. It is about: a bill. "
        "Phone number: eight five oh, five five five, oh one nine nine. Appointment for: cleaning. "
        "They said last: Can I talk to somebody about a bill. Press 1 to take the call, or 2 to decline."
    )


def test_the_record_has_all_that_is_known() -> None:
    messages = [
        {"role": "system", "content": "You are a receptionist."},
        {"role": "assistant", "content": "How can I help?"},
        {"role": "user", "content": "A bill."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": "{}"},
        *({"role": "user", "content": f"Hello {number}?"} for number in range(MAX_TRANSCRIPT)),
    ]
    briefing = briefing_of({"captured": {"name": "Maria Lopez", "phone": "555 0100"}}, messages, "a bill")
    one = replace(case(), briefing=briefing)
    record = record_of(CONFIG, one)
    assert (record.name, record.phone, record.slots) == ("Maria Lopez", "555 0100", {"phone": "555 0100"})
    assert f"{record.summary} {LINES.keys}" == brief(CONFIG, one)
    assert len(record.transcript) == MAX_TRANSCRIPT
    assert record.transcript[-1] == Said(Speaker.CALLER, f"Hello {MAX_TRANSCRIPT - 1}?")
    assert transcript(messages)[:2] == (
        Said(Speaker.AGENT, "How can I help?"),
        Said(Speaker.CALLER, "A bill."),
    )
    assert record.outcome == ""
    assert record_of(CONFIG, replace(one, table=one.table.left())).outcome == "caller_left"
    assert HandoffCase.from_json(one.to_json()) == one


def test_of_an_unknown_caller_that_is_said() -> None:
    unknown = HandoffCase(
        "CA1", "reception", "anonymous", HandoffReason.MODEL, case().table, datetime.now(UTC)
    )
    told = brief(CONFIG, unknown)
    assert LINES.no_name in told
    assert LINES.reasons[HandoffReason.MODEL] in told


@given(st.text(), st.text(), st.dictionaries(st.sampled_from([*LINES.slots]), st.text()))
def test_whatever_callers_say_a_briefing_is_short_and_a_case_survives_the_store(
    name: str, about: str, slots: dict[str, str]
) -> None:
    one = HandoffCase(
        "CA1",
        "reception",
        "x",
        HandoffReason.ASKED,
        case().table,
        DUE,
        Briefing(name[:80], about, about, slots),
    )
    assert len(brief(CONFIG, one)) < 2500
    try:
        body = one.to_json()
    except ValueError:  # lone surrogates are no text
        return
    assert HandoffCase.from_json(body) == one


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"call_sid": 3}'])
def test_what_is_no_case_says_so(body: str) -> None:
    with pytest.raises(ValueError, match="not a hand-off"):
        HandoffCase.from_json(body)


def test_who_was_not_told_by_us_is_told_by_the_carrier_before_it_rings() -> None:
    told = DOCUMENTS.place(case().announced(by_agent=True))
    assert said(told) == ""
    untold = DOCUMENTS.place(case(reason=HandoffReason.VOICE).announced(by_agent=False))
    assert said(untold) == LINES.trouble


def test_a_voicemail_promises_a_time_in_the_business_zone() -> None:
    told = case(()).announced(by_agent=True).promised(DUE)
    assert said(DOCUMENTS.place(told)) == (
        "We will call you back by Monday, November 23rd at ten fifteen AM. " + LINES.leave_message
    )
    untold = case(()).announced(by_agent=False).promised(DUE)
    assert said(DOCUMENTS.place(untold)).startswith(LINES.nobody_can_come)
    trouble = case((), reason=HandoffReason.MODEL).announced(by_agent=True).promised(DUE)
    assert said(DOCUMENTS.place(trouble)).startswith(LINES.nobody_can_come)


def test_without_a_promise_that_is_written_down_none_is_made() -> None:
    assert said(DOCUMENTS.place(case(()).announced(by_agent=True))) == LINES.leave_message


def test_whoever_withholds_their_number_is_asked_for_it() -> None:
    one = case(()).announced(by_agent=True)
    withheld = HandoffCase("CA1", "reception", "anonymous", one.reason, one.table, one.began_at)
    assert LINES.leave_number in said(DOCUMENTS.place(withheld))


@pytest.mark.parametrize(
    ("number", "expected"),
    [("+15550100001", True), ("anonymous", False), ("Restricted", False), ("", False), ("+266696687", True)],
)
def test_a_number_that_can_be_called(number: str, expected: bool) -> None:
    assert can_be_called(number) is expected


def test_they_are_called_back_at_the_number_they_gave() -> None:
    assert callback_number(case()) == KNOWN.slots["phone"]
    assert (
        callback_number(HandoffCase("CA1", "a", "+1555", HandoffReason.ASKED, case().table, DUE)) == "+1555"
    )
