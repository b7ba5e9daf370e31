import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pipecat.frames.frames import (
    Frame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.utils.text.base_text_aggregator import TextType

from bot import voice_lines
from bot.agent import Agent, ServiceChoice, read_agent
from bot.lines import cacheable_lines
from bot.services import ServiceContext, build_voice
from bot.settings import Settings
from bot.vendor_clients import VendorClients
from bot.voice_lines import LineRenderer, line_in_memory, measure_voices, render, speech_key, warm
from processors.audio_cache import AudioCache, CachedSpeech
from processors.frames import SpeechAnchorFrame
from processors.loudness import LoudnessBook
from sims.cartesia import CartesiaSim
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer
from sims.voice_vendor import VoiceVendorSim
from tests.fakes.patient_run import run_test

pytestmark = pytest.mark.real_time
RATE = 8000


class Studio:
    """An agent whose voice is a sim, and a cache on disk."""

    def __init__(
        self, sim: VoiceVendorSim, clients: VendorClients, folder: Path, choice: ServiceChoice
    ) -> None:
        self.sim = sim
        self.folder = folder
        agent = read_agent(Path("flows/reception"))
        services = agent.config.services.model_copy(update={"tts": (choice,)})
        self.agent = replace(agent, config=agent.config.model_copy(update={"services": services}))
        self.cache = AudioCache(folder)
        self.services = ServiceContext(
            clients=clients,
            audio_in_hz=RATE,
            audio_out_hz=RATE,
            language=self.agent.config.language,
            voices=self.agent.config.voices,
        )


SIMS = {"elevenlabs": ElevenLabsSim, "cartesia": CartesiaSim}
EVERY_VOICE = pytest.mark.parametrize(
    "studio",
    [
        ServiceChoice(name=name, options={"text_aggregation": mode})
        for name in SIMS
        for mode in ("sentence", "token")
    ],
    ids=lambda choice: f"{choice.name} by {choice.options['text_aggregation']}",
    indirect=True,
)


@pytest.fixture
async def studio(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Studio]:
    monkeypatch.setattr(
        voice_lines, "RENDER_LIMIT_S", 40.0
    )  # what is rendered here is not what is waited for
    choice: ServiceChoice = getattr(request, "param", ServiceChoice(name="elevenlabs"))
    synthesizer = SpeechSynthesizer()
    async with SIMS[choice.name](PROFILES["instant"], synthesizer=synthesizer) as sim:
        options: dict[str, Any] = {
            "_env_file": None,
            choice.name: {"api_key": "key", "base_url": sim.base_url},
        }
        for vendor in ("deepgram", "anthropic", "elevenlabs", "cartesia"):
            options.setdefault(vendor, {"api_key": "key"})
        async with VendorClients(Settings(**options)) as clients:
            made = Studio(sim, clients, tmp_path, choice)
            yield made
            made.cache.close()
    synthesizer.close()


@EVERY_VOICE
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


@EVERY_VOICE
@pytest.mark.parametrize("after_s", [0.5, 1.3])
async def test_a_line_that_the_voice_did_not_finish_is_not_kept(studio: Studio, after_s: float) -> None:
    text = "Good morning, how can I help?"
    studio.sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_s=after_s, count=1))
    assert await render(studio.agent, text, studio.services) is None
    whole = await render(studio.agent, text, studio.services)
    assert whole is not None
    assert whole.duration_s > after_s


@pytest.mark.parametrize(
    ("words", "pcm", "is_ended", "is_kept"),
    [
        ([("One", 0.0), ("two.", 0.5)], bytes(2 * RATE), True, True),
        ([("One", 0.0), ("two three.", None)], bytes(2 * RATE), True, False),
        ([("One", 0.0), ("two.", None), ("Three.", None)], bytes(2 * RATE), True, False),
        ([("One two.", None)], bytes(2 * RATE), True, False),
        ([("One", 0.0), ("two.", None)], bytes(2 * RATE), True, True),
        ([("Sure.", None)], bytes(2 * RATE), True, True),
        ([("One", 0.0), ("two … —", None)], bytes(2 * RATE), True, True),
        ([("One", 0.0), ("two three", None), ("four.", 0.6)], bytes(2 * RATE), True, True),
        ([("One", 0.0), ("two.", 0.5)], bytes(2 * RATE), False, False),
        ([("One", 0.0), ("two.", 0.5)], bytes(2 * RATE + 1), True, False),
        ([("One", 0.0), ("two.", 0.5)], b"", True, False),
    ],
    ids=[
        "whole",
        "words never timed",
        "in two sentences",
        "no word timed",
        "the last word by token",
        "the only word by token",
        "signs are not spoken",
        "a gap in the middle",
        "the voice never said that it is at the end",
        "half a sample",
        "no sound",
    ],
)
async def test_only_a_whole_line_is_kept(
    words: list[tuple[str, float | None]], pcm: bytes, is_ended: bool, is_kept: bool
) -> None:
    collector = voice_lines._Collector()
    frames: list[Frame] = [TTSStartedFrame(context_id="c"), SpeechAnchorFrame("c", 1_000_000_000)]
    frames.append(TTSAudioRawFrame(pcm, RATE, 1, context_id="c"))
    pts = 0
    for text, start_s in words:  # as Pipecat does: what was never timed has the time of the word before
        frame = TTSTextFrame(text, TextType.WORD)
        frame.pts = pts = pts if start_s is None else round((1 + start_s) * 1_000_000_000)
        frames.append(frame)
    if is_ended:
        frames.append(TTSStoppedFrame(context_id="c"))
    await run_test(collector, frames_to_send=frames)
    assert (collector.speech(RATE) is not None) is is_kept


async def test_a_rendering_that_nobody_waits_for_leaves_nothing_behind(studio: Studio) -> None:
    studio.sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
    before = asyncio.all_tasks()
    rendering = asyncio.create_task(render(studio.agent, "Hello.", studio.services))
    async with asyncio.timeout(5.0):
        while not studio.sim.stats["contexts"]:  # noqa: ASYNC110 - in another's hands
            await asyncio.sleep(0.02)
        rendering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rendering
    async with asyncio.timeout(1.0):  # left alone it would end after 3 s of silence
        while asyncio.all_tasks() - before:  # noqa: ASYNC110 - the sim notices a moment later
            await asyncio.sleep(0.02)


@EVERY_VOICE
async def test_a_voice_that_talks_nonsense_leaves_nothing_behind(studio: Studio) -> None:
    studio.sim.profile = PROFILES["realistic"]  # it is still speaking when the renderer has heard enough
    studio.sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE))
    before = asyncio.all_tasks()
    assert await render(studio.agent, "We're open Monday to Friday, eight to six.", studio.services) is None
    async with asyncio.timeout(5.0):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110 - the sim notices a moment later
            await asyncio.sleep(0.02)


async def test_warming_renders_what_is_missing_and_only_that(studio: Studio) -> None:
    assert await warm(studio.agent, studio.services, studio.cache) == 0
    said = studio.sim.stats.copy()
    for text in cacheable_lines(studio.agent.config):
        assert await studio.cache.get(speech_key(studio.agent, text, RATE)) is not None
    assert await warm(studio.agent, studio.services, studio.cache) == 0
    assert studio.sim.stats == said


async def test_warming_renders_a_flows_lines_too(studio: Studio) -> None:
    assert await warm(studio.agent, studio.services, studio.cache, more=["Nobody there? Goodbye."]) == 0
    assert await studio.cache.get(speech_key(studio.agent, "Nobody there? Goodbye.", RATE)) is not None


async def test_warming_finds_out_how_loud_each_voice_is(studio: Studio) -> None:
    choices = (ServiceChoice(name="elevenlabs"), ServiceChoice(name="cartesia", options={"concurrency": 2}))
    services = studio.agent.config.services.model_copy(update={"tts": choices})
    agent = replace(studio.agent, config=studio.agent.config.model_copy(update={"services": services}))
    async with CartesiaSim(PROFILES["instant"], synthesizer=studio.sim._synthesizer) as cartesia:
        settings = Settings(
            _env_file=None,  # pyright: ignore[reportCallIssue]
            elevenlabs={"api_key": "key", "base_url": studio.sim.base_url},  # pyright: ignore[reportArgumentType]
            cartesia={"api_key": "key", "base_url": cartesia.base_url},  # pyright: ignore[reportArgumentType]
        )
        async with VendorClients(settings) as clients:
            for _ in range(2):  # the second time from the cache
                book = LoudnessBook()
                ctx = replace(studio.services, clients=clients, loudness=book)
                assert await warm(agent, ctx, studio.cache) == 0
                await measure_voices(agent, ctx, studio.cache)
                voices = [
                    one.sound for one in build_voice([(c.name, c.options) for c in choices], ctx).voices
                ]
                assert [book.level_db(sound) for sound in voices] == [pytest.approx(-20.5, abs=1)] * 2
        assert cartesia.stats["texts"] == 1


async def test_warming_gives_up_on_a_voice_that_is_down(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice_lines, "RENDER_LIMIT_S", 1.0)
    monkeypatch.setattr(voice_lines, "MAX_FAILURES_IN_A_ROW", 1)
    monkeypatch.setattr(voice_lines, "MAX_RENDERINGS", 2)
    studio.sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE))
    lines = cacheable_lines(studio.agent.config)
    in_memory = lines[-1]
    await studio.cache.put(speech_key(studio.agent, in_memory, RATE), CachedSpeech(b"\0\0", RATE))
    assert await warm(studio.agent, studio.services, studio.cache) == len(lines) - 1
    assert len(studio.sim.spoken_log) == 2  # those under way when the first failed


async def test_a_voice_is_asked_for_a_few_lines_at_a_time(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = most = 0

    async def watched(agent: Agent, text: str, services: ServiceContext) -> CachedSpeech | None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            return await render(agent, text, services)
        finally:
            now -= 1

    monkeypatch.setattr(voice_lines, "render", watched)
    assert await warm(studio.agent, studio.services, studio.cache) == 0
    assert most == voice_lines.MAX_RENDERINGS


async def test_a_line_asked_for_twice_is_rendered_once(studio: Studio) -> None:
    renderer = LineRenderer(studio.cache)
    for _ in range(3):
        renderer.ask(studio.agent, "One moment.", studio.services)
    async with asyncio.timeout(10.0):
        while await studio.cache.get(speech_key(studio.agent, "One moment.", RATE)) is None:  # noqa: ASYNC110 - a file
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
    assert line_in_memory(restarted, studio.agent, "Sure.", RATE) == speech.without_lead()
    assert studio.sim.stats == said


def test_the_key_tells_voices_rates_and_options_apart() -> None:
    agent = read_agent(Path("flows/reception"))
    assert speech_key(agent, "Hello.", 8000) == speech_key(agent, "  Hello. ", 8000)
    assert speech_key(agent, "Hello.", 8000) != speech_key(agent, "Hello.", 16000)
