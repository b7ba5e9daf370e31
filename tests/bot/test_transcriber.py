"""Recorded speech to text, against the vendor's stand-in and against servers that misbehave."""

import ssl
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from bot.transcriber import DeepgramTranscriber, TranscriptionError
from sims.deepgram import DeepgramSim
from sims.faults import FaultKind, FaultSpec
from sims.mulaw import SILENT_FRAME, encode
from sims.profiles import PROFILES
from sims.spoken import SpokenIndex
from sims.wav import mono_wav
from tests.sims.answering import NoiseSynthesizer

pytestmark = pytest.mark.real_time

TLS = ssl.create_default_context()


@pytest_asyncio.fixture
async def index() -> SpokenIndex:
    return SpokenIndex()


@pytest_asyncio.fixture
async def sim(index: SpokenIndex) -> AsyncGenerator[DeepgramSim]:
    async with DeepgramSim(PROFILES["instant"], spoken_index=index, api_key="right") as running:
        yield running


def transcriber(url: str, *, key: str = "right", limit_s: float = 5.0) -> DeepgramTranscriber:
    return DeepgramTranscriber(api_key=key, base_url=url, tls=TLS, limit_s=limit_s)


async def test_what_a_caller_left_is_read(sim: DeepgramSim, index: SpokenIndex) -> None:
    speech = await NoiseSynthesizer().speak("Please call me back.", voice="caller-1", rate_hz=8000)
    index.add(encode(speech.pcm), speech.words)
    wav = mono_wav(SILENT_FRAME * 10 + encode(speech.pcm) + SILENT_FRAME * 10)
    assert await transcriber(sim.base_url).transcribe(wav, language="en-US") == "Please call me back."
    assert await transcriber(sim.base_url).transcribe(mono_wav(SILENT_FRAME * 9), language="en-US") == ""


@pytest.mark.parametrize(
    "kind",
    [FaultKind.REFUSE, FaultKind.UNAUTHORIZED, FaultKind.SERVER_ERROR, FaultKind.HANG_BEFORE_FIRST_BYTE],
)
async def test_a_vendor_that_fails_is_one_typed_failure_in_time(sim: DeepgramSim, kind: FaultKind) -> None:
    sim.faults.arm(FaultSpec(kind=kind))
    with pytest.raises(TranscriptionError):
        await transcriber(sim.base_url, limit_s=0.5).transcribe(mono_wav(SILENT_FRAME), language="en-US")


async def test_a_wrong_key_and_a_port_nobody_listens_on(sim: DeepgramSim) -> None:
    with pytest.raises(TranscriptionError, match="401"):
        await transcriber(sim.base_url, key="wrong").transcribe(mono_wav(SILENT_FRAME), language="en-US")
    with pytest.raises(TranscriptionError, match="no answer"):
        await transcriber("ws://127.0.0.1:1").transcribe(mono_wav(SILENT_FRAME), language="en-US")


@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"results": {"channels": [{}]}}', "[1]"])
async def test_an_answer_that_cannot_be_read_is_told_without_its_words(body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_post("/v1/listen", answer)
    async with TestServer(app) as server:
        with pytest.raises(TranscriptionError, match=r"faults"):
            await transcriber(f"http://127.0.0.1:{server.port}").transcribe(b"", language="en-US")
