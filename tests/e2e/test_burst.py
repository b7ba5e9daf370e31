"""Named for failure 10, nobody answers: more people call within a second than there is room for, and each is heard.

All of it is one evening at one launcher: a burst of twelve at eight lines, a person rung in another agent's overflow.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from flows.spoken import say_datetime
from integrations.messages_sqlite import SqliteMessageBook
from sims.carrier import Human
from sims.report import CallReport
from sims.scenario import Scenario
from tests.fakes.launcher import NUMBER, ROOT, Launcher, open_launcher

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

CALLERS, LINES = 12, 8
BURST_S = 0.5
OWNER, OTHER = "+15551230001", "+15551230002"
ASKS = Scenario.model_validate(
    {
        "name": "asks",
        "voice": "caller-3",
        "ended_by": "either",
        "may_end_from": 2,
        "max_s": 60,
        "steps": [
            {"expect": {"agent": "starts", "within_s": 15}},
            {"expect": {"agent": "finishes", "within_s": 15}},
            {"say": "Hi, what are your hours on Saturday?"},
            {"expect": {"agent": "finishes", "within_s": 20, "text_contains": "sure|midnight"}},
            {"hang_up": True},
        ],
    }
)
LISTENS = Scenario.model_validate(
    {
        "name": "listens",
        "voice": "caller-1",
        "ended_by": "either",
        "may_end_from": 2,
        "max_s": 30,
        "steps": [{"expect": {"agent": "starts", "within_s": 15}}, {"wait_s": 2.0}, {"hang_up": True}],
    }
)
LEAVES_A_MESSAGE = Scenario.model_validate(
    {
        "name": "leaves_a_message",
        "voice": "caller-2",
        "ended_by": "agent",
        "may_end_from": 3,
        "max_s": 45,
        "steps": [
            {"expect": {"agent": "finishes", "within_s": 20}},
            {"say": "This is Ana. Please call me back."},
            {"expect": {"agent": "finishes", "within_s": 20}},
        ],
    }
)


@dataclass(frozen=True)
class Evening:
    launcher: Launcher
    burst: tuple[CallReport, ...]
    refused: dict[str, CallReport]
    """By the agent that had no room."""


def write_agents(folder: Path) -> dict[str, str]:
    """Write agents that differ in their overflow; return the number of each."""
    shipped = ROOT / "flows" / "reception"
    text = (shipped / "agent.yaml").read_text()
    numbers = {"reception": NUMBER, "rings": NUMBER[:-2] + "11", "records": NUMBER[:-2] + "12"}
    overflow = {
        "reception": "",
        "rings": f'overflow: {{ring: ["{OWNER}", "{OTHER}"], ring_s: 5}}',
        "records": "overflow: {voicemail: true}",
    }
    for slug, number in numbers.items():
        shutil.copytree(shipped, folder / slug, ignore=shutil.ignore_patterns("__pycache__"))
        agent = text.replace(NUMBER, number) + "\n" + overflow[slug] + "\n"
        always = 'hours: {mon-sun: "00:00-24:00"}'
        agent = "\n".join(always if line.startswith("hours:") else line for line in agent.splitlines())
        (folder / slug / "agent.yaml").write_text(agent)
    return numbers


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    folder = tmp_path_factory.mktemp("burst")
    numbers = write_agents(folder / "agents")
    async with open_launcher(
        folder, profile="realistic", measures_room=True, agents_dir=folder / "agents", max_calls=LINES
    ) as launcher:
        twilio = launcher.world.twilio
        twilio.humans[OWNER] = Human.BUSY

        async def call(scenario: Scenario, *, after_s: float, agent: str = "reception") -> CallReport:
            await asyncio.sleep(after_s)
            return await twilio.place_call(
                scenario, voice_url=launcher.voice_url, called=numbers[agent], out_dir=folder
            )

        async with asyncio.TaskGroup() as people:
            burst = [
                people.create_task(call(ASKS, after_s=BURST_S * number / CALLERS))
                for number in range(CALLERS)
            ]
            # The lines are taken by then.
            rings = people.create_task(call(LISTENS, after_s=1.5, agent="rings"))
            records = people.create_task(call(LEAVES_A_MESSAGE, after_s=1.5, agent="records"))
        yield Evening(
            launcher,
            tuple(task.result() for task in burst),
            {"rings": rings.result(), "records": records.result()},
        )


def first_words(report: CallReport) -> str:
    assert report.measures is not None
    return report.measures.agent_text


async def test_failure_10_of_a_burst_everybody_hears_a_greeting_or_that_there_is_no_room(
    evening: Evening,
) -> None:
    greeted = [report for report in evening.burst if report.streams]
    told = [report for report in evening.burst if not report.streams]
    assert (len(greeted), len(told)) == (LINES, CALLERS - LINES)
    for report in greeted:
        assert report.measures is not None
        assert report.measures.greeting_s is not None
        assert "how can I help" in first_words(report)
    for report in told:
        assert report.first_sound_s is not None
        assert report.measures is not None
        assert report.measures.duration_s > 2.0, "the line is said to its end"
        assert report.ended_by == "agent"


async def test_who_was_greeted_gets_an_answer_although_all_came_at_once(evening: Evening) -> None:
    for report in evening.burst:
        if report.streams:
            assert report.outcome == "ok", report.reasons
            assert report.measures is not None
            assert [turn.answer_s is not None for turn in report.measures.turns] == [True]


async def test_a_caller_without_a_line_is_put_through_to_the_next_person_who_answers(
    evening: Evening,
) -> None:
    report = evening.refused["rings"]
    assert report.streams == 0
    assert report.outcome == "ok", report.reasons
    assert evening.launcher.world.twilio.stats["bridged"] == 1
    counted = await evening.launcher.metrics()
    assert counted["overflow{agent=rings,step=ring}"] == 2, "the first person was busy"


async def test_a_caller_without_a_line_leaves_a_message(evening: Evening) -> None:
    report = evening.refused["records"]
    assert report.streams == 0
    assert report.outcome == "ok", report.reasons
    counted = await evening.launcher.metrics()
    assert counted["overflow{agent=records,step=message}"] == 1
    assert counted["overflow{agent=records,step=thanks}"] == 1
    book = evening.launcher.board._resources.books["records"].callbacks
    assert isinstance(book, SqliteMessageBook)
    [callback] = await book.callbacks()
    assert (callback.call_sid, callback.phone) == (report.call_sid, report.caller)
    promise = f"We will call you back by {say_datetime(callback.due_at)}."
    assert " ".join(report.carrier_said).endswith(f"Thank you. {promise} Goodbye.")


async def test_no_slot_is_held_and_no_build_waits_when_all_have_gone(evening: Evening) -> None:
    board = evening.launcher.board
    for report in evening.burst:
        if report.streams:
            await evening.launcher.ended(report.call_sid)
    assert board.live_calls == 0
    assert board._resources.builds.backlog_s == 0.0
    assert (board._admission.live_calls, board._admission.reserved_calls) == (0, 0)
