"""What Pipecat tells reaches the call under the call's names. Everything but the vendors is real."""

import asyncio

from pipecat.frames.frames import MetricsFrame

from processors.caller_silence import Ask, SilenceAction
from tests.fakes.call_rig import LINE_S, CallRig

GREETING = "Northside Dental, how can I help?"


async def test_the_start_is_told_once() -> None:
    rig = CallRig()
    async with rig.running():
        await asyncio.sleep(0.1)
        assert [name for name, _ in rig.happened] == ["started"]


async def test_a_turn_of_the_callers_is_told_with_its_words_and_the_reply_when_it_was_heard() -> None:
    rig = CallRig()
    async with rig.running():
        rig.talk.sound(1.0)
        await asyncio.sleep(1.2)
        rig.talk.recogniser.understood("what are your hours", final=True)
        rig.talk.recogniser.flushed()
        await asyncio.sleep(20.0)
    told = [(name, what) for name, what in rig.happened if name in ("turn_started", "turn_stopped")]
    assert told == [("turn_started", None), ("turn_stopped", "what are your hours")]
    names = [name for name, _ in rig.happened]
    assert names.index("turn_stopped") < names.index("reply_over")


async def test_a_silence_of_the_callers_is_told_with_what_is_due() -> None:
    rig = CallRig(GREETING)
    async with rig.running():
        rig.graph.silence.line_up()
        await rig.speech.say(GREETING)
        await asyncio.sleep(LINE_S + 8.0)
    [action] = [what for name, what in rig.happened if name == "caller_silent"]
    assert action == SilenceAction(Ask.REPROMPT, 1)


async def test_what_a_vendor_counts_is_told() -> None:
    rig = CallRig()
    used = MetricsFrame(data=[])
    async with rig.running():
        await rig.graph.worker.queue_frame(used)
        await asyncio.sleep(0.1)
        assert ("used", used) in rig.happened
