import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from sims import mulaw
from sims.faults import FaultKind, FaultSpec
from sims.free_speech import FreeSpeech
from sims.live_stream import Ears, LiveStream, StreamParts
from sims.speech import Word, encode_ulaw
from sims.spoken import Encoding, HeardWord, SpokenIndex

pytestmark = pytest.mark.real_time


def loud(seconds: float) -> bytes:
    """Mu-law noise."""
    samples = np.random.default_rng(1).normal(0, 4000, round(8000 * seconds)).clip(-32000, 32000)
    return encode_ulaw(samples.astype("<i2").tobytes())


HELLO = loud(0.4)
INDEX = SpokenIndex()
INDEX.add(HELLO, [Word("Hello,", 0.0, 0.2), Word("Anna.", 0.2, 0.4)])


class Nothing:
    """A transcript that is never due."""

    due_s: float | None = None

    def expect(self, until_s: float, /) -> None:
        raise AssertionError(until_s)

    def guess(self, words: Sequence[HeardWord], /) -> None:
        raise AssertionError(words)

    def settle(self, now_s: float, words: Sequence[HeardWord], /) -> None:
        raise AssertionError(now_s, words)


class Parrot(LiveStream):
    """Tells at once what it hears, and leaves with the code it is told."""

    def hear(self, audio: bytes, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        if words:
            self.say_at_once({"heard": " ".join(word.text for word in words)})

    def hear_nothing(self) -> None:
        self.say_at_once("nothing")

    def obey(self, text: str, message: object) -> None:
        match message:
            case {"leave": code}:
                self.leave(code, "as you say")
            case _:
                self.say_at_once(f"what is {text}?")

    def leave_idle(self) -> None:
        self.leave(1011, "idle")

    async def tell(self, now_s: float) -> None:
        """Nothing is ever due."""


@asynccontextmanager
async def parrot(
    *, fault: FaultSpec | None = None, idle_limit_s: float = 10.0, speed: float = 0.0
) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    """A client's socket to a parrot."""
    free_speech = FreeSpeech()
    stats: Counter[str] = Counter()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        assert request.transport is not None
        ears = Ears(Encoding.LINEAR16, 8000, INDEX, free_speech)
        parts = StreamParts(
            socket, request.transport.abort, ears, lambda: 0.0, idle_limit_s, fault, stats, speed
        )
        await Parrot(parts, Nothing()).run()
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}/") as socket,
            asyncio.timeout(5),
        ):
            yield socket
    finally:
        await runner.cleanup()
        await free_speech.close()


async def test_words_of_known_frames_are_heard_and_silence_is_nothing() -> None:
    free_speech = FreeSpeech()
    ears = Ears(Encoding.LINEAR16, 8000, INDEX, free_speech)
    heard = list(ears.hear(mulaw.decode(mulaw.SILENT_FRAME * 5)))
    assert (heard, ears.is_speaking) == ([], False)
    heard += ears.hear(mulaw.decode(HELLO[:800]))
    assert ears.is_speaking
    heard += ears.hear(mulaw.decode(HELLO[800:]))
    assert [(word.text, round(word.end_s, 3)) for word in heard] == [("Hello,", 0.3), ("Anna.", 0.5)]
    assert ears.audio_s == pytest.approx(0.5)
    assert not free_speech.is_running


async def test_wideband_knows_no_scripts() -> None:
    free_speech = FreeSpeech(command=("false",))
    ears = Ears(Encoding.LINEAR16, 16000, INDEX, free_speech)
    assert ears.hear(mulaw.decode(HELLO)) == ()
    assert ears.audio_s == pytest.approx(0.2)
    await free_speech.close()


@pytest.mark.parametrize(
    ("fault", "delay_s"), [(None, 0.1), (FaultSpec(kind=FaultKind.TRICKLE), 0.1 + 4 * 0.5)]
)
async def test_a_trickling_stream_falls_behind(fault: FaultSpec | None, delay_s: float) -> None:
    ears = Ears(Encoding.MULAW, 8000, INDEX, FreeSpeech())
    ears.hear(mulaw.SILENT_FRAME * 25)
    no_socket = web.WebSocketResponse()
    parts = StreamParts(no_socket, lambda: None, ears, lambda: 0.1, 10.0, fault, Counter())
    assert parts.latency_s() == pytest.approx(delay_s)


async def test_a_stream_hears_obeys_and_says_goodbye_with_its_code() -> None:
    async with parrot() as socket:
        await socket.send_bytes(mulaw.decode(HELLO))
        assert await socket.receive_json() == {"heard": "Hello, Anna."}
        await socket.send_bytes(b"")
        assert await socket.receive_str() == "nothing"
        await socket.send_str("{that")
        assert await socket.receive_str() == "what is {that?"
        await socket.send_json({"leave": 1008})
        message = await socket.receive()
        assert (socket.close_code, message.extra) == (1008, "as you say")


async def test_a_goodbye_without_a_code() -> None:
    async with parrot() as socket:
        await socket.send_json({"leave": None})
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data in (0, 1005)  # no code was on the wire


async def test_who_sends_nothing_is_left() -> None:
    async with parrot(idle_limit_s=0.2) as socket:
        message = await socket.receive()
        assert (message.data, message.extra) == (1011, "idle")


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (FaultKind.GARBAGE, lambda m: m.type is aiohttp.WSMsgType.TEXT and m.data.startswith("<html>")),
        (FaultKind.CLOSE_MID_STREAM, lambda m: m.type is aiohttp.WSMsgType.CLOSED and m.data is None),
    ],
)
async def test_faults_hit_in_mid_stream(kind: FaultKind, answer: Callable[[aiohttp.WSMessage], bool]) -> None:
    async with parrot(fault=FaultSpec(kind=kind, after_s=0.04)) as socket:
        await socket.send_bytes(bytes(320))
        await socket.send_bytes(bytes(320))
        assert answer(await socket.receive())


async def test_a_mute_stream_stays_open() -> None:
    async with parrot(fault=FaultSpec(kind=FaultKind.HANG_AFTER_FIRST_BYTE, after_s=0.0)) as socket:
        await socket.send_bytes(mulaw.decode(HELLO))
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.2)
        assert not socket.closed


async def test_audio_that_comes_faster_than_it_is_listened_to_waits() -> None:
    async with parrot(speed=2.0) as socket:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for _ in range(10):
            await socket.send_bytes(mulaw.decode(mulaw.SILENT_FRAME * 5))
        await socket.send_bytes(mulaw.decode(HELLO))
        assert await socket.receive_json() == {"heard": "Hello, Anna."}
        assert loop.time() - began_s > 1.2 / 2.0 - 0.35


async def test_a_fault_may_come_behind_so_many_words() -> None:
    fault = FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_words=1)
    async with parrot(fault=fault) as socket:
        await socket.send_bytes(mulaw.decode(mulaw.SILENT_FRAME * 100))
        await socket.send_bytes(mulaw.decode(HELLO[: 8 * 400]))
        message = await socket.receive()
        while message.type is aiohttp.WSMsgType.TEXT:
            message = await socket.receive()
        assert socket.close_code == 1006
