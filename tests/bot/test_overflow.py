"""Whoever is not let in reaches a person, a voicemail or a spoken line, whatever comes of each step."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agent import Agent, Overflow, read_agent
from bot.errors import AgentFilesError
from bot.lines import fixed_lines
from bot.overflow import Next, OverflowDesk, OverflowEvent, OverflowStep, next_step
from bot.overflow_lines import overflow_lines
from telephony.signature import PublicAddress
from tests.bot.agent_files import AGENT, write_agent

FIRST, SECOND = "+15550001111", "+15550002222"
OPEN = datetime(2026, 1, 5, 16, 0, tzinfo=UTC)
"""A Monday, ten o'clock in Chicago."""
AT_NOON = datetime(2026, 1, 5, 18, 30, tzinfo=UTC)
"""Half past twelve there: between two spans."""
BOTH = Overflow(ring=(FIRST, SECOND), voicemail=True)
REFUSED, DIALLED, RECORDED = OverflowEvent.REFUSED, OverflowEvent.DIALLED, OverflowEvent.RECORDED


def agent(folder: Path, overflow: str = "") -> Agent:
    return read_agent(write_agent(folder / "agent", agent=f"{AGENT}\n{overflow}"))


def desk(now: datetime = OPEN) -> OverflowDesk:
    return OverflowDesk(PublicAddress("https://phone.example.com"), now=lambda: now)


def verbs(document: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(document.encode()))  # noqa: S314 - our own document


def test_people_are_rung_one_after_the_other_then_a_message_is_taken() -> None:
    assert next_step(BOTH, REFUSED, is_open=True) == Next(OverflowStep.RING, 0)
    assert next_step(BOTH, DIALLED, is_open=True, person=0) == Next(OverflowStep.RING, 1)
    assert next_step(BOTH, DIALLED, is_open=True, person=1) == Next(OverflowStep.MESSAGE)
    assert next_step(BOTH, RECORDED, is_open=True) == Next(OverflowStep.THANKS)


def test_who_was_spoken_with_is_not_asked_for_a_message() -> None:
    assert next_step(BOTH, DIALLED, is_open=True, was_bridged=True) == Next(OverflowStep.HANG_UP)


def test_nobody_is_rung_when_the_business_is_closed() -> None:
    assert next_step(BOTH, REFUSED, is_open=False) == Next(OverflowStep.MESSAGE)
    assert next_step(BOTH, DIALLED, is_open=False, person=0) == Next(OverflowStep.MESSAGE)


def test_without_anything_set_the_line_is_said() -> None:
    assert next_step(Overflow(), REFUSED, is_open=True) == Next(OverflowStep.LINE)


@given(st.integers(0, 5), st.booleans(), st.lists(st.booleans(), max_size=8))
def test_every_caller_gets_to_an_end_in_bounded_steps_and_hears_something(
    people: int, voicemail: bool, openings: list[bool]
) -> None:
    overflow = Overflow(ring=(FIRST,) * people, voicemail=voicemail)
    step, steps = next_step(overflow, REFUSED, is_open=True), 0
    while step.step is OverflowStep.RING:
        is_open = openings[steps] if steps < len(openings) else True
        steps += 1
        step = next_step(overflow, DIALLED, is_open=is_open, person=step.person)
    assert steps <= people
    assert step.step is (OverflowStep.MESSAGE if voicemail else OverflowStep.LINE)


def test_ringing_asks_what_came_of_it_and_screens_who_answers(tmp_path: Path) -> None:
    step, document = desk().refuse(agent(tmp_path, f'overflow: {{ring: ["{FIRST}"], ring_s: 15}}'))
    (dial,) = verbs(document)
    assert step == Next(OverflowStep.RING, 0)
    assert dial.attrib["timeout"] == "15"
    assert dial.attrib["answerOnBridge"] == "true"
    action, whisper = urlsplit(dial.attrib["action"]), urlsplit(dial[0].attrib["url"])
    assert action.path == "/twilio/overflow/dialled"
    assert parse_qs(action.query) == {"agent": ["agent"], "person": ["0"]}
    assert whisper.path == "/twilio/overflow/whisper"
    assert dial[0].text == FIRST


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"DialCallStatus": "completed", "DialBridged": "true"}, OverflowStep.HANG_UP),
        ({"DialCallStatus": "completed"}, OverflowStep.HANG_UP),
        ({"DialCallStatus": "completed", "DialBridged": "false"}, OverflowStep.RING),
        ({"DialCallStatus": "busy"}, OverflowStep.RING),
        ({"DialCallStatus": "no-answer", "DialBridged": "false"}, OverflowStep.RING),
        ({}, OverflowStep.RING),
    ],
)
def test_only_a_conversation_ends_the_search(
    tmp_path: Path, form: dict[str, str], expected: OverflowStep
) -> None:
    owner = agent(tmp_path, f'overflow: {{ring: ["{FIRST}", "{SECOND}"]}}')
    step, document = desk().dialled(owner, 0, form)
    assert step.step is expected
    assert expected is OverflowStep.HANG_UP or SECOND in document
    last, document = desk().dialled(owner, 1, {"DialCallStatus": "busy"})
    assert last.step is OverflowStep.LINE
    assert fixed_lines("en").overflow in document


def test_a_message_is_recorded_stored_and_thanked_for(tmp_path: Path) -> None:
    owner = agent(tmp_path, "overflow: {voicemail: true}")
    _, document = desk().refuse(owner)
    say, record = verbs(document)
    assert say.text == overflow_lines("en").message
    assert urlsplit(record.attrib["action"]).path == "/twilio/overflow/recorded"
    assert record.attrib["recordingStatusCallback"] == "https://phone.example.com/twilio/recording"
    assert [verb.tag for verb in verbs(desk().recorded(owner, None)[1])] == ["Say", "Hangup"]


def test_the_time_of_the_call_back_goes_with_the_message(tmp_path: Path) -> None:
    owner = agent(tmp_path, "overflow: {voicemail: true}\nhandoff: {callback_within_min: 60}")
    step, document = desk(OPEN).refuse(owner)
    due_at = OPEN + timedelta(hours=1)
    assert step.due_at == due_at
    _, record = verbs(document)
    query = parse_qs(urlsplit(record.attrib["action"]).query)
    assert query == {"agent": ["agent"], "due": [str(int(due_at.timestamp()))], "person": ["0"]}


def test_a_call_back_is_promised_with_its_time_when_it_is_written_down(tmp_path: Path) -> None:
    owner = agent(tmp_path, "overflow: {voicemail: true}")
    thanks = verbs(desk().recorded(owner, OPEN + timedelta(hours=1))[1])[0].text
    assert thanks == "Thank you. We will call you back by Monday, January 5th at eleven AM. Goodbye."
    assert verbs(desk().recorded(owner, None)[1])[0].text == "Thank you. Goodbye."


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", "Vielen Dank. Wir rufen Sie bis Montag, fünfter Januar, um elf Uhr zurück. Auf Wiederhören."),
        ("es", "Gracias. Le devolveremos la llamada antes de"),
        ("fr", "Merci. Nous vous rappellerons avant"),
        ("it", "Grazie. La richiameremo entro"),
        ("nl", "Dank u wel. We bellen u terug voor"),
        ("pt", "Obrigado. Vamos ligar de volta até"),
    ],
)
def test_it_is_promised_in_the_agents_language(tmp_path: Path, language: str, said: str) -> None:
    text = AGENT.replace("language: en-US", f"language: {language}")
    owner = read_agent(write_agent(tmp_path / "agent", agent=text))
    thanks = verbs(desk().recorded(owner, OPEN + timedelta(hours=1))[1])[0].text or ""
    assert owner.config.language == language
    assert thanks.startswith(said)
    assert thanks != verbs(desk().recorded(owner, None)[1])[0].text


def test_the_owners_own_line_is_said(tmp_path: Path) -> None:
    _, document = desk().refuse(agent(tmp_path, 'overflow: {say: "Please call Tuesday."}'))
    assert verbs(document)[0].text == "Please call Tuesday."


def test_hours_are_those_of_the_business_and_its_zone(tmp_path: Path) -> None:
    owner = agent(tmp_path, f'overflow: {{ring: ["{FIRST}"]}}')
    assert desk(OPEN).refuse(owner)[0].step is OverflowStep.RING
    assert desk(AT_NOON).refuse(owner)[0].step is OverflowStep.LINE


def test_the_person_hears_for_whom_it_is_and_a_machine_is_refused(tmp_path: Path) -> None:
    whisper = desk().whisper(agent(tmp_path))
    assert "Northside Dental" in whisper
    assert "/twilio/overflow/screened" in whisper
    assert [verb.tag for verb in verbs(desk().screened({"Digits": "1"}))] == []
    assert [verb.tag for verb in verbs(desk().screened({"Digits": "2"}))] == ["Hangup"]
    assert [verb.tag for verb in verbs(desk().screened({}))] == ["Hangup"]


@pytest.mark.parametrize(
    ("overflow", "fault"),
    [
        ('overflow: {ring: ["555"]}', "overflow.ring[0]"),
        ("overflow: {rings: []}", "did you mean ring"),
        ("overflow: {ring_s: 2}", "overflow.ring_s"),
        ('overflow: {voicemail: true, say: "x"}', "say is never heard beside voicemail"),
        (f"overflow: {{ring: [{', '.join([repr(FIRST)] * 6)}]}}", "overflow.ring"),
    ],
)
def test_what_is_wrong_with_it_is_explained(tmp_path: Path, overflow: str, fault: str) -> None:
    with pytest.raises(AgentFilesError) as error:
        agent(tmp_path, overflow)
    assert any(fault in line for line in error.value.faults), error.value.faults
