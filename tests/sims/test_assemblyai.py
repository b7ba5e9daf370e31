"""The stand-in is taken for AssemblyAI by AssemblyAI's own client, and by Pipecat's."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from assemblyai.streaming.v3 import (
    BeginEvent,
    RealTimeError,
    RealTimeEvents,
    RealTimeParameters,
    RealTimeSessionParameters,
    RealTimeTranscriberOptions,
    SpeechModel,
    SpeechStartedEvent,
    TerminationEvent,
    TurnEvent,
)
from assemblyai.streaming.v3.async_client import AsyncRealTimeTranscriber
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.services.assemblyai.stt import AssemblyAISTTService
from pipecat.tests.utils import SleepFrame, run_test

from sims import mulaw
from sims.assemblyai import AssemblyAISim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES, Profile
from tests.fakes.hearing import HELLO, TEXT, index

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning"),  # the client's own
]

FAST = Profile("fast", 0.02, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0)
SAYS = mulaw.SILENT_FRAME * 10 + HELLO + mulaw.SILENT_FRAME * 30


@asynccontextmanager
async def serving(profile: Profile = FAST, **options: Any) -> AsyncGenerator[AssemblyAISim]:
    async with AssemblyAISim(profile, spoken_index=index(), **options) as sim:
        yield sim


class SdkSession:
    """A session of the official client and what came over it."""

    def __init__(self, sim: AssemblyAISim, key: str = "key") -> None:
        self.client = AsyncRealTimeTranscriber(RealTimeTranscriberOptions(api_key=key, api_host=sim.base_url))
        self.events: list[Any] = []
        self.errors: list[RealTimeError] = []
        for event in RealTimeEvents:
            into = self.errors if event is RealTimeEvents.Error else self.events
            self.client.on(event, lambda _, told, into=into: into.append(told))

    def all_of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ends(self) -> list[Any]:
        return [turn for turn in self.all_of(TurnEvent) if turn.end_of_turn]

    async def play(self, ulaw: bytes, *, frames: int = 5, speed: float = 4.0) -> None:
        for at in range(0, len(ulaw), 160 * frames):
            await self.client.stream(mulaw.decode(ulaw[at : at + 160 * frames]))
            await asyncio.sleep(0.02 * frames / speed)

    async def until(self, is_met: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not is_met():  # noqa: ASYNC110 - the client calls back, it sets nothing
                await asyncio.sleep(0.005)


@asynccontextmanager
async def sdk_session(sim: AssemblyAISim, key: str = "key", **more: Any) -> AsyncGenerator[SdkSession]:
    session = SdkSession(sim, key)
    parameters: dict[str, Any] = {"sample_rate": 8000, "speech_model": SpeechModel.universal_3_6_pro, **more}
    await session.client.connect(RealTimeParameters(**parameters))
    try:
        yield session
    finally:
        await session.client.disconnect()


async def test_sdk_hears_a_session_from_begin_to_termination() -> None:
    async with serving() as sim, sdk_session(sim, min_turn_silence=100, max_turn_silence=100) as session:
        await session.play(SAYS)
        await session.until(lambda: session.ends)
        await session.client.disconnect(terminate=True)
        assert [type(event) for event in session.events[:2]] == [BeginEvent, SpeechStartedEvent]
        assert isinstance(session.events[-1], TerminationEvent)
        assert session.errors == []
        (end,) = session.ends
        assert (end.transcript, end.turn_is_formatted, end.turn_order) == (TEXT, True, 0)
        assert end.words[0].start == pytest.approx(200, abs=20)
        assert end.words[-1].end == pytest.approx(1200, abs=20)
        assert all(word.word_is_final for word in end.words)
        partials = [turn for turn in session.all_of(TurnEvent) if not turn.end_of_turn]
        assert partials
        assert all(TEXT.startswith(turn.transcript) for turn in partials)
        assert session.events[-1].audio_duration_seconds == 2


async def test_sdk_ends_a_turn_by_force() -> None:
    async with serving() as sim, sdk_session(sim, max_turn_silence=5000, min_turn_silence=5000) as session:
        await session.play(mulaw.SILENT_FRAME * 10 + HELLO)
        await session.client.force_endpoint()
        await session.until(lambda: session.ends)
        assert session.ends[0].transcript == TEXT
        await session.client.force_endpoint()
        await session.client.keep_alive()
        await session.client.set_params(RealTimeSessionParameters(agent_context="Hello?"))
        await session.until(lambda: sim.stats["updates"])
        assert len(session.ends) == 1


async def test_sdk_hears_mulaw_and_the_models_that_show_each_word() -> None:
    async with (
        serving() as sim,
        sdk_session(
            sim,
            encoding="pcm_mulaw",
            speech_model=SpeechModel.universal_streaming_english,
            format_turns=True,
            max_turn_silence=200,
        ) as session,
    ):
        for at in range(0, len(SAYS), 800):
            await session.client.stream(SAYS[at : at + 800])
            await asyncio.sleep(0.02)
        await session.until(lambda: len(session.ends) == 2)
        plain, written = session.ends
        assert (plain.transcript, plain.turn_is_formatted) == ("hello i need a cleaning", False)
        assert (written.transcript, written.turn_is_formatted) == (TEXT, True)
        first = session.all_of(TurnEvent)[0]
        assert (first.transcript, first.words[0].text, first.words[0].word_is_final) == ("", "hello", False)


@pytest.mark.parametrize(
    ("fault", "code"),
    [(FaultKind.UNAUTHORIZED, 1008), (FaultKind.RATE_LIMITED, 3009), (FaultKind.SERVER_ERROR, 3005)],
)
async def test_sdk_is_told_why_it_is_not_let_in(fault: FaultKind, code: int) -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=fault, count=1))
        async with sdk_session(sim) as session:
            await session.until(lambda: session.errors)
            assert session.errors[0].code == code
        async with sdk_session(sim) as session:
            await session.until(lambda: session.events)


async def test_a_wrong_key_and_a_wrong_question_are_refused() -> None:
    async with serving(api_key="right") as sim:
        async with sdk_session(sim, "wrong") as session:
            await session.until(lambda: session.errors)
            assert session.errors[0].code == 1008
        headers = {"Authorization": "right"}
        async with aiohttp.ClientSession(headers=headers) as http:
            for query in ("sample_rate=8000", "speech_model=x", "speech_model=u3-rt-pro&encoding=flac"):
                async with http.ws_connect(f"{sim.base_url}/v3/ws?{query}") as socket:
                    told = await socket.receive_json()
                    assert (told["type"], told["error_code"]) == ("Error", 3006)
                    await socket.receive()
                    assert socket.close_code == 3006


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (bytes(2 * 160), 3007),
        (bytes(2 * 8160), 3007),
        (b"", 3007),
        ("[]", 3006),
        ("{", 3006),
        ('{"type": "Hello"}', 3006),
    ],
    ids=["short", "long", "empty", "list", "no json", "unknown"],
)
async def test_what_it_does_not_take_ends_the_session(sent: bytes | str, code: int) -> None:
    async with (
        serving() as sim,
        aiohttp.ClientSession(headers={"Authorization": "k"}) as http,
        http.ws_connect(f"{sim.base_url}/v3/ws?speech_model=u3-rt-pro&sample_rate=8000") as socket,
        asyncio.timeout(5),
    ):
        assert (await socket.receive_json())["type"] == "Begin"
        await (socket.send_bytes(sent) if isinstance(sent, bytes) else socket.send_str(sent))
        told = json.loads((await socket.receive()).data)
        assert (told["type"], told["error_code"]) == ("Error", code)
        await socket.receive()
        assert socket.close_code == code


@pytest.mark.parametrize("fault", [FaultKind.REFUSE, FaultKind.HANG_BEFORE_FIRST_BYTE])
async def test_a_handshake_may_go_unanswered(fault: FaultKind) -> None:
    async with serving() as sim, aiohttp.ClientSession() as http:
        sim.faults.arm(FaultSpec(kind=fault))
        with pytest.raises((aiohttp.ClientError, TimeoutError)):
            async with asyncio.timeout(0.3):
                await http.ws_connect(f"{sim.base_url}/v3/ws?speech_model=u3-rt-pro")


async def test_faults_in_a_session() -> None:
    async with serving() as sim:
        sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_words=2, count=1))
        sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
        sim.faults.arm(FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, after_s=0.0, count=1))
        sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, after_s=0.1, keyterm="other"))
        async with sdk_session(sim) as session:
            await session.play(SAYS)
            await session.until(lambda: session.errors)
        async with sdk_session(sim) as session:
            await session.play(SAYS)
            await session.client.disconnect(terminate=True)
            assert [type(event) for event in session.events] == [BeginEvent, TerminationEvent]
        async with sdk_session(sim) as session:
            await session.play(SAYS)
            assert session.events == []
        async with sdk_session(sim) as session:
            await session.play(SAYS)
            await session.until(lambda: session.ends)


async def test_pipecat_hears_it() -> None:
    async with serving() as sim:
        service = AssemblyAISTTService(
            api_key="key",
            api_endpoint_base_url=f"{sim.base_url}/v3/ws",
            sample_rate=8000,
            audio_passthrough=False,
        )
        pcm = mulaw.decode(SAYS)
        frames: list[Any] = []
        for at in range(0, len(pcm), 1600):
            frames += [InputAudioRawFrame(pcm[at : at + 1600], 8000, 1), SleepFrame(0.02)]
        half = len(frames) // 2
        frames[4:4] = [VADUserStartedSpeakingFrame()]
        down, _ = await run_test(
            service,
            frames_to_send=[*frames[:half], *frames[half:], VADUserStoppedSpeakingFrame(), SleepFrame(0.3)],
        )
        finals = [frame for frame in down if isinstance(frame, TranscriptionFrame)]
        assert [frame.text for frame in finals] == [TEXT]
        assert any(isinstance(frame, InterimTranscriptionFrame) for frame in down)
        assert sim.stats["terminated"] == 1


async def test_a_session_that_is_idle_for_as_long_as_it_asked_for_is_ended() -> None:
    async with (
        serving(PROFILES["instant"]) as sim,
        aiohttp.ClientSession(headers={"Authorization": "k"}) as http,
        http.ws_connect(f"{sim.base_url}/v3/ws?speech_model=u3-rt-pro&inactivity_timeout=5") as socket,
        asyncio.timeout(8),
    ):
        assert (await socket.receive_json())["type"] == "Begin"
        assert (await socket.receive_json())["error_code"] == 3008
