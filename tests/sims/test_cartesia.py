"""The official SDK and Pipecat's service take the sim for Cartesia."""

import io
import warnings
import wave
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import cartesia
import httpx
import pytest
from cartesia import AsyncCartesia
from cartesia.types.websocket_response import Chunk, Done, Error, FlushDone, Timestamps
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)

from sims.cartesia import VOICES, CartesiaSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer
from sims.voice_vendor import SENTENCE_PAUSE_MS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Pipecat's own, while it is imported
    from pipecat.services.cartesia.tts import CartesiaTTSService
    from pipecat.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.real_time

TEXT = "Hello there, how are you today?"
OUTPUT: Any = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 8000}
VOICE: Any = {"mode": "id", "id": "v"}


@pytest.fixture
async def sim(synthesizer: SpeechSynthesizer) -> AsyncIterator[CartesiaSim]:
    async with CartesiaSim(PROFILES["instant"], synthesizer=synthesizer) as sim:
        yield sim


@pytest.fixture
async def sdk(sim: CartesiaSim) -> AsyncIterator[AsyncCartesia]:
    # A client of our own: the SDK's default one loads certificates for 40 ms.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - plain HTTP on loopback
        yield AsyncCartesia(
            api_key="k",
            base_url=sim.control_url,
            websocket_base_url=sim.base_url,
            http_client=client,
            max_retries=0,
        )


# --- Official SDK


async def test_sdk_context(sdk: AsyncCartesia, synthesizer: SpeechSynthesizer) -> None:
    async with sdk.tts.websocket_connect() as connection:
        context = connection.context(
            model_id="sonic-3.6",
            voice=VOICE,
            output_format=OUTPUT,
            add_timestamps=True,
            max_buffer_delay_ms=0,
        )
        await context.push("Hello there, ")
        await context.push("how are you today?")
        await context.no_more_inputs()
        events = [event async for event in context.receive()]
    assert {type(event) for event in events} == {Chunk, Timestamps, FlushDone, Done}
    audio = b"".join(event.audio or b"" for event in events if isinstance(event, Chunk))
    first = synthesizer.synthesize("Hello there, ", voice="v", rate_hz=8000)
    second = synthesizer.synthesize("how are you today?", voice="v", rate_hz=8000)
    assert audio == first.pcm + bytes(16 * SENTENCE_PAUSE_MS) + second.pcm
    words = [
        word
        for event in events
        if isinstance(event, Timestamps) and event.word_timestamps
        for word in event.word_timestamps.words
    ]
    assert words == TEXT.split()


async def test_sdk_context_error(sim: CartesiaSim, sdk: AsyncCartesia) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.RATE_LIMITED, count=1, skip=1))
    async with sdk.tts.websocket_connect() as connection:
        context = connection.context(model_id="sonic-3.6", voice=VOICE, output_format=OUTPUT)
        await context.push("Hello.")
        await context.no_more_inputs()
        (event,) = [event async for event in context.receive()]
    assert isinstance(event, Error)
    assert (event.status_code, event.error_code) == (429, "concurrency_limited")


async def test_sdk_bytes(sdk: AsyncCartesia, synthesizer: SpeechSynthesizer) -> None:
    speech = synthesizer.synthesize(TEXT, voice="v", rate_hz=8000)
    answer = await sdk.tts.generate(
        model_id="sonic-3.6", transcript=TEXT, voice=VOICE, output_format=OUTPUT, language="en"
    )
    assert await answer.read() == speech.pcm
    answer = await sdk.tts.generate(
        model_id="sonic-3.6", transcript=TEXT, voice=VOICE, output_format=OUTPUT | {"container": "wav"}
    )
    content = io.BytesIO(await answer.read())
    with wave.open(content) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        assert file.readframes(len(speech.pcm)) == speech.pcm


async def test_sdk_voices(sdk: AsyncCartesia) -> None:
    assert {voice.id: voice.name async for voice in sdk.voices.list()} == VOICES
    assert (await sdk.voices.get("any")).id == "any"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.UNAUTHORIZED, cartesia.AuthenticationError),
        (FaultKind.RATE_LIMITED, cartesia.RateLimitError),
        (FaultKind.SERVER_ERROR, cartesia.InternalServerError),
        (FaultKind.OVERLOADED, cartesia.InternalServerError),
        (FaultKind.REFUSE, cartesia.APIConnectionError),
    ],
)
async def test_sdk_errors(
    sim: CartesiaSim, sdk: AsyncCartesia, kind: FaultKind, error: type[Exception]
) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1))
    with pytest.raises(error):
        await sdk.tts.generate(model_id="m", transcript=TEXT, voice=VOICE, output_format=OUTPUT)


@pytest.mark.parametrize(
    "changes", [{"transcript": ""}, {"voice": {}}, {"output_format": OUTPUT | {"container": "mp3"}}]
)
async def test_sdk_bad_request(sdk: AsyncCartesia, changes: dict[str, Any]) -> None:
    request: dict[str, Any] = {
        "model_id": "m",
        "transcript": TEXT,
        "voice": VOICE,
        "output_format": OUTPUT,
    } | changes
    with pytest.raises(cartesia.BadRequestError):
        await sdk.tts.generate(**request)


async def test_quota_over_http(sim: CartesiaSim, sdk: AsyncCartesia) -> None:
    sim.character_quota = 3
    with pytest.raises(cartesia.APIStatusError) as error:
        await sdk.tts.generate(model_id="m", transcript=TEXT, voice=VOICE, output_format=OUTPUT)
    assert error.value.status_code == 402


@pytest.mark.parametrize("kind", [FaultKind.CLOSE_MID_STREAM, FaultKind.GARBAGE])
async def test_cuts_over_http(sim: CartesiaSim, sdk: AsyncCartesia, kind: FaultKind) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1, after_s=0.2))
    with pytest.raises(cartesia.APIConnectionError):
        await sdk.tts.generate(model_id="m", transcript=TEXT, voice=VOICE, output_format=OUTPUT)


# --- The upgrade


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"X-API-Key": "right", "Cartesia-Version": "2026-03-01"}, ""),
        ({"Authorization": "Bearer right", "cartesia-version": "2026-08-14"}, ""),
        ({}, "?api_key=right&cartesia_version=2026-03-01"),
        ({}, "?access_token=right&cartesia_version=2026-03-01"),
    ],
)
async def test_ways_to_authenticate(sim: CartesiaSim, headers: dict[str, str], query: str) -> None:
    sim.api_key = "right"
    async with aiohttp.ClientSession(headers=headers) as session:
        await (await session.ws_connect(f"{sim.base_url}/tts/websocket{query}")).close()
    assert sim.stats["sockets"] == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Cartesia-Version": "2026-03-01"}, 401),
        ({"X-API-Key": "wrong", "Cartesia-Version": "2026-03-01"}, 401),
        ({"Authorization": "Basic right", "Cartesia-Version": "2026-03-01"}, 401),
        ({"X-API-Key": "right"}, 400),
    ],
)
async def test_upgrade_is_refused(sim: CartesiaSim, headers: dict[str, str], status: int) -> None:
    sim.api_key = "right"
    async with aiohttp.ClientSession(headers=headers) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(f"{sim.base_url}/tts/websocket")
    assert refusal.value.status == status


async def test_errors_are_plain_text_before_the_new_version(sim: CartesiaSim) -> None:
    async with aiohttp.ClientSession() as session:
        for version, kind in (("2025-04-16", "text/plain"), ("2026-03-01", "application/json")):
            async with session.get(
                f"{sim.control_url}/voices", headers={"Cartesia-Version": version}
            ) as answer:
                assert (answer.status, answer.content_type) == (401, kind)


async def test_too_many_sockets(sim: CartesiaSim) -> None:
    sim.concurrency = 1
    url = f"{sim.base_url}/tts/websocket?api_key=k&cartesia_version=2026-03-01"
    async with aiohttp.ClientSession() as session:
        sockets = [await session.ws_connect(url) for _ in range(10)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url)
        assert refusal.value.status == 429
        await sockets[0].close()
        await (await session.ws_connect(url)).close()


async def test_upgrade_faults(sim: CartesiaSim) -> None:
    url = f"{sim.base_url}/tts/websocket?api_key=k&cartesia_version=2026-03-01"
    async with aiohttp.ClientSession() as session:
        sim.faults.arm(FaultSpec(kind=FaultKind.REFUSE, count=2))  # this client tries twice by itself
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.ws_connect(url)
        sim.faults.arm(FaultSpec(kind=FaultKind.SERVER_ERROR, count=1))
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url)
        assert refusal.value.status == 500


# --- Pipecat


async def speak(sim: CartesiaSim, *frames: Frame) -> list[Frame]:
    service = CartesiaTTSService(
        api_key="k",
        url=f"{sim.base_url}/tts/websocket",
        sample_rate=8000,
        settings=CartesiaTTSService.Settings(voice="v"),
    )
    down, _ = await run_test(service, frames_to_send=frames)
    return list(down)


def audio_of(frames: list[Frame]) -> bytes:
    return b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))


def words_of(frames: list[Frame]) -> list[TTSTextFrame]:
    return [frame for frame in frames if isinstance(frame, TTSTextFrame)]


async def test_pipecat_speaks_a_turn(sim: CartesiaSim, synthesizer: SpeechSynthesizer) -> None:
    frames = await speak(
        sim,
        LLMFullResponseStartFrame(),
        LLMTextFrame("Hello there. "),
        LLMTextFrame("How are you?"),
        LLMFullResponseEndFrame(),
        SleepFrame(0.3),
    )
    first = synthesizer.synthesize("Hello there.", voice="v", rate_hz=8000)
    second = synthesizer.synthesize("How are you?", voice="v", rate_hz=8000)
    assert audio_of(frames) == first.pcm + bytes(16 * SENTENCE_PAUSE_MS) + second.pcm
    assert [word.text for word in words_of(frames)] == ["Hello", "there.", "How", "are", "you?"]
    assert sum(isinstance(frame, TTSStoppedFrame) for frame in frames) == 1
    offset_s = first.duration_s + SENTENCE_PAUSE_MS / 1000
    expected_s = [word.start_s for word in first.words] + [offset_s + word.start_s for word in second.words]
    pts_s = [(word.pts or 0) / 1e9 for word in words_of(frames)]
    assert [at_s - pts_s[0] for at_s in pts_s] == pytest.approx(
        [at_s - expected_s[0] for at_s in expected_s], abs=0.003
    )


async def test_pipecat_speaks_a_line_at_the_realistic_pace(
    sim: CartesiaSim, synthesizer: SpeechSynthesizer
) -> None:
    sim.profile = PROFILES["realistic"]
    frames = await speak(sim, TTSSpeakFrame("Hello there."), SleepFrame(0.6))
    assert audio_of(frames) == synthesizer.synthesize("Hello there.", voice="v", rate_hz=8000).pcm
    assert [word.text for word in words_of(frames)] == ["Hello", "there."]
    assert not [frame for frame in frames if isinstance(frame, ErrorFrame)]


async def test_pipecat_interrupts(sim: CartesiaSim, synthesizer: SpeechSynthesizer) -> None:
    sim.profile = PROFILES["realistic"]
    text = "This is a very long sentence which will surely be interrupted before it has been said to its end."
    frames = await speak(
        sim,
        LLMFullResponseStartFrame(),
        LLMTextFrame(text + " "),
        LLMTextFrame("And"),
        SleepFrame(0.3),
        InterruptionFrame(),
        SleepFrame(0.1),
        TTSSpeakFrame("Yes?"),
        SleepFrame(0.5),
    )
    cut_at = next(i for i, frame in enumerate(frames) if isinstance(frame, InterruptionFrame))
    before, after = frames[:cut_at], frames[cut_at:]
    long, short = (synthesizer.synthesize(spoken, voice="v", rate_hz=8000).pcm for spoken in (text, "Yes?"))
    assert 0 < len(audio_of(before)) < len(long)
    assert audio_of(after) == short
    assert [word.text for word in words_of(after)] == ["Yes?"]
    assert sim.stats["contexts_cut"] == 1
