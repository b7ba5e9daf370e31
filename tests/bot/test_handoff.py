"""The desk, with a carrier and a call that are the test's; webhooks come as the carrier sends them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from bot.call_life import EndReason
from bot.flow_check import CheckedAgent, check_agent
from bot.handoff import DROPPED_LIMIT_S, REDIRECT_LIMIT_S, HandoffDesk
from bot.handoff_case import Briefing, HandoffCase
from bot.handoff_lines import handoff_lines
from bot.handoff_reasons import HandoffReason
from bot.resources import Books
from flows.business import PersonAnswer
from integrations.calendar import OpeningHours
from integrations.callbacks import Callback
from integrations.crm import HandoffRecord
from integrations.messages import MessageBookUnavailableError
from store.calls import CallPhase, SavedCall
from store.errors import StoreUnavailableError
from telephony.rest import CallChange, TwilioUnreachableError
from telephony.signature import PublicAddress
from tests.fakes.launcher import ROOT
from tests.fakes.memory_handoffs import MemoryHandoffStore

ONE, TWO = "+15551230000", "+15551230001"
LINES = handoff_lines("en")
OPEN = datetime(2026, 11, 23, 16, tzinfo=UTC)
"""A Monday, ten in the morning in Chicago."""
NIGHT = datetime(2026, 11, 23, 4, tzinfo=UTC)
SID = "CA" + "1" * 32


class Phone:
    """The carrier's REST."""

    def __init__(self) -> None:
        self.documents: list[str] = []
        self.change = CallChange.DONE
        self.error: Exception | None = None
        self.takes_s = 0.0

    async def redirect(self, call_sid: str, twiml: str) -> CallChange:
        assert call_sid == SID
        self.documents.append(twiml)
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return self.change


class Promises:
    """A `CallbackBook` in memory."""

    def __init__(self) -> None:
        self.made: dict[str, Callback] = {}
        self.notes: list[tuple[str, str, str]] = []
        self.is_down = False

    async def promise(self, callback: Callback) -> None:
        if self.is_down:
            raise MessageBookUnavailableError("down")
        self.made.setdefault(callback.key, callback)

    async def attach_voicemail(self, key: str, *, recording: str, transcript: str) -> bool:
        if self.is_down:
            raise MessageBookUnavailableError("down")
        self.notes.append((key, recording, transcript))
        return key in self.made


class Records:
    """Customer records."""

    def __init__(self) -> None:
        self.noted: list[HandoffRecord] = []
        self.error: Exception | None = None

    def note_handoff(self, record: HandoffRecord) -> None:
        if self.error is not None:
            raise self.error
        self.noted.append(record)


class Told:
    """A `HandoffListener`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.began: list[tuple[str, str, int]] = []

    def handoff_began(self, call_sid: str, *, agent: str, reason: str, people: int) -> None:
        self.began.append((call_sid, reason, people))

    def handoff_rang(self, call_sid: str, *, agent: str, person: int, outcome: str) -> None:
        self.counts[f"rang {outcome}"] += 1

    def handoff_accepted(self, call_sid: str, *, agent: str, waited_s: float) -> None:
        self.counts["accepted"] += 1

    def handoff_over(self, call_sid: str, *, agent: str, reason: str, outcome: str, promised: bool) -> None:
        self.counts[f"{reason}: {outcome}"] += 1

    def handoff_fault(
        self, call_sid: str, *, agent: str, kind: str, action: str, cost_s: float, detail: str
    ) -> None:
        self.counts[f"fault {kind}"] += 1


@dataclass
class FakeSetup:
    agent: Any
    call_sid: str = SID
    caller_number: str = "+15550100001"


class FakeCall:
    """A call as the desk sees it."""

    def __init__(self, agent: CheckedAgent) -> None:
        self.setup = FakeSetup(agent.agent)
        self.end_reason: EndReason | None = None
        self.said: list[str] = []
        self.can_say = True
        self.takes_s = 1.0
        self.is_passed_on = False
        self.gave_up = 0
        self.ended = asyncio.Event()

    def briefing(self, about: str = "") -> Briefing:
        return Briefing("Maria Lopez", about, "Can I talk to somebody?", {"service": "cleaning"})

    async def say_last(self, text: str) -> bool:
        if not self.can_say:
            return False
        self.said.append(text)
        waiting = asyncio.create_task(self.ended.wait())
        await asyncio.wait({waiting}, timeout=self.takes_s)
        waiting.cancel()
        return True

    def pass_on(self) -> None:
        self.is_passed_on = True

    def end(self, reason: EndReason) -> None:
        if self.end_reason is None:
            self.end_reason = EndReason.HANDED_OFF if self.is_passed_on else reason
            self.ended.set()

    async def say_trouble_and_end(self) -> None:
        self.gave_up += 1
        self.end(EndReason.GAVE_UP)

    @property
    def real(self) -> Any:
        return cast(Any, self)


@dataclass
class Rig:
    """A desk and everything around it."""

    humans: tuple[str, ...] = (ONE, TWO)
    voicemail: bool = True
    now: datetime = OPEN
    phone: Phone = field(default_factory=Phone)
    promises: Promises = field(default_factory=Promises)
    records: Records = field(default_factory=Records)
    shelf: MemoryHandoffStore = field(default_factory=MemoryHandoffStore)
    told: Told = field(default_factory=Told)
    agent_takes_back: str | None = "<Connect/>"
    agent_breaks: bool = False
    taken_back: list[HandoffCase] = field(default_factory=list[HandoffCase])

    def __post_init__(self) -> None:
        shipped = check_agent(ROOT / "flows" / "reception")
        handoff = shipped.agent.config.handoff.model_copy(
            update={"humans": self.humans, "voicemail": self.voicemail}
        )
        config = shipped.agent.config.model_copy(update={"handoff": handoff})
        self.agent = CheckedAgent(
            type(shipped.agent)(shipped.agent.slug, shipped.agent.folder, config),
            shipped.flow,
            shipped.events,
        )
        self.call = FakeCall(self.agent)
        self.desk = self.another_process()

    def another_process(self) -> HandoffDesk:
        config = self.agent.agent.config
        books = Books(
            cast(Any, None),
            cast(Any, None),
            self.promises,
            cast(Any, self.records),
            OpeningHours.parse(config.hours),
            config.zone,
            stores=(),
        )
        return HandoffDesk(
            carrier=self.phone,
            address=PublicAddress("https://phone.example.com"),
            agents={"reception": self.agent},
            books={"reception": books},
            store=self.shelf,
            listener=self.told,
            take_back=self._take_back,
            now=lambda: self.now,
        )

    async def _take_back(self, case: HandoffCase) -> str | None:
        self.taken_back.append(case)
        if self.agent_breaks:
            raise RuntimeError("broken")
        return self.agent_takes_back

    async def begun(self, reason: HandoffReason = HandoffReason.ASKED, about: str = "a bill") -> PersonAnswer:
        answer = self.desk.begin(self.call.real, reason, about=about)
        await asyncio.sleep(self.call.takes_s + self.phone.takes_s + 0.1)
        return answer


def verbs(document: str) -> list[str]:
    return [verb.tag for verb in root_of(document)]


def root_of(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document.encode())  # noqa: S314 - our own document


def rung(document: str) -> str:
    number = root_of(document).find("Dial/Number")
    assert number is not None
    return number.text or ""


def said(document: str) -> str:
    return " ".join(say.text or "" for say in root_of(document).iter("Say"))


def over(status: str, *, bridged: str = "false", call_status: str = "in-progress") -> dict[str, str]:
    return {"CallSid": SID, "DialCallStatus": status, "DialBridged": bridged, "CallStatus": call_status}


async def test_the_caller_is_told_then_a_person_is_rung_and_the_call_lets_go() -> None:
    rig = Rig()
    assert rig.desk.begin(rig.call.real, HandoffReason.ASKED) is PersonAnswer.PUT_THROUGH
    await asyncio.sleep(0.5)
    assert rig.call.said == [LINES.putting_through]
    assert not rig.phone.documents
    assert rig.call.end_reason is None
    await asyncio.sleep(1)
    [document] = rig.phone.documents
    assert verbs(document) == ["Dial"]
    assert rung(document) == ONE
    assert rig.call.end_reason is EndReason.HANDED_OFF


async def test_a_person_is_told_presses_one_and_has_the_call() -> None:
    rig = Rig()
    await rig.begun()
    whisper = await rig.desk.whisper(SID, 0)
    assert "Maria Lopez" in said(whisper)
    assert "It is about: a bill." in said(whisper)
    assert "Appointment for: cleaning." in said(whisper)
    gather = root_of(whisper).find("Gather")
    assert gather is not None
    assert gather.attrib["action"] == f"https://phone.example.com/twilio/handoff/answered?call={SID}&human=0"
    assert verbs(await rig.desk.answered(SID, 0, "1")) == []
    assert verbs(await rig.desk.answered(SID, 0, "1")) == []
    assert verbs(await rig.desk.dialled(SID, 0, over("completed", bridged="true"))) == ["Hangup"]
    assert rig.told.counts == {"accepted": 1, "rang accepted": 1, "asked: accepted": 1}
    assert not rig.promises.made


async def test_the_customer_records_say_who_was_handed_over_and_what_became_of_it() -> None:
    rig = Rig()
    await rig.begun()
    [begun] = rig.records.noted
    assert (begun.call_sid, begun.agent, begun.reason, begun.outcome) == (SID, "reception", "asked", "")
    assert (begun.name, begun.phone, begun.slots) == (
        "Maria Lopez",
        "+15550100001",
        {"service": "cleaning"},
    )
    whisper = await rig.desk.whisper(SID, 0)
    assert begun.summary
    assert said(whisper).startswith(begun.summary)
    await rig.desk.answered(SID, 0, "1")
    await rig.desk.dialled(SID, 0, over("completed", bridged="true"))
    assert rig.records.noted == [begun, replace(begun, outcome="accepted")]


@pytest.mark.parametrize("error", [StoreUnavailableError("full"), TypeError("str is not valid UTF-8")])
async def test_customer_records_that_take_nothing_cost_the_caller_nothing(error: Exception) -> None:
    rig = Rig()
    rig.records.error = error
    assert await rig.begun() is PersonAnswer.PUT_THROUGH
    assert verbs(rig.phone.documents[0]) == ["Dial"]
    assert rig.told.counts["fault crm"] == 1


async def test_busy_and_then_the_next_person() -> None:
    rig = Rig()
    await rig.begun()
    document = await rig.desk.dialled(SID, 0, over("busy"))
    assert rung(document) == TWO
    assert await rig.desk.dialled(SID, 0, over("busy")) == document
    assert verbs(await rig.desk.whisper(SID, 0)) == ["Hangup"]
    assert verbs(await rig.desk.answered(SID, 0, "1")) == ["Hangup"]
    assert "Maria Lopez" in said(await rig.desk.whisper(SID, 1))
    assert rig.told.counts == {"rang busy": 1}


async def test_whoever_declines_sends_the_caller_back_to_the_agent() -> None:
    rig = Rig(humans=(ONE,))
    await rig.begun()
    await rig.desk.whisper(SID, 0)
    assert verbs(await rig.desk.answered(SID, 0, "2")) == ["Hangup"]
    assert await rig.desk.dialled(SID, 0, over("completed")) == "<Connect/>"
    [case] = rig.taken_back
    assert case.briefing.name == "Maria Lopez"
    assert not rig.promises.made
    assert rig.told.counts == {"rang declined": 1, "asked: back_with_agent": 1}
    assert await rig.desk.after_stream(SID) is None


async def test_the_agent_cannot_take_the_caller_back_and_the_voicemail_does() -> None:
    rig = Rig(humans=(ONE,), agent_takes_back=None)
    await rig.begun()
    assert verbs(await rig.desk.dialled(SID, 0, over("busy"))) == ["Say", "Record"]
    assert rig.promises.made


async def test_an_agent_that_breaks_when_it_is_to_take_the_caller_back_costs_them_nothing() -> None:
    rig = Rig(humans=(ONE,))
    rig.agent_breaks = True
    await rig.begun()
    assert verbs(await rig.desk.dialled(SID, 0, over("busy"))) == ["Say", "Record"]


async def test_a_machine_that_presses_nothing_is_no_person() -> None:
    rig = Rig(humans=(ONE,))
    await rig.begun()
    await rig.desk.whisper(SID, 0)
    assert verbs(await rig.desk.answered(SID, 0, None)) == ["Hangup"]
    document = await rig.desk.dialled(SID, 0, over("completed"))
    assert verbs(document) == ["Say", "Record"]
    assert rig.told.counts["rang machine"] == 1


async def test_nobody_answers_and_a_call_back_is_written_down_before_it_is_promised() -> None:
    rig = Rig()
    await rig.begun()
    await rig.desk.dialled(SID, 0, over("no-answer"))
    document = await rig.desk.dialled(SID, 1, over("no-answer"))
    assert "We will call you back by Monday, November 23rd at eleven AM." in said(document)
    [promise] = rig.promises.made.values()
    assert (promise.name, promise.phone, promise.reason) == ("Maria Lopez", "+15550100001", "a bill")
    assert promise.due_at == OPEN + timedelta(hours=1)
    thanks = await rig.desk.recorded(SID)
    assert verbs(thanks) == ["Say", "Hangup"]
    assert "call you back by Monday" in said(thanks)
    assert rig.told.counts["asked: voicemail"] == 1


async def test_out_of_hours_nobody_is_rung() -> None:
    rig = Rig(now=NIGHT)
    assert await rig.begun() is PersonAnswer.VOICEMAIL
    assert rig.call.said == [LINES.to_voicemail]
    [document] = rig.phone.documents
    assert verbs(document) == ["Say", "Record"]
    assert "by Monday, November 23rd at nine AM" in said(document)


async def test_what_cannot_be_written_down_is_not_promised() -> None:
    rig = Rig(now=NIGHT)
    rig.promises.is_down = True
    await rig.begun()
    assert "call you back" not in said(rig.phone.documents[0])
    assert rig.told.counts["fault callback"] == 1


async def test_without_a_voicemail_the_caller_is_promised_a_call_and_the_call_ends() -> None:
    rig = Rig(voicemail=False)
    await rig.begun(HandoffReason.MODEL)
    await rig.desk.dialled(SID, 0, over("no-answer"))
    document = await rig.desk.dialled(SID, 1, over("no-answer"))
    assert verbs(document) == ["Say", "Hangup"]
    assert "We will call you back by" in said(document)
    assert rig.told.counts["model: promised"] == 1


@pytest.mark.parametrize("reason", [HandoffReason.ASKED, HandoffReason.FAILED_TURNS])
async def test_without_anybody_to_go_to_the_caller_stays(reason: HandoffReason) -> None:
    rig = Rig(humans=(), voicemail=False)
    assert await rig.begun(reason) is PersonAnswer.NOBODY
    assert not rig.call.said
    assert rig.call.end_reason is None


async def test_a_call_that_cannot_be_answered_goes_to_a_person() -> None:
    rig = Rig()
    await rig.desk.give_up(rig.call.real, "llm_failed")
    await asyncio.sleep(1.2)
    assert rig.call.said == [LINES.trouble]
    assert rung(rig.phone.documents[0]) == ONE
    assert rig.call.gave_up == 0


async def test_a_call_that_cannot_be_answered_says_so_when_there_is_nobody() -> None:
    rig = Rig(humans=(), voicemail=False)
    await rig.desk.give_up(rig.call.real, "voice")
    assert rig.call.gave_up == 1


async def test_there_is_one_hand_off_however_often_it_is_asked_for() -> None:
    rig = Rig()
    for reason in (HandoffReason.ASKED, HandoffReason.FRUSTRATED, HandoffReason.ASKED):
        assert rig.desk.begin(rig.call.real, reason) is PersonAnswer.PUT_THROUGH
    await rig.desk.give_up(rig.call.real, "llm_failed")
    await asyncio.sleep(1.2)
    assert rig.call.said == [LINES.putting_through]
    assert len(rig.phone.documents) == 1
    assert rig.call.gave_up == 0


async def test_a_voice_that_cannot_say_it_leaves_it_to_the_carrier() -> None:
    rig = Rig()
    rig.call.can_say = False
    await rig.begun(HandoffReason.VOICE)
    assert said(rig.phone.documents[0]) == LINES.trouble
    assert verbs(rig.phone.documents[0]) == ["Say", "Dial"]


async def test_a_caller_who_hangs_up_while_they_are_told_is_let_go() -> None:
    rig = Rig()
    rig.desk.begin(rig.call.real, HandoffReason.ASKED)
    await asyncio.sleep(0.2)
    rig.call.end(EndReason.CALLER_HUNG_UP)
    await asyncio.sleep(DROPPED_LIMIT_S + 0.2)
    assert not rig.phone.documents
    assert rig.call.end_reason is EndReason.CALLER_HUNG_UP
    assert rig.told.counts == {"asked: caller_left": 1}


async def test_a_caller_who_hangs_up_while_it_rings_is_known() -> None:
    rig = Rig()
    await rig.begun()
    await rig.desk.carrier_ended(SID)
    await rig.desk.carrier_ended(SID)
    await rig.desk.carrier_ended("CA9")
    assert verbs(await rig.desk.dialled(SID, 0, over("canceled", call_status="completed"))) == ["Hangup"]
    assert rig.told.counts == {"asked: caller_left": 1}
    assert verbs(await rig.desk.whisper(SID, 0)) == ["Hangup"]


async def test_a_caller_who_had_gone_before_the_carrier_was_told_is_known() -> None:
    rig = Rig()
    rig.phone.change = CallChange.ALREADY_ENDED
    await rig.begun()
    assert rig.told.counts == {"asked: caller_left": 1}


@pytest.mark.parametrize("takes_s", [0.0, 60.0])
async def test_a_carrier_that_cannot_be_told_asks_and_is_given_the_same(takes_s: float) -> None:
    rig = Rig()
    rig.phone.error = TwilioUnreachableError("no answer")
    rig.phone.takes_s = takes_s
    began_s = asyncio.get_running_loop().time()
    rig.desk.begin(rig.call.real, HandoffReason.ASKED)
    await rig.call.ended.wait()
    waited_s = asyncio.get_running_loop().time() - began_s
    assert waited_s <= rig.call.takes_s + REDIRECT_LIMIT_S + 0.2
    assert await rig.desk.after_stream(SID) == rig.phone.documents[0]
    assert rig.told.counts["fault carrier"] == 1


async def test_the_question_after_the_stream_disturbs_nothing() -> None:
    rig = Rig()
    await rig.begun()
    for _ in range(2):
        assert rung(await rig.desk.after_stream(SID) or "") == ONE
    await rig.desk.whisper(SID, 0)
    await rig.desk.after_stream(SID)
    assert verbs(await rig.desk.answered(SID, 0, "1")) == []
    assert await rig.desk.after_stream("CA7") is None


async def test_a_line_that_drops_while_it_is_announced_is_no_end() -> None:
    rig = Rig()
    rig.desk.begin(rig.call.real, HandoffReason.ASKED)
    await asyncio.sleep(0.2)
    rig.call.end(EndReason.CALLER_HUNG_UP)
    document = await rig.desk.after_stream(SID)
    assert document is not None
    assert (said(document), rung(document)) == (LINES.putting_through, ONE)
    await asyncio.sleep(DROPPED_LIMIT_S + 0.2)
    assert not rig.phone.documents
    assert "Maria Lopez" in said(await rig.desk.whisper(SID, 0))


async def test_it_is_known_whether_the_carrier_has_the_caller_in_every_process() -> None:
    rig = Rig(humans=(ONE,))
    assert not await rig.desk.has_caller(SID)
    rig.desk.begin(rig.call.real, HandoffReason.ASKED)
    await asyncio.sleep(0.2)
    assert not await rig.desk.has_caller(SID), "they are told"
    await asyncio.sleep(rig.call.takes_s + 0.1)
    assert await rig.desk.has_caller(SID)
    assert await rig.another_process().has_caller(SID)
    await rig.desk.dialled(SID, 0, over("completed", call_status="completed"))
    assert not await rig.another_process().has_caller(SID)


async def test_another_process_goes_on_with_it() -> None:
    rig = Rig()
    await rig.begun()
    other = rig.another_process()
    assert "Maria Lopez" in said(await other.whisper(SID, 0))
    assert verbs(await rig.another_process().answered(SID, 0, "2")) == ["Hangup"]
    assert rung(await rig.desk.dialled(SID, 0, over("completed"))) == TWO
    assert rig.told.counts["rang declined"] == 1


async def test_a_store_that_is_down_costs_nothing_in_one_process() -> None:
    rig = Rig()
    rig.shelf.is_down = True
    await rig.begun()
    assert "Maria Lopez" in said(await rig.desk.whisper(SID, 0))
    assert verbs(await rig.desk.answered(SID, 0, "1")) == []
    assert rig.told.counts["fault store"] >= 1
    assert verbs(await rig.another_process().whisper(SID, 0)) == ["Hangup"]


async def test_once_the_agent_has_the_caller_back_only_a_breakdown_hands_them_over_again() -> None:
    rig = Rig(humans=(ONE,))
    await rig.begun()
    await rig.desk.dialled(SID, 0, over("busy"))
    rig.call = FakeCall(rig.agent)
    assert await rig.begun() is PersonAnswer.NOBODY
    assert await rig.begun(HandoffReason.MODEL) is PersonAnswer.PUT_THROUGH
    assert rung(rig.phone.documents[-1]) == ONE
    assert verbs(await rig.desk.dialled(SID, 0, over("busy"))) == ["Say", "Record"]


async def test_a_voicemail_is_noted_with_its_promise() -> None:
    rig = Rig(now=NIGHT)
    await rig.begun()
    await rig.desk.note_voicemail(SID, recording="x/voicemail.wav", transcript="")
    assert rig.promises.notes == [(SID, "x/voicemail.wav", "")]
    assert await rig.desk.language_of(SID) == "en-US"
    rig.promises.is_down = True
    await rig.desk.note_voicemail(SID, recording="x/voicemail.wav", transcript="text")


async def test_what_was_begun_is_let_go_when_the_process_stops() -> None:
    rig = Rig()
    rig.desk.begin(rig.call.real, HandoffReason.ASKED)
    await asyncio.sleep(0.1)
    await rig.desk.close()
    assert rig.call.end_reason is EndReason.HANDED_OFF


async def test_a_call_that_no_agent_can_have_any_more_goes_to_a_person_who_knows_of_it() -> None:
    rig = Rig(humans=(ONE,))
    now = datetime.now(UTC)
    saved = SavedCall(
        SID, "reception", "+15550100001", "one", CallPhase.LIVE, now, now, now,
        flow_state={"captured": {"name": "Rosa Diaz", "service": "filling"}},
        messages=({"role": "user", "content": "It hurts."},),
    )  # fmt: skip
    document = await rig.desk.take_over(saved)
    assert document is not None
    assert (said(document), rung(document)) == (LINES.trouble, ONE)
    assert await rig.another_process().take_over(saved) == document
    told = said(await rig.desk.whisper(SID, 0))
    assert all(part in told for part in ("Rosa Diaz", "filling", "It hurts", "stuck"))
    assert verbs(await rig.desk.dialled(SID, 0, over("busy"))) == ["Say", "Record"]
    assert rig.told.began == [(SID, "stuck", 1)]
    assert await Rig(humans=(), voicemail=False).desk.take_over(saved) is None
