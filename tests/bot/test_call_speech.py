import asyncio

import pytest

from bot.call_speech import MARK_LIMIT_S, SAID_LIMIT_S
from tests.fakes.call_rig import LINE_S, CallRig

GREETING = "Northside Dental, how can I help?"
CLOSING = "Goodbye for today."


async def test_a_rendered_line_is_said_at_once_and_no_voice_is_asked() -> None:
    rig = CallRig(GREETING)
    async with rig.running():
        assert not await rig.speech.say(GREETING, is_step=True)
        assert rig.graph.playout.remaining_s > 0
        await asyncio.sleep(LINE_S + 0.5)
        assert rig.heard() == GREETING
    assert rig.rendered.asked == []
    assert rig.speech.unsaid.to_say_again("") == GREETING


async def test_a_line_that_is_not_rendered_is_spoken_and_rendered_for_the_next_call() -> None:
    rig = CallRig()
    rig.teach_voice(GREETING)
    async with rig.running():
        assert await rig.speech.say(GREETING)
        await asyncio.sleep(4.0)
        assert rig.heard().lower().replace(".", "") == "northside dental, how can i help?"
    assert rig.rendered.asked == [GREETING]


async def test_what_is_this_calls_own_is_not_rendered() -> None:
    rig = CallRig()
    rig.teach_voice(GREETING)
    async with rig.running():
        assert await rig.speech.say(GREETING, is_fixed=False)
    assert rig.rendered.asked == []


async def test_a_line_behind_one_that_the_voice_is_working_on_comes_by_the_voice_too() -> None:
    rig = CallRig(GREETING)
    rig.teach_voice(GREETING)
    async with rig.running():
        assert await rig.speech.say(GREETING, by_voice=True)


async def test_a_line_that_nobody_may_stop_plays_to_its_end() -> None:
    rig = CallRig(GREETING)
    async with rig.running():
        await rig.speech.say(GREETING, is_interruptible=False)
        await asyncio.sleep(0.2)
        assert not rig.graph.playout.is_interruptible


async def test_whoever_wants_a_line_heard_waits_for_its_end() -> None:
    rig = CallRig(GREETING)
    loop = asyncio.get_running_loop()
    async with rig.running():
        began_s = loop.time()
        await rig.speech.say_to_its_end(GREETING)
        assert loop.time() - began_s == pytest.approx(LINE_S, abs=0.5)
        assert rig.heard() == GREETING


async def test_nobody_waits_for_a_line_once_the_call_is_to_end() -> None:
    rig = CallRig(GREETING)
    loop = asyncio.get_running_loop()
    async with rig.running():
        began_s = loop.time()
        loop.call_later(0.3, rig.over.set)
        await rig.speech.say_to_its_end(GREETING)
        assert loop.time() - began_s == pytest.approx(0.3, abs=0.01)


async def test_a_line_that_is_never_heard_is_waited_for_so_long() -> None:
    rig = CallRig(GREETING)
    rig.talk.far_end.delay_s = 1000.0
    loop = asyncio.get_running_loop()
    async with rig.running():
        began_s = loop.time()
        await rig.speech.say_to_its_end(GREETING, is_last=True)
        assert loop.time() - began_s <= SAID_LIMIT_S + 0.1


async def test_without_a_pipeline_nobody_waits_for_a_line() -> None:
    rig = CallRig(GREETING)
    rig.pipeline.graph = None
    await rig.speech.say_to_its_end(GREETING)
    await rig.speech.say_to_its_end("This was never rendered.")
    assert not await rig.speech.say_last(GREETING)


async def test_behind_the_last_line_nothing_is_said() -> None:
    rig = CallRig(GREETING, CLOSING)
    async with rig.running():
        assert await rig.speech.say_last(CLOSING)
        assert rig.heard() == CLOSING
        await rig.speech.say(GREETING)
        await asyncio.sleep(LINE_S + 0.5)
        assert rig.heard() == CLOSING


async def test_a_last_line_without_sound_is_not_said_and_nothing_else_is() -> None:
    rig = CallRig(GREETING)
    async with rig.running():
        assert not await rig.speech.say_last(CLOSING)
        await rig.speech.say(GREETING)
        await asyncio.sleep(LINE_S + 0.5)
        assert rig.heard() == ""


async def test_how_long_it_takes_to_hear_a_line_counts_what_is_being_said() -> None:
    rig = CallRig(GREETING, CLOSING)
    async with rig.running():
        assert await rig.speech.heard_within_s(CLOSING) == pytest.approx(LINE_S + MARK_LIMIT_S)
        await rig.speech.say(GREETING)
        assert await rig.speech.heard_within_s(CLOSING) == pytest.approx(2 * LINE_S + MARK_LIMIT_S, abs=0.1)
        assert await rig.speech.heard_within_s("This was never rendered.") is None
