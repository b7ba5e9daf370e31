import asyncio

import pytest
from pipecat.frames.frames import InterruptionFrame

from bot.call_life import EndReason
from bot.farewell import UNRENDERED_LIMIT_S
from bot.lines import fixed_lines
from tests.fakes.call_rig import LINE_S, CallRig

GREETING = "Northside Dental, how can I help?"
LINES = fixed_lines("en-US")


async def test_a_goodbye_is_heard_before_the_call_ends() -> None:
    rig = CallRig(LINES.closing)
    async with rig.running():
        await rig.farewell.say(LINES.closing, EndReason.MAX_LENGTH)
        assert rig.heard() == LINES.closing
    assert rig.ends == [EndReason.MAX_LENGTH]


async def test_a_goodbye_is_said_beside_whoever_wants_it() -> None:
    rig = CallRig(LINES.closing)
    async with rig.running():
        rig.farewell.say_beside(LINES.closing, EndReason.AGENT_ENDED)
        assert rig.ends == []
        await asyncio.sleep(LINE_S + 0.5)
    assert rig.ends == [EndReason.AGENT_ENDED]


async def test_a_tool_that_wants_the_end_is_told_when_the_words_before_it_were_heard() -> None:
    rig = CallRig(GREETING)
    async with rig.running():
        await rig.speech.say(GREETING)
        rig.farewell.after_these_words()
        assert rig.farewell.is_meant
        await asyncio.sleep(0.5)
        assert "last_word_heard" not in dict(rig.happened)
        await asyncio.sleep(LINE_S)
        assert "last_word_heard" in dict(rig.happened)
        assert rig.heard() == GREETING


async def test_an_interruption_drops_the_end_but_not_the_wish_for_it() -> None:
    rig = CallRig(GREETING)
    async with rig.running():
        await rig.speech.say(GREETING)
        rig.farewell.after_these_words()
        await asyncio.sleep(0.2)
        await rig.graph.worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(LINE_S + 1.0)
        assert "last_word_heard" not in dict(rig.happened)
        assert rig.farewell.is_meant
        rig.farewell.take_back()
        assert not rig.farewell.is_meant


async def test_trouble_is_told_behind_what_is_being_said() -> None:
    rig = CallRig(GREETING, LINES.trouble_goodbye)
    async with rig.running():
        await rig.speech.say(GREETING)
        await rig.farewell.say_trouble()
        assert rig.heard() == f"{GREETING} {LINES.trouble_goodbye}"
    assert rig.ends == [EndReason.GAVE_UP]


async def test_trouble_that_nobody_can_tell_ends_the_call_all_the_same() -> None:
    rig = CallRig()
    loop = asyncio.get_running_loop()
    rig.talk.far_end.delay_s = 1000.0
    rig.teach_voice(LINES.trouble_goodbye)
    async with rig.running():
        began_s = loop.time()
        await rig.farewell.say_trouble()
        assert loop.time() - began_s == pytest.approx(UNRENDERED_LIMIT_S, abs=0.1)
    assert rig.ends == [EndReason.GAVE_UP]
