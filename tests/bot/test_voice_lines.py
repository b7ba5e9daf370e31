import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from bot import voice_lines
from bot.agent import Agent, read_agent
from bot.lines import cacheable_lines
from bot.services import ServiceContext
from bot.settings import Settings
from bot.vendor_clients import VendorClients
from bot.voice_lines import LineRenderer, cached_line, line_in_memory, render, speech_key, warm
from processors.audio_cache import AudioCache, CachedSpeech
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer

pytestmark = pytest.mark.real_time
RATE = 8000


class Studio:
    """An agent whose voice is a sim, and a cache on disk."""

    def __init__(self, sim: ElevenLabsSim, clients: VendorClients, folder: Path) -> None:
        self.sim = sim
        self.folder = folder
        self.agent: Agent = read_agent(Path("flows/reception"))
        self.cache = AudioCache(folder)
        self.services = ServiceContext(
            clients=clients,
            audio_in_hz=RATE,
            audio_out_hz=RATE,
            language=self.agent.config.language,
            voices=self.agent.config.voices,
        )


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncGenerator[Studio]:
    synthesizer = SpeechSynthesizer()
    async with ElevenLabsSim(PROFILES["instant"], synthesizer=synthesizer) as sim:
        options: dict[str, Any] = {
            "_env_file": None,
            "elevenlabs": {"api_key": "key", "base_url": sim.base_url},
        }
        for vendor in ("deepgram", "anthropic", "cartesia"):
            options[vendor] = {"api_key": "key"}
        async with VendorClients(Settings(**options)) as clients:
            made = Studio(sim, clients, tmp_path)
            yield made
            made.cache.close()
    synthesizer.close()


async def test_a_rendered_line_is_what_the_voice_says_with_its_words_in_place(studio: Studio) -> None:
    speech = await render(studio.agent, "Good morning, how can I help?", studio.services)
    assert speech is not None
    assert [word.text for word in speech.words] == ["Good", "morning,", "how", "can", "I", "help?"]
    starts = [word.start_s for word in speech.words]
    assert starts == sorted(starts)
    assert 0.0 <= starts[0] < 0.2
    assert 0.8 < speech.duration_s < 4.0
    assert speech.words[-1].end_s == pytest.approx(speech.duration_s)


async def test_a_voice_that_says_nothing_renders_nothing(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_lines, "RENDER_LIMIT_S", 1.0)
    studio.sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
    assert await render(studio.agent, "Hello.", studio.services) is None


async def test_warming_renders_what_is_missing_and_only_that(studio: Studio) -> None:
    assert await warm(studio.agent, studio.services, studio.cache) == 0
    said = studio.sim.stats.copy()
    for text in cacheable_lines(studio.agent.config):
        assert await cached_line(studio.cache, studio.agent, text, RATE) is not None
    assert await warm(studio.agent, studio.services, studio.cache) == 0
    assert studio.sim.stats == said


async def test_warming_renders_a_flows_lines_too(studio: Studio) -> None:
    assert await warm(studio.agent, studio.services, studio.cache, more=["Nobody there? Goodbye."]) == 0
    assert await cached_line(studio.cache, studio.agent, "Nobody there? Goodbye.", RATE) is not None


async def test_warming_gives_up_on_a_voice_that_is_down(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_lines, "RENDER_LIMIT_S", 1.0)
    monkeypatch.setattr(voice_lines, "MAX_FAILURES_IN_A_ROW", 1)
    studio.sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
    lines = cacheable_lines(studio.agent.config)
    in_memory = lines[-1]
    await studio.cache.put(speech_key(studio.agent, in_memory, RATE), CachedSpeech(b"\0\0", RATE))
    assert await warm(studio.agent, studio.services, studio.cache) == len(lines) - 1
    assert len(studio.sim.spoken_log) == 1


async def test_a_line_asked_for_twice_is_rendered_once(studio: Studio) -> None:
    renderer = LineRenderer(studio.cache)
    for _ in range(3):
        renderer.ask(studio.agent, "One moment.", studio.services)
    async with asyncio.timeout(10.0):
        while await cached_line(studio.cache, studio.agent, "One moment.", RATE) is None:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    await renderer.close()
    assert sum(spoken.text.strip() == "One moment." for spoken in studio.sim.spoken_log) == 1


async def test_a_line_that_only_the_disk_has_is_brought_to_memory_and_not_rendered_again(
    studio: Studio,
) -> None:
    speech = await render(studio.agent, "Sure.", studio.services)
    assert speech is not None
    await studio.cache.put(speech_key(studio.agent, "Sure.", RATE), speech)
    said = studio.sim.stats.copy()
    restarted = AudioCache(studio.folder)
    assert line_in_memory(restarted, studio.agent, "Sure.", RATE) is None
    renderer = LineRenderer(restarted)
    renderer.ask(studio.agent, "Sure.", studio.services)
    async with asyncio.timeout(10.0):
        while line_in_memory(restarted, studio.agent, "Sure.", RATE) is None:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    await renderer.close()
    restarted.close()
    assert line_in_memory(restarted, studio.agent, "Sure.", RATE) == speech
    assert studio.sim.stats == said


def test_the_key_tells_voices_rates_and_options_apart() -> None:
    agent = read_agent(Path("flows/reception"))
    assert speech_key(agent, "Hello.", 8000) == speech_key(agent, "  Hello. ", 8000)
    assert speech_key(agent, "Hello.", 8000) != speech_key(agent, "Hello.", 16000)
