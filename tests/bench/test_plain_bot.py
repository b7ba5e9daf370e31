"""The plain bot takes a call: what First Ring is measured against must work."""

import asyncio
import sys
from pathlib import Path

import pytest

from bench.load import SimPhone
from bench.servers import Bot, running
from bot.settings import Vendor, VendorSource
from bot.sim_process import SimProcess, sim_environment

pytestmark = pytest.mark.real_time


@pytest.mark.timeout(60)
async def test_a_call_to_the_plain_bot_goes_well(tmp_path: Path) -> None:
    import aiohttp

    sims = await asyncio.to_thread(SimProcess.start, profile="instant", seed=1, command=_sims(tmp_path))
    with sims:
        vendors = sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), sims.environment)
        starting = running(Bot.PLAIN, vendors=vendors, folder=tmp_path / "plain", core=None, max_calls=2)
        with starting as server:
            async with aiohttp.ClientSession(sims.environment["TWILIO_BASE_URL"]) as session:
                report = await SimPhone(session).call("hours", server.voice_url, seed=1)
            used = await asyncio.to_thread(server.read)
    assert report.outcome == "ok", report.reasons
    assert report.greeting_s is not None
    assert sum(turn.answer_s is not None for turn in report.turns) >= 2
    assert used.cpu_s > 0
    assert used.memory.private_mb > 50
    assert sum(used.lag.values()) > 0


def _sims(folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "sims", "serve", "--cache-dir", str(folder / "speech"))
