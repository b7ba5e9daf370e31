from pathlib import Path
from typing import Any

import pytest

from bot import warm as warm_module
from bot.agent import Agent
from bot.services import ServiceContext
from bot.settings import Settings
from bot.warm import warm_now
from processors.audio_cache import AudioCache

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize(("failed", "code"), [(0, 0), (2, 1)])
async def test_every_agent_is_rendered_for_phones_and_browsers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: int, code: int
) -> None:
    rendered: list[tuple[str, int]] = []

    async def fake(agent: Agent, services: ServiceContext, cache: AudioCache, *, more: object = ()) -> int:
        rendered.append((agent.slug, services.audio_out_hz))
        return failed

    measured: list[tuple[str, int]] = []

    async def measure(agent: Agent, services: ServiceContext, cache: AudioCache) -> None:
        measured.append((agent.slug, services.audio_out_hz))
        raise RuntimeError("no standby today")

    monkeypatch.setattr(warm_module, "warm", fake)
    monkeypatch.setattr(warm_module, "measure_voices", measure)
    options: dict[str, Any] = {"_env_file": None, "database_url": f"sqlite:///{tmp_path}/a.db"}
    for vendor in ("deepgram", "anthropic", "elevenlabs", "cartesia"):
        options[vendor] = {"api_key": "key"}
    settings = Settings(**options)
    assert await warm_now(settings) == code
    assert rendered == [("reception", 8000), ("reception", 16000)]
    assert sorted(measured) == sorted(rendered)
