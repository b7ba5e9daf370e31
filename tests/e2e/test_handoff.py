"""Callers go to people in whole calls on realistic vendors: all at the same time, each judged at all ends."""

import asyncio
import re
import wave
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from bot.call import Call
from bot.call_life import EndReason
from bot.handoff_lines import handoff_lines
from bot.handoff_reasons import HandoffReason
from integrations.crm import Speaker
from integrations.crm_sqlite import SqliteCrm
from integrations.messages_sqlite import SqliteMessageBook
from sims.call_verbs import HUMAN_LINE
from sims.carrier import Human, PersonLeg
from sims.faults import FaultKind, FaultSpec
from sims.report import CallReport
from sims.scenario import load_scenario
from store.events import CallEvent, EventKind
from store.events_sqlite import SqliteEventLog
from tests.fakes.launcher import NUMBER, Launcher, eventually, open_launcher
from tests.fakes.whole_calls import AT_ONCE, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "handoff"
CHICAGO = ZoneInfo("America/Chicago")
LINES = handoff_lines("en-US")
APOLOGY_LIMIT_S = 6.0


@dataclass(frozen=True)
class Case:
    """One caller: what they do, and who there is for them."""

    scenario: str
    humans: tuple[Human, ...] = (Human.ANSWERS,)
    is_open: bool = True
    model: str = "openai"
    reason: HandoffReason = HandoffReason.ASKED


CASES = {
    "broken": Case("books_until_it_breaks", model="anthropic", reason=HandoffReason.MODEL),
    "declined": Case("leaves_message", (Human.DECLINES,)),
    "accepted": Case("talks"),
    "second": Case("talks", (Human.BUSY, Human.ANSWERS)),
    "unanswered": Case("leaves_voicemail", (Human.NO_ANSWER,)),
    "machine": Case("leaves_voicemail", (Human.MACHINE,)),
    "closed": Case("leaves_voicemail", is_open=False),
    "gone": Case("gives_up_ringing", (Human.NO_ANSWER,)),
    "twice": Case("impatient", reason=HandoffReason.FRUSTRATED),
    "talked_over": Case("speaks_into_it"),
    "mumbled": Case("mumbles", reason=HandoffReason.FAILED_TURNS),
    "fed_up": Case("has_had_enough", reason=HandoffReason.FRUSTRATED),
    "insists": Case("says_it_again", reason=HandoffReason.REPEATED),
    "faint": Case("is_hardly_heard", reason=HandoffReason.UNSURE),
}
TALKED = ["accepted", "second", "talked_over"]
UNASKED = ["fed_up", "insists", "faint"]
"""For whom nobody has asked for a person."""
VOICEMAIL = ["unanswered", "machine", "closed"]


@dataclass(frozen=True)
class HandedOff:
    """One call from its ends."""

    report: CallReport
    call: Call
    """The first of the two, if the agent had the caller back."""
    legs: tuple[PersonLeg, ...]

    @property
    def told(self) -> str:
        """What the last person was told."""
        return " ".join(self.legs[-1].told)


@dataclass(frozen=True)
class Evening:
    """All calls of this module."""

    launcher: Launcher
    calls: Mapping[str, "asyncio.Task[HandedOff]"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    folder = tmp_path_factory.mktemp("handoff")
    write_agents(folder / "agents")
    async with open_launcher(folder, profile="realistic", agents_dir=folder / "agents") as launcher:
        twilio = launcher.world.twilio
        for index, case in enumerate(CASES.values()):
            twilio.humans |= {person(index, n): human for n, human in enumerate(case.humans)}
        free = asyncio.Semaphore(AT_ONCE)
        calls = {name: asyncio.create_task(play(launcher, name, folder, free)) for name in CASES}
        breaking = asyncio.create_task(break_models_once_known(launcher, number_of("broken")))
        yield Evening(launcher, calls)
        for task in (*calls.values(), breaking):
            task.cancel()


async def play(launcher: Launcher, name: str, folder: Path, free: asyncio.Semaphore) -> HandedOff:
    async with free:
        return await play_now(launcher, name, folder)


async def play_now(launcher: Launcher, name: str, folder: Path) -> HandedOff:
    index = [*CASES].index(name)
    scenario = load_scenario(SCENARIOS / f"{CASES[name].scenario}.yaml")
    report = await launcher.world.twilio.place_call(
        scenario.model_copy(update={"caller": f"+155501001{index:02d}"}),
        voice_url=launcher.voice_url,
        status_url=f"{launcher.url}/twilio/status",
        called=number_of(name),
        out_dir=folder,
    )
    await launcher.ended(report.call_sid)
    await eventually(lambda: not is_live(launcher, report.call_sid))
    first = next(call for call in launcher.board.calls()[::-1] if call.setup.call_sid == report.call_sid)
    legs = tuple(leg for leg in launcher.world.twilio.legs if leg.parent_sid == report.call_sid)
    return HandedOff(report, first, legs)


def is_live(launcher: Launcher, call_sid: str) -> bool:
    return any(c.setup.call_sid == call_sid and not c.ended.is_set() for c in launcher.board.calls())


async def break_models_once_known(launcher: Launcher, called: str) -> None:
    """Overload the model for good as soon as the caller has heard their details read back."""

    def is_known() -> bool:
        graphs = [
            call.pipeline.graph
            for call in launcher.board.calls()
            if called in call.setup.agent.config.numbers
        ]
        heard = [str(message) for graph in graphs if graph is not None for message in graph.context.messages]
        return any("Shall I book it" in message and "'role': 'assistant'" in message for message in heard)

    await eventually(is_known, 80.0)
    launcher.world.anthropic.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED))


def number_of(name: str) -> str:
    return f"{NUMBER[:-2]}{[*CASES].index(name) + 10}"


def person(case: int, human: int) -> str:
    return f"+1555123{case:02d}{human:02d}"


def write_agents(folder: Path) -> None:
    """Write the shipped agent once for each case, with people and hours of its own."""
    another_day = (datetime.now(CHICAGO) + timedelta(days=3)).strftime("%a").lower()
    for index, (name, case) in enumerate(CASES.items()):
        hours = "{mon-sun: '00:00-24:00'}" if case.is_open else f"{{{another_day}: '08:00-18:00'}}"
        humans = [person(index, human) for human in range(len(case.humans))]
        changes = {
            NUMBER: number_of(name),
            '{mon-fri: "08:00-18:00", sat: "09:00-13:00"}': hours,
            'humans: ["+15551230000"]': f"ring_s: 5, humans: {humans}",
            "llm: [anthropic]": f"llm: [{case.model}]",
        }
        write_shipped_agent(folder, name, changes)


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", text.lower()).split())


@pytest.mark.parametrize("name", CASES)
async def test_every_caller_gets_an_end_that_they_would_accept(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    assert call.report.outcome == "ok", (call.report.reasons, call.report.carrier_said)
    assert call.report.warnings == {}
    assert call.call.end_reason is EndReason.HANDED_OFF


@pytest.mark.parametrize("name", TALKED)
async def test_a_person_is_told_presses_one_and_the_two_hear_each_other(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    *before, leg = call.legs
    assert [one.is_bridged for one in before] == [False] * len(before)
    assert (leg.pressed, leg.is_bridged) == ("1", True)
    assert "A caller for Northside Dental." in call.told
    assert "They asked for a person." in call.told
    assert "Press 1 to take the call" in call.told
    assert "person about my bill" in call.told
    assert leg.said == [HUMAN_LINE]
    assert plain(" ".join(leg.words)) == "hello it is about my last bill"
    assert len(leg.heard) > 8000


async def test_the_name_that_the_caller_gave_is_told(evening: Evening) -> None:
    assert "The name is Dana Whitfield." in (await evening.calls["accepted"]).told


async def test_the_customer_records_have_what_was_said_and_what_became_of_it(evening: Evening) -> None:
    call = await evening.calls["accepted"]
    crm = SqliteCrm(evening.launcher.settings.database_path)
    async with asyncio.timeout(15):  # the carrier tells how it ended when the two have hung up
        while True:
            [record] = [one for one in await crm.handoffs() if one.call_sid == call.report.call_sid]
            if record.outcome:
                break
            await asyncio.sleep(0.1)
    await crm.close()
    assert (record.name, record.reason, record.outcome) == ("Dana Whitfield", "asked", "accepted")
    assert plain(record.summary) in plain(call.told)
    said = " ".join(one.text for one in record.transcript if one.speaker is Speaker.CALLER)
    assert said == "Hi, my name is Dana Whitfield. Can I talk to a person about my bill?"


async def test_what_is_said_into_the_announcement_neither_stops_it_nor_is_answered(evening: Evening) -> None:
    call = await evening.calls["talked_over"]
    assert call.report.measures is not None
    heard = plain(call.report.measures.agent_text)
    assert heard.count(plain(LINES.putting_through)) == 1
    assert "saturday" not in heard


async def test_a_caller_who_is_furious_and_asks_is_put_through_once(evening: Evening) -> None:
    call = await evening.calls["twice"]
    assert len(call.legs) == 1
    assert call.report.measures is not None
    # What the agent has not said to its end in time, the carrier says. Either line has these words.
    heard = plain(" ".join((call.report.measures.agent_text, *call.report.carrier_said)))
    assert all("put you through" in plain(line) for line in (LINES.putting_through, LINES.not_helping))
    assert heard.count("put you through") == 1, heard


async def test_a_caller_who_cannot_be_understood_is_put_through(evening: Evening) -> None:
    call = await evening.calls["mumbled"]
    assert "We could not understand them." in call.told
    assert call.legs[-1].is_bridged


@pytest.mark.parametrize("name", UNASKED)
async def test_who_is_not_served_well_is_put_through_without_asking(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    assert call.report.measures is not None
    assert plain(call.report.measures.agent_text).count(plain(LINES.not_helping)) == 1
    assert LINES.reasons[CASES[name].reason] in call.told
    assert [leg.is_bridged for leg in call.legs] == [True]


@pytest.mark.parametrize("name", CASES)
async def test_the_reason_is_written_down(evening: Evening, name: str) -> None:
    began = [row for row in await handoff_rows(evening, name) if row.fields["step"] == "began"]
    assert [row.fields["reason"] for row in began] == [CASES[name].reason]


async def test_whoever_is_declined_leaves_a_message_with_the_agent(evening: Evening) -> None:
    call = await evening.calls["declined"]
    assert [leg.is_bridged for leg in call.legs] == [False]
    assert call.report.streams == 2
    book = SqliteMessageBook(evening.launcher.settings.database_path, timezone=CHICAGO)
    [message] = [one for one in await book.messages() if one.call_sid == call.report.call_sid]
    await book.close()
    assert (message.name, message.phone) == ("Martin Reyes", "+18505550177")
    assert "crown came loose" in message.text
    again = next(c for c in evening.launcher.board.calls() if c.setup.call_sid == call.report.call_sid)
    assert again is not call.call
    assert again.end_reason is EndReason.AGENT_ENDED
    folder = evening.launcher.settings.recordings_url / call.report.call_sid
    assert await asyncio.to_thread((folder / "audio.wav").is_file)
    assert await asyncio.to_thread((folder / "audio-2.wav").is_file)


@pytest.mark.parametrize("name", VOICEMAIL)
async def test_a_voicemail_is_kept_transcribed_and_a_call_back_promised(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    said = " ".join(call.report.carrier_said)
    promised = re.findall(r"We will call you back by ([^.]+)\.", said)
    assert len(promised) == 2, said
    assert len(set(promised)) == 1
    assert said.endswith("Goodbye.")
    folder = evening.launcher.settings.recordings_url / call.report.call_sid
    await eventually((folder / "voicemail.txt").is_file)
    text = await asyncio.to_thread((folder / "voicemail.txt").read_text)
    assert plain(text) == "this is rosa diaz please call me about my crown"
    length_s = await asyncio.to_thread(wav_s, folder / "voicemail.wav")
    assert length_s > 2
    book = SqliteMessageBook(evening.launcher.settings.database_path, timezone=CHICAGO)
    [promise] = [one for one in await book.callbacks() if one.call_sid == call.report.call_sid]
    await book.close()
    assert promise.due_at > datetime.now(UTC)
    assert promise.due_at.strftime("%A") in promised[0]
    assert promise.phone == call.report.caller
    assert promise.recording == f"{call.report.call_sid}/voicemail.wav"
    assert plain(promise.transcript) == plain(text)


def wav_s(path: Path) -> float:
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


async def test_a_machine_on_the_persons_line_is_no_person(evening: Evening) -> None:
    [leg] = (await evening.calls["machine"]).legs
    assert (leg.human, leg.pressed, leg.is_bridged) == (Human.MACHINE, "", False)


async def test_at_night_nobody_is_rung(evening: Evening) -> None:
    assert (await evening.calls["closed"]).legs == ()


async def test_three_refusals_are_an_apology_in_time_and_a_person_who_knows_all(evening: Evening) -> None:
    call = await evening.calls["broken"]
    assert call.report.measures is not None
    [agreed] = [turn for turn in call.report.measures.turns if turn.text == "Yes, that's right."]
    assert agreed.answer_s is not None
    assert agreed.answer_s < APOLOGY_LIMIT_S
    assert plain(LINES.trouble) in plain(call.report.measures.agent_text)
    [leg] = call.legs
    assert (leg.pressed, leg.is_bridged) == ("1", True)
    assert "The name is Dana Whitfield." in call.told
    assert "Our assistant has broken down." in call.told
    assert "Phone number: eight five oh, five five five, oh one four two." in call.told
    assert "Appointment for: cleaning." in call.told
    assert re.search(r"Time: Wednesday, \w+ \d+\w\w at", call.told)


async def test_what_became_of_each_is_counted(evening: Evening) -> None:
    await asyncio.gather(*evening.calls.values())
    await eventually(
        lambda: not any(is_live(evening.launcher, c.setup.call_sid) for c in evening.launcher.board.calls())
    )
    await assert_rows(evening, "declined", ["began", "rang", "over"])
    await assert_rows(evening, "second", ["began", "rang", "accepted", "rang", "over"])
    counted = await evening.launcher.metrics()
    ends = {
        name: [key for key in counted if key.startswith("handoffs{") and f"agent={name}," in key]
        for name in CASES
    }
    outcome = {name: re.findall(r"outcome=(\w+),reason=(\w+)", key)[0] for name, [key] in ends.items()}
    became = {
        "declined": "back_with_agent",
        "gone": "caller_left",
        **dict.fromkeys(VOICEMAIL, "voicemail"),
    }
    assert outcome == {name: (became.get(name, "accepted"), case.reason) for name, case in CASES.items()}
    assert counted["handoff_rings{agent=second,outcome=busy}"] == 1
    assert counted["handoff_rings{agent=machine,outcome=machine}"] == 1
    assert counted["handoff_wait_seconds_count{agent=accepted}"] == 1
    faults = [key for key in counted if key.startswith("handoff_faults") and counted[key]]
    assert [
        key for key in faults if "kind=store" not in key
    ] == []  # a busy disk may be late, and costs nobody


async def assert_rows(evening: Evening, name: str, steps: list[str]) -> None:
    """Assert that the event log has these steps of a call's hand-off."""
    assert [row.fields["step"] for row in await handoff_rows(evening, name)] == steps


async def handoff_rows(evening: Evening, name: str) -> list[CallEvent]:
    """Return what the event log has of a call's hand-off."""
    log = SqliteEventLog(evening.launcher.settings.database_path, deadline_s=5.0)
    rows = await log.of_call((await evening.calls[name]).report.call_sid)
    await log.close()
    return [row for row in rows if row.kind == EventKind.HANDOFF]
