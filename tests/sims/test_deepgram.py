import asyncio
import json
import time
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest

from sims import deepgram as deepgram_sim
from sims import mulaw
from sims.deepgram import DeepgramSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES, Profile
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex

with warnings.catch_warnings():
    # deepgram-sdk imports deprecated names of websockets, here and (see the mark below) at first use.
    warnings.simplefilter("ignore", DeprecationWarning)
    from deepgram import AsyncDeepgramClient
    from deepgram.core import ApiError
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment
    from deepgram.listen.v1.socket_client import AsyncV1SocketClient
    from deepgram.listen.v1.types import (
        ListenV1Metadata,
        ListenV1Results,
        ListenV1SpeechStarted,
        ListenV1UtteranceEnd,
    )
    from pipecat.frames.frames import (
        ErrorFrame,
        InputAudioRawFrame,
        InterimTranscriptionFrame,
        TranscriptionFrame,
        VADUserStartedSpeakingFrame,
        VADUserStoppedSpeakingFrame,
    )
    from pipecat.services.deepgram.stt import DeepgramSTTService
    from pipecat.tests.utils import SleepFrame, run_test

pytestmark = [pytest.mark.real_time, pytest.mark.filterwarnings("ignore:websockets.:DeprecationWarning")]

KEY = "dg-key"
QUERY: dict[str, Any] = {
    "model": "nova-3-general",
    "encoding": "linear16",
    "sample_rate": 8000,
    "punctuate": "true",
}
FAST = Profile("fast", 0.02, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0)
SILENCE = mulaw.decode(mulaw.SILENT_FRAME)


def utterance(*texts: str, seed: int = 1) -> tuple[bytes, list[Word]]:
    """Loud noise that says `texts`, a fifth of a second each, without gaps."""
    samples = np.random.default_rng(seed).normal(0, 4000, 1600 * len(texts)).clip(-32000, 32000)
    words = [Word(text, 0.2 * n, 0.2 * (n + 1)) for n, text in enumerate(texts)]
    return encode_ulaw(samples.astype("<i2").tobytes()), words


HELLO, HELLO_WORDS = utterance("Hello,", "I", "need", "a", "cleaning.")


@asynccontextmanager
async def serving(profile: Profile = FAST, **options: Any) -> AsyncGenerator[DeepgramSim]:
    index = SpokenIndex()
    index.add(HELLO, HELLO_WORDS)
    async with DeepgramSim(profile, spoken_index=index, **options) as sim:
        yield sim


def client_of(sim: DeepgramSim, key: str = KEY) -> AsyncDeepgramClient:
    environment = DeepgramClientEnvironment(
        base=sim.control_url, production=sim.base_url, agent=sim.base_url, agent_rest=sim.control_url
    )
    return AsyncDeepgramClient(api_key=key, environment=environment)


class SdkSession:
    """An open socket of the official SDK and what came over it."""

    def __init__(self, connection: AsyncV1SocketClient) -> None:
        self.connection = connection
        self.messages: list[Any] = []
        self.errors: list[Exception] = []

    def finals(self) -> list[ListenV1Results]:
        return [m for m in self.messages if isinstance(m, ListenV1Results) and m.is_final]

    def interims(self) -> list[ListenV1Results]:
        return [m for m in self.messages if isinstance(m, ListenV1Results) and not m.is_final]

    async def play(self, ulaw: bytes, *, speed: float = 4.0) -> None:
        """Send mu-law as linear 20 ms frames, faster than life."""
        for at in range(0, len(ulaw), 160):
            await self.connection.send_media(mulaw.decode(ulaw[at : at + 160]))
            await asyncio.sleep(0.02 / speed)

    async def until(self, condition: Callable[[], Any], limit_s: float = 3.0) -> None:
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - the SDK calls back, it sets nothing
                await asyncio.sleep(0.005)


@asynccontextmanager
async def sdk_session(sim: DeepgramSim, **query: Any) -> AsyncGenerator[SdkSession]:
    async with client_of(sim).listen.v1.connect(**{**QUERY, **query}) as connection:
        session = SdkSession(connection)
        connection.on(EventType.MESSAGE, session.messages.append)
        connection.on(EventType.ERROR, session.errors.append)
        listening = asyncio.create_task(connection.start_listening())
        try:
            yield session
        finally:
            listening.cancel()
            await asyncio.wait([listening])


def text(result: ListenV1Results) -> str:
    return result.channel.alternatives[0].transcript


async def test_sdk_hears_interims_a_final_and_the_end() -> None:
    async with (
        serving() as sim,
        sdk_session(sim, interim_results="true", vad_events="true", utterance_end_ms=1000) as session,
    ):
        await session.play(mulaw.SILENT_FRAME * 10 + HELLO + mulaw.SILENT_FRAME * 80)
        await session.until(lambda: any(isinstance(m, ListenV1UtteranceEnd) for m in session.messages))
        await session.connection.send_close_stream()
        await session.until(lambda: isinstance(session.messages[-1], ListenV1Metadata))
    spoken = [r for r in session.finals() if text(r)]
    assert [text(r) for r in spoken] == ["Hello, I need a cleaning."]
    assert (spoken[0].speech_final, spoken[0].from_finalize) == (True, False)
    words = spoken[0].channel.alternatives[0].words
    assert [w.word for w in words] == ["hello", "i", "need", "a", "cleaning"]
    assert words[0].start == pytest.approx(0.2)
    assert words[-1].end == pytest.approx(1.2)
    assert spoken[0].channel.alternatives[0].confidence == pytest.approx(0.97)
    grown = [text(r) for r in session.interims() if text(r)]
    assert grown
    assert all("Hello, I need a cleaning.".startswith(shown) for shown in grown)
    [started] = [m for m in session.messages if isinstance(m, ListenV1SpeechStarted)]
    assert started.timestamp == pytest.approx(0.2, abs=0.03)
    [ended] = [m for m in session.messages if isinstance(m, ListenV1UtteranceEnd)]
    assert ended.last_word_end == pytest.approx(1.2)
    metadata = session.messages[-1]
    assert metadata.duration == pytest.approx(2.8)
    assert metadata.request_id == spoken[0].metadata.request_id
    assert session.errors == []


async def test_finalize_is_answered_when_the_words_are_available() -> None:
    slow = Profile("slow", 0.4, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0)
    async with serving(slow) as sim, sdk_session(sim, endpointing="false") as session:
        await session.play(HELLO)
        asked_s = time.monotonic()
        await session.connection.send_finalize()
        await session.until(session.finals)
        waited_s = time.monotonic() - asked_s
    [final] = session.finals()
    assert (text(final), final.from_finalize) == ("Hello, I need a cleaning.", True)
    assert waited_s > 0.3


async def test_words_as_plain_text_without_punctuate() -> None:
    async with serving() as sim, sdk_session(sim, punctuate="false") as session:
        await session.play(HELLO)
        await session.connection.send_finalize()
        await session.until(session.finals)
    [final] = session.finals()
    assert text(final) == "hello i need a cleaning"
    assert final.channel.alternatives[0].words[0].punctuated_word is None


async def test_mulaw_streams_are_heard_too() -> None:
    async with serving() as sim, sdk_session(sim, encoding="mulaw") as session:
        await session.connection.send_media(HELLO)
        await session.connection.send_finalize()
        await session.until(session.finals)
    assert text(session.finals()[0]) == "Hello, I need a cleaning."


async def test_wrong_and_missing_keys_are_refused() -> None:
    async with serving(api_key="right") as sim, aiohttp.ClientSession() as http:
        with pytest.raises(ApiError) as refused:
            async with client_of(sim, "wrong").listen.v1.connect(**QUERY):
                pass
        assert refused.value.status_code == 401
        async with client_of(sim, "right").listen.v1.connect(**QUERY):
            pass
        async with http.get(f"{sim.control_url}/v1/listen", params=QUERY) as answer:
            body = await answer.json()
        assert answer.status == 401
        assert answer.headers["dg-error"] == body["err_msg"] == "Invalid credentials."
        assert body["err_code"] == "INVALID_AUTH"
        assert body["request_id"] == answer.headers["dg-request-id"]
        protocols = ("token", "right")
        async with http.ws_connect(
            f"{sim.control_url}/v1/listen", params=QUERY, protocols=protocols
        ) as socket:
            assert socket.protocol == "token"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"utterance_end_ms": "999"}, "Invalid 'utterance_end_ms' value of '999'."),
        ({"encoding": "opus"}, "Invalid 'encoding' value of 'opus'."),
        ({"sample_rate": ""}, "Invalid 'sample_rate' value of ''."),
        ({"endpointing": "soon"}, "Invalid 'endpointing' value of 'soon'."),
        ({"channels": "2"}, "Invalid 'channels' value of '2'."),
    ],
)
async def test_bad_queries_are_400_with_the_reason(wrong: dict[str, str], message: str) -> None:
    async with (
        serving() as sim,
        aiohttp.ClientSession(headers={"Authorization": f"Token {KEY}"}) as http,
        http.get(f"{sim.control_url}/v1/listen", params={**QUERY, **wrong}) as answer,
    ):
        assert answer.status == 400
        assert answer.headers["dg-error"] == message
        assert (await answer.json())["err_msg"] == message


@asynccontextmanager
async def raw_socket(sim: DeepgramSim, **query: Any) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Token {KEY}"}) as http,
        http.ws_connect(f"{sim.control_url}/v1/listen", params={**QUERY, **query}) as socket,
    ):
        yield socket


async def close_of(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """Read to the end; return close code and reason."""
    async with asyncio.timeout(3):
        while (message := await socket.receive()).type not in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        ):
            pass
    return socket.close_code, message.extra or ""


async def test_nothing_for_ten_seconds_closes_1011_and_keepalive_prevents_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deepgram_sim, "_IDLE_LIMIT_S", 0.3)
    async with serving() as sim, raw_socket(sim) as quiet, raw_socket(sim) as kept:
        for _ in range(5):
            await asyncio.sleep(0.1)
            await kept.send_str('{"type":"KeepAlive"}')
        assert await close_of(quiet) == (
            1011,
            "Deepgram did not receive audio data or a text message within the timeout window. "
            "See https://dpgr.am/net0001",
        )
        await kept.send_bytes(b"")
        code, _ = await close_of(kept)
        assert code == 1000
        assert sim.stats["idle_closed"] == 1


async def test_an_unreadable_text_is_complained_about_and_closes() -> None:
    async with serving() as sim, raw_socket(sim) as socket:
        await socket.send_str("{nonsense")
        complaint = json.loads(await socket.receive_str())
        assert complaint["type"] == "Error"
        assert await close_of(socket) == (1008, "Could not deserialize last text message.")


async def test_configure_is_acknowledged() -> None:
    async with serving() as sim, raw_socket(sim) as socket:
        await socket.send_str('{"type":"Configure","keyterms":["Northside"]}')
        answer = json.loads(await socket.receive_str())
    assert (answer["type"], answer["keyterms"]) == ("ConfigureSuccess", ["Northside"])


@pytest.mark.parametrize(("kind", "status"), [("401", 401), ("429", 429), ("500", 500)])
async def test_refusing_faults_answer_with_their_status(kind: str, status: int) -> None:
    async with serving() as sim, aiohttp.ClientSession() as http:
        async with http.post(f"{sim.control_url}/sim/faults", json={"kind": kind, "count": 1}) as armed:
            assert armed.status == 200
        with pytest.raises(ApiError) as refused:
            async with sdk_session(sim):
                pass
        assert refused.value.status_code == status
        async with sdk_session(sim):
            pass


async def test_refuse_closes_before_any_answer() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.REFUSE, count=1))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(sim.control_url.rpartition(":")[2]))
        writer.write(b"GET /v1/listen?encoding=mulaw HTTP/1.1\r\nHost: sim\r\n\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_hang_before_first_byte_never_answers_and_lets_go_when_the_client_does() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE, count=1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), sdk_session(sim):
                pass
        stopped_s = time.monotonic()
    assert time.monotonic() - stopped_s < 0.4  # nothing was left that shutting down would have to wait for


async def test_close_mid_stream_is_an_abnormal_close() -> None:
    async with serving() as sim, sdk_session(sim) as session:
        sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1, after_s=0.4))
        async with sdk_session(sim) as second:
            with pytest.raises(Exception, match="no close frame"):
                await second.play(HELLO + mulaw.SILENT_FRAME * 200)
            await second.until(lambda: second.errors)
        await session.play(HELLO)
        await session.connection.send_finalize()
        await session.until(session.finals)  # the other stream goes on


async def test_hang_after_first_byte_stays_open_and_silent() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, count=1, after_s=0.0))
        async with sdk_session(sim) as session:
            await session.play(HELLO + mulaw.SILENT_FRAME * 20)
            await session.connection.send_finalize()
            await asyncio.sleep(0.3)
            assert session.messages == []
            assert session.errors == []


async def test_garbage_breaks_the_sdk_listener() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1, after_s=0.1))
        async with sdk_session(sim) as session:
            await session.play(HELLO)
            await session.until(lambda: session.errors)
    assert isinstance(session.errors[0], json.JSONDecodeError)


async def test_empty_hears_no_words() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
        async with sdk_session(sim) as session:
            await session.play(HELLO)
            await session.connection.send_finalize()
            await session.until(session.finals)
    assert [text(r) for r in session.finals()] == [""]


async def test_trickle_makes_words_late() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.TRICKLE, count=1))
        async with sdk_session(sim) as session:
            asked_s = time.monotonic()
            await session.play(HELLO[: 160 * 11])  # a fifth of a second, one word
            await session.connection.send_finalize()
            await session.until(session.finals)
            assert time.monotonic() - asked_s > 0.8


async def test_low_confidence_is_reported() -> None:
    mumble, words = utterance("Mumble", seed=5)
    index = SpokenIndex()
    index.add(mumble, words, confidence=0.4)
    async with DeepgramSim(FAST, spoken_index=index) as sim, sdk_session(sim) as session:
        await session.play(mumble)
        await session.connection.send_finalize()
        await session.until(session.finals)
    assert session.finals()[0].channel.alternatives[0].confidence == pytest.approx(0.4)


async def test_stopping_the_sim_closes_open_sockets_quickly() -> None:
    async with serving() as sim, raw_socket(sim) as socket:
        began_s = time.monotonic()
        closing = asyncio.create_task(close_of(socket))
        await sim.stop()
        assert (await closing)[0] == 1001
        assert time.monotonic() - began_s < 1.0


# --- Pipecat's service


def pipecat_service(sim: DeepgramSim, **settings: Any) -> DeepgramSTTService:
    return DeepgramSTTService(
        api_key=KEY,
        base_url=sim.base_url,
        sample_rate=8000,
        settings=DeepgramSTTService.Settings(**settings),
    )


def spoken_frames(*, stop_after_s: float) -> list[Any]:
    """A caller who says hello, and a VAD that notices the end after `stop_after_s`."""
    frames: list[Any] = [VADUserStartedSpeakingFrame()]
    quiet = round(stop_after_s / 0.02)
    for at in range(0, len(HELLO) + quiet * 160, 160):
        pcm = mulaw.decode(HELLO[at : at + 160]) or SILENCE
        frames += [InputAudioRawFrame(pcm, 8000, 1), SleepFrame(0.02)]
    return [*frames, VADUserStoppedSpeakingFrame(), SleepFrame(0.4)]


async def test_pipecat_marks_the_answer_to_finalize_as_finalized() -> None:
    async with serving(PROFILES["realistic"]) as sim:
        frames = spoken_frames(stop_after_s=0.2)
        down, up = await run_test(pipecat_service(sim, endpointing=False), frames_to_send=frames)
    [final] = [f for f in down if isinstance(f, TranscriptionFrame)]
    assert (final.text, final.finalized) == ("Hello, I need a cleaning.", True)
    assert [f.text for f in down if isinstance(f, InterimTranscriptionFrame)]
    assert not any(isinstance(f, ErrorFrame) for f in up or ())


async def test_pipecat_gives_up_on_a_wrong_key() -> None:
    async with serving(api_key="right") as sim:
        down, up = await run_test(pipecat_service(sim), frames_to_send=[SleepFrame(0.1)])
    [error] = [f for f in [*down, *(up or ())] if isinstance(f, ErrorFrame)]
    assert "401" in error.error


async def test_pipecat_reports_a_socket_cut_mid_stream() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1, after_s=0.3))
        _, up = await run_test(pipecat_service(sim), frames_to_send=spoken_frames(stop_after_s=0.1))
    assert any(isinstance(f, ErrorFrame) for f in up or ())
    assert not any(isinstance(f, TranscriptionFrame) for f in up or ())
