"""The socket keeps Cartesia's protocol, its limits and its ways to fail."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import pytest

from sims.cartesia import CartesiaSim
from sims.cartesia_socket import SubmissionError, Voicing, read_voicing, split_ready
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer, encode_ulaw
from sims.voice_vendor import GARBAGE, to_float32
from tests.sims.vendor_socket import open_socket

pytestmark = pytest.mark.real_time

OUTPUT = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 8000}


@pytest.fixture
async def sim(synthesizer: SpeechSynthesizer) -> AsyncIterator[CartesiaSim]:
    async with CartesiaSim(PROFILES["instant"], synthesizer=synthesizer) as sim:
        yield sim


class Client:
    """A raw client of one socket; `context` gets the same fields with every submission, as Pipecat does."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def submit(self, text: str, context: str = "a", *, more: bool = True, **fields: Any) -> None:
        message = {
            "transcript": text,
            "continue": more,
            "context_id": context,
            "model_id": "sonic-3.6",
            "voice": {"mode": "id", "id": "v"},
            "output_format": OUTPUT,
            "add_timestamps": True,
            "max_buffer_delay_ms": 0,
            "language": "en",
        }
        await self.socket.send_str(json.dumps(message | fields))

    async def cancel(self, context: str = "a") -> None:
        await self.socket.send_str(json.dumps({"context_id": context, "cancel": True}))

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return json.loads(await self.socket.receive_str())

    async def read_until(self, *kinds: str) -> list[dict[str, Any]]:
        messages = [await self.read()]
        while messages[-1]["type"] not in kinds:
            messages.append(await self.read())
        return messages

    async def expect_silence(self, seconds: float) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.socket.receive()


@contextlib.asynccontextmanager
async def connect(sim: CartesiaSim) -> AsyncGenerator[Client]:
    async with open_socket(
        f"{sim.base_url}/tts/websocket", {"X-API-Key": "k", "Cartesia-Version": "2026-03-01"}
    ) as socket:
        yield Client(socket)


@pytest.fixture
async def client(sim: CartesiaSim) -> AsyncIterator[Client]:
    async with connect(sim) as client:
        yield client


def audio_of(messages: list[dict[str, Any]]) -> bytes:
    return b"".join(base64.b64decode(m["data"]) for m in messages if m["type"] == "chunk")


def words_of(messages: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    return [
        word
        for m in messages
        if m["type"] == "timestamps"
        for word in zip(*(m["word_timestamps"][key] for key in ("words", "start", "end")), strict=True)
    ]


async def test_a_turn_of_two_sentences(
    sim: CartesiaSim, client: Client, synthesizer: SpeechSynthesizer
) -> None:
    await client.submit("Hello there.")
    await client.submit("How are you?")
    await client.submit("", more=False)
    messages = await client.read_until("done")
    first = synthesizer.synthesize("Hello there.", voice="v", rate_hz=8000)
    second = synthesizer.synthesize("How are you?", voice="v", rate_hz=8000)
    assert audio_of(messages) == first.pcm + bytes(2400) + second.pcm
    offset_s = first.duration_s + 0.15
    expected = [(word.text, word.start_s, word.end_s) for word in first.words]
    expected += [(word.text, offset_s + word.start_s, offset_s + word.end_s) for word in second.words]
    for (text, start_s, end_s), (want, want_start_s, want_end_s) in zip(
        words_of(messages), expected, strict=True
    ):
        assert text == want
        assert (start_s, end_s) == pytest.approx((want_start_s, want_end_s), abs=0.001)
    assert [m["type"] for m in messages].count("done") == 1
    assert [m["flush_id"] for m in messages if m["type"] == "flush_done"] == [1, 2]
    assert {m["context_id"] for m in messages} == {"a"}
    assert all(m["status_code"] == 206 for m in messages)
    assert sim.stats["characters"] == 24
    assert sim.active == 0


@pytest.mark.parametrize(
    ("encoding", "encode"), [("pcm_f32le", to_float32), ("pcm_mulaw", encode_ulaw), ("pcm_s16le", bytes)]
)
async def test_encodings(client: Client, synthesizer: SpeechSynthesizer, encoding: str, encode: Any) -> None:
    await client.submit("Hello.", more=False, output_format=OUTPUT | {"encoding": encoding})
    pcm = synthesizer.synthesize("Hello.", voice="v", rate_hz=8000).pcm
    assert audio_of(await client.read_until("done")) == encode(pcm)


async def test_words_only_on_request(client: Client) -> None:
    await client.submit("Hello.", more=False, add_timestamps=False)
    assert {m["type"] for m in await client.read_until("done")} == {"chunk", "flush_done", "done"}


async def test_contexts_run_side_by_side(client: Client) -> None:
    for name in "abc":
        await client.submit(f"Hello {name}.", name, more=False)
    messages: list[dict[str, Any]] = []
    for _ in "abc":
        messages += await client.read_until("done")
    for name in "abc":
        own = [m for m in messages if m["context_id"] == name]
        assert [word for word, _, _ in words_of(own)] == ["Hello", f"{name}."]


async def test_buffered_text_waits_for_a_sentence_or_the_delay(sim: CartesiaSim, client: Client) -> None:
    await client.submit("Hello ", max_buffer_delay_ms=300)
    await client.submit("there. How", max_buffer_delay_ms=300)
    assert [word for word, _, _ in words_of(await client.read_until("timestamps"))] == ["Hello"]
    assert [word for word, _, _ in words_of(await client.read_until("timestamps"))] == ["there."]
    assert sim.stats["texts"] == 1
    assert [word for word, _, _ in words_of(await client.read_until("timestamps"))] == ["How"]
    assert sim.stats["texts"] == 2


async def test_flush_speaks_what_is_held(client: Client) -> None:
    await client.submit("Hello", max_buffer_delay_ms=5000)
    await client.expect_silence(0.1)
    await client.submit("", flush=True)
    messages = await client.read_until("flush_done")
    assert [word for word, _, _ in words_of(messages)] == ["Hello"]
    assert messages[-1]["flush_id"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"voice": None},
        {"model_id": None},
        {"output_format": None},
        {"output_format": OUTPUT | {"encoding": "mp3"}},
        {"output_format": OUTPUT | {"sample_rate": 8001}},
        {"transcript": None},
        {"transcript": "", "continue": False},
        {"max_buffer_delay_ms": 6000},
    ],
)
async def test_a_bad_submission_is_an_error_of_its_context(client: Client, fields: dict[str, Any]) -> None:
    await client.submit("Hello.", **fields)
    error = await client.read()
    assert error["type"] == "error"
    assert error["status_code"] == 400
    assert error["context_id"] == "a"
    assert error["done"] is True
    await client.submit("Hello.", "b", more=False)
    assert audio_of(await client.read_until("done"))


async def test_nonsense_is_an_error_with_some_context(client: Client) -> None:
    await client.socket.send_str("no json")
    error = await client.read()
    assert error["status_code"] == 400
    assert error["context_id"]


async def test_fields_may_not_change_within_a_context(client: Client) -> None:
    await client.submit("Hello.")
    await client.read_until("flush_done")
    await client.submit("Again.", voice={"mode": "id", "id": "other"})
    assert (await client.read())["status_code"] == 400


async def test_a_context_expires_after_its_last_audio(client: Client) -> None:
    await client.submit("Hello.")
    await client.read_until("flush_done")
    await client.expect_silence(1.15)
    await client.submit("Too late.")
    error = await client.read()
    assert (error["type"], error["context_id"]) == ("error", "a")


async def test_cancel_lets_the_running_text_end_and_halts_the_rest(sim: CartesiaSim) -> None:
    sim.profile = PROFILES["realistic"]
    async with connect(sim) as client:
        await client.submit("This sentence is running already.")
        await client.submit("This one is never begun.")
        await client.read()
        await client.cancel()
        messages = await client.read_until("done")
        assert [word for word, _, _ in words_of(messages)] == [
            "This",
            "sentence",
            "is",
            "running",
            "already.",
        ]
        await client.submit("Not again.")
        assert (await client.read())["type"] == "error"
        await client.cancel("unknown")
        await client.expect_silence(0.1)
    assert sim.stats["contexts_cut"] == 1
    assert [spoken.text for spoken in sim.spoken_log] == ["This sentence is running already."]


async def test_contexts_over_the_plan(sim: CartesiaSim) -> None:
    sim.profile, sim.concurrency = PROFILES["realistic"], 1
    async with connect(sim) as client:
        await client.submit("Hello there.", more=False)
        await client.submit("One too many.", "b", more=False)
        error = await client.read()
        assert (error["context_id"], error["status_code"]) == ("b", 429)
        assert error["error_code"] == "concurrency_limited"
        assert audio_of(await client.read_until("done"))
        await client.submit("Now there is room.", "c", more=False)
        assert audio_of(await client.read_until("done"))


async def test_an_idle_socket_is_closed(sim: CartesiaSim) -> None:
    sim.idle_timeout_s = 0.3
    async with connect(sim) as client:
        await client.submit("Hello.", more=False)
        await client.read_until("done")
        async with asyncio.timeout(2):
            message = await client.socket.receive()
        assert (client.socket.close_code, message.extra) == (1000, "connection idle timeout")


async def test_quota(sim: CartesiaSim, client: Client) -> None:
    sim.character_quota = 3
    await client.submit("Hello.", more=False)
    assert (await client.read())["status_code"] == 402


# --- Faults


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (FaultKind.UNAUTHORIZED, 401),
        (FaultKind.RATE_LIMITED, 429),
        (FaultKind.SERVER_ERROR, 500),
        (FaultKind.OVERLOADED, 503),
    ],
)
async def test_a_refusal_after_the_upgrade_is_told_in_band(
    sim: CartesiaSim, client: Client, kind: FaultKind, status: int
) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1))
    await client.submit("Hello.", more=False)
    error = await client.read()
    assert (error["type"], error["status_code"], error["context_id"]) == ("error", status, "a")
    await client.submit("Hello.", "b", more=False)
    assert audio_of(await client.read_until("done"))


async def test_empty_is_done_without_a_chunk(sim: CartesiaSim, client: Client) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    await client.submit("Hello.", more=False)
    assert audio_of(await client.read_until("done")) == b""


@pytest.mark.parametrize("kind", [FaultKind.HANG_BEFORE_FIRST_BYTE, FaultKind.HANG_AFTER_FIRST_BYTE])
async def test_a_hang_is_of_one_context(sim: CartesiaSim, client: Client, kind: FaultKind) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1, after_s=0.1))
    await client.submit("Hello there, my friend.", "dead", more=False)
    if kind is FaultKind.HANG_AFTER_FIRST_BYTE:
        assert (await client.read())["type"] == "chunk"
        assert (await client.read())["type"] == "timestamps"
    await client.expect_silence(0.2)
    await client.submit("Hello.", more=False)
    assert {m["context_id"] for m in await client.read_until("done")} == {"a"}


@pytest.mark.parametrize("kind", [FaultKind.CLOSE_MID_STREAM, FaultKind.REFUSE])
async def test_a_cut_has_no_goodbye(sim: CartesiaSim, client: Client, kind: FaultKind) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1, after_s=0.2))
    await client.submit("Hello there, my friend.", more=False)
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(2):
        while (message := await client.socket.receive()).type is aiohttp.WSMsgType.TEXT:
            messages.append(json.loads(message.data))
    seconds = len(audio_of(messages)) / 16000
    assert 0.2 <= seconds < 0.5 if kind is FaultKind.CLOSE_MID_STREAM else seconds == 0
    assert client.socket.close_code in (None, 1006)


async def test_garbage_is_no_json(sim: CartesiaSim, client: Client) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1))
    await client.submit("Hello.", more=False)
    assert await client.socket.receive_str() == GARBAGE


# --- Pure parts


@pytest.mark.parametrize(
    ("held", "ready", "rest"),
    [
        ("", "", ""),
        ("Hello", "", "Hello"),
        ("Hello.", "", "Hello."),  # "3." may go on
        ("Hello. ", "Hello.", " "),
        ("It costs 3.5 euro. And", "It costs 3.5 euro.", " And"),
        ('He said "no!" Then', 'He said "no!"', " Then"),
        ("One. Two? Three", "One. Two?", " Three"),
    ],
)
def test_whole_sentences_are_ready(held: str, ready: str, rest: str) -> None:
    assert split_ready(held) == (ready, rest)


def test_a_voice_is_an_id_or_an_object_with_one() -> None:
    message = {"voice": "v", "model_id": "m", "output_format": OUTPUT}
    expected = Voicing("v", "m", "pcm_s16le", 8000, language=None, wants_words=False)
    assert read_voicing(message) == expected
    assert read_voicing(message | {"voice": {"mode": "id", "id": "v"}}) == expected
    with pytest.raises(SubmissionError, match="voice"):
        read_voicing(message | {"voice": {"mode": "embedding"}})
