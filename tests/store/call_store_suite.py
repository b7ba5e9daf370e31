"""What every `CallStore` must do; each back end's own module runs it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from store.calls import Beat, CallPhase, CallStore, SavedCall, SaveVerdict

NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)


def saved(**changes: Any) -> SavedCall:
    """A call in the middle of a booking."""
    fields: dict[str, Any] = {
        "call_sid": "CA1",
        "agent": "reception",
        "caller": "+13125550100",
        "process": "one",
        "phase": CallPhase.LIVE,
        "started_at": NOW,
        "updated_at": NOW,
        "expires_at": NOW + timedelta(minutes=20),
        "revision": 1,
        "called": "+18506872085",
        "node": "book",
        "slots": {"name": "Ann Ó Briain", "phone": "+13125550100"},
        "flow_state": {"offered": ["2026-12-01T09:00"], "read_back": None},
        "messages": ({"role": "user", "content": "I need a cleaning."},),
        "about_to_say": "What name should I put it under?",
    }
    return SavedCall(**(fields | changes))


class CallStoreSuite:
    """A subclass gives `open_store`, which opens the same store once more, as another process would."""

    @pytest.fixture
    def open_store(self) -> Callable[[], CallStore]:
        raise NotImplementedError

    @pytest_asyncio.fixture
    async def store(self, open_store: Callable[[], CallStore]) -> AsyncIterator[CallStore]:
        store = open_store()
        yield store
        await store.close()

    async def test_a_call_comes_back_as_it_was_in_another_process(
        self, store: CallStore, open_store: Callable[[], CallStore]
    ) -> None:
        call = saved(resumes=(NOW,), handover={"human": 1})
        assert await store.save(call) is SaveVerdict.WRITTEN
        other = open_store()
        assert await other.load("CA1") == call
        assert await other.load("CA2") is None
        await other.close()

    async def test_writes_of_the_owner_stand_in_their_order_however_they_come(self, store: CallStore) -> None:
        first = saved()
        second = first.next(NOW, node="goodbye")
        assert await store.save(second) is SaveVerdict.WRITTEN
        assert await store.save(first) is SaveVerdict.STALE
        assert await store.save(second) is SaveVerdict.STALE
        assert await store.load("CA1") == second

    async def test_of_many_who_claim_a_call_one_gets_it(
        self, store: CallStore, open_store: Callable[[], CallStore]
    ) -> None:
        call = saved()
        await store.save(call)
        others = [open_store() for _ in range(4)]
        claims = [other.claim(call, f"p{index}", NOW) for index, other in enumerate(others * 2)]
        taken = [one for one in await asyncio.gather(*claims) if one is not None]
        assert len(taken) == 1
        assert taken[0] == replace(
            call, process=taken[0].process, claim=2, revision=0, resumes=(NOW,), updated_at=NOW
        )
        assert await store.load("CA1") == taken[0]
        for other in others:
            await other.close()

    async def test_who_has_lost_a_call_cannot_write_over_it(self, store: CallStore) -> None:
        call = saved()
        await store.save(call)
        taken = await store.claim(call, "two", NOW)
        assert taken is not None
        assert await store.save(call.next(NOW, node="late")) is SaveVerdict.LOST
        assert await store.finish(call, NOW) is SaveVerdict.LOST
        assert await store.save(taken.next(NOW, node="on")) is SaveVerdict.WRITTEN
        stored = await store.load("CA1")
        assert stored is not None
        assert (stored.node, stored.process, stored.phase) == ("on", "two", CallPhase.LIVE)

    async def test_a_process_shuts_its_own_earlier_owner_out(self, store: CallStore) -> None:
        call = saved()
        await store.save(call)
        again = await store.claim(call, "one", NOW, is_resumed=False)
        assert again is not None
        assert again.resumes == ()
        assert await store.save(call.next(NOW)) is SaveVerdict.LOST
        assert await store.save(again.next(NOW)) is SaveVerdict.WRITTEN

    async def test_a_claim_whose_answer_was_lost_is_asked_for_again(self, store: CallStore) -> None:
        call = saved()
        await store.save(call)
        taken = await store.claim(call, "two", NOW)
        assert await store.claim(call, "two", NOW) == taken
        assert await store.claim(call, "two", NOW + timedelta(seconds=1)) is None

    async def test_a_claim_takes_what_was_written_last(self, store: CallStore) -> None:
        call = saved()
        await store.save(call)
        await store.save(call.next(NOW, node="later"))
        taken = await store.claim(call, "two", NOW)
        assert taken is not None
        assert taken.node == "later"

    async def test_a_finished_call_is_nobodys_and_keeps_no_words(self, store: CallStore) -> None:
        call = saved()
        await store.save(call)
        assert await store.finish(call, NOW) is SaveVerdict.WRITTEN
        assert await store.finish(call, NOW) is SaveVerdict.STALE
        assert await store.claim(call, "two", NOW) is None
        assert await store.save(call.next(NOW).next(NOW)) is SaveVerdict.LOST
        assert await store.calls_of("one") == []
        stored = await store.load("CA1")
        assert stored is not None
        assert stored.is_finished
        assert "cleaning" not in stored.to_json().decode()
        assert "Ann" not in stored.to_json().decode()

    async def test_a_call_that_is_not_there_cannot_be_claimed(self, store: CallStore) -> None:
        assert await store.claim(saved(), "two", NOW) is None

    async def test_calls_are_listed_by_who_has_them(self, store: CallStore) -> None:
        for index in (2, 0, 1):
            await store.save(saved(call_sid=f"CA{index}", started_at=NOW + timedelta(seconds=index)))
        await store.claim(saved(), "two", NOW)
        assert [call.call_sid for call in await store.calls_of("one")] == ["CA0", "CA2"]
        assert [call.call_sid for call in await store.calls_of("two")] == ["CA1"]
        assert await store.calls_of("three") == []

    async def test_a_call_expires(self, store: CallStore) -> None:
        call = saved(expires_at=NOW + timedelta(seconds=0.2))
        await store.save(call)
        assert await store.load("CA1") is not None
        await asyncio.sleep(0.25)
        assert await store.load("CA1") is None
        assert await store.calls_of("one") == []
        assert await store.claim(call, "two", NOW) is None

    async def test_what_is_no_json_or_too_large_is_refused(self, store: CallStore) -> None:
        with pytest.raises(ValueError, match="must be JSON"):
            await store.save(saved(slots={"when": object()}))
        with pytest.raises(ValueError, match="bytes"):
            await store.save(saved(about_to_say="x" * (1 << 20)))
        assert await store.load("CA1") is None

    async def test_the_last_beat_of_each_process_is_seen_with_its_age(
        self, store: CallStore, open_store: Callable[[], CallStore]
    ) -> None:
        other = open_store()
        await store.beat(Beat("one", 1, "http://127.0.0.1:1", 41, calls=2))
        await other.beat(Beat("two", 7))
        await store.beat(Beat("one", 2, "http://127.0.0.1:1", 41, calls=3))
        await asyncio.sleep(0.1)
        seen = {one.beat.process: one for one in await other.beats()}
        assert {process: one.beat.number for process, one in seen.items()} == {"one": 2, "two": 7}
        assert seen["one"].beat == Beat("one", 2, "http://127.0.0.1:1", 41, calls=3)
        assert 0.05 <= seen["one"].age_s < 5.0
        await store.forget("two")
        assert [one.beat.process for one in await other.beats()] == ["one"]
        await other.close()

    async def test_many_processes_write_at_once_and_nothing_is_lost(
        self, store: CallStore, open_store: Callable[[], CallStore]
    ) -> None:
        others = [open_store() for _ in range(3)]

        async def play(index: int, one: CallStore) -> None:
            call = saved(call_sid=f"CA{index}", process=f"p{index}")
            for step in range(10):
                assert await one.save(call) is SaveVerdict.WRITTEN
                await one.beat(Beat(call.process, step))
                call = call.next(NOW, node=f"step {step}")

        await asyncio.gather(*(play(index, one) for index, one in enumerate(others)))
        for index in range(3):
            stored = await store.load(f"CA{index}")
            assert stored is not None
            assert (stored.node, stored.revision) == ("step 8", 10)
        for other in others:
            await other.close()
