import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.call_keeper import FINISH_LIMIT_S, OWNER_LIMIT_S, CallKeeper
from bot.resumption import new_saved_call
from store.calls import CallPhase, SavedCall, SaveVerdict
from tests.fakes.memory_calls import MemoryCallStore


def ringing(process: str = "a") -> SavedCall:
    return new_saved_call(
        "CA1", agent="reception", caller="+1", called="+2", process=process, longest_call_s=900.0
    )


class Kept:
    """A call that is kept: `fields` is what it says of itself."""

    def __init__(self, store: MemoryCallStore, saved: SavedCall, *, takes_over: bool = False) -> None:
        self.fields: dict[str, Any] = {"phase": CallPhase.LIVE, "messages": ()}
        self.losses = 0
        self.keeper = CallKeeper(store, saved, takes_over=takes_over, on_lost=self._lose)
        self.keeper.follow(self._read)

    def say(self, text: str, *, is_step: bool = False) -> None:
        self.fields["messages"] = (*self.fields["messages"], {"role": "assistant", "content": text})
        if is_step:
            self.keeper.changed()

    def _read(self) -> Mapping[str, Any]:
        return dict(self.fields)

    def _lose(self) -> None:
        self.losses += 1


@contextlib.asynccontextmanager
async def running(kept: Kept) -> AsyncGenerator[Kept]:
    task = asyncio.create_task(kept.keeper.run())
    try:
        yield kept
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_call_is_written_at_once_and_a_step_of_it_too() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(0.01)
        assert store.stored["CA1"].phase is CallPhase.LIVE
        await asyncio.sleep(0.2)
        kept.say("Hello.", is_step=True)
        await asyncio.sleep(0.01)
        assert store.stored["CA1"].messages[-1]["content"] == "Hello."


async def test_words_are_written_once_a_second_and_nothing_new_is_not() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(0.5)
        writes = len(store.writes)
        for word in range(10):
            kept.say(str(word))
            await asyncio.sleep(0.2)
        assert len(store.writes) - writes == 2
        await asyncio.sleep(1.0)
        writes = len(store.writes)
        await asyncio.sleep(30.0)
        assert len(store.writes) == writes
        assert len(store.stored["CA1"].messages) == 10


async def test_a_store_that_is_down_is_tried_again_and_gets_the_latest() -> None:
    store = MemoryCallStore(is_down=True)
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(3.0)
        kept.say("Hello.", is_step=True)
        store.is_down = False
        await asyncio.sleep(1.1)
        assert [len(write.messages) for write in store.writes] == [1]


async def test_a_store_that_hangs_holds_up_nobody() -> None:
    store = MemoryCallStore(takes_s=60.0)
    async with running(Kept(store, ringing())) as kept:
        began_s = asyncio.get_running_loop().time()
        kept.say("Hello.", is_step=True)
        assert await kept.keeper.finish()
        assert asyncio.get_running_loop().time() - began_s <= FINISH_LIMIT_S + OWNER_LIMIT_S


async def test_who_lost_the_call_is_told_once_and_writes_no_more() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(0.01)
        await store.claim(store.stored["CA1"], "b", datetime.now(UTC))
        for text in ("one", "two"):
            await asyncio.sleep(1.0)
            kept.say(text, is_step=True)
        await asyncio.sleep(0.2)
        assert kept.losses == 1
        assert kept.keeper.is_over
        assert store.stored["CA1"].process == "b"
        assert not await kept.keeper.finish(), "it is not theirs to end"
        assert not store.stored["CA1"].is_finished


async def test_who_spools_an_end_that_comes_too_late_does_not_hang_up() -> None:
    class Spooled(MemoryCallStore):
        async def save(self, call: SavedCall) -> SaveVerdict:
            await super().save(call)
            return SaveVerdict.WRITTEN

    store = Spooled()
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(0.01)
        await store.claim(store.stored["CA1"], "b", datetime.now(UTC))
        assert not await kept.keeper.finish()
        assert not store.stored["CA1"].is_finished


async def test_the_end_is_written_before_anything_can_ask() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing())) as kept:
        kept.say("Goodbye.")
        assert await kept.keeper.finish()
        assert store.stored["CA1"].is_finished
        assert store.stored["CA1"].messages == ()
        kept.say("more", is_step=True)
        await asyncio.sleep(2.0)
        assert store.stored["CA1"].is_finished
        assert kept.losses == 0
        assert await kept.keeper.finish(), "asked twice"


async def test_a_call_that_goes_on_elsewhere_leaves_its_last_words() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(0.01)
        kept.say("Which day")
        await kept.keeper.flush()
        assert store.stored["CA1"].phase is CallPhase.LIVE
        assert store.stored["CA1"].messages[-1]["content"] == "Which day"
        kept.say("more", is_step=True)
        await asyncio.sleep(2.0)
        assert len(store.stored["CA1"].messages) == 1


async def test_a_call_whose_webhook_another_process_answered_is_claimed_first() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing("a"))) as first:
        await asyncio.sleep(0.01)
        async with running(Kept(store, ringing("b"), takes_over=True)) as second:
            await asyncio.sleep(1.5)
            first.say("x", is_step=True)
            await asyncio.sleep(0.2)
            assert store.stored["CA1"].process == "b"
            assert store.stored["CA1"].resumes == ()
            assert (first.losses, second.losses) == (1, 0)


async def test_what_a_slow_process_writes_of_a_webhook_does_not_take_the_call_from_who_has_its_line() -> None:
    store = MemoryCallStore()
    second = Kept(store, ringing("b"), takes_over=True)
    load = store.load

    async def load_before_the_first_write(call_sid: str) -> SavedCall | None:
        stored = await load(call_sid)
        assert stored is None
        await store.save(ringing("a").next(datetime.now(UTC)))
        return stored

    store.load = load_before_the_first_write
    async with running(second):
        await asyncio.sleep(0.01)
        assert store.stored["CA1"].process == "b"
        assert await store.save(ringing("a").next(datetime.now(UTC))) is SaveVerdict.LOST
        second.say("x", is_step=True)
        await asyncio.sleep(0.5)
        assert second.losses == 0
        assert len(store.stored["CA1"].messages) == 1


@pytest.mark.parametrize("takes_over", [True, False])
async def test_a_call_that_nobody_wrote_is_written(takes_over: bool) -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing(), takes_over=takes_over)):
        await asyncio.sleep(0.01)
        assert store.stored["CA1"].process == "a"


async def test_what_is_known_here_is_newer_than_what_was_written() -> None:
    store = MemoryCallStore()
    async with running(Kept(store, ringing())) as kept:
        await asyncio.sleep(0.01)
        kept.say("Which day")
        here = kept.keeper.saved
        assert here.order > store.stored["CA1"].order
        assert here.messages[-1]["content"] == "Which day"
