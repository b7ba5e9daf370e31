"""The official SDK and Pipecat's service take the sim for ElevenLabs."""

import asyncio
import base64
import json
import warnings
from collections.abc import AsyncIterator

import aiohttp
import elevenlabs.core
import httpx
import pytest
from elevenlabs.client import AsyncElevenLabs, ElevenLabs
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)

from sims.elevenlabs import VOICES, ElevenLabsSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer, encode_ulaw
from sims.voice_vendor import SENTENCE_PAUSE_MS

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Pipecat's own, while it is imported
    from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
    from pipecat.tests.utils import SleepFrame, run_test

pytestmark = pytest.mark.real_time

TEXT = "Hello there, how are you today?"


@pytest.fixture
async def sim(synthesizer: SpeechSynthesizer) -> AsyncIterator[ElevenLabsSim]:
    async with ElevenLabsSim(PROFILES["instant"], synthesizer=synthesizer) as sim:
        yield sim


@pytest.fixture
async def sdk(sim: ElevenLabsSim) -> AsyncIterator[AsyncElevenLabs]:
    # A client of our own: the SDK's default one loads certificates for 40 ms.
    async with httpx.AsyncClient(verify=False) as client:  # noqa: S501 - plain HTTP on loopback
        yield AsyncElevenLabs(base_url=sim.control_url, api_key="k", httpx_client=client)


# --- Official SDK


async def test_sdk_convert(sdk: AsyncElevenLabs, synthesizer: SpeechSynthesizer) -> None:
    speech = synthesizer.synthesize(TEXT, voice="v", rate_hz=8000)
    heard = [part async for part in sdk.text_to_speech.convert("v", text=TEXT, output_format="pcm_8000")]
    assert b"".join(heard) == speech.pcm
    heard = [part async for part in sdk.text_to_speech.stream("v", text=TEXT, output_format="ulaw_8000")]
    assert b"".join(heard) == encode_ulaw(speech.pcm)


async def test_sdk_timestamps(sdk: AsyncElevenLabs, synthesizer: SpeechSynthesizer) -> None:
    speech = synthesizer.synthesize(TEXT, voice="v", rate_hz=16000)
    stream = sdk.text_to_speech.stream_with_timestamps("v", text=TEXT, output_format="pcm_16000")
    parts = [part async for part in stream]
    assert b"".join(base64.b64decode(part.audio_base_64) for part in parts) == speech.pcm
    chars, starts_s, ends_s = [], [], []
    for part in parts:
        assert part.alignment
        chars += part.alignment.characters
        starts_s += part.alignment.character_start_times_seconds
        ends_s += part.alignment.character_end_times_seconds
    assert "".join(chars) == TEXT
    assert starts_s[TEXT.index("today")] == pytest.approx(speech.words[-1].start_s, abs=0.002)
    assert ends_s[-1] == pytest.approx(speech.duration_s, abs=0.002)
    whole = await sdk.text_to_speech.convert_with_timestamps("v", text=TEXT, output_format="pcm_16000")
    assert base64.b64decode(whole.audio_base_64) == speech.pcm
    assert whole.alignment
    assert whole.alignment.characters == chars


@pytest.mark.filterwarnings("ignore:ConnectionClosed.code is deprecated:DeprecationWarning")  # the SDK's
async def test_sdk_realtime(sim: ElevenLabsSim, synthesizer: SpeechSynthesizer) -> None:
    """`convert_realtime` forces wss; its address is set back to ws, the rest is the SDK's own."""

    def convert() -> bytes:
        with httpx.Client(verify=False) as client:  # noqa: S501 - plain HTTP on loopback
            sdk = ElevenLabs(base_url=sim.control_url, api_key="k", httpx_client=client)
            sdk.text_to_speech._ws_base_url = sim.base_url
            texts = iter(["Hello there, ", "how are ", "you today?"])
            return b"".join(
                sdk.text_to_speech.convert_realtime("v", text=texts, model_id="m", output_format="pcm_16000")
            )

    pcm = await asyncio.to_thread(convert)
    text = TEXT + " "
    assert pcm == synthesizer.synthesize(text, voice="v", rate_hz=16000).pcm
    assert sim.stats["characters"] == len(text)


async def test_sdk_account(sim: ElevenLabsSim, sdk: AsyncElevenLabs) -> None:
    listed = await sdk.voices.get_all()
    assert {voice.voice_id: voice.name for voice in listed.voices} == VOICES
    assert (await sdk.voices.get("any")).voice_id == "any"
    sim.spend("12345")
    subscription = (await sdk.user.get()).subscription
    assert subscription.character_count == 5
    assert (await sdk.user.subscription.get()).character_limit == 1_000_005


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (FaultKind.UNAUTHORIZED, 401, "invalid_api_key"),
        (FaultKind.SERVER_ERROR, 500, "internal_error"),
        (FaultKind.RATE_LIMITED, 429, "too_many_concurrent_requests"),
        (FaultKind.OVERLOADED, 429, "system_busy"),
    ],
)
async def test_sdk_errors(
    sim: ElevenLabsSim, sdk: AsyncElevenLabs, kind: FaultKind, status: int, code: str
) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1))
    with pytest.raises(elevenlabs.core.ApiError) as error:
        async for _ in sdk.text_to_speech.convert("v", text=TEXT, output_format="pcm_8000"):
            pass
    assert error.value.status_code == status
    assert error.value.body["detail"]["status"] == code


async def test_quota_and_empty_text_over_http(sim: ElevenLabsSim, sdk: AsyncElevenLabs) -> None:
    sim.character_quota = 3
    with pytest.raises(elevenlabs.core.ApiError) as error:
        async for _ in sdk.text_to_speech.convert("v", text=TEXT, output_format="pcm_8000"):
            pass
    assert error.value.status_code == 401
    assert error.value.body["detail"]["status"] == "quota_exceeded"
    with pytest.raises(elevenlabs.core.ApiError) as error:
        async for _ in sdk.text_to_speech.convert("v", text="", output_format="pcm_8000"):
            pass
    assert error.value.status_code == 422


@pytest.mark.parametrize("kind", [FaultKind.REFUSE, FaultKind.CLOSE_MID_STREAM, FaultKind.GARBAGE])
async def test_cuts_over_http(sim: ElevenLabsSim, sdk: AsyncElevenLabs, kind: FaultKind) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1, after_s=0.2))
    with pytest.raises(httpx.TransportError):
        async for _ in sdk.text_to_speech.stream("v", text=TEXT, output_format="pcm_8000"):
            pass


async def test_concurrent_requests_over_the_plan(sim: ElevenLabsSim, sdk: AsyncElevenLabs) -> None:
    sim.concurrency = 1
    sim.profile = PROFILES["realistic"]
    first = sdk.text_to_speech.stream("v", text=TEXT, output_format="pcm_8000")
    await anext(first)
    with pytest.raises(elevenlabs.core.ApiError) as error:
        await anext(sdk.text_to_speech.stream("v", text=TEXT, output_format="pcm_8000"))
    assert error.value.status_code == 429
    assert [part async for part in first]


# --- The upgrade


@pytest.mark.parametrize(
    ("query", "key", "status"),
    [
        ("", None, 401),
        ("", "wrong", 401),
        ("?model_id=eleven_v3", "right", 403),
        ("?model_id=eleven_multilingual_v2&language_code=en", "right", 400),
        ("?output_format=mp3_44100_128", "right", 400),
        ("?inactivity_timeout=181", "right", 400),
        ("?inactivity_timeout=soon", "right", 400),
    ],
)
async def test_upgrade_is_refused(sim: ElevenLabsSim, query: str, key: str | None, status: int) -> None:
    sim.api_key = "right"
    async with aiohttp.ClientSession(headers={"xi-api-key": key} if key else {}) as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(f"{sim.base_url}/v1/text-to-speech/v/multi-stream-input{query}")
    assert refusal.value.status == status
    assert sim.stats["refused"] == 1


async def test_upgrade_faults(sim: ElevenLabsSim) -> None:
    url = f"{sim.base_url}/v1/text-to-speech/v/multi-stream-input"
    async with aiohttp.ClientSession(headers={"xi-api-key": "k"}) as session:
        sim.faults.arm(FaultSpec(kind=FaultKind.RATE_LIMITED, count=1))
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await session.ws_connect(url)
        assert refusal.value.status == 429
        sim.faults.arm(FaultSpec(kind=FaultKind.REFUSE, count=2))  # this client tries twice by itself
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.ws_connect(url)
        await (await session.ws_connect(url)).close()


async def test_quota_is_set_over_http(sim: ElevenLabsSim) -> None:
    async with aiohttp.ClientSession() as session:
        for body, status, quota in (
            ({"characters": 7}, 200, 7),
            ({"characters": -1}, 422, 7),
            ({}, 200, None),
        ):
            async with session.post(f"{sim.control_url}/sim/quota", data=json.dumps(body)) as answer:
                assert answer.status == status
            assert sim.character_quota == quota


# --- Pipecat


def service_for(sim: ElevenLabsSim) -> ElevenLabsTTSService:
    return ElevenLabsTTSService(
        api_key="k",
        url=sim.base_url,
        sample_rate=8000,
        settings=ElevenLabsTTSService.Settings(voice="v", stability=0.5),
    )


async def speak(sim: ElevenLabsSim, *frames: Frame) -> list[Frame]:
    down, _ = await run_test(service_for(sim), frames_to_send=frames)
    return list(down)


def audio_of(frames: list[Frame]) -> bytes:
    return b"".join(frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame))


def words_of(frames: list[Frame]) -> list[TTSTextFrame]:
    return [frame for frame in frames if isinstance(frame, TTSTextFrame)]


async def test_pipecat_speaks_a_turn(sim: ElevenLabsSim, synthesizer: SpeechSynthesizer) -> None:
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
    pause = bytes(2 * 8 * SENTENCE_PAUSE_MS)
    assert audio_of(frames) == first.pcm + pause + second.pcm
    assert [word.text for word in words_of(frames)] == ["Hello", "there.", "How", "are", "you?"]
    assert sum(isinstance(frame, TTSStartedFrame) for frame in frames) == 1
    assert sum(isinstance(frame, TTSStoppedFrame) for frame in frames) == 1
    offset_s = first.duration_s + SENTENCE_PAUSE_MS / 1000
    expected_s = [word.start_s for word in first.words] + [offset_s + word.start_s for word in second.words]
    # The last word has no space after it: Pipecat adds it when the context ends, without a time of its own.
    pts_s = [(word.pts or 0) / 1e9 for word in words_of(frames)[:-1]]
    assert [at_s - pts_s[0] for at_s in pts_s] == pytest.approx(
        [at_s - expected_s[0] for at_s in expected_s[:-1]], abs=0.003
    )


async def test_pipecat_speaks_a_line_at_the_realistic_pace(
    sim: ElevenLabsSim, synthesizer: SpeechSynthesizer
) -> None:
    sim.profile = PROFILES["realistic"]
    frames = await speak(sim, TTSSpeakFrame("Hello there."), SleepFrame(0.6))
    assert audio_of(frames) == synthesizer.synthesize("Hello there.", voice="v", rate_hz=8000).pcm
    assert [word.text for word in words_of(frames)] == ["Hello", "there."]
    assert not [frame for frame in frames if isinstance(frame, ErrorFrame)]


async def test_pipecat_interrupts(sim: ElevenLabsSim, synthesizer: SpeechSynthesizer) -> None:
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
