"""The caller is never left in silence, in whole calls on vendors that fail: judged at the caller's end."""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from loguru import logger

from bot.agent import read_agent
from bot.call_life import EndReason
from bot.lines import fixed_lines, stall_lines
from integrations.calendar import Booking, BookingRequest
from sims.faults import FaultKind, FaultSpec
from sims.scenario import load_scenario
from tests.fakes.launcher import NOBODY_ELSE, NUMBER, ROOT, Launcher
from tests.fakes.whole_calls import CallPlayer, WholeCall, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "silence"
CARTESIA, SLOW, SLOW_TWICE = "+18506872088", "+18506872089", "+18506872090"
SLOW_S = 10.0
"""To the first byte."""
TOOL_S = 5.0
STALL_S, SECOND_S, LIMIT_S = 2.0, 5.0, 3.0
EAR_S = 0.15
"""From what is decided to the ear."""
FIXED = fixed_lines("en-US")
FILLERS = stall_lines(read_agent(ROOT / "flows" / "reception").config)


@pytest.fixture(scope="module")
def log() -> Generator[list[str]]:
    """What is logged while the calls are played."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory, log: list[str]) -> AsyncGenerator[CallPlayer]:
    """All calls of this module, at the same time: a model is slow, a tool is, a voice is dead."""
    folder = tmp_path_factory.mktemp("silence")
    write_agents(folder / "agents")
    with pytest.MonkeyPatch.context() as patch:
        async with open_call_player(folder, agents_dir=folder / "agents") as player:
            slow_booking(player.launcher, patch)
            world = player.launcher.world
            world.openai.faults.arm(FaultSpec(kind=FaultKind.SLOW_FIRST_BYTE, after_s=SLOW_S))
            world.groq.faults.arm(FaultSpec(kind=FaultKind.SLOW_FIRST_BYTE, after_s=SLOW_S, count=2))
            world.cartesia.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
            called = {"slow_model": SLOW, "hello": SLOW, "dead_voice": CARTESIA, "slow_tool": NUMBER}
            for name, number in called.items():
                player.begin(name, load_scenario(SCENARIOS / f"{name}.yaml"), called=number)
            player.begin("slow_twice", load_scenario(SCENARIOS / "slow_model.yaml"), called=SLOW_TWICE)
            yield player


def write_agents(folder: Path) -> None:
    """Write the shipped agent, patient with its tools: as it is, with Cartesia's voice alone, with a slow model."""
    agents = {
        "reception": {},
        "cartesia": {NUMBER: CARTESIA, "tts: [elevenlabs, cartesia]": "tts: [cartesia]"},
        "slow": {NUMBER: SLOW, "llm: [anthropic]": "llm: [openai]"},
        "slow_twice": {NUMBER: SLOW_TWICE, "llm: [anthropic]": "llm: [groq]"},
    }
    for slug, changes in agents.items():
        tools = write_shipped_agent(folder, slug, changes | NOBODY_ELSE) / "tools.py"
        text = tools.read_text()
        patient = re.sub(r"^TOOL_LIMIT_S = .*$", f"TOOL_LIMIT_S = {2 * TOOL_S}", text, flags=re.MULTILINE)
        assert patient != text
        tools.write_text(patient)


def slow_booking(launcher: Launcher, patch: pytest.MonkeyPatch) -> None:
    """Make writing an appointment down take `TOOL_S`."""
    calendar = launcher.board._resources.books["reception"].calendar
    real = calendar.book

    async def slow(request: BookingRequest) -> Booking:
        await asyncio.sleep(TOOL_S)
        return await real(request)

    patch.setattr(calendar, "book", slow)


# What is read of a call


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def times_heard(call: WholeCall, line: str) -> list[tuple[float, float]]:
    """Return from when to when a line came out of the caller's phone, whole, each time."""
    wanted = words_of(line)
    heard = [
        (word, start_s, end_s)
        for text, start_s, end_s in call.measures.agent_words
        for word in words_of(text)
    ]
    return [
        (heard[at][1], heard[at + len(wanted) - 1][2])
        for at in range(len(heard))
        if [word for word, _, _ in heard[at : at + len(wanted)]] == wanted
    ]


def fillers_heard(call: WholeCall) -> list[tuple[float, str]]:
    """Return all fillers as they came out of the caller's phone."""
    return sorted((start_s, line) for line in FILLERS for start_s, _ in times_heard(call, line))


def heard_text(call: WholeCall) -> str:
    return " ".join(words_of(" ".join(text for text, _, _ in call.measures.agent_words)))


def silences(call: WholeCall, from_s: float) -> Iterator[float]:
    """Yield how long nothing was heard of us from a moment on, between one word and the next."""
    ends = [from_s, *(end_s for _, _, end_s in call.measures.agent_words if end_s > from_s)]
    starts = [start_s for _, start_s, _ in call.measures.agent_words if start_s > from_s]
    yield from (start_s - end_s for end_s, start_s in zip(ends, starts, strict=False))


def assert_no_filler_is_remembered(call: WholeCall, more: Sequence[str] = ()) -> None:
    remembered = " ".join(call.said("assistant"))
    for line in (*FILLERS, FIXED.try_again, *more):
        assert line not in remembered


# A slow model


async def test_a_slow_model_is_covered_by_two_different_lines_and_answers_once(evening: CallPlayer) -> None:
    call = await evening.calls["slow_model"]
    assert call.report.outcome == "ok", call.report.reasons
    fillers = fillers_heard(call)
    for turn in call.measures.turns:
        said = [
            (start_s, line) for start_s, line in fillers if turn.end_s < start_s < turn.end_s + SLOW_S + 2
        ]
        assert [start_s - turn.end_s for start_s, _ in said] == [
            pytest.approx(STALL_S, abs=EAR_S + call.report.sim_lateness_s),
            pytest.approx(STALL_S + SECOND_S, abs=EAR_S + call.report.sim_lateness_s),
        ]
        assert max(silences(call, turn.end_s)) <= LIMIT_S + EAR_S + call.report.sim_lateness_s
    assert len(fillers) == 4
    assert all(one != other for (_, one), (_, other) in itertools.pairwise(fillers))
    assert heard_text(call).count("saturday nine am to one pm") == 1
    assert heard_text(call).count("harrison avenue") == 1
    assert call.measures.lost_words == call.measures.repeated_words == 0
    assert_no_filler_is_remembered(call)
    assert call.said("user") == ["What are your hours on Saturday?", "And what's your address?"]


async def test_a_model_that_is_slow_twice_is_overtaken_behind_the_first_line(evening: CallPlayer) -> None:
    call = await evening.calls["slow_twice"]
    assert call.report.outcome == "ok", call.report.reasons
    first, second = call.measures.turns
    [(filler_s, _)] = fillers_heard(call)
    assert filler_s - first.end_s == pytest.approx(STALL_S, abs=EAR_S + call.report.sim_lateness_s)
    assert heard_text(call).count("saturday nine am to one pm") == 1
    assert heard_text(call).count("harrison avenue") == 1
    answer, _ = [turn for turn in call.call.turns.turns() if turn.kind == "answer"]
    assert answer.answer_s is not None
    assert answer.answer_s < SLOW_S / 2
    assert second.answer_s is not None
    assert second.answer_s < STALL_S
    assert_no_filler_is_remembered(call)


async def test_fillers_are_not_counted_as_the_answer(evening: CallPlayer) -> None:
    call = await evening.calls["slow_model"]
    answers = [turn for turn in call.call.turns.turns() if turn.kind == "answer"]
    assert [len(turn.fillers) for turn in answers] == [2, 2]
    assert all(turn.answer_s is not None and turn.answer_s > SLOW_S for turn in answers)
    assert all(filler.end is not None for turn in answers for filler in turn.fillers)
    assert [turn.retries for turn in answers] == [0, 0]
    counts = call.call.turns.counts
    assert counts.longest_silence_s <= LIMIT_S + EAR_S + call.report.sim_lateness_s
    assert counts.longest_silence_cause == "model"
    transcript = await asyncio.to_thread((call.folder / "transcript.txt").read_text)
    assert all(line in transcript for line in FILLERS)


async def test_who_asks_whether_anybody_is_there_hears_so_and_is_answered_all_the_same(
    evening: CallPlayer,
) -> None:
    call = await evening.calls["hello"]
    assert call.report.outcome == "ok", call.report.reasons
    question, nudge = call.measures.turns
    assert nudge.answer_s is not None
    assert nudge.answer_s < 1.0
    (first_s, first), (second_s, second), *_ = fillers_heard(call)
    assert first_s - question.end_s == pytest.approx(STALL_S, abs=EAR_S + call.report.sim_lateness_s)
    assert nudge.start_s < second_s < nudge.end_s + 1.0
    assert first != second
    assert heard_text(call).count("saturday nine am to one pm") == 1
    assert call.said("user") == ["What are your hours on Saturday?"]
    [answer] = [turn for turn in call.call.turns.turns() if turn.kind == "answer"]
    assert answer.interrupted_at is None
    assert " ".join(one.text for one in answer.nudges) == "Hello? Are you there?"
    assert_no_filler_is_remembered(call)


# A slow tool


async def test_a_slow_tool_is_covered_and_its_result_told_once(evening: CallPlayer) -> None:
    call = await evening.calls["slow_tool"]
    assert call.report.outcome == "ok", call.report.reasons
    fillers = fillers_heard(call)
    assert fillers, "it took longer than a caller waits"
    assert heard_text(call).count("you're booked for") == 1
    runs = [tool for turn in call.call.turns.turns() for tool in turn.tools]
    run = max(runs, key=lambda tool: (tool.end or 0.0) - tool.start)
    assert run.name == "book_appointment"
    assert run.end is not None
    assert run.end - run.start == pytest.approx(TOOL_S, abs=0.5)
    last = call.measures.turns[-1]
    assert max(silences(call, last.end_s)) <= LIMIT_S + EAR_S + call.report.sim_lateness_s
    assert_no_filler_is_remembered(call)


# A dead voice


async def test_a_dead_voice_that_no_other_stands_in_for_is_given_up_politely(
    evening: CallPlayer, log: list[str]
) -> None:
    call = await evening.calls["dead_voice"]
    assert call.report.outcome == "ok", call.report.reasons
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.GAVE_UP
    # The voice was asked twice by then: to have the model answer again helps nobody.
    assert times_heard(call, FIXED.try_again) == []
    [(goodbye_s, goodbye_end_s)] = times_heard(call, FIXED.trouble_goodbye)
    assert goodbye_s < goodbye_end_s <= call.measures.duration_s
    [question] = call.measures.turns
    assert max(silences(call, question.end_s)) <= LIMIT_S + EAR_S + call.report.sim_lateness_s
    assert call.measures.duration_s - question.end_s < 25.0
    counts = call.call.turns.counts
    assert counts.longest_silence_s <= LIMIT_S + EAR_S + call.report.sim_lateness_s
    assert counts.longest_silence_cause == "voice"
    metrics = await evening.launcher.metrics()
    assert metrics["longest_silence_seconds_count{cause=voice,channel=phone}"] == 1
    assert metrics["calls{agent=cartesia,channel=phone,outcome=gave_up}"] == 1
    told = [line for line in log if "reason=gave_up" in line]
    assert len(told) == 1
    assert "silence_cause=voice" in told[0]
