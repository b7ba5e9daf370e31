"""All vendors together: the settings they give, the words that pass between them."""

import asyncio
from pathlib import Path

import pytest

from sims.mulaw import encode
from sims.phrase_book import Line, PhraseBook
from sims.profiles import PROFILES
from sims.spoken import Encoding
from sims.voice_vendor import Spoken
from sims.world import BOOK_EVERY_S, SimWorld
from tests.sims.answering import HEARS, LEAVES, Answering, Media, scenario

pytestmark = pytest.mark.real_time

GREETING = "Hello there."
VOICE = "voice-1"


async def test_env_points_at_every_vendor() -> None:
    async with SimWorld(profile=PROFILES["instant"], seed=4) as world:
        env = world.env()
        assert env["DEEPGRAM_BASE_URL"] == world.deepgram.base_url
        assert {name.partition("_")[0] for name in env} == {
            "DEEPGRAM", "ASSEMBLYAI", "ANTHROPIC", "OPENAI", "GROQ", "FIREWORKS", "TOGETHER",
            "ELEVENLABS", "CARTESIA", "TWILIO",
        }  # fmt: skip
        assert env["TWILIO_ACCOUNT_SID"].startswith("AC")
        urls = [url for name, url in env.items() if name.endswith("BASE_URL")]
        assert len(set(urls)) == 10
    async with SimWorld(profile=PROFILES["instant"], seed=4) as again:
        assert again.twilio.auth_token == env["TWILIO_AUTH_TOKEN"]


async def call_and_hear(world: SimWorld, ulaw: bytes) -> str:
    """Let an agent play `ulaw` and return the words its caller understood."""

    async def agent(media: Media) -> None:
        await media.play(ulaw)
        await media.drain()

    script = scenario(HEARS, LEAVES, ended_by="caller")
    async with Answering(agent) as line:
        line.documents["/voice"] = line.stream()
        report = await world.twilio.place_call(script, voice_url=f"{line.base_url}/voice")
    assert report.outcome == "ok", report.reasons
    assert report.measures
    return report.measures.agent_text


async def render(world: SimWorld) -> bytes:
    """Have a voice sim render the greeting for somebody who keeps it; return it as the phone plays it."""
    speech = await world._synthesizer.speak(GREETING, voice=VOICE, rate_hz=8000)
    ulaw = encode(speech.pcm)
    world.cartesia.spoken_log.append(Spoken(1, GREETING, VOICE, speech.words, ulaw, 0.0))
    return ulaw


async def test_callers_know_what_the_voice_sims_said_even_in_an_earlier_run(tmp_path: Path) -> None:
    async with SimWorld(profile=PROFILES["instant"], cache_dir=tmp_path) as world:
        ulaw = await render(world)
    assert PhraseBook(tmp_path / "phrases.jsonl").catch_up() == (Line(GREETING, VOICE),)

    async with SimWorld(profile=PROFILES["instant"], cache_dir=tmp_path) as later:
        await later.is_book_read.wait()
        assert await call_and_hear(later, ulaw) == GREETING


async def test_callers_know_what_the_voice_sims_of_another_running_process_said(tmp_path: Path) -> None:
    """A server is being tried in one terminal, a test call is made in another: both play the same store of lines."""
    async with (
        SimWorld(profile=PROFILES["instant"], cache_dir=tmp_path) as served,
        SimWorld(profile=PROFILES["instant"], cache_dir=tmp_path) as called,
    ):
        ulaw = await render(served)
        await asyncio.sleep(3 * BOOK_EVERY_S)
        assert await call_and_hear(called, ulaw) == GREETING


async def test_what_a_caller_says_is_known_to_the_ears_of_the_world() -> None:
    script = scenario(
        {"say": {"text": "a dental cleaning please", "at_once": True}}, LEAVES, ended_by="caller"
    )
    frames: list[bytes] = []

    async def agent(media: Media) -> None:
        await media.drain()
        frames.extend(media.frames)

    async with SimWorld(profile=PROFILES["instant"]) as world, Answering(agent) as line:
        line.documents["/voice"] = line.stream()
        await world.twilio.place_call(script, voice_url=f"{line.base_url}/voice")
    tracker = world.twilio._spoken_index.tracker(Encoding.MULAW)
    heard = [word.text for frame in frames for word in tracker.feed(frame)]
    assert heard == ["a", "dental", "cleaning", "please"]
