"""The sockets keep ElevenLabs' protocol, its limits and its ways to fail."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import pytest
from elevenlabs.types import AudioOutputMulti, FinalOutputMulti

from sims.elevenlabs import ElevenLabsSim
from sims.elevenlabs_socket import MAX_CONTEXTS
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer
from sims.voice_vendor import GARBAGE
from tests.sims.vendor_socket import open_socket

pytestmark = pytest.mark.real_time

AUTO = "multi-stream-input?model_id=eleven_flash_v2_5&output_format=pcm_8000&auto_mode=true"


@pytest.fixture
async def sim(synthesizer: SpeechSynthesizer) -> AsyncIterator[ElevenLabsSim]:
    async with ElevenLabsSim(PROFILES["instant"], synthesizer=synthesizer) as sim:
        yield sim


class Client:
    """A raw client of one socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            await self.socket.send_str(json.dumps(message))

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return json.loads(await self.socket.receive_str())

    async def read_context(self) -> list[dict[str, Any]]:
        """Read up to and with the next final frame."""
        frames = [await self.read()]
        while frames[-1].get("isFinal") is not True:
            frames.append(await self.read())
        return frames

    async def read_end(self) -> tuple[list[dict[str, Any]], int | None, str | None]:
        """Read until the server closes: the frames before, the close code and its reason."""
        frames: list[dict[str, Any]] = []
        async with asyncio.timeout(5):
            while (message := await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                frames.append(json.loads(message.data))
        return frames, self.socket.close_code, message.extra


@pytest.fixture
async def client(sim: ElevenLabsSim) -> AsyncIterator[Client]:
    async with connect(sim) as client:
        yield client


@contextlib.asynccontextmanager
async def connect(sim: ElevenLabsSim, path: str = AUTO) -> AsyncGenerator[Client]:
    async with open_socket(f"{sim.base_url}/v1/text-to-speech/voice-1/{path}", {"xi-api-key": "k"}) as socket:
        yield Client(socket)


def audio_of(frames: list[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(frame.get("audio") or "") for frame in frames)


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join("".join(frame["alignment"]["chars"]) for frame in frames if frame.get("alignment"))


TURN = [
    {"text": " ", "context_id": "a", "voice_settings": {"stability": 0.5}},
    {"text": "Hello there.", "context_id": "a"},
    {"text": "How are you?", "context_id": "a"},
    {"context_id": "a", "flush": True},
    {"context_id": "a", "close_context": True},
]


async def test_flush_and_close_back_to_back_still_speak_everything(
    sim: ElevenLabsSim, client: Client, synthesizer: SpeechSynthesizer
) -> None:
    await client.send(*TURN)
    *frames, final = await client.read_context()
    assert final == {"isFinal": True, "contextId": "a"}
    assert text_of(frames) == "Hello there. How are you?"
    first = synthesizer.synthesize("Hello there.", voice="voice-1", rate_hz=8000)
    second = synthesizer.synthesize("How are you?", voice="voice-1", rate_hz=8000)
    assert audio_of(frames) == first.pcm + bytes(2400) + second.pcm
    assert [spoken.text for spoken in sim.spoken_log] == ["Hello there.", "How are you?"]
    assert sim.stats["characters"] == 24


async def test_frames_are_what_the_sdk_types_say(client: Client) -> None:
    await client.send(*TURN)
    *frames, final = await client.read_context()
    for frame in frames:
        parsed = AudioOutputMulti.model_validate(frame)
        assert parsed.context_id == "a"
        assert parsed.alignment
        assert parsed.alignment.chars
        assert parsed.normalized_alignment
        assert frame["isFinal"] is None
    assert FinalOutputMulti.model_validate(final).is_final


async def test_flush_alone_brings_no_final(client: Client) -> None:
    await client.send(*TURN[:-1])
    frames = [await client.read()]
    while not text_of(frames).endswith("you?"):
        frames.append(await client.read())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.socket.receive()


async def test_closing_before_the_flush_cuts(sim: ElevenLabsSim) -> None:
    sim.profile = PROFILES["realistic"]
    async with connect(sim) as client:
        text = "This is a rather long sentence that takes more than four seconds to be said aloud by anyone."
        await client.send({"text": text, "context_id": "a"})
        first = await client.read()
        await client.send({"context_id": "a", "close_context": True})
        *late, final = await client.read_context()
        assert final == {"isFinal": True, "contextId": "a"}
        assert len(audio_of([first, *late])) < 2 * 8000 * 2
        await client.send({"close_socket": True})
        assert await client.read_end() == ([], 1000, "")
    assert sim.stats["contexts_cut"] == 1


async def test_contexts_run_side_by_side_and_an_id_can_be_used_again(sim: ElevenLabsSim) -> None:
    async with connect(sim) as client:
        for name in "ab":
            await client.send(
                {"text": f"Hello {name}.", "context_id": name}, {"context_id": name, "flush": True}
            )
        await client.send(*({"context_id": name, "close_context": True} for name in "ab"))
        frames = await client.read_context() + await client.read_context()
        assert {frame["contextId"] for frame in frames if frame.get("isFinal")} == {"a", "b"}
        for name in "ab":
            own = [frame for frame in frames if frame["contextId"] == name]
            assert text_of(own) == f"Hello {name}."
        await client.send(*TURN)
        assert text_of(await client.read_context()) == "Hello there. How are you?"


async def test_text_is_held_without_auto_mode(sim: ElevenLabsSim) -> None:
    async with connect(sim, AUTO.replace("true", "false")) as client:
        await client.send({"text": "Hello ", "context_id": "a"}, {"text": "there. ", "context_id": "a"})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await client.socket.receive()
        assert sim.stats["texts"] == 0
    async with connect(sim, AUTO.replace("true", "false")) as client:
        schedule = {"generation_config": {"chunk_length_schedule": [8]}}
        await client.send({"text": "Hello there ", "context_id": "a", **schedule})
        assert text_of([await client.read()]).startswith("H")
        await client.send({"context_id": "a", "flush": True}, {"context_id": "a", "close_context": True})
        await client.read_context()


@pytest.mark.parametrize("keepalive", [{"text": ""}, {"text": "", "context_id": "a"}])
async def test_keepalive_says_nothing(sim: ElevenLabsSim, client: Client, keepalive: dict[str, Any]) -> None:
    await client.send(TURN[0], keepalive, keepalive, *TURN[1:])
    frames = await client.read_context()
    assert text_of(frames) == "Hello there. How are you?"
    assert sim.stats["texts"] == 2


async def test_close_socket_waits_for_an_open_default_context(client: Client) -> None:
    await client.send({"text": ""}, {"close_socket": True})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.socket.receive()
    await client.send({"close_context": True})
    frames, code, _ = await client.read_end()
    assert frames == [{"isFinal": True, "contextId": None}]
    assert code == 1000


async def test_a_context_that_ends_late_counts_until_it_has(sim: ElevenLabsSim, client: Client) -> None:
    sim.ends_contexts_after_s = 0.1
    names = [str(number) for number in range(MAX_CONTEXTS)]
    await client.send(*({"text": " ", "context_id": name} for name in names))
    await client.send({"context_id": "0", "close_context": True})
    assert await client.read() == {"isFinal": True, "contextId": "0"}
    await client.send(*TURN)
    assert text_of(await client.read_context()) == "Hello there. How are you?"
    await client.send(
        {"context_id": "1", "close_context": True}, *({**TURN[0], "context_id": x} for x in "xy")
    )
    (frame,), _, _ = await client.read_end()
    assert frame["error"] == "max_active_conversations"
    assert sim.stats["contexts_refused"] == 1


async def test_sixth_context_is_an_error(client: Client) -> None:
    await client.send(*({"text": " ", "context_id": str(number)} for number in range(6)))
    (frame,), code, reason = await client.read_end()
    assert frame["error"] == "max_active_conversations"
    assert frame["code"] == code == 1008
    assert reason == frame["message"]


async def test_voice_settings_may_be_repeated_but_not_changed(client: Client) -> None:
    await client.send(TURN[0], {**TURN[1], "voice_settings": {"stability": 0.5}})
    assert (await client.read())["audio"]
    await client.send({**TURN[2], "voice_settings": {"stability": 0.9}})
    _, code, reason = await client.read_end()
    assert code == 1008
    assert reason is not None
    assert reason.startswith("voice_settings field must be provided in the first message")


async def test_an_idle_context_ends_and_the_socket_stays(sim: ElevenLabsSim) -> None:
    async with connect(sim, AUTO + "&inactivity_timeout=1") as client:
        await client.send({"text": " ", "context_id": "a"})
        assert await client.read() == {"isFinal": True, "contextId": "a"}
        await client.send(*TURN)
        assert audio_of(await client.read_context())


@pytest.mark.parametrize("message", ["no json", "[]", '{"text": 5}', '{"text": "x", "context_id": 5}'])
async def test_nonsense_is_a_policy_violation(client: Client, message: str) -> None:
    await client.socket.send_str(message)
    frames, code, _ = await client.read_end()
    assert frames[0]["error"] == "invalid_message"
    assert code == 1008


async def test_late_messages_of_an_ended_context_are_ignored(client: Client) -> None:
    await client.send({"context_id": "x", "close_context": True}, {"context_id": "x", "flush": True}, *TURN)
    assert text_of(await client.read_context()) == "Hello there. How are you?"


async def test_quota(sim: ElevenLabsSim, client: Client) -> None:
    sim.character_quota = 15
    await client.send(*TURN)
    frames, code, reason = await client.read_end()
    assert text_of(frames[:-1]) == "Hello there."
    assert frames[-1]["error"] == "quota_exceeded"
    assert code == 1008
    assert reason is not None
    assert "quota" in reason


# --- Faults


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        (FaultKind.UNAUTHORIZED, 1008, "invalid_api_key"),
        (FaultKind.RATE_LIMITED, 1008, "too_many_concurrent_requests"),
        (FaultKind.SERVER_ERROR, 1011, "internal_error"),
        (FaultKind.OVERLOADED, 1008, "system_busy"),
    ],
)
async def test_a_refusal_after_the_upgrade_is_told_in_band(
    sim: ElevenLabsSim, client: Client, kind: FaultKind, code: int, error: str
) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1))
    await client.send(*TURN)
    frames, close_code, _ = await client.read_end()
    assert [frame["error"] for frame in frames] == [error]
    assert close_code == code


async def test_faults_strike_one_context(sim: ElevenLabsSim, client: Client) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    await client.send(*TURN)
    assert await client.read_context() == [{"isFinal": True, "contextId": "a"}]
    await client.send(*TURN)
    assert text_of(await client.read_context()) == "Hello there. How are you?"
    assert sim.faults.hits == {FaultKind.EMPTY: 1}


async def test_a_hang_leaves_the_other_contexts_alone(sim: ElevenLabsSim, client: Client) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE, count=1))
    await client.send({"text": "Nobody hears this.", "context_id": "dead"})
    await client.send(*TURN)
    frames = await client.read_context()
    assert {frame["contextId"] for frame in frames} == {"a"}
    await client.send({"context_id": "dead", "close_context": True}, *TURN)
    assert {frame["contextId"] for frame in await client.read_context()} == {"a"}


@pytest.mark.parametrize("kind", [FaultKind.CLOSE_MID_STREAM, FaultKind.REFUSE])
async def test_a_cut_has_no_goodbye(sim: ElevenLabsSim, client: Client, kind: FaultKind) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1, after_s=0.4))
    await client.send(*TURN)
    frames, code, _ = await client.read_end()
    seconds = len(audio_of(frames)) / 16000
    assert 0.4 <= seconds < 0.7 if kind is FaultKind.CLOSE_MID_STREAM else seconds == 0
    assert code in (None, 1006)


async def test_garbage_is_no_json(sim: ElevenLabsSim, client: Client) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1))
    await client.send(*TURN)
    assert await client.socket.receive_str() == GARBAGE


async def test_a_client_that_leaves_mid_sentence_leaves_nothing_behind(sim: ElevenLabsSim) -> None:
    sim.profile = PROFILES["realistic"]
    async with connect(sim) as client:
        await client.send(*TURN)
        await client.read()
        (context,) = [task for task in asyncio.all_tasks() if task.get_name() == "elevenlabs_context"]
    await asyncio.wait([context], timeout=2)
    assert context.cancelled()


async def test_single_context_socket_ends_with_the_empty_text(sim: ElevenLabsSim) -> None:
    async with connect(sim, "stream-input?model_id=eleven_flash_v2_5&output_format=pcm_8000") as client:
        await client.send(
            {"text": " ", "voice_settings": None, "generation_config": {"chunk_length_schedule": [50]}},
            {"text": "Hello ", "try_trigger_generation": True},
            {"text": "there. ", "try_trigger_generation": True},
            {"text": ""},
        )
        frames, code, _ = await client.read_end()
    assert text_of(frames) == "Hello there. "
    assert all("contextId" not in frame for frame in frames)
    assert frames[-1] == {"isFinal": True}
    assert code == 1000


async def test_single_context_socket_needs_input_in_time(sim: ElevenLabsSim) -> None:
    async with connect(sim, "stream-input?inactivity_timeout=1") as client:
        await client.send({"text": " "})
        (frame,), code, _ = await client.read_end()
    assert frame["error"] == "input_timeout_exceeded"
    assert code == 1008
