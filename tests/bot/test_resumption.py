import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from bot.pulse import STOPPED_AFTER_S
from bot.resumption import ORPHAN_AFTER_S, LineUrls, Resumption, new_saved_call
from store.calls import CallPhase, SavedCall
from telephony.rest import CallChange, TwilioRest, TwilioUnreachableError
from tests.fakes.memory_calls import MemoryCallStore

URLS = LineUrls("wss://phone.example.com/twilio/media", "https://phone.example.com/twilio/after-stream")


@dataclass
class Carrier:
    """Twilio's REST, which may not answer."""

    redirects: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    fails: int = 0
    change: CallChange = CallChange.DONE
    most_at_once: int = 0
    _at_once: int = 0

    async def redirect(self, call_sid: str, twiml: str) -> CallChange:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.3)
        self._at_once -= 1
        if self.fails:
            self.fails -= 1
            raise TwilioUnreachableError("no answer")
        self.redirects.append((call_sid, twiml))
        return self.change


@dataclass
class Process:
    """One of several that share a store."""

    name: str
    store: MemoryCallStore
    carrier: Carrier
    live: set[str] = field(default_factory=set[str])
    lost: list[str] = field(default_factory=list[str])
    counted: Counter[str] = field(default_factory=Counter[str])
    announced: set[str] = field(default_factory=set[str])
    """Who has been told that a person comes."""
    with_carrier: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.resumption = Resumption(
            store=self.store,
            process=self.name,
            urls=URLS,
            rest=cast("TwilioRest", self.carrier),
            token=lambda saved: f"token-of-{saved.call_sid}",
            no_agent=self._say_sorry,
            count=lambda outcome, _, __: self.counted.update([outcome]),
            calls=self,
            people=self,
        )

    async def has_caller(self, call_sid: str) -> bool:
        return call_sid in self.with_carrier

    async def after_stream(self, call_sid: str) -> str | None:
        return "<Response><Dial/></Response>" if call_sid in self.announced else None

    async def _say_sorry(self, saved: SavedCall) -> str:
        return f"<Response><Say>sorry {saved.agent}</Say></Response>"

    def held(self) -> Collection[str]:
        return self.live

    def let_go(self, call_sid: str, *, goes_on_here: bool) -> None:
        if call_sid in self.live:
            self.live.discard(call_sid)
            self.lost.append(f"{call_sid} goes on here" if goes_on_here else call_sid)

    async def hold(self, call_sid: str, **fields: object) -> SavedCall:
        """Begin a call here, as its keeper would."""
        saved = new_saved_call(
            call_sid, agent="reception", caller="+1", called="+2", process=self.name, longest_call_s=900
        ).next(datetime.now(UTC), **{"phase": CallPhase.LIVE, **fields})
        await self.store.save(saved)
        self.live.add(call_sid)
        return saved

    async def asked(self, call_sid: str, *, here: SavedCall | None = None, is_over: bool = False) -> str:
        return await self.resumption.after_stream(
            call_sid, here=here, is_over=is_over, unknown=lambda: "<Response>anew</Response>"
        )


class Office:
    """Processes with one store."""

    def __init__(self) -> None:
        self.store, self.carrier = MemoryCallStore(), Carrier()

    def process(self, name: str) -> Process:
        return Process(name, self.store, self.carrier)


@contextlib.asynccontextmanager
async def running(*processes: Process) -> AsyncGenerator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(process.resumption.run()) for process in processes]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def office() -> Office:
    return Office()


# Twilio asks


async def test_a_call_that_was_cut_gets_a_new_stream_from_any_process(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    answer = await second.asked("CA1")
    assert f'action="{URLS.action}"' in answer
    assert 'name="token" value="token-of-CA1"' in answer
    assert 'name="resume" value="1"' in answer
    assert office.store.stored["CA1"].process == "b"
    assert second.counted == {"asked": 1}


async def test_who_asks_twice_gets_the_same_and_it_counts_once(office: Office) -> None:
    first, second, third = (office.process(name) for name in "abc")
    await first.hold("CA1")
    answers = await asyncio.gather(second.asked("CA1"), third.asked("CA1"), second.asked("CA1"))
    assert all("<Stream" in answer for answer in answers)
    assert len(office.store.stored["CA1"].resumes) == 1
    assert second.counted + third.counted == {"asked": 1, "asked_again": 2}


async def test_a_call_that_breaks_too_often_gets_somebody_else(office: Office) -> None:
    process = office.process("a")
    times = tuple(datetime.now(UTC) - timedelta(seconds=seconds) for seconds in (40, 20))
    await process.hold("CA1", resumes=times)
    assert "sorry reception" in await process.asked("CA1")
    assert office.store.stored["CA1"].is_finished
    assert "<Hangup" in await process.asked("CA1")


async def test_what_its_last_line_still_writes_does_not_take_a_call_from_whoever_has_it(
    office: Office,
) -> None:
    """A line that is just noticed to be gone writes once more, beside the answer to the carrier."""

    class Overtaken(MemoryCallStore):
        async def load(self, call_sid: str) -> SavedCall | None:
            known = await super().load(call_sid)
            if known is not None and not known.is_finished:
                self.stored[call_sid] = known.next(datetime.now(UTC)).next(datetime.now(UTC))
            return known

    office.store = Overtaken()
    process = office.process("a")
    times = tuple(datetime.now(UTC) - timedelta(seconds=seconds) for seconds in (40, 20))
    await process.hold("CA1", resumes=times)
    assert "sorry reception" in await process.asked("CA1")
    assert office.store.stored["CA1"].is_finished
    async with running(process):
        await asyncio.sleep(ORPHAN_AFTER_S + 3.0)
    assert office.carrier.redirects == []
    assert process.counted == {"too_often": 1}


async def test_a_call_that_is_over_is_hung_up(office: Office) -> None:
    process = office.process("a")
    saved = await process.hold("CA1")
    await office.store.finish(saved, datetime.now(UTC))
    answer = await process.asked("CA1")
    assert "<Hangup" in answer
    assert "<Connect" not in answer


async def test_a_call_of_which_nothing_was_written_begins_anew_unless_it_is_over(office: Office) -> None:
    process = office.process("a")
    assert "anew" in await process.asked("CA1")
    assert "<Hangup" in await process.asked("CA1", is_over=True)


async def test_when_twilio_says_that_it_is_over_it_is(office: Office) -> None:
    process = office.process("a")
    await process.hold("CA1")
    assert "<Connect" not in await process.asked("CA1", is_over=True)
    assert office.store.stored["CA1"].is_finished


async def test_a_hand_off_is_not_disturbed(office: Office) -> None:
    process = office.process("a")
    await process.hold("CA1", phase=CallPhase.HANDING_OVER)
    before = office.store.stored["CA1"]
    answer = await process.asked("CA1")
    assert "<Pause" in answer
    assert f">{URLS.action}</Redirect>" in answer
    assert office.store.stored["CA1"] == before


async def test_without_the_store_what_is_known_here_counts(office: Office) -> None:
    process = office.process("a")
    here = await process.hold("CA1")
    office.store.is_down = True
    assert "<Stream" in await process.asked("CA1", here=here)
    taken = await process.resumption.take("CA1", here=here)
    assert taken is not None
    assert taken.claim > here.claim
    assert "<Hangup" in await process.asked("CA2")
    assert await process.resumption.take("CA2", here=None) is None


async def test_a_line_of_ours_is_let_go_for_the_next_one(office: Office) -> None:
    process = office.process("a")
    await process.hold("CA1")
    assert "<Stream" in await process.asked("CA1")
    assert process.lost == ["CA1 goes on here"]


async def test_a_call_of_ours_that_was_not_written_yet_goes_on(office: Office) -> None:
    process = office.process("a")
    here = await process.hold("CA1")
    office.store.stored.clear()
    assert "<Stream" in await process.asked("CA1", here=here)
    assert process.lost == ["CA1 goes on here"]
    assert len(office.store.stored["CA1"].resumes) == 1


async def test_a_line_here_of_a_call_that_is_over_is_let_go(office: Office) -> None:
    process = office.process("a")
    saved = await process.hold("CA1")
    await office.store.finish(saved, datetime.now(UTC))
    await process.asked("CA1")
    assert process.lost == ["CA1 goes on here"]


# The stream comes


async def test_whoever_gets_the_stream_has_the_call(office: Office) -> None:
    first, second, third = (office.process(name) for name in "abc")
    await first.hold("CA1", messages=({"role": "user", "content": "x"},))
    await second.asked("CA1")
    taken = await third.resumption.take("CA1", here=None)
    assert taken is not None
    assert (taken.process, len(taken.resumes), len(taken.messages)) == ("c", 1, 1)
    assert third.counted == {"went_on": 1}


async def test_no_stream_revives_a_call_that_is_over(office: Office) -> None:
    process = office.process("a")
    saved = await process.hold("CA1")
    await office.store.finish(saved, datetime.now(UTC))
    assert await process.resumption.take("CA1", here=None) is None
    assert process.counted == {"refused": 1}


# Processes watch each other


async def test_the_calls_of_a_process_that_stops_are_put_on_new_lines_once(office: Office) -> None:
    first, second, third = (office.process(name) for name in "abc")
    for number in range(9):
        await first.hold(f"CA{number}")
    async with running(first, second, third) as tasks:
        await asyncio.sleep(2.0)
        assert office.carrier.redirects == []
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 2.5)
    assert sorted(call_sid for call_sid, _ in office.carrier.redirects) == [f"CA{n}" for n in range(9)]
    assert all('name="resume" value="1"' in twiml for _, twiml in office.carrier.redirects)
    assert second.counted + third.counted == {"redirected": 9}
    assert office.carrier.most_at_once <= 8
    assert {saved.process for saved in office.store.stored.values()} <= {"b", "c"}


async def test_a_process_that_wakes_up_lets_go_of_what_it_has_lost(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 2.0)
        async with running(first):
            await asyncio.sleep(0.5)
            assert first.lost == ["CA1"]
            assert first.live == set()
            await asyncio.sleep(2.0)
    assert office.store.stored["CA1"].process == "b"


async def test_a_call_that_is_handed_over_or_over_is_left_alone(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1", phase=CallPhase.HANDING_OVER)
    await office.store.finish(await first.hold("CA2"), datetime.now(UTC))
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 2.0)
    assert office.carrier.redirects == []


async def test_twilio_is_told_again_when_it_gave_no_answer(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    office.carrier.fails = 2
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 6.0)
    assert [call_sid for call_sid, _ in office.carrier.redirects] == ["CA1"]
    assert second.counted == {"redirected": 1}


async def test_an_answer_that_was_lost_is_not_sent_twice_to_a_call_that_goes_on(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    office.carrier.fails = 1
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        while office.carrier.fails:  # noqa: ASYNC110 - on the virtual clock
            await asyncio.sleep(0.1)
        taken = await second.resumption.take("CA1", here=None)
        assert taken is not None
        second.live.add("CA1")
        await asyncio.sleep(5.0)
    assert office.carrier.redirects == []


async def test_a_call_whose_caller_has_left_is_over(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    office.carrier.change = CallChange.ALREADY_ENDED
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 2.0)
    assert office.store.stored["CA1"].is_finished
    assert second.counted == {}


async def test_a_call_of_ours_that_nobody_asks_about_is_put_on_a_line(office: Office) -> None:
    process = office.process("a")
    await process.hold("CA1")
    process.live.clear()  # its socket went, and Twilio asked nobody
    async with running(process):
        await asyncio.sleep(2.0)
        assert office.carrier.redirects == []
        office.store.stored["CA1"] = office.store.stored["CA1"].next(
            datetime.now(UTC) - timedelta(seconds=ORPHAN_AFTER_S + 1)
        )
        await asyncio.sleep(2.0)
    assert [call_sid for call_sid, _ in office.carrier.redirects] == ["CA1"]


async def test_a_process_that_leaves_is_not_missed(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    async with running(second):
        async with running(first):
            await asyncio.sleep(1.5)
            assert second.resumption.others_alive
        await first.resumption.leave()
        assert list(office.store.beaten) == ["b"]
        await asyncio.sleep(1.5)
        assert not second.resumption.others_alive


async def test_who_leaves_calls_without_a_line_is_missed(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    async with running(second):
        async with running(first):
            await asyncio.sleep(1.5)
        await first.resumption.leave()
        await asyncio.sleep(STOPPED_AFTER_S + 2.0)
    assert [call_sid for call_sid, _ in office.carrier.redirects] == ["CA1"]


async def test_a_process_that_drains_takes_no_lines(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    first.resumption.is_draining = True
    async with running(first, second):
        await asyncio.sleep(1.5)
        assert not second.resumption.others_alive
        assert first.resumption.others_alive


async def test_a_store_that_is_down_stops_nobody(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    async with running(first, second):
        await asyncio.sleep(1.5)
        office.store.is_down = True
        await asyncio.sleep(20.0)
        office.store.is_down = False
        await asyncio.sleep(2.5)
    assert office.carrier.redirects == []
    assert first.lost == []


async def test_a_call_that_waits_for_a_line_ends_with_the_carrier_s_call(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    await second.asked("CA1")
    await first.resumption.over("CA1")
    assert not office.store.stored["CA1"].is_finished, "it is not its process"
    await second.resumption.over("CA1")
    assert office.store.stored["CA1"].is_finished


# Callers who go to a person, and come back


async def test_a_caller_who_is_with_a_person_is_left_there_whatever_becomes_of_our_processes(
    office: Office,
) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1", phase=CallPhase.HANDING_OVER)
    first.live.clear()
    async with running(second):
        async with running(first):
            await asyncio.sleep(1.5)
        await asyncio.sleep(60.0)  # the first is gone, without a word
    assert office.carrier.redirects == []
    await first.resumption.leave()
    assert "a" not in {seen.beat.process for seen in await office.store.beats()}


async def test_a_call_that_was_not_written_as_handed_over_in_time_is_left_to_the_person(
    office: Office,
) -> None:
    process = office.process("a")
    saved = await process.hold("CA1")
    process.live.clear()  # it has ended here, and its last write took too long
    process.with_carrier.add("CA1")
    office.store.stored["CA1"] = saved.next(datetime.now(UTC) - timedelta(seconds=ORPHAN_AFTER_S + 1))
    async with running(process):
        await asyncio.sleep(30.0)
    assert office.carrier.redirects == []
    assert office.store.stored["CA1"].phase is CallPhase.HANDING_OVER
    assert office.store.stored["CA1"].resumes == ()
    assert process.counted == {}


async def test_a_caller_who_was_with_a_person_when_a_process_stopped_stays_with_them(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    second.with_carrier.add("CA1")
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 2.0)
    assert office.carrier.redirects == []
    assert office.store.stored["CA1"].phase is CallPhase.HANDING_OVER


async def test_who_was_told_of_a_person_when_a_process_stopped_is_put_through(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    second.announced.add("CA1")
    office.carrier.fails = 1
    async with running(first, second) as tasks:
        await asyncio.sleep(1.5)
        tasks[0].cancel()
        await asyncio.sleep(STOPPED_AFTER_S + 6.0)
    assert office.carrier.redirects == [("CA1", "<Response><Dial/></Response>")]
    assert office.store.stored["CA1"].phase is CallPhase.HANDING_OVER
    assert second.counted == {"redirected": 1}


async def test_a_call_whose_line_dropped_on_its_way_to_a_person_gets_no_new_one(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    await first.hold("CA1")
    first.live.clear()
    await second.resumption.hand_over("CA1", here=None)
    assert office.store.stored["CA1"].phase is CallPhase.HANDING_OVER
    async with running(first, second):
        await asyncio.sleep(30.0)
    assert office.carrier.redirects == []
    await second.resumption.hand_over("CA9", here=None)


async def test_whoever_comes_back_is_on_another_line_of_the_same_call(office: Office) -> None:
    first, second = office.process("a"), office.process("b")
    saved = await first.hold("CA1", phase=CallPhase.HANDING_OVER)
    answers = [await second.resumption.take_back("CA1", here=None) for _ in range(2)]
    assert answers[0] == answers[1]
    assert 'name="resume" value="1"' in (answers[0] or "")
    assert len(office.store.stored["CA1"].resumes) == 1
    taken = await second.resumption.take("CA1", here=None)
    assert taken is not None
    assert taken.phase is CallPhase.HANDING_OVER
    await office.store.finish(taken, datetime.now(UTC))
    assert await second.resumption.take_back("CA1", here=None) is None
    assert await second.resumption.take_back("CA9", here=None) is None
    office.store.is_down = True
    assert await second.resumption.take_back("CA1", here=saved) is not None
