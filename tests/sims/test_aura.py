"""The official SDK and Pipecat's service take the sim for Deepgram's voice."""

import warnings
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import pytest

from sims.aura import MAX_TEXT_CHARS, AuraSim
from sims.deepgram import DeepgramSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore", DeprecationWarning
    )  # the SDK's and Pipecat's own, while they are imported
    from deepgram import AsyncDeepgramClient
    from deepgram.core import ApiError
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.speak.v1.types import SpeakV1Metadata, SpeakV1Text
    from pipecat.frames.frames import (
        ErrorFrame,
        LLMFullResponseEndFrame,
        LLMFullResponseStartFrame,
        LLMTextFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.services.deepgram.tts import DeepgramTTSService
    from pipecat.tests.utils import SleepFrame, run_test

pytestmark = [pytest.mark.real_time, pytest.mark.filterwarnings("ignore:websockets.:DeprecationWarning")]

VOICE = "aura-2-thalia-en"
TEXT = "Hello there, how are you today?"
QUERY: dict[str, Any] = {"model": VOICE, "encoding": "linear16", "sample_rate": 8000}


@pytest.fixture
async def sim(synthesizer: SpeechSynthesizer) -> AsyncIterator[AuraSim]:
    async with AuraSim(PROFILES["instant"], synthesizer=synthesizer, api_key="k", concurrency=2) as sim:
        yield sim


def sdk(
    sim: AuraSim | DeepgramSim, *, api_key: str = "k", pool: httpx.AsyncClient | None = None
) -> AsyncDeepgramClient:
    environment = DeepgramClientEnvironment(
        base=sim.control_url, production=sim.base_url, agent=sim.base_url, agent_rest=sim.control_url
    )
    return AsyncDeepgramClient(api_key=api_key, environment=environment, httpx_client=pool)


def kind_of(message: Any) -> str:
    """Return what a message says it is: the SDK has `Flushed` and `Cleared` in one shape."""
    return message.type


async def refusal(client: AsyncDeepgramClient, **query: Any) -> int | None:
    """Return the status with which a socket is refused; None if it is not."""
    try:
        async with client.speak.v1.connect(**{**QUERY, **query}):
            return None
    except ApiError as error:
        return error.status_code


def pcm_of(synthesizer: SpeechSynthesizer) -> bytes:
    return synthesizer.synthesize(TEXT, voice=VOICE, rate_hz=8000).pcm


async def test_sdk_socket(sim: AuraSim, synthesizer: SpeechSynthesizer) -> None:
    async with sdk(sim).speak.v1.connect(**QUERY) as socket:
        greeting = await socket.recv()
        assert isinstance(greeting, SpeakV1Metadata)
        assert (greeting.type, greeting.model_name) == ("Metadata", VOICE)
        await socket.send_text(SpeakV1Text(text="Hello there, "))
        await socket.send_text(SpeakV1Text(text="how are you today?"))
        await socket.send_flush()
        pcm = b""
        while isinstance(message := await socket.recv(), bytes):
            pcm += message
        assert message.type == "Flushed"
        assert pcm == pcm_of(synthesizer)
        await socket.send_clear()
        assert kind_of(await socket.recv()) == "Cleared"
        for _ in range(20):
            await socket.send_flush()
        kinds = [kind_of(await socket.recv()) for _ in range(20)]
        assert Counter(kinds) == {"Flushed": 19, "Warning": 1}
        await socket.send_close()
        assert [message async for message in socket] == []


async def test_sdk_rest(sim: AuraSim, synthesizer: SpeechSynthesizer) -> None:
    async with httpx.AsyncClient() as pool:
        asked = sdk(sim, pool=pool).speak.v1.audio.generate(
            text=TEXT, model=VOICE, encoding="linear16", container="none", sample_rate=8000
        )
        assert b"".join([piece async for piece in asked]) == pcm_of(synthesizer)


async def test_it_is_at_the_address_of_the_recogniser(sim: AuraSim) -> None:
    async with (
        DeepgramSim(PROFILES["instant"], also=sim.add_speech) as deepgram,
        sdk(deepgram).speak.v1.connect(**QUERY) as socket,
    ):
        assert isinstance(await socket.recv(), SpeakV1Metadata)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"model": "aura-2-thaliaen"}, 400),
        ({"model": "flux-haley-en"}, 400),
        ({"encoding": "mp3"}, 400),
        ({"sample_rate": 11025}, 400),
        ({"encoding": "mulaw", "sample_rate": 48000}, 400),
        ({"speed": 2.0}, 400),
    ],
)
async def test_what_it_does_not_offer_is_refused(sim: AuraSim, query: dict[str, Any], status: int) -> None:
    assert await refusal(sdk(sim), **query) == status


async def test_a_wrong_key_an_empty_account_and_a_full_plan_are_refused(sim: AuraSim) -> None:
    assert await refusal(sdk(sim, api_key="wrong")) == 401
    async with sdk(sim).speak.v1.connect(**QUERY), sdk(sim).speak.v1.connect(**QUERY):
        assert await refusal(sdk(sim)) == 429
    sim.character_quota = 0
    assert await refusal(sdk(sim)) == 402
    assert sim.stats["refused"] == 3


@pytest.mark.parametrize(
    ("fault", "status"),
    [(FaultKind.UNAUTHORIZED, 401), (FaultKind.RATE_LIMITED, 429), (FaultKind.SERVER_ERROR, 500)],
)
async def test_faults_of_a_handshake(sim: AuraSim, fault: FaultKind, status: int) -> None:
    sim.faults.arm(FaultSpec(kind=fault, count=1, voice=VOICE))
    assert await refusal(sdk(sim)) == status
    async with sdk(sim).speak.v1.connect(**QUERY) as socket:
        assert isinstance(await socket.recv(), SpeakV1Metadata)


async def test_http_says_what_is_wrong(sim: AuraSim) -> None:
    async def post(text: object, *, query: str = f"model={VOICE}", key: str = "k") -> tuple[int, str | None]:
        headers = {"Authorization": f"Token {key}"}
        async with (
            aiohttp.ClientSession(sim.control_url, headers=headers) as http,
            http.post(f"/v1/speak?{query}", json={"text": text}) as answer,
        ):
            await answer.read()
            return answer.status, answer.headers.get("dg-error")

    assert await post(TEXT) == (200, None)
    assert (await post(TEXT, key="wrong"))[0] == 401
    assert (await post(""))[0] == 400
    assert (await post(TEXT, query=f"model={VOICE}&container=wav"))[0] == 400
    assert (await post("x" * (MAX_TEXT_CHARS + 1)))[0] == 413
    sim.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1))
    assert (await post(TEXT))[0] == 503
    sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    assert (await post(TEXT))[0] == 200
    for fault in (FaultKind.REFUSE, FaultKind.CLOSE_MID_STREAM, FaultKind.GARBAGE):
        sim.faults.arm(FaultSpec(kind=fault, count=1))
        with pytest.raises(aiohttp.ClientError):
            await post(TEXT)
    sim.character_quota = 3
    assert (await post(TEXT))[0] == 402


async def test_pipecat_service(sim: AuraSim, synthesizer: SpeechSynthesizer) -> None:
    service = DeepgramTTSService(
        api_key="k",
        base_url=sim.base_url,
        sample_rate=8000,
        settings=DeepgramTTSService.Settings(voice=VOICE),
    )
    frames = [
        LLMFullResponseStartFrame(),
        LLMTextFrame(TEXT),
        LLMFullResponseEndFrame(),
        SleepFrame(0.5),
    ]
    down, up = await run_test(service, frames_to_send=frames)
    pcm = b"".join(frame.audio for frame in down if isinstance(frame, TTSAudioRawFrame))
    assert pcm == synthesizer.synthesize(f"{TEXT} ", voice=VOICE, rate_hz=8000).pcm
    assert sum(isinstance(frame, TTSStoppedFrame) for frame in down) == 1
    assert [frame for frame in (*down, *up) if isinstance(frame, ErrorFrame)] == []
