"""The line breaks off and the process lives: the call goes on in it. All calls at one launcher, seen from both ends."""

import asyncio
import difflib
import re
import sqlite3
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from bot.call_life import EndReason
from bot.handoff_lines import handoff_lines
from bot.handoff_reasons import HandoffReason
from bot.lines import fixed_lines
from sims.faults import FaultKind, FaultSpec
from sims.scenario import Scenario
from tests.e2e.test_resume import faults_of, scenario
from tests.e2e.test_turn_taking import words_of
from tests.fakes.launcher import NOBODY_ELSE, NUMBER, eventually
from tests.fakes.whole_calls import CallPlayer, WholeCall, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

LINES = fixed_lines("en-US")


@dataclass(frozen=True)
class Case:
    """When a call's lines break off."""

    script: Scenario
    breaks_s: tuple[float, ...]
    """Of each line in turn: seconds from its start."""
    asks_action: bool = True
    """Whether Twilio asks the `action`; otherwise the verb behind it runs."""
    called: str = NUMBER


GIVEN_UP = Scenario.model_validate(
    {
        "name": "given_up",
        "voice": "caller-1",
        "caller": "+15550100063",
        "ended_by": "agent",
        "max_s": 60,
        "goodbye_within_s": 40,
        "steps": [{"expect": {"agent": "starts"}}],
    }
)
PUT_THROUGH = Scenario.model_validate(
    {
        "name": "put_through",
        "voice": "caller-1",
        "caller": "+15550100064",
        "ended_by": "caller",
        "max_s": 90,
        "steps": [
            {"expect": {"agent": "starts"}},
            {
                "converse": {
                    "patience_s": 60,
                    "within_s": 30,
                    "answers": [{"when": "front desk", "say": "Thank you.", "last": True}],
                }
            },
            {"wait_s": 0.5},
            {"hang_up": True},
        ],
    }
)
STAFFED = f"{NUMBER[:-2]}70"
TOO_OFTEN_S = (1.0, 4.5, 4.5)
CASES = {
    "in_greeting": Case(scenario("booking", day="Monday"), (0.7,)),
    "in_a_reply": Case(
        scenario("booking", day="Tuesday").model_copy(update={"caller": "+15550100062"}),
        (9.0,),
        asks_action=False,
    ),
    "thrice": Case(GIVEN_UP, TOO_OFTEN_S),
    "staffed": Case(PUT_THROUGH, TOO_OFTEN_S, called=STAFFED),
}
ROUNDS = (("in_greeting",), ("in_a_reply",), ("thrice", "staffed"))
"""Calls that begin at the same time: they have the same ways of the carrier."""


@dataclass(frozen=True)
class Evening:
    """All calls of this module."""

    player: CallPlayer
    calls: Mapping[str, "asyncio.Task[WholeCall]"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    folder = tmp_path_factory.mktemp("drops")
    write_shipped_agent(folder / "agents", "reception", NOBODY_ELSE)  # at whatever hour the test is run
    always = {'{mon-fri: "08:00-18:00", sat: "09:00-13:00"}': "{mon-sun: '00:00-24:00'}"}
    write_shipped_agent(folder / "agents", "staffed", {NUMBER: STAFFED, **always})
    async with open_call_player(folder, agents_dir=folder / "agents") as player:
        twilio = player.launcher.world.twilio
        calls: dict[str, asyncio.Task[WholeCall]] = {}
        for names in ROUNDS:
            for case in (CASES[name] for name in names):
                for after_s in case.breaks_s:
                    spec = FaultSpec(
                        kind=FaultKind.CLOSE_MID_STREAM, count=1, after_s=after_s, caller=case.script.caller
                    )
                    twilio.media_faults.arm(spec)
                twilio.asks_action_of_broken = case.asks_action
            for name in names:
                calls[name] = asyncio.create_task(player.play(CASES[name].script, called=CASES[name].called))
            hits = sum(len(CASES[name].breaks_s) for name in calls)
            await eventually(
                lambda hits=hits: twilio.media_faults.hits.get(FaultKind.CLOSE_MID_STREAM) == hits, 30.0
            )
            await asyncio.sleep(max(CASES[names[0]].breaks_s) + 0.5)
        yield Evening(player, calls)
        for task in calls.values():
            task.cancel()


@pytest.mark.parametrize("name", ["in_greeting", "in_a_reply"])
async def test_a_call_goes_on_at_the_step_it_was_at(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    assert faults_of(call.report) == [], call.measures.agent_text
    assert call.report.streams == 2
    assert call.call.end_reason is EndReason.AGENT_ENDED
    assert call.call.files.part == 2
    said = " ".join(words_of(call.measures.agent_text))
    assert said.count("cut off for a moment") == 1


async def test_a_greeting_that_was_cut_is_said_behind_the_regret(evening: Evening) -> None:
    call = await evening.calls["in_greeting"]
    said = " ".join(words_of(call.measures.agent_text))
    assert re.search("cut off for a moment northside dental how can i help", said), said


async def test_the_model_knows_what_was_heard_on_both_lines(evening: Evening) -> None:
    call = await evening.calls["in_a_reply"]
    known, heard = words_of(" ".join(call.said("assistant"))), words_of(call.measures.agent_text)
    steps = difflib.SequenceMatcher(a=known, b=heard, autojunk=False).get_opcodes()
    changes = [(tag, known[a:b], heard[c:d]) for tag, a, b, c, d in steps if tag != "equal"]
    # Words of the last second before the cut may not have been written down; the one that was cut may have been.
    assert all(len(said) <= 1 and len(words) <= 5 for _, said, words in changes), changes
    assert len(changes) <= 1, changes
    assert " ".join(words_of(LINES.cut_off)) in " ".join(known)


async def test_each_appointment_is_made_once(evening: Evening) -> None:
    calls = [await evening.calls[name] for name in ("in_greeting", "in_a_reply")]
    path = evening.player.launcher.settings.database_path
    with sqlite3.connect(path) as book:
        keys = [str(key).partition(":")[0] for (key,) in book.execute("SELECT key FROM bookings")]
    assert sorted(keys) == sorted(call.report.call_sid for call in calls)


async def test_a_line_that_breaks_again_and_again_ends_with_a_word(evening: Evening) -> None:
    call = await evening.calls["thrice"]
    assert call.report.streams == 3
    assert call.report.ended_by == "agent", (
        call.report.reasons,
        call.report.carrier_said,
        call.measures.agent_text,
    )
    assert call.call.end_reason is EndReason.LINE_LOST


async def test_a_line_that_breaks_again_and_again_leads_to_a_person_if_one_is_there(evening: Evening) -> None:
    call = await evening.calls["staffed"]
    assert faults_of(call.report) == [], (call.report.carrier_said, call.measures.agent_text)
    assert call.report.streams == 3
    assert call.call.end_reason is EndReason.LINE_LOST
    legs = evening.player.launcher.world.twilio.legs
    [leg] = [leg for leg in legs if leg.parent_sid == call.report.call_sid]
    assert (leg.pressed, leg.is_bridged) == ("1", True)
    assert handoff_lines("en-US").reasons[HandoffReason.STUCK] in " ".join(leg.told)


async def test_what_was_done_is_counted_and_nothing_is_left(evening: Evening) -> None:
    for task in evening.calls.values():
        await task
    counted = await evening.player.launcher.metrics()
    assert counted["resumes{outcome=asked}"] == 6
    assert counted["resumes{outcome=went_on}"] == 6
    assert counted["resumes{outcome=too_often}"] == 2
    assert counted["calls{agent=reception,channel=phone,outcome=line_lost}"] == 5
    assert counted["calls{agent=staffed,channel=phone,outcome=line_lost}"] == 3
    assert counted["calls{agent=reception,channel=phone,outcome=agent_ended}"] == 2
    assert counted["calls_active{channel=phone}"] == 0
    board = evening.player.launcher.board
    assert board.live_calls == 0
    assert board._admission.live_calls == 0
    with sqlite3.connect(evening.player.launcher.settings.database_path) as store:
        phases = [phase for (phase,) in store.execute("SELECT phase FROM saved_calls")]
    assert phases == ["finished"] * 4


@pytest.mark.parametrize("name", ["in_greeting", "in_a_reply"])
async def test_each_line_leaves_files_of_its_own(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    folder: Path = call.folder
    for file in ("audio.wav", "timeline.json", "transcript.txt"):
        assert (folder / file).exists()
        assert (folder / call.call.files.name(file)).exists()
    assert call.call.files.name("audio.wav") == "audio-2.wav"
