"""What is said first on a line. Everything but the vendors is real."""

import asyncio
from typing import Any

import pytest

from bot.agent import Announcement
from bot.call_life import EndReason
from bot.call_opening import CallOpening
from bot.handoff_lines import handoff_lines
from bot.lines import fixed_lines
from store.calls import CallPhase
from tests.bot.test_call_flow import ASKED, GREETED, TASK, flow_of, saved
from tests.fakes.call_rig import LINE_S, CallRig
from tests.fakes.conversation import front_desk

LINES = fixed_lines("en-US")
GREETING = front_desk().config.greeting
NOTICE = "This call may be recorded."
QUESTION = "Which day would suit you?"


class Opening:
    """A line of a call that has just come up; the flow is in place."""

    def __init__(self, *rendered: str, announcement: str | None = None, resumed: Any = None) -> None:
        self.rig = CallRig(*rendered)
        self.flow = flow_of(self.rig, resumed)
        announced = None if announcement is None else Announcement(say=announcement, barge_in=False)
        config = front_desk().config.model_copy(update={"announcement": announced})
        self.opening = CallOpening(
            config,
            speech=self.rig.speech,
            farewell=self.rig.farewell,
            flow=self.flow,
            pipeline=self.rig.pipeline,
        )

    async def heard(self, work: Any) -> str:
        """Open the line; return what the caller has heard when all was said."""
        async with self.rig.running():
            await self.flow.enter(self.rig.graph.worker)
            await work
            await asyncio.sleep(12.0)
            return self.rig.heard()


async def test_a_new_call_is_greeted() -> None:
    one = Opening(GREETING)
    assert await one.heard(one.opening.greet()) == GREETING


async def test_an_announcement_comes_first_and_nobody_stops_it() -> None:
    one = Opening(GREETING, NOTICE, announcement=NOTICE)

    async def greet() -> None:
        await one.opening.greet()
        await asyncio.sleep(0.2)
        assert not one.rig.graph.playout.is_interruptible

    assert await one.heard(greet()) == f"{NOTICE} {GREETING}"


async def test_a_greeting_waits_for_an_announcement_that_the_voice_must_say() -> None:
    one = Opening(GREETING, announcement=NOTICE)
    one.rig.teach_voice(f"{NOTICE} {GREETING}")
    heard = await one.heard(one.opening.greet())
    assert heard.lower() == f"{NOTICE} {GREETING}".lower()


async def test_a_call_that_was_cut_goes_on_with_the_question_that_waits() -> None:
    resumed = saved(about_to_say=QUESTION)
    one = Opening(LINES.cut_off, QUESTION, resumed=resumed)
    assert await one.heard(one.opening.go_on(resumed)) == f"{LINES.cut_off} {QUESTION}"
    assert QUESTION not in one.rig.rendered.asked


async def test_a_call_that_had_no_line_yet_is_greeted() -> None:
    resumed = saved(phase=CallPhase.RINGING, messages=())
    one = Opening(GREETING, resumed=resumed)
    assert await one.heard(one.opening.go_on(resumed)) == GREETING


async def test_an_announcement_that_was_not_heard_whole_is_said_again() -> None:
    resumed = saved(messages=(TASK, {"role": "assistant", "content": "This call —"}))
    one = Opening(LINES.cut_off, NOTICE, GREETING, announcement=NOTICE, resumed=resumed)
    assert await one.heard(one.opening.go_on(resumed)) == f"{LINES.cut_off} {NOTICE} {GREETING}"


async def test_a_goodbye_that_was_being_said_is_said_and_ends_the_call() -> None:
    resumed = saved(about_to_say="", is_ending=True)
    one = Opening(LINES.cut_off, LINES.closing, resumed=resumed)
    assert await one.heard(one.opening.go_on(resumed)) == f"{LINES.cut_off} {LINES.closing}"
    assert one.rig.farewell.is_meant
    assert one.rig.ends == [EndReason.AGENT_ENDED]


async def test_who_waited_for_the_model_is_answered() -> None:
    resumed = saved()
    one = Opening(LINES.cut_off, resumed=resumed)
    heard = await one.heard(one.opening.go_on(resumed))
    assert heard.startswith(f"{LINES.cut_off} ")
    assert [reply.asked for reply in one.rig.talk.book.replies] == [ASKED["content"]]
    assert one.rig.graph.context.messages[:3] == [TASK, GREETED, ASKED]


async def test_whom_nobody_came_for_is_told_so() -> None:
    resumed = saved(phase=CallPhase.HANDING_OVER)
    nobody = handoff_lines("en-US").nobody_free
    one = Opening(nobody, resumed=resumed)
    assert await one.heard(one.opening.go_on(resumed)) == nobody


@pytest.mark.parametrize("fields", [{"is_ending": True}, {}, {"about_to_say": QUESTION}])
async def test_a_call_whose_pipeline_never_came_says_no_more_than_that_it_is_sorry(
    fields: dict[str, Any],
) -> None:
    resumed = saved(**fields)
    one = Opening(LINES.cut_off, QUESTION, LINES.closing, resumed=resumed)
    one.rig.pipeline.graph = None
    await one.opening.go_on(resumed)
    assert one.rig.pipeline.playout is not None
    assert one.rig.pipeline.playout.remaining_s == pytest.approx(LINE_S, abs=0.1)
    assert one.rig.ends == []
