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
from bot.lines import fixed_lines
from sims.faults import FaultKind, FaultSpec
from sims.scenario import Scenario
from tests.e2e.test_resume import faults_of, scenario
from tests.e2e.test_turn_taking import words_of
from tests.fakes.launcher import NOBODY_ELSE, eventually
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
CASES = {
    "in_greeting": Case(scenario("booking", day="Monday"), (0.7,)),
    "in_a_reply": Case(scenario("booking", day="Tuesday"), (9.0,), asks_action=False),
    "thrice": Case(GIVEN_UP, (1.0, 4.5, 4.5)),
}


@dataclass(frozen=True)
class Evening:
    """All calls of this module."""

    player: CallPlayer
    calls: Mapping[str, "asyncio.Task[WholeCall]"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    folder = tmp_path_factory.mktemp("drops")
    write_shipped_agent(folder / "agents", "reception", NOBODY_ELSE)  # at whatever hour the test is run
    async with open_call_player(folder, agents_dir=folder / "agents") as player:
        twilio = player.launcher.world.twilio
        calls: dict[str, asyncio.Task[WholeCall]] = {}
        for name, case in CASES.items():  # one at a time: a fault hits the next line, whosever it is
            for after_s in case.breaks_s:
                twilio.media_faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1, after_s=after_s))
            twilio.asks_action_of_broken = case.asks_action
            calls[name] = asyncio.create_task(player.play(case.script))
            hits = sum(len(one.breaks_s) for one in list(CASES.values())[: len(calls)])
            await eventually(
                lambda hits=hits: twilio.media_faults.hits.get(FaultKind.CLOSE_MID_STREAM) == hits, 30.0
            )
            await asyncio.sleep(max(case.breaks_s) + 0.5)
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
    heard = await evening.player.launcher.metrics()
    assert heard["resumes{outcome=too_often}"] == 1


async def test_what_was_done_is_counted_and_nothing_is_left(evening: Evening) -> None:
    for task in evening.calls.values():
        await task
    counted = await evening.player.launcher.metrics()
    assert counted["resumes{outcome=asked}"] == 4
    assert counted["resumes{outcome=went_on}"] == 4
    assert counted["calls{agent=reception,channel=phone,outcome=line_lost}"] == 5
    assert counted["calls{agent=reception,channel=phone,outcome=agent_ended}"] == 2
    assert counted["calls_active{channel=phone}"] == 0
    board = evening.player.launcher.board
    assert board.live_calls == 0
    assert board._admission.live_calls == 0
    with sqlite3.connect(evening.player.launcher.settings.database_path) as store:
        phases = [phase for (phase,) in store.execute("SELECT phase FROM saved_calls")]
    assert phases == ["finished"] * 3


@pytest.mark.parametrize("name", ["in_greeting", "in_a_reply"])
async def test_each_line_leaves_files_of_its_own(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    folder: Path = call.folder
    for file in ("audio.wav", "timeline.json", "transcript.txt"):
        assert (folder / file).exists()
        assert (folder / call.call.files.name(file)).exists()
    assert call.call.files.name("audio.wav") == "audio-2.wav"
