"""A key and a base URL for one vendor: its client goes there, the rest stay on sims."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from sims.anthropic import AnthropicSim
from sims.profiles import PROFILES
from tests.fakes.launcher import ROOT
from tests.scheduling import starting

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(100)]

KEY = "sk-ant-of-the-owner"


async def test_a_call_asks_the_vendor_that_has_a_key_and_simulates_the_others(tmp_path: Path) -> None:
    async with AnthropicSim(PROFILES["instant"]) as vendor:
        environment = {
            **os.environ,
            "SIMS": "auto",
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": vendor.base_url,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'books.db'}",
            "RECORDINGS_URL": str(tmp_path / "recordings"),
            "AGENTS_DIR": str(ROOT / "flows"),
            "PYTHONPATH": str(ROOT),
        }
        with starting():
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bot.cli", "call", "--scenario", "hours", "--profile", "instant"),
                cwd=tmp_path,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        try:
            async with asyncio.timeout(90):
                printed, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, printed.decode()
    assert "words lost 0" in printed.decode()
    assert len(vendor.requests) >= 3
    keys = [
        {name.lower(): value for name, value in one.headers.items()}["x-api-key"] for one in vendor.requests
    ]
    assert set(keys) == {KEY}
