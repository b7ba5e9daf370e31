"""Whole files, through Deepgram's own client."""

import asyncio
import contextlib
import io
import wave
from collections.abc import AsyncGenerator

import httpx
import pytest
from deepgram import AsyncDeepgramClient, DeepgramClientEnvironment
from deepgram.core import ApiError
from deepgram.types import ListenV1Response

from sims.deepgram import DeepgramSim
from sims.deepgram_recorded import UnreadableAudioError, read_wav
from sims.faults import FaultKind, FaultSpec
from sims.mulaw import SILENT_FRAME, encode
from sims.profiles import PROFILES
from sims.spoken import SpokenIndex
from sims.wav import mono_wav
from tests.sims.answering import NoiseSynthesizer

pytestmark = pytest.mark.real_time


async def recording(index: SpokenIndex) -> bytes:
    """Half a second of nothing, then a scripted caller who is known to `index`."""
    speech = await NoiseSynthesizer().speak("Please call me back.", voice="caller-1", rate_hz=8000)
    index.add(encode(speech.pcm), speech.words)
    return mono_wav(SILENT_FRAME * 25 + encode(speech.pcm) + SILENT_FRAME * 25)


@contextlib.asynccontextmanager
async def client(sim: DeepgramSim) -> AsyncGenerator[AsyncDeepgramClient]:
    http = sim.base_url.replace("ws://", "http://")
    environment = DeepgramClientEnvironment(
        base=http, production=sim.base_url, agent=sim.base_url, agent_rest=http
    )
    async with httpx.AsyncClient() as pool:
        yield AsyncDeepgramClient(api_key="key", environment=environment, httpx_client=pool)


async def test_the_official_client_reads_what_a_scripted_caller_said() -> None:
    index = SpokenIndex()
    wav = await recording(index)
    async with DeepgramSim(PROFILES["instant"], spoken_index=index) as sim, client(sim) as sdk:
        answer = await sdk.listen.v1.media.transcribe_file(request=wav, model="nova-3", smart_format=True)
    assert isinstance(answer, ListenV1Response)
    [channel] = answer.results.channels
    assert channel.alternatives
    [best] = channel.alternatives
    assert best.transcript == "Please call me back."
    assert best.words
    assert [word.word for word in best.words] == ["please", "call", "me", "back"]
    assert best.words[0].start is not None
    assert best.words[0].start >= 0.4


async def test_silence_has_no_words() -> None:
    async with DeepgramSim(PROFILES["instant"]) as sim, client(sim) as sdk:
        wav = mono_wav(SILENT_FRAME * 50)
        answer = await sdk.listen.v1.media.transcribe_file(request=wav, model="nova-3")
    assert isinstance(answer, ListenV1Response)
    assert answer.results.channels[0].alternatives
    assert answer.results.channels[0].alternatives[0].transcript == ""


@pytest.mark.parametrize(("kind", "status"), [(FaultKind.UNAUTHORIZED, 401), (FaultKind.SERVER_ERROR, 500)])
async def test_a_refusal_is_the_clients_error(kind: FaultKind, status: int) -> None:
    async with DeepgramSim(PROFILES["instant"]) as sim, client(sim) as sdk:
        sim.faults.arm(FaultSpec(kind=kind))
        with pytest.raises(ApiError) as refused:
            await sdk.listen.v1.media.transcribe_file(
                request=mono_wav(SILENT_FRAME), model="nova-3", request_options={"max_retries": 0}
            )
    assert refused.value.status_code == status


def test_other_files_are_refused() -> None:
    stereo = io.BytesIO()
    with wave.open(stereo, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 8)
    for body in (b"", b"ID3", stereo.getvalue()):
        with pytest.raises(UnreadableAudioError):
            read_wav(body)


async def test_a_file_that_is_none_is_told_of() -> None:
    async with DeepgramSim(PROFILES["instant"]) as sim, client(sim) as sdk:
        with pytest.raises(ApiError) as refused:
            await asyncio.wait_for(sdk.listen.v1.media.transcribe_file(request=b"noise", model="nova-3"), 10)
    assert refused.value.status_code == 400
