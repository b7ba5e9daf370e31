"""Failures that production agents are known for, each a whole call named after it; all at the same time.

The numbers are those of `docs/failures.md`, which names the tests of every failure.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from loguru import logger

from bench.special_calls import words_of
from bot import voice_lines
from bot.agent import Agent, AgentConfig
from bot.call_life import EndReason
from bot.handoff_lines import handoff_lines, own_lines
from bot.lines import fixed_lines
from bot.resources import Resources
from bot.services import ServiceContext
from processors.voice_health import ProcessVoiceHealth
from sims.carrier import Human, PersonLeg
from sims.faults import FaultKind, FaultSpec
from sims.mulaw import RATE_HZ
from sims.scenario import load_scenario
from store.events import EventKind, failure_line
from tests.fakes.heard_calls import heard_from
from tests.fakes.launcher import NUMBER, Launcher, eventually
from tests.fakes.whole_calls import CallPlayer, WholeCall, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios"
STAGGER_S = 1.0
SILENCE_S = 3.0
SLACK_S = 0.3
"""Of a busy machine."""
LINES, HANDOFF = fixed_lines("en-US"), handoff_lines("en-US")
ADDRESS = words_of(
    "We're at 412 Harrison Avenue in Panama City, across from the library. Is there anything else?"
)
SHIPPED_VOICES = {"elevenlabs": "21m00Tcm4TlvDq8ikWAM", "cartesia": "71a7ad14-091c-4e8e-a314-022ece01c121"}
KEYTERM = {"deepgram": "keyterm", "assemblyai": "keyterms_prompt"}


@dataclass(frozen=True)
class Case:
    """One caller: what fails, and who there is for them."""

    scenario: str
    mute: tuple[str, ...] = ()
    """Voices that take text and say nothing."""
    deaf: tuple[str, ...] = ()
    """Recognisers that break off, again and again."""
    models: str = "openai"
    humans: tuple[Human, ...] = (Human.ANSWERS,)
    carrier: FaultKind | None = None
    """What the carrier's REST does with every request about this call."""


CASES = {
    "noise": Case("failures/noise"),
    "deaf": Case("failures/leaves", deaf=("deepgram", "assemblyai"), humans=(Human.NO_ANSWER,)),
    "deaf_and_closed": Case("failures/leaves", deaf=("deepgram", "assemblyai"), humans=()),
    "no_voice": Case("failures/asks", mute=("elevenlabs", "cartesia")),
    "refused": Case("handoff/talks", carrier=FaultKind.SERVER_ERROR),
    "hangs": Case("handoff/leaves_voicemail", humans=(), carrier=FaultKind.HANG_BEFORE_FIRST_BYTE),
    "mute": Case("failures/answered", mute=("elevenlabs",)),
    "stalls": Case("failures/answered", models="anthropic, openai"),
}
"""The longest first."""
BROKEN = ["no_voice", "deaf", "deaf_and_closed"]
CARRIER = ["refused", "hangs"]


@pytest.fixture(scope="module")
def log() -> Generator[list[str]]:
    """Failures as they are logged while the calls are played."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{message}", level="WARNING")
    yield lines
    logger.remove(sink)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory, log: list[str]) -> AsyncGenerator[CallPlayer]:
    services_of = Resources.services

    def services(resources: Resources, agent: Agent, rate_hz: int) -> ServiceContext:
        """Keep the calls' faults apart: elsewhere they learn of them from each other."""
        own = {"voice_health": ProcessVoiceHealth(), "recogniser_health": ProcessVoiceHealth()}
        return replace(services_of(resources, agent, rate_hz), **own)

    def lines(config: AgentConfig) -> Collection[str]:
        """Of so many agents no more lines are rendered than are said."""
        said = (*LINES.still_there, LINES.no_person_goodbye, LINES.trouble_goodbye)
        return (
            config.greeting,
            *own_lines("en-US"),
            *said,
            "Sure.",
            "Okay.",
            "Thanks.",
            "Great.",
            "Of course.",
        )

    folder = tmp_path_factory.mktemp("failures")
    for name in CASES:
        write_agent(folder / "agents", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resources, "services", services)
        patch.setattr(voice_lines, "cacheable_lines", lines)
        async with open_call_player(folder, agents_dir=folder / "agents") as player:
            arm(player.launcher)
            for place, (name, case) in enumerate(CASES.items()):
                script = load_scenario(SCENARIOS / f"{case.scenario}.yaml")
                script = script.model_copy(update={"caller": caller_of(name)})
                player.begin(name, script, called=number_of(name), after_s=place * STAGGER_S)
            yield player


def number_of(name: str) -> str:
    return f"{NUMBER[:-2]}{[*CASES].index(name) + 50}"


def caller_of(name: str) -> str:
    return f"+155501003{[*CASES].index(name):02d}"


def person(name: str, human: int) -> str:
    return f"+1555124{[*CASES].index(name):02d}{human:02d}"


def write_agent(folder: Path, name: str) -> None:
    """Write the shipped agent for one case, with people, voices and key terms of its own."""
    case = CASES[name]
    another_day = (datetime.now(UTC) + timedelta(days=3)).strftime("%a").lower()
    hours = "{mon-sun: '00:00-24:00'}" if case.humans else f"{{{another_day}: '08:00-18:00'}}"
    humans = [person(name, human) for human in range(max(1, len(case.humans)))]
    recognisers = ", ".join(f"{{name: {vendor}, {KEYTERM[vendor]}: [{name}]}}" for vendor in KEYTERM)
    changes = {
        NUMBER: number_of(name),
        '{mon-fri: "08:00-18:00", sat: "09:00-13:00"}': hours,
        'humans: ["+15551230000"]': f"ring_s: 5, humans: {humans}",
        "llm: [anthropic]": f"llm: [{case.models}]",
        "stt: [deepgram, assemblyai]": f"stt: [{recognisers}]",
    }
    changes |= {SHIPPED_VOICES[vendor]: f"{vendor}-{name}" for vendor in case.mute}
    write_shipped_agent(folder, name, changes)


def arm(launcher: Launcher) -> None:
    """Turn the faults on, each for its own call."""
    world = launcher.world
    recognisers = {"deepgram": world.deepgram, "assemblyai": world.assemblyai}
    voices = {"elevenlabs": world.elevenlabs, "cartesia": world.cartesia}
    world.anthropic.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, after_s=0.1))
    for name, case in CASES.items():
        world.twilio.humans |= {person(name, place): human for place, human in enumerate(case.humans)}
        for vendor in case.mute:
            voices[vendor].faults.arm(FaultSpec(kind=FaultKind.EMPTY, voice=f"{vendor}-{name}"))
        for vendor in case.deaf:
            spec = FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_words=2, keyterm=name)
            recognisers[vendor].faults.arm(spec)
        if case.carrier is not None:
            world.twilio.faults.arm(FaultSpec(kind=case.carrier, caller=caller_of(name)))


def legs_of(evening: CallPlayer, call: WholeCall) -> list[PersonLeg]:
    return [leg for leg in evening.launcher.world.twilio.legs if leg.parent_sid == call.report.call_sid]


def waits_s(evening: CallPlayer, call: WholeCall) -> list[float]:
    """Return for how long the caller waited and heard nothing, each time; a telephone that rings is heard."""
    rings = [leg.rang_at / RATE_HZ for leg in legs_of(evening, call)]
    measures = call.measures
    sounds = [(start_s, end_s, True) for start_s, end_s in measures.agent_audible_s]
    sounds += [(turn.start_s, turn.end_s, False) for turn in measures.turns]
    sounds += [(at_s, at_s, True) for at_s in rings]
    waits: list[float] = []
    heard_until_s = measures.turns[0].end_s
    for start_s, end_s, is_for_caller in sorted(sounds):
        is_ringing = any(at_s == heard_until_s for at_s in rings)
        if is_for_caller and start_s > heard_until_s and not is_ringing:
            waits.append(start_s - heard_until_s)
        heard_until_s = max(heard_until_s, end_s)
    return waits


def assert_never_in_silence(evening: CallPlayer, call: WholeCall) -> None:
    longest_s = max(waits_s(evening, call))
    assert longest_s <= SILENCE_S + SLACK_S + call.report.sim_lateness_s, (
        longest_s,
        call.measures.agent_text,
    )


async def test_failure_1_the_voice_goes_mute_and_the_call_goes_on(evening: CallPlayer) -> None:
    call = await evening.calls["mute"]
    assert call.report.outcome == "ok", call.report.reasons
    assert " ".join(words_of(heard_from(call))).count(" ".join(ADDRESS)) == 1
    assert (call.measures.lost_words, call.measures.repeated_words) == (0, 0), call.measures.agent_text
    assert_never_in_silence(evening, call)


async def test_failure_2_the_model_stalls_in_the_middle_of_an_answer(evening: CallPlayer) -> None:
    call = await evening.calls["stalls"]
    assert call.report.outcome == "ok", call.report.reasons
    assert " ".join(words_of(call.measures.agent_text)).count(" ".join(ADDRESS)) == 1
    assert (call.measures.lost_words, call.measures.repeated_words) == (0, 0), call.measures.agent_text
    assert_never_in_silence(evening, call)


async def test_failure_3_a_line_that_hums_ends_with_a_goodbye_that_is_heard_whole(
    evening: CallPlayer,
) -> None:
    call = await evening.calls["noise"]
    assert call.report.ended_by == "agent", call.report.reasons
    goodbyes = {  # whichever is noticed first
        EndReason.NO_SPEECH: call.call.setup.events.lines()[0],
        EndReason.NO_PERSON: LINES.no_person_goodbye,
    }
    reason = call.call.end_reason
    assert reason in goodbyes
    assert reason is not None
    heard, goodbye = words_of(call.measures.agent_text), words_of(goodbyes[reason])
    assert heard[-len(goodbye) :] == goodbye


@pytest.mark.parametrize("name", [*BROKEN, *CARRIER])
async def test_failure_6_a_caller_whom_the_agent_cannot_serve_reaches_somebody(
    evening: CallPlayer, name: str
) -> None:
    call = await evening.calls[name]
    assert call.report.outcome == "ok", (
        call.report.reasons,
        call.report.carrier_said,
        call.measures.agent_text,
    )
    assert call.call.end_reason is EndReason.HANDED_OFF
    legs = legs_of(evening, call)
    if Human.ANSWERS in CASES[name].humans:
        assert [leg.is_bridged for leg in legs] == [True]
    else:
        assert [leg.is_bridged for leg in legs] == [False] * len(CASES[name].humans)
        said = " ".join(call.report.carrier_said)
        assert said.count("We will call you back by") == 2, said


@pytest.mark.parametrize("name", [*BROKEN, *CARRIER])
async def test_failure_6_and_is_never_in_silence_on_the_way(evening: CallPlayer, name: str) -> None:
    call = await evening.calls[name]
    assert_never_in_silence(evening, call)


@pytest.mark.parametrize("name", CARRIER)
async def test_failure_6_a_carrier_that_does_not_take_a_transfer_is_asked_no_more(
    evening: CallPlayer, name: str
) -> None:
    await evening.calls[name]
    counted = await evening.launcher.metrics()
    assert counted[f"handoff_faults{{agent={name},kind=carrier}}"] == 1


async def test_each_failure_is_one_line_of_the_log_and_one_row_of_the_event_log(
    evening: CallPlayer, log: list[str]
) -> None:
    calls = await asyncio.gather(*evening.calls.values())
    events = evening.launcher.board._resources.stores.events
    rows = [row for call in calls for row in await events.of_call(call.report.call_sid)]
    failures = [row for row in rows if row.kind == EventKind.FAILURE]
    assert {row.fields["layer"] for row in failures} >= {"stt", "llm", "tts", "handoff"}
    assert all({"vendor", "kind", "stage", "action", "cost_ms"} <= row.fields.keys() for row in failures)
    logged = [line.removeprefix("failure: ") for line in log if line.startswith("failure: call=CA")]
    assert sorted(logged) == sorted(failure_line(row) for row in failures)


async def test_failure_9_nothing_is_left_of_any_of_them(evening: CallPlayer) -> None:
    await asyncio.gather(*evening.calls.values())
    board = evening.launcher.board
    await eventually(lambda: all(call.ended.is_set() for call in board.calls()))
    await eventually(
        lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("hand_off")]
    )
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in names if name in ("pipeline", "watch", "keeper", "hang_up", "goodbye")], (
        names
    )
