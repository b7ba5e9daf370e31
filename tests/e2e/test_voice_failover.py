"""A voice's vendor fails in whole calls on realistic vendors: all at the same time, each judged at both ends."""

import itertools
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bench.special_calls import words_of
from bot import voice_lines
from bot.agent import Agent
from bot.call_life import EndReason
from bot.lines import fixed_lines
from bot.resources import Resources
from bot.services import ServiceContext
from processors.voice_health import BreakerState, ProcessVoiceHealth
from processors.voice_watch import WatchLimits
from sims import anthropic
from sims.brain import Block, ToolUse
from sims.faults import FaultKind, FaultSpec
from sims.scenario import load_scenario
from tests.fakes.heard_calls import assert_heard_is_kept, heard_from
from tests.fakes.lateness import Lateness, watch_lateness
from tests.fakes.launcher import NOBODY_ELSE, NUMBER, Launcher
from tests.fakes.whole_calls import STAGGER_S, CallPlayer, WholeCall, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "voices"
ADDRESS = words_of(
    "We're at 412 Harrison Avenue in Panama City, across from the library. Is there anything else?"
)
SHIPPED_VOICE = {"elevenlabs": "21m00Tcm4TlvDq8ikWAM", "cartesia": "71a7ad14-091c-4e8e-a314-022ece01c121"}
FIRST_WORD = "We're"
JOIN_S = 0.4
"""Silence that a change of voices may add, when the next one answers in 150 ms."""
BEFORE_S = 0.5
"""So long before a silence it began that somebody was late."""


@dataclass(frozen=True)
class Case:
    """One call: what its first vendor does, and what is told of it."""

    fault: FaultKind | None
    """None: nothing fails."""
    kind: str = ""
    stage: str = ""
    skip: int = 0
    """Takes let through: a connection is one, if the fault can hit one."""
    after_s: float = 0.5
    order: tuple[str, str] = ("elevenlabs", "cartesia")
    fails_both: bool = False
    scenario: str = "address"
    found_out_s: float = 0.0
    """So long it is waited for before it has failed, with nothing that could be heard meanwhile."""


CASES = {
    "tools": Case(None, scenario="wordless_tools"),
    "well": Case(None),
    "refused": Case(FaultKind.REFUSE, "refused", "connect"),
    "unauthorized": Case(FaultKind.UNAUTHORIZED, "unauthorized", "connect"),
    "locked_out": Case(FaultKind.UNAUTHORIZED, "unauthorized", "first_audio", skip=1),
    "busy": Case(FaultKind.RATE_LIMITED, "rate_limited", "first_audio", skip=1),
    "broken": Case(FaultKind.SERVER_ERROR, "server", "first_audio", skip=1),
    "mute": Case(
        FaultKind.HANG_BEFORE_FIRST_BYTE, "late", "first_audio", found_out_s=WatchLimits().first_audio_s
    ),
    "hangs": Case(FaultKind.HANG_AFTER_FIRST_BYTE, "starving", "speaking", after_s=1.1),
    "closes": Case(FaultKind.CLOSE_MID_STREAM, "closed", "speaking", after_s=1.3),
    "closes_early": Case(FaultKind.CLOSE_MID_STREAM, "closed", "speaking", after_s=0.3),
    "slow": Case(FaultKind.TRICKLE, "starving", "speaking"),
    "garbage": Case(FaultKind.GARBAGE, "garbage", "first_audio"),
    "empty": Case(FaultKind.EMPTY, "silent", "first_audio"),
    "other_way": Case(
        FaultKind.CLOSE_MID_STREAM, "closed", "speaking", after_s=1.3, order=("cartesia", "elevenlabs")
    ),
    "both": Case(FaultKind.EMPTY, "silent", "first_audio", fails_both=True, scenario="no_voice"),
}
"""The longest first."""
WITH_ONE = [name for name, case in CASES.items() if case.fault is not None and not case.fails_both]
BUFFERED = [name for name in WITH_ONE if CASES[name].stage == "speaking" and CASES[name].after_s > 1]
"""Enough had come by then to be heard until the next voice spoke."""


Healths = Mapping[str, list[ProcessVoiceHealth]]
"""By agent: what its calls know of the vendors."""


@pytest.fixture(scope="module")
def healths() -> Healths:
    return defaultdict(list)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lateness() -> AsyncGenerator[Lateness]:
    async with watch_lateness() as watched:
        yield watched


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(
    tmp_path_factory: pytest.TempPathFactory, healths: Healths, lateness: Lateness
) -> AsyncGenerator[CallPlayer]:
    services_of, reply_of = Resources.services, anthropic.reply

    def services(resources: Resources, agent: Agent, rate_hz: int) -> ServiceContext:
        """Keep the calls' faults apart: elsewhere they learn of them from each other."""
        healths[agent.slug].append(health := ProcessVoiceHealth())
        return replace(services_of(resources, agent, rate_hz), voice_health=health)

    def reply(request: Mapping[str, Any]) -> list[Block]:
        """Call a tool without a word, as models do."""
        blocks = reply_of(request)
        return [block for block in blocks if isinstance(block, ToolUse)] or blocks

    folder = tmp_path_factory.mktemp("voices")
    lines = ("Sure.", "Okay.", "Thanks.", "Great.", fixed_lines("en-US").trouble_goodbye)
    for name in CASES:
        write_agent(folder / "agents", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resources, "services", services)
        patch.setattr(anthropic, "reply", reply)
        # Of so many agents no more lines are rendered than are said.
        patch.setattr(voice_lines, "cacheable_lines", lambda config: (config.greeting, *lines))
        async with open_call_player(folder, agents_dir=folder / "agents") as player:
            arm(player.launcher)
            for place, (name, case) in enumerate(CASES.items()):
                scenario = load_scenario(SCENARIOS / f"{case.scenario}.yaml")
                player.begin(name, scenario, called=number_of(name), after_s=place * STAGGER_S)
            yield player


def write_agent(folder: Path, name: str) -> None:
    """Write the shipped agent for one case, with voices of its own where they are to fail."""
    case = CASES[name]
    changes = {NUMBER: number_of(name), "[elevenlabs, cartesia]": f"[{', '.join(case.order)}]"}
    changes |= {SHIPPED_VOICE[vendor]: voice_of(name, vendor) for vendor in failing(case)}
    write_shipped_agent(folder, name, changes | NOBODY_ELSE)


def number_of(name: str) -> str:
    return f"{NUMBER[:-2]}{list(CASES).index(name) + 10}"


def voice_of(name: str, vendor: str) -> str:
    return f"{vendor}-{name}"


def failing(case: Case) -> tuple[str, ...]:
    """Return the vendors that fail."""
    return case.order[: 0 if case.fault is None else 2 if case.fails_both else 1]


def arm(launcher: Launcher) -> None:
    """Turn the faults on, each for the voice of its call."""
    for name, case in CASES.items():
        for vendor in failing(case):
            assert case.fault is not None
            sim = launcher.world.elevenlabs if vendor == "elevenlabs" else launcher.world.cartesia
            spec = FaultSpec(
                kind=case.fault, skip=case.skip, after_s=case.after_s, voice=voice_of(name, vendor)
            )
            sim.faults.arm(spec)


@pytest.mark.parametrize("name", WITH_ONE)
async def test_each_word_is_heard_once_and_the_model_knows_it(evening: CallPlayer, name: str) -> None:
    call = await evening.calls[name]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.report.warnings == {}
    assert (call.measures.lost_words, call.measures.repeated_words) == (0, 0), call.measures.agent_text
    assert words_of(heard_from(call))[-len(ADDRESS) :] == ADDRESS
    assert_heard_is_kept(call)


@pytest.mark.parametrize("name", WITH_ONE)
async def test_the_change_of_voices_is_hardly_heard(
    evening: CallPlayer, lateness: Lateness, name: str
) -> None:
    call, well = await evening.calls[name], await evening.calls["well"]
    usual_s = sum(silence_s for _, silence_s in silences(well))
    joins = [
        (at_s, silence_s, late_in(lateness, call, at_s - silence_s - BEFORE_S, at_s))
        for at_s, silence_s in silences(call)
    ]
    print(name, f"{usual_s=:.2f}", [tuple(round(figure, 2) for figure in one) for one in joins])
    limit_s = usual_s + JOIN_S + CASES[name].found_out_s
    assert all(silence_s - late_s <= limit_s for _, silence_s, late_s in joins), joins


def silences(call: WholeCall) -> list[tuple[float, float]]:
    """Return where a voice was waited for and how long nothing was heard, in seconds.

    In front of the first word that no cache holds, and between two voices.
    """
    measures = call.measures
    [turn] = measures.turns
    begins_s = next(start_s for word, start_s, _ in measures.agent_words if word == FIRST_WORD)
    heard_s = max(end_s for _, _, end_s in measures.agent_words if end_s <= begins_s)
    first = begins_s, begins_s - max(heard_s, turn.end_s)
    return [first, *((join.at_s, join.silence_s) for join in measures.joins)]


def late_in(lateness: Lateness, call: WholeCall, from_s: float, to_s: float) -> float:
    """Return how late the machine was in a stretch of a call."""
    assert call.call.times.line_s is not None
    return lateness.in_call_s(call.report, call.call.times.line_s, from_s, to_s)


@pytest.mark.parametrize("name", BUFFERED)
async def test_what_was_buffered_is_heard_until_the_next_voice_speaks(
    evening: CallPlayer, lateness: Lateness, name: str
) -> None:
    call = await evening.calls[name]
    assert len(call.measures.joins) == 1
    for gap in call.measures.gaps:
        late_s = late_in(lateness, call, gap.at_s - BEFORE_S, gap.at_s + gap.length_s)
        assert not gap.inside or gap.length_s <= late_s, (gap, late_s)


@pytest.mark.parametrize("name", WITH_ONE)
async def test_a_failure_is_counted_as_what_it_is(evening: CallPlayer, name: str) -> None:
    await evening.calls[name]
    case = CASES[name]
    counted = await evening.launcher.metrics()
    # A socket that fails a reply which was thought ahead for nothing fails again when it is dialled, and on a machine
    # that holds the stand-in up for long enough it has fallen silent before it closes.
    stages = {case.stage, "connect"}
    kinds = {case.kind, "starving"} if case.stage == "speaking" else {case.kind}
    told = [
        key
        for key in counted
        for stage, kind in itertools.product(stages, kinds)
        if key.endswith(f"agent={name},kind={kind},stage={stage},vendor={case.order[0]}}}")
    ]
    assert told, [key for key in counted if key.startswith("voice_f") and f"agent={name}," in key]


async def test_without_any_voice_the_caller_is_told_and_the_call_ends(evening: CallPlayer) -> None:
    call = await evening.calls["both"]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.agent_text)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.GAVE_UP
    goodbye = words_of(fixed_lines("en-US").trouble_goodbye)
    assert words_of(heard_from(call))[-len(goodbye) :] == goodbye
    assert call.measures.repeated_words == 0
    assert_heard_is_kept(call)


async def test_a_turn_that_is_only_a_tool_is_no_failure_of_a_voice(
    evening: CallPlayer, healths: Healths
) -> None:
    call = await evening.calls["tools"]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.agent_text)
    turns = [turn for turn in call.call.turns.turns() if turn.tools]
    assert [[tool.name for tool in turn.tools] for turn in turns] == [["find_slots"]] * 2
    assert "let me look" not in call.measures.agent_text
    counted = await evening.launcher.metrics()
    assert [key for key in counted if key.startswith("voice_f") and "agent=tools," in key] == []
    states = {health.state(vendor) for health in healths["tools"] for vendor in SHIPPED_VOICE}
    assert states == {BreakerState.CLOSED}
