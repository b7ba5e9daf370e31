"""Models that fail in whole calls on realistic vendors: what the caller hears of it."""

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from bot.call_life import EndReason
from bot.lines import fixed_lines
from sims.faults import FaultKind, FaultSpec
from sims.scenario import Scenario, load_scenario
from tests.fakes.launcher import NOBODY_ELSE, NUMBER
from tests.fakes.whole_calls import STAGGER_S, CallPlayer, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios"
MODELS = {
    "overloaded": ("+18506872091", "[anthropic]"),
    "hangs": ("+18506872092", "[groq, openai]"),
    "breaks_off": ("+18506872093", "[fireworks, openai]"),
    "quick_booking": ("+18506872094", "[openai]"),
}
"""Call to the number of its agent and the models that this agent has."""
APOLOGY_LIMIT_S = 6.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def evening(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[CallPlayer]:
    folder = tmp_path_factory.mktemp("failover")
    for slug, (number, models) in MODELS.items():
        changes = {NUMBER: number, "llm: [anthropic]": f"llm: {models}", **NOBODY_ELSE}
        write_shipped_agent(folder / "agents", slug, changes)
    async with open_call_player(folder, agents_dir=folder / "agents") as player:
        world = player.launcher.world
        world.anthropic.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED))
        world.groq.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
        world.fireworks.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_s=0.1))
        for place, (name, (number, _)) in enumerate(MODELS.items()):
            player.begin(name, scenario_of(name), called=number, after_s=place * STAGGER_S)
        yield player


def scenario_of(name: str) -> Scenario:
    """Return what a caller does, who has a number of their own."""
    folder = SCENARIOS if name == "quick_booking" else SCENARIOS / "failover"
    caller = f"+155501000{MODELS[name][0][-2:]}"
    return load_scenario(folder / f"{name}.yaml").model_copy(update={"caller": caller})


@pytest.mark.parametrize("name", list(MODELS))
async def test_every_caller_is_told_something_and_the_call_ends_well(evening: CallPlayer, name: str) -> None:
    call = await evening.calls[name]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.report.warnings == {}


async def test_three_refusals_are_an_apology_in_time_and_the_end_of_the_call(evening: CallPlayer) -> None:
    call = await evening.calls["overloaded"]
    [turn] = call.measures.turns
    assert turn.answer_s is not None
    assert turn.answer_s < APOLOGY_LIMIT_S
    said = re.sub(r"[^a-z ]", "", fixed_lines("en-US").trouble_goodbye.lower())
    assert re.sub(r"[^a-z ]", "", call.measures.agent_text.lower()).endswith(said)
    assert call.call.end_reason is EndReason.GAVE_UP
    asked = [request.body["model"] for request in evening.launcher.world.anthropic.requests]
    assert asked == ["claude-haiku-4-5", "claude-haiku-4-5", "claude-sonnet-4-6"]


@pytest.mark.parametrize("name", ["hangs", "breaks_off"])
async def test_the_next_model_answers_and_every_word_is_heard_once(evening: CallPlayer, name: str) -> None:
    call = await evening.calls[name]
    heard = call.measures.agent_text.lower()
    assert heard.count("harrison avenue") == 1, heard
    assert heard.count("across from the library") == 1
    assert (call.measures.lost_words, call.measures.repeated_words) == (0, 0)
    assert all(turn.answer_s is not None and turn.answer_s < 4.0 for turn in call.measures.turns)
    assert call.call.end_reason is EndReason.AGENT_ENDED
    # The model's memory has each answer once, and nothing of how it came about.
    answers = [said for said in call.said("assistant") if "Harrison" in said]
    assert len(answers) == 1
    assert not any("<note>" in said for role in ("user", "developer") for said in call.said(role))


async def test_a_booking_works_over_chat_completions(evening: CallPlayer) -> None:
    call = await evening.calls["quick_booking"]
    assert re.search(r"booked for \w+day, \w+ \d+\w\w at", call.measures.agent_text)
    assert call.call.end_reason is EndReason.AGENT_ENDED


async def test_what_failed_and_what_it_cost_is_counted(evening: CallPlayer) -> None:
    await asyncio.gather(*evening.calls.values())
    counted = await evening.launcher.metrics()
    first_token = "stage=first_token,vendor=anthropic"
    assert counted[f"llm_failures{{kind=overloaded,response=retry,{first_token}}}"] == 1
    assert counted[f"llm_failures{{kind=overloaded,response=next,{first_token}}}"] == 1
    assert counted[f"llm_failures{{kind=overloaded,response=give_up,{first_token}}}"] == 1
    assert counted["llm_failures{kind=closed,response=next,stage=answer,vendor=fireworks}"] >= 1
    assert counted["llm_hedges{vendor=groq}"] >= 1
    assert counted["llm_wasted_tokens{kind=input,model=openai/gpt-oss-120b,vendor=groq}"] > 0
    assert counted["llm_tokens{kind=output,model=gpt-4.1-mini,vendor=openai}"] > 0
