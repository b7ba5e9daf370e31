"""The plain bot takes a call: what First Ring is measured against must work."""

import asyncio
from pathlib import Path

import pytest

from bench.servers import Bot, Server, running
from bot.settings import Vendor, VendorSource
from bot.sim_process import sim_environment
from sims.profiles import PROFILES
from sims.scenario import Scenario
from sims.world import SimWorld
from tests.scheduling import starting

pytestmark = pytest.mark.real_time

QUESTION = Scenario.model_validate(
    {
        "name": "question",
        "ended_by": "caller",
        "min_turns": 1,
        "steps": [
            {"expect": {"agent": "finishes", "within_s": 15}},
            {"say": "What are your hours on Saturday?"},
            {"expect": {"agent": "finishes", "within_s": 15, "text_contains": "saturday|nine|one"}},
            {"hang_up": True},
        ],
    }
)


@pytest.mark.timeout(60)
async def test_a_question_is_answered(tmp_path: Path) -> None:
    async with SimWorld(profile=PROFILES["instant"], seed=1) as world:
        vendors = sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), world.env())
        server = running(Bot.PLAIN, vendors=vendors, folder=tmp_path / "plain", core=None, max_calls=2)

        def start() -> Server:
            with starting():
                return server.__enter__()

        plain = await asyncio.to_thread(start)
        try:
            report = await world.twilio.place_call(QUESTION, voice_url=plain.voice_url)
            used = await asyncio.to_thread(plain.read)
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)
    assert report.outcome == "ok", report.reasons
    assert report.measures is not None
    assert report.measures.greeting_s is not None
    assert used.cpu_s > 0
    assert used.memory.private_mb > 50
    assert sum(used.lag.values()) > 0
