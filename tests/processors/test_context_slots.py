import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.context_slots import ContextSlots

MOST = 3


def known(slots: ContextSlots, *context_ids: str) -> None:
    for context_id in context_ids:
        slots.take(context_id)
        slots.sent(context_id)


def test_a_context_counts_until_the_vendor_says_that_it_ended() -> None:
    slots = ContextSlots(MOST)
    known(slots, "a", "b", "c")
    slots.closing("a")
    assert slots.is_full
    slots.ended("a")
    assert not slots.is_full
    assert "a" not in slots


def test_what_the_vendor_never_heard_of_is_free_when_it_is_over() -> None:
    slots = ContextSlots(1)
    slots.take("a")
    assert slots.is_full
    slots.closing("a")
    assert not slots.is_full


def test_what_nobody_wants_any_more_and_was_not_closed_is_known_the_oldest_first() -> None:
    slots = ContextSlots(4)
    known(slots, "b", "a", "c")
    slots.take("d")
    slots.closing("c")
    assert slots.left_open({"x"}) == ["b", "a"]
    assert slots.left_open({"b"}) == ["a"]


def test_an_end_that_nobody_waited_for_is_none() -> None:
    slots = ContextSlots(1)
    for context_id in (None, "a"):
        slots.ended(context_id)
    slots.closing("a")
    assert not slots.is_full


async def test_of_those_who_wait_each_gets_one_that_was_freed() -> None:
    slots, got = ContextSlots(1), list[str]()
    known(slots, "a")

    async def speak(context_id: str) -> None:
        await slots.wait()
        slots.take(context_id)
        got.append(context_id)

    waiting = [asyncio.create_task(speak(context_id)) for context_id in ("b", "c")]
    await asyncio.sleep(0.1)
    assert got == []
    slots.ended("a")
    await asyncio.sleep(0.1)
    assert got == ["b"]
    slots.ended("b")
    await asyncio.gather(*waiting)
    assert got == ["b", "c"]


@given(st.lists(st.tuples(st.sampled_from(["take", "sent", "closing", "ended"]), st.sampled_from("abcde"))))
def test_whatever_happens_no_context_counts_twice_and_each_that_ended_is_free(
    events: list[tuple[str, str]],
) -> None:
    slots, counted = ContextSlots(5), set[str]()
    for event, context_id in events:
        getattr(slots, event)(context_id)
        if event in ("take", "sent"):
            counted.add(context_id)
        elif event == "ended" or context_id not in slots:
            counted.discard(context_id)
        assert counted == {one for one in "abcde" if one in slots}
    assert slots.is_full == (len(counted) >= 5)


def test_there_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="most must be > 0, got 0"):
        ContextSlots(0)
