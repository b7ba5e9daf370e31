"""The two tiers of the shipped agent in whole calls on realistic vendors: which model was asked in which turn."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bot.call import EndReason
from sims.faults import FaultKind, FaultSpec
from sims.scenario import load_scenario
from tests.fakes.launcher import NOBODY_ELSE, NUMBER
from tests.fakes.whole_calls import STAGGER_S, CallPlayer, open_call_player, write_shipped_agent

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.timeout(110),
    pytest.mark.asyncio(loop_scope="module"),
]

SCENARIOS = Path(__file__).parent / "scenarios"
LIGHT, STRONG = "claude-haiku-4-5", "claude-sonnet-4-6"
CALLER = "+15550100095"
STRONG_IS_DOWN = "+18506872095"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def morning(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[CallPlayer]:
    folder = tmp_path_factory.mktemp("tiers")
    write_shipped_agent(folder / "agents", "reception", NOBODY_ELSE)
    chat = {
        NUMBER: STRONG_IS_DOWN,
        "llm: [anthropic]": "llm: [openai]",
        "models:": "models:\n  openai: {light: gpt-4.1-mini, strong: [gpt-4.1, gpt-5.2]}",
        **NOBODY_ELSE,
    }
    write_shipped_agent(folder / "agents", "chat", chat)
    async with open_call_player(folder, agents_dir=folder / "agents") as player:
        booking = load_scenario(SCENARIOS / "quick_booking.yaml").model_copy(update={"caller": CALLER})
        player.begin("booking", booking)
        player.begin(
            "strong is down",
            booking.model_copy(update={"caller": f"{CALLER[:-1]}6"}),
            called=STRONG_IS_DOWN,
            after_s=STAGGER_S,
        )
        player.begin(
            "poor line", load_scenario(SCENARIOS / "tiers" / "poor_line.yaml"), after_s=2 * STAGGER_S
        )
        player.launcher.world.openai.faults.arm(FaultSpec(kind=FaultKind.SERVER_ERROR, model="gpt-4.1"))
        yield player


def turns(player: CallPlayer, vendor: str, about: str) -> list[tuple[str, str]]:
    """Return the requests of the call that is about this: each one's model, and the caller's last words."""
    requests = getattr(player.launcher.world, vendor).requests
    bodies = [request.body for request in requests if about in str(request.body["messages"])]
    return [(str(body["model"]), _last_words(body)) for body in bodies]


def _last_words(body: Mapping[str, Any]) -> str:
    for message in reversed(body["messages"]):
        if message["role"] != "user":
            continue
        blocks = message["content"] if isinstance(message["content"], list) else [message["content"]]
        texts = [block.get("text", "") if isinstance(block, dict) else block for block in blocks]
        said = [text for text in texts if text and not re.match(r"[<{(]", text)]
        if said:
            return str(said[-1])
    return ""


async def test_an_appointment_is_taken_by_the_strong_model_and_the_rest_by_the_light_one(
    morning: CallPlayer,
) -> None:
    call = await morning.calls["booking"]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert call.call.end_reason is EndReason.AGENT_ENDED
    asked = turns(morning, "anthropic", "book a cleaning")
    models = [model for model, _ in asked]
    begins, ends = models.index(STRONG), len(models) - models[::-1].index(STRONG)
    # One change to the strong model and one back, and within a turn none.
    assert set(models[:begins]) == {LIGHT} == set(models[ends:]), asked
    assert set(models[begins:ends]) == {STRONG}, asked
    assert {words for model, words in asked if model == LIGHT} == {
        "Hi, I'd like to book a cleaning on Wednesday.",
        "No, goodbye.",
    }
    assert "Yes, that's right." in [words for _, words in asked[begins:ends]]


async def test_each_model_keeps_a_prompt_cache_of_its_own(morning: CallPlayer) -> None:
    await asyncio.gather(*morning.calls.values())
    counted = await morning.launcher.metrics()
    for model in (LIGHT, STRONG):
        written, read = (
            counted[f"llm_tokens{{kind=cache_{what},model={model},vendor=anthropic}}"]
            for what in ("write", "read")
        )
        assert read > written > 0


async def test_a_turn_behind_a_repair_and_one_with_doubt_are_the_strong_models(morning: CallPlayer) -> None:
    call = await morning.calls["poor line"]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    asked = turns(morning, "anthropic", "hours on Saturday")
    assert list(dict.fromkeys(asked)) == [
        (STRONG, "What are your hours on Saturday?"),
        (STRONG, "And what is your address, please?"),
        (LIGHT, "And can I park there?"),
        (LIGHT, "Thank you, goodbye."),
    ]


async def test_a_strong_model_that_is_down_is_stood_in_for_by_the_next_of_its_tier(
    morning: CallPlayer,
) -> None:
    call = await morning.calls["strong is down"]
    assert call.report.outcome == "ok", (call.report.reasons, call.measures.turns)
    assert (call.measures.lost_words, call.measures.repeated_words) == (0, 0)
    models = [model for model, _ in turns(morning, "openai", "book a cleaning")]
    assert models[0] == models[-1] == "gpt-4.1-mini"
    taken = models[models.index("gpt-4.1") : len(models) - models[::-1].index("gpt-5.2")]
    assert set(taken) == {"gpt-4.1", "gpt-5.2"}


async def test_who_was_asked_and_why_is_counted(morning: CallPlayer) -> None:
    await asyncio.gather(*morning.calls.values())
    counted = await morning.launcher.metrics()

    def requests(model: str, reason: str, tier: str, vendor: str = "anthropic") -> float:
        return counted[f"llm_requests{{model={model},reason={reason},tier={tier},vendor={vendor}}}"]

    assert requests(LIGHT, "routine", "light") >= 3
    assert requests(LIGHT, "tool", "light") >= 1
    assert requests(STRONG, "tool", "strong") >= 4
    assert requests(STRONG, "repair", "strong") >= 1
    assert requests(STRONG, "doubt", "strong") >= 1
    assert requests("gpt-5.2", "tool", "strong", "openai") >= 3
