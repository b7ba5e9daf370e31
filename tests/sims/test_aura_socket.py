"""The socket keeps Aura's protocol, its limits and its ways to fail."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import pytest

from sims import aura_socket
from sims.aura import AuraSim
from sims.aura_socket import MAX_FLUSHES_A_MINUTE, MAX_SPEAK_CHARS
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer, encode_ulaw
from sims.voice_vendor import GARBAGE
from tests.sims.vendor_socket import open_socket

pytestmark = pytest.mark.real_time

VOICE = "aura-2-thalia-en"
PIECE = "Hello there."


@pytest.fixture
async def sim(synthesizer: SpeechSynthesizer) -> AsyncIterator[AuraSim]:
    async with AuraSim(PROFILES["instant"], synthesizer=synthesizer) as sim:
        yield sim


class Client:
    """A raw client of one socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.pcm = b""

    async def send(self, kind: str, **more: object) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **more}))

    async def read_until(self, kind: str) -> dict[str, Any]:
        """Return the next message of this kind; audio goes to `pcm`, other messages are passed over."""
        async with asyncio.timeout(5):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.BINARY:
                    self.pcm += message.data
                elif message.type is aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == kind:
                    return json.loads(message.data)
                elif message.type is not aiohttp.WSMsgType.TEXT:
                    raise AssertionError(f"{message.type.name} {message.data} in place of {kind}")

    async def read_close(self) -> int | None:
        async with asyncio.timeout(5):
            while (message := await self.socket.receive()).type in (
                aiohttp.WSMsgType.TEXT,
                aiohttp.WSMsgType.BINARY,
            ):
                pass
        return message.data if message.type is aiohttp.WSMsgType.CLOSE else self.socket.close_code


@contextlib.asynccontextmanager
async def connect(sim: AuraSim, query: str = f"model={VOICE}&sample_rate=8000") -> AsyncGenerator[Client]:
    async with open_socket(f"{sim.base_url}/v1/speak?{query}", {"Authorization": "Token k"}) as socket:
        yield Client(socket)


@pytest.fixture
async def client(sim: AuraSim) -> AsyncIterator[Client]:
    async with connect(sim) as client:
        yield client


def pcm_of(synthesizer: SpeechSynthesizer, text: str) -> bytes:
    return synthesizer.synthesize(text, voice=VOICE, rate_hz=8000).pcm


async def test_nothing_is_said_before_a_flush(client: Client, synthesizer: SpeechSynthesizer) -> None:
    assert (await client.read_until("Metadata"))["model_name"] == VOICE
    await client.send("Speak", text="Hello ")
    await client.send("Speak", text="there.")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.socket.receive()


async def test_a_flush_says_all_there_is_and_is_answered_behind_it(
    sim: AuraSim, client: Client, synthesizer: SpeechSynthesizer
) -> None:
    for number in range(2):
        await client.send("Speak", text="Hello ")
        await client.send("Speak", text="there.")
        await client.send("Flush")
        assert (await client.read_until("Flushed"))["sequence_id"] == number
    assert client.pcm == 2 * pcm_of(synthesizer, PIECE)
    await client.send("Flush")
    assert (await client.read_until("Flushed"))["sequence_id"] == 2
    assert client.pcm == 2 * pcm_of(synthesizer, PIECE)
    assert [spoken.text for spoken in sim.spoken_log] == [PIECE, PIECE]


async def test_mulaw(sim: AuraSim, synthesizer: SpeechSynthesizer) -> None:
    async with connect(sim, f"model={VOICE}&sample_rate=8000&encoding=mulaw") as client:
        await client.send("Speak", text=PIECE)
        await client.send("Flush")
        await client.read_until("Flushed")
        assert client.pcm == encode_ulaw(pcm_of(synthesizer, PIECE))


async def test_a_clear_drops_what_is_held_and_what_is_being_said(
    sim: AuraSim, client: Client, synthesizer: SpeechSynthesizer
) -> None:
    sim.profile = PROFILES["realistic"]
    await client.send("Speak", text="One thing that takes a while to say, and longer. ")
    await client.send("Flush")
    await client.send("Speak", text="Another. ")
    await client.send("Clear")
    await client.read_until("Cleared")
    client.pcm = b""
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    await client.read_until("Flushed")
    assert client.pcm == pcm_of(synthesizer, PIECE)


async def test_close_says_what_is_left_and_hangs_up(client: Client, synthesizer: SpeechSynthesizer) -> None:
    await client.read_until("Metadata")
    await client.send("Speak", text=PIECE)
    await client.send("Close")
    while (message := await client.socket.receive()).type is aiohttp.WSMsgType.BINARY:
        client.pcm += message.data
    assert (message.data, client.pcm) == (1000, pcm_of(synthesizer, PIECE))


async def test_a_flush_too_many_is_refused_and_the_text_stays(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MAX_FLUSHES_A_MINUTE):
        await client.send("Flush")
        await client.read_until("Flushed")
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    assert (await client.read_until("Warning"))["code"] == "EXCESSIVE_FLUSH"
    assert client.pcm == b""
    monkeypatch.setattr(aura_socket, "MINUTE_S", 0.0)
    await client.send("Flush")
    await client.read_until("Flushed")
    assert client.pcm != b""


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("[]", 1008),
        ('{"type": "Sing"}', 1008),
        ('{"type": "Speak"}', 1008),
        (json.dumps({"type": "Speak", "text": "x" * (MAX_SPEAK_CHARS + 1)}), 1009),
    ],
)
async def test_what_it_does_not_take_ends_the_socket(client: Client, message: str, code: int) -> None:
    await client.socket.send_str(message)
    assert await client.read_close() == code


async def test_bytes_and_too_much_text_in_a_minute_end_it_too(sim: AuraSim) -> None:
    async with connect(sim) as client:
        await client.socket.send_bytes(b"x")
        assert await client.read_close() == 1003
    async with connect(sim) as client:
        for _ in range(13):
            await client.send("Speak", text="x" * 200)
        assert await client.read_close() == 1008


async def test_a_socket_has_its_time(sim: AuraSim) -> None:
    sim.session_limit_s = 0.1
    async with connect(sim) as client:
        assert await client.read_close() == 1011


@pytest.mark.parametrize(
    ("fault", "code"),
    [(FaultKind.REFUSE, 1006), (FaultKind.SERVER_ERROR, 1011), (FaultKind.CLOSE_MID_STREAM, 1006)],
)
async def test_faults_while_it_speaks(sim: AuraSim, client: Client, fault: FaultKind, code: int) -> None:
    sim.faults.arm(FaultSpec(kind=fault, count=1))
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    assert await client.read_close() == code


async def test_garbage_empty_answers_and_silence(sim: AuraSim, client: Client) -> None:
    await client.read_until("Metadata")
    sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    await client.read_until("Flushed")
    assert client.pcm == b""
    sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1))
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    assert (await client.socket.receive_str()) == GARBAGE
    await client.send("Clear")
    await client.read_until("Cleared")
    sim.faults.arm(FaultSpec(kind=FaultKind.HANG_BEFORE_FIRST_BYTE, count=1))
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.socket.receive()


async def test_an_account_that_is_used_up_ends_the_socket(sim: AuraSim, client: Client) -> None:
    sim.character_quota = 3
    await client.send("Speak", text=PIECE)
    await client.send("Flush")
    assert await client.read_close() == 1008
