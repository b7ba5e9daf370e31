"""A recogniser's vendor fails in whole calls on realistic vendors: all at the same time, each judged at both ends."""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from bot import voice_lines
from bot.agent import Agent
from bot.call_life import EndReason
from bot.lines import fixed_lines
from bot.resources import Resources
from bot.services import ServiceContext
from processors.voice_health import ProcessVoiceHealth
from sims.faults import FaultKind, FaultSpec
from sims.scenario import load_scenario
from tests.fakes.heard_calls import heard_from
from tests.fakes.lateness import Lateness, watch_lateness
from tests.fakes.launcher import NOBODY_ELSE, NUMBER, ROOT
from tests.fakes.whole_calls import CallPlayer, WholeCall, open_call_player

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "hearing"
STAGGER_S = 1.5
"""Between two calls: a burst at a launcher that has just started is another test."""


def words_of(text: str) -> list[str]:
    """Return every word, also one that comes twice in a row."""
    return re.findall(r"[a-z']+", text.lower())


SAID = words_of("Hello there, I am new in town and I would like to know what's your address?")
SAID_NEXT = words_of("Thank you, and could you tell me what are your hours on Saturday?")
SILENCE_S = 3.0
LATE_S = 1.0
"""Understanding may be so much later than usual when a connection drops."""
OPTION = {"deepgram": "keyterm", "flux": "keyterm", "assemblyai": "keyterms_prompt"}


@dataclass(frozen=True)
class Case:
    """One call: what its first vendor does, and what is told of it."""

    fault: FaultKind | None
    """None: nothing fails."""
    kind: str = ""
    action: str = "next"
    after_words: int | None = None
    after_s: float = 0.5
    count: int | None = None
    """Connections it hits; None is all."""
    order: tuple[str, str] = ("deepgram", "assemblyai")
    scenario: str = "address"
    fails_both: bool = False


CASES = {
    "well": Case(None),
    "well_other_way": Case(None, order=("assemblyai", "deepgram")),
    "well_turns": Case(None, order=("flux", "assemblyai")),
    "refused": Case(FaultKind.REFUSE, "refused"),
    "unauthorized": Case(FaultKind.UNAUTHORIZED, "unauthorized"),
    "busy": Case(FaultKind.RATE_LIMITED, "rate_limited"),
    "mute": Case(FaultKind.HANG_BEFORE_FIRST_BYTE, "refused"),
    "drops": Case(FaultKind.CLOSE_MID_STREAM, "closed", "again", after_words=9, count=1),
    "drops_late": Case(
        FaultKind.CLOSE_MID_STREAM, "closed", "again", after_words=15, count=1, scenario="two_questions"
    ),
    "drops_twice": Case(FaultKind.CLOSE_MID_STREAM, "closed", after_words=5, count=2),
    "dead": Case(FaultKind.HANG_AFTER_FIRST_BYTE, "late", after_s=0.0),
    "hangs": Case(FaultKind.HANG_AFTER_FIRST_BYTE, "late", after_words=4),
    "trickles": Case(FaultKind.TRICKLE, "late"),
    "garbage": Case(FaultKind.GARBAGE, "garbage", after_words=5, count=1),
    "empty": Case(FaultKind.EMPTY, "silent"),
    "other_way": Case(
        FaultKind.CLOSE_MID_STREAM,
        "closed",
        "again",
        after_words=7,
        count=1,
        order=("assemblyai", "deepgram"),
    ),
    "turns": Case(
        FaultKind.CLOSE_MID_STREAM, "closed", "again", after_words=7, count=1, order=("flux", "assemblyai")
    ),
    "no_turns": Case(FaultKind.REFUSE, "refused", order=("flux", "assemblyai")),
    "both": Case(
        FaultKind.CLOSE_MID_STREAM, "closed", "gave_up", after_words=2, fails_both=True, scenario="nobody"
    ),
}
WITH_ONE = [name for name, case in CASES.items() if not case.fails_both]
LONGEST_FIRST = sorted(CASES, key=lambda name: CASES[name].scenario != "two_questions")
USUAL = {CASES[name].order[0]: name for name in WITH_ONE if CASES[name].fault is None}
"""The call in which nothing fails, by vendor."""
FAILING = [name for name in WITH_ONE if CASES[name].fault is not None]
DROPS = ["drops", "drops_late", "other_way", "turns"]


@dataclass(frozen=True)
class Evening:
    """All calls of this module."""

    player: CallPlayer
    calls: Mapping[str, "asyncio.Task[WholeCall]"]
    lateness: Lateness


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Evening]:
    services_of = Resources.services

    def services(resources: Resources, agent: Agent, rate_hz: int) -> ServiceContext:
        """Keep the calls' faults apart: elsewhere they learn of them from each other."""
        return replace(services_of(resources, agent, rate_hz), recogniser_health=ProcessVoiceHealth())

    folder = tmp_path_factory.mktemp("hearing")
    goodbye = fixed_lines("en-US").trouble_goodbye
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resources, "services", services)
        # Of so many agents no more lines are rendered than are said.
        patch.setattr(voice_lines, "cacheable_lines", lambda config: (config.greeting, goodbye))
        numbers = write_agents(folder / "agents")
        async with (
            watch_lateness() as lateness,
            open_call_player(folder, agents_dir=folder / "agents") as player,
        ):
            arm(player)

            async def one(name: str, after_s: float) -> WholeCall:
                await asyncio.sleep(after_s)
                scenario = load_scenario(SCENARIOS / f"{CASES[name].scenario}.yaml")
                return await player.play(scenario, called=numbers[name])

            calls = {
                name: asyncio.create_task(one(name, number * STAGGER_S))
                for number, name in enumerate(LONGEST_FIRST)
            }
            yield Evening(player, calls, lateness)
            for task in calls.values():
                task.cancel()


def write_agents(folder: Path) -> dict[str, str]:
    """Write the shipped agent once for each case, with a key term by which its connections are known."""
    shipped = ROOT / "flows" / "reception"
    text = (shipped / "agent.yaml").read_text()
    numbers: dict[str, str] = {}
    for index, (name, case) in enumerate(CASES.items()):
        numbers[name] = f"{NUMBER[:-2]}{index + 30}"
        vendors = ", ".join(f"{{name: {vendor}, {OPTION[vendor]}: [{name}]}}" for vendor in case.order)
        agent = text.replace(NUMBER, numbers[name]).replace(
            "stt: [deepgram, assemblyai]", f"stt: [{vendors}]"
        )
        assert vendors in agent
        for old, new in NOBODY_ELSE.items():
            assert old in agent
            agent = agent.replace(old, new)
        shutil.copytree(shipped, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / name / "agent.yaml").write_text(agent)
    return numbers


def arm(player: CallPlayer) -> None:
    """Turn the faults on, each for the connections of its call."""
    world = player.launcher.world
    for name, case in CASES.items():
        if case.fault is None:
            continue
        for vendor in case.order[: 2 if case.fails_both else 1]:
            sim = world.assemblyai if vendor == "assemblyai" else world.deepgram
            sim.faults.arm(
                FaultSpec(
                    kind=case.fault,
                    count=case.count,
                    after_s=case.after_s,
                    after_words=case.after_words,
                    keyterm=name,
                )
            )


@pytest.mark.parametrize("name", WITH_ONE)
async def test_what_was_said_is_understood_each_word_once(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    said = SAID + SAID_NEXT if CASES[name].scenario == "two_questions" else SAID
    assert words_of(" ".join(call.said("user"))) == said
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.report.warnings == {}


@pytest.mark.parametrize("name", DROPS)
async def test_a_drop_while_the_caller_speaks_is_understood_a_second_later_at_most(
    evening: Evening, name: str
) -> None:
    call, usual = await evening.calls[name], await evening.calls[USUAL[CASES[name].order[0]]]
    usual_s = max(to_s - from_s for from_s, to_s in understood(usual))
    waits = understood(call)
    late_s = [evening.lateness.between_s(from_s, to_s) for from_s, to_s in waits]
    print(name, f"{usual_s=:.2f}", [round(to_s - from_s, 2) for from_s, to_s in waits], late_s)
    for (from_s, to_s), late in zip(waits, late_s, strict=True):
        assert to_s - from_s - late <= LATE_S + usual_s


def understood(call: WholeCall) -> list[tuple[float, float]]:
    """Return the last sound and the last final word of each turn, as moments of this loop's clock."""
    began_s = call.call.times.began_s
    found = [
        (began_s + turn.speech_end, began_s + turn.transcript_final)
        for turn in call.call.turns.turns()
        if turn.transcript_final is not None and turn.speech_end is not None
    ]
    assert found
    return found


@pytest.mark.parametrize("name", FAILING)
async def test_a_failure_is_counted_as_what_it_is(evening: Evening, name: str) -> None:
    await evening.calls[name]
    case = CASES[name]
    counted = await evening.player.launcher.metrics()
    told = [
        key
        for key in counted
        if key.startswith(f"recogniser_failures{{action={case.action},agent={name},kind={case.kind},stage=")
        and key.endswith(f"vendor={case.order[0]}}}")
    ]
    assert told, [key for key in counted if key.startswith("recogniser_f") and f"agent={name}," in key]


async def test_when_nobody_hears_the_caller_is_told_and_the_call_ends(evening: Evening) -> None:
    call = await evening.calls["both"]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.agent_text)
    assert call.report.ended_by == "agent"
    assert call.call.end_reason is EndReason.GAVE_UP
    goodbye = words_of(fixed_lines("en-US").trouble_goodbye)
    assert words_of(heard_from(call))[-len(goodbye) :] == goodbye


@pytest.mark.parametrize("name", list(CASES))
async def test_the_caller_is_never_left_in_silence(evening: Evening, name: str) -> None:
    call = await evening.calls[name]
    assert call.call.turns.counts.longest_silence_s <= SILENCE_S + call.report.sim_lateness_s
