"""Deepgram's voice in whole calls on realistic vendors: it speaks, it fails, it stands in.

It tells no words. Where one of its words is, is an estimate: when it fails in mid-sentence a word beside the cut may be
heard twice, or not at all.
"""

import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from bench.special_calls import words_of
from bot import voice_lines
from bot.agent import Agent
from bot.lines import fixed_lines
from bot.resources import Resources
from bot.services import ServiceContext
from processors.loudness import LoudnessBook
from processors.voice_health import ProcessVoiceHealth
from sims.faults import FaultKind, FaultSpec
from sims.scenario import load_scenario
from tests.fakes.heard_calls import assert_heard_is_kept, heard_from
from tests.fakes.launcher import NOBODY_ELSE, NUMBER
from tests.fakes.whole_calls import STAGGER_S, CallPlayer, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios" / "voices"
ADDRESS = words_of(
    "We're at 412 Harrison Avenue in Panama City, across from the library. Is there anything else?"
)
ELEVENLABS = "21m00Tcm4TlvDq8ikWAM"


@dataclass(frozen=True)
class Case:
    """One call: what its first vendor does, and what is told of it."""

    fault: FaultKind | None
    kind: str = ""
    order: tuple[str, str] = ("deepgram", "cartesia")
    after_s: float = 0.5
    words_at_cut: int = 0
    """Words that may be lost or repeated."""


CASES = {
    "well": Case(None),
    "refused": Case(FaultKind.REFUSE, "refused"),
    "busy": Case(FaultKind.RATE_LIMITED, "rate_limited"),
    "mute": Case(FaultKind.HANG_BEFORE_FIRST_BYTE, "late"),
    "empty": Case(FaultKind.EMPTY, "silent"),
    "closes": Case(FaultKind.CLOSE_MID_STREAM, "closed", after_s=1.3, words_at_cut=1),
    "hangs": Case(FaultKind.HANG_AFTER_FIRST_BYTE, "starving", after_s=1.3, words_at_cut=1),
    "stands_in": Case(FaultKind.CLOSE_MID_STREAM, "closed", order=("elevenlabs", "deepgram"), after_s=1.3),
}
books: dict[str, LoudnessBook] = {}
"""How loud the voices of each case are."""
FAILING = [name for name, case in CASES.items() if case.fault is not None]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[CallPlayer]:
    services_of = Resources.services

    def services(resources: Resources, agent: Agent, rate_hz: int) -> ServiceContext:
        """Keep the calls' faults apart: elsewhere they learn of them from each other."""
        context = services_of(resources, agent, rate_hz)
        books[agent.slug] = context.loudness
        return replace(context, voice_health=ProcessVoiceHealth())

    folder = tmp_path_factory.mktemp("aura")
    lines = ("Sure.", "Okay.", "Thanks.", "Great.", fixed_lines("en-US").trouble_goodbye)
    for name in CASES:
        write_agent(folder / "agents", name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resources, "services", services)
        # Of so many agents no more lines are rendered than are said.
        patch.setattr(voice_lines, "cacheable_lines", lambda config: (config.greeting, *lines))
        async with open_call_player(folder, agents_dir=folder / "agents") as player:
            world = player.launcher.world
            for name, case in CASES.items():
                sim = world.aura if case.order[0] == "deepgram" else world.elevenlabs
                if case.fault is not None:
                    sim.faults.arm(FaultSpec(kind=case.fault, after_s=case.after_s, voice=voice_of(name)))
            scenario = load_scenario(SCENARIOS / "address.yaml")
            for place, name in enumerate(CASES):
                player.begin(name, scenario, called=number_of(name), after_s=place * STAGGER_S)
            yield player


def write_agent(folder: Path, name: str) -> None:
    """Write the shipped agent for one case, its first voice with a name of its own."""
    first, second = CASES[name].order
    changes = {NUMBER: number_of(name), "[elevenlabs, cartesia]": f"[{first}, {second}]", **NOBODY_ELSE}
    if first == "deepgram":
        changes["voices:"] = f"voices:\n  deepgram: {voice_of(name)}"
    else:
        changes["voices:"] = "voices:\n  deepgram: aura-2-thalia-en"
        changes[ELEVENLABS] = voice_of(name)
    write_shipped_agent(folder, name, changes)


def number_of(name: str) -> str:
    return f"{NUMBER[:-2]}{list(CASES).index(name) + 30}"


def voice_of(name: str) -> str:
    return f"aura-2-thalia-en-{name.replace('_', '-')}"


@pytest.mark.parametrize("name", list(CASES))
async def test_each_word_is_heard_but_for_one_beside_a_cut(evening: CallPlayer, name: str) -> None:
    call = await evening.calls[name]
    case, measures = CASES[name], call.measures
    assert call.report.outcome == "ok", (call.report.reasons, measures.turns)
    assert call.report.warnings == {}
    assert measures.lost_words + measures.repeated_words <= case.words_at_cut, measures.agent_text
    heard = words_of(heard_from(call))
    if not case.words_at_cut:
        assert heard[-len(ADDRESS) :] == ADDRESS
        assert_heard_is_kept(call)
    else:
        assert heard[-3:] == ADDRESS[-3:]
        assert set(ADDRESS) - set(heard) == set() or measures.lost_words


@pytest.mark.parametrize("name", FAILING)
async def test_a_failure_is_counted_as_what_it_is(evening: CallPlayer, name: str) -> None:
    await evening.calls[name]
    case = CASES[name]
    counted = await evening.launcher.metrics()
    # On a machine that holds the stand-in up for long enough it has fallen silent before it closes.
    kinds = {case.kind, "starving"} if case.kind == "closed" else {case.kind}
    assert [
        key
        for key in counted
        for kind in kinds
        if f"agent={name},kind={kind}," in key and key.endswith(f"vendor={case.order[0]}}}")
    ], [key for key in counted if key.startswith("voice_f") and f"agent={name}," in key]


async def test_what_it_spoke_is_counted_and_few_flushes_were_needed(evening: CallPlayer) -> None:
    call = await evening.calls["well"]
    counted = await evening.launcher.metrics()
    assert counted["tts_characters{vendor=deepgram}"] > 0
    assert evening.launcher.world.aura.stats["flushes_refused"] == 0
    [turn] = call.measures.turns
    assert turn.answer_s is not None
    assert turn.answer_s < 3.0


async def test_a_voice_that_stands_in_is_as_loud_as_the_first(evening: CallPlayer) -> None:
    await evening.calls["stands_in"]
    book = books["stands_in"]
    first, second = (
        next(sound for sound in book._levels if sound.startswith(begin))
        for begin in (f"elevenlabs/{voice_of('stands_in')}/", "deepgram/aura-2-thalia-en/")
    )
    levels = book.level_db(first), book.level_db(second)
    assert levels[0] is not None
    assert levels[1] is not None
    gain_db = 20 * math.log10(book.gain(second, first))
    assert abs(levels[1] + gain_db - levels[0]) < 1.0
