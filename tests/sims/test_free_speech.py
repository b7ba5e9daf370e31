import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import orjson
import pytest

from sims import live_stream, mulaw
from sims.deepgram import DeepgramSim
from sims.free_speech import FRAME_S, FreeSpeech, FreeSpeechLine, Gate, SpeechGate
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer, encode_ulaw
from sims.spoken import HeardWord

pytestmark = pytest.mark.real_time

SENTENCE = "Are you open on Saturday?"


class Ear:
    """Notes what a line tells."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.words: list[tuple[HeardWord, ...]] = []
        self.guesses: list[str] = []
        self.done = asyncio.Event()

    def recognition_began(self) -> None:
        self.told.append("began")

    def recognition_ended(self) -> None:
        self.told.append("ended")

    def guessed(self, words: Sequence[HeardWord]) -> None:
        self.guesses.append(" ".join(word.text for word in words))

    def recognised(self, words: Sequence[HeardWord]) -> None:
        self.told.append("recognised")
        self.words.append(tuple(words))
        self.done.set()


def sentence(rate_hz: int) -> bytes:
    """Half a second of room noise, the sentence, a second of noise; s16le."""
    synthesizer = SpeechSynthesizer()
    speech = synthesizer.synthesize(SENTENCE, voice="caller-2", rate_hz=rate_hz)
    synthesizer.close()
    room = np.random.default_rng(1).normal(0, 8, rate_hz).astype("<i2").tobytes()
    return room[:rate_hz] + speech.pcm + room


def play(line: FreeSpeechLine, pcm: bytes, rate_hz: int, *, chunk_bytes: int = 640) -> None:
    for at in range(0, len(pcm), chunk_bytes):
        chunk = pcm[at : at + chunk_bytes]
        line.hear(chunk, (at + len(chunk)) / 2 / rate_hz)


# --- Cutting


def verdicts(levels_db: Sequence[float]) -> list[Gate]:
    gate = SpeechGate()
    return [gate.take(level_db) for level_db in levels_db]


def test_speech_begins_soon_and_ends_after_half_a_second() -> None:
    got = verdicts([-60.0] * 50 + [-20.0] * 50 + [-60.0] * 50)
    assert got.index(Gate.BEGAN) == 50 + 8
    assert got.index(Gate.ENDED) == 100 + 24
    assert got.count(Gate.BEGAN) == got.count(Gate.ENDED) == 1


def test_a_click_is_not_speech() -> None:
    assert Gate.BEGAN not in verdicts([-60.0] * 20 + [-10.0] * 5 + [-60.0] * 20)


def test_steady_noise_becomes_the_floor() -> None:
    assert Gate.BEGAN not in verdicts([-42.0 + (n % 2) for n in range(200)])


def test_endless_speech_is_cut() -> None:
    got = verdicts([-20.0, -24.0] * 700)
    assert got.index(Gate.ENDED) - got.index(Gate.BEGAN) == 600


# --- Recognising


@pytest.mark.parametrize(("rate_hz", "chunk_bytes"), [(16000, 640), (48000, 1000)])
async def test_a_sentence_is_recognised_with_its_times(rate_hz: int, chunk_bytes: int) -> None:
    speech, ear = FreeSpeech(), Ear()
    line = speech.open_line(rate_hz)
    line.listen(ear)
    assert speech.is_running  # a person in a browser does not wait for it
    play(line, sentence(rate_hz), rate_hz, chunk_bytes=chunk_bytes)
    async with asyncio.timeout(10):
        await ear.done.wait()
    await speech.close()
    assert ear.told == ["began", "ended", "recognised"]
    [words] = ear.words
    text = " ".join(word.text for word in words)
    assert text.startswith("Are you open on saturday")  # it may hear one more word in the room's noise
    assert text.endswith(".")
    assert words[0].start_s == pytest.approx(0.5, abs=0.15)
    assert all(a.end_s <= b.start_s + FRAME_S for a, b in itertools.pairwise(words))
    assert ear.guesses


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "import sys; print('?' * 99, flush=True); sys.stdin.read()"]
)
async def test_a_broken_recogniser_gives_no_words_and_is_given_up(code: str) -> None:
    speech = FreeSpeech((sys.executable, "-S", "-c", code))
    pcm = sentence(16000)
    for _ in range(5):
        ear = Ear()
        line = speech.open_line(16000)
        line.listen(ear)
        play(line, pcm, 16000)
        async with asyncio.timeout(5):
            await ear.done.wait()
            while speech.is_running:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert ear.words == [()]
        line.close()
    assert speech._deaths == 3
    await speech.close()


async def test_a_process_that_does_not_read_costs_bounded_memory() -> None:
    speech = FreeSpeech((sys.executable, "-S", "-c", "import time; time.sleep(9)"))
    ears = [Ear() for _ in range(6)]
    pcm = sentence(16000)[: 16000 * 2 * 2] * 4
    for ear in ears:
        line = speech.open_line(16000)
        line.listen(ear)
        for _ in range(3):
            play(line, pcm, 16000)
            await asyncio.sleep(0)
    assert speech._outbox.full()
    assert ears[-1].words  # too late in the queue: no words, at once
    await speech.close()
    assert all(ear.told.count("began") == ear.told.count("recognised") for ear in ears)


async def test_a_closed_line_is_told_nothing() -> None:
    speech, ear = FreeSpeech((sys.executable, "-S", "-c", "raise SystemExit(3)")), Ear()
    line = speech.open_line(16000)
    line.listen(ear)
    play(line, sentence(16000)[:48000], 16000)
    line.close()
    await speech.close()
    assert ear.told == ["began"]


# --- Through the sim


@asynccontextmanager
async def stream(rate_hz: int, encoding: str) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    query = {"model": "nova-3", "encoding": encoding, "sample_rate": str(rate_hz), "punctuate": "true"}
    headers = {"Authorization": "Token any"}
    async with (
        DeepgramSim(PROFILES["instant"]) as sim,
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(f"{sim.control_url}/v1/listen", params=query) as socket,
    ):
        yield socket


@pytest.mark.parametrize(("rate_hz", "encoding"), [(16000, "linear16"), (8000, "mulaw")])
async def test_an_unscripted_stream_is_transcribed_on_finalize(
    rate_hz: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_stream, "_RECOGNITION_LIMIT_S", 8.0)  # it starts first, on a busy machine
    pcm = sentence(rate_hz)[: -rate_hz * 2 + rate_hz // 2]  # a quarter of a second after the last word
    audio = encode_ulaw(pcm) if encoding == "mulaw" else pcm
    async with stream(rate_hz, encoding) as socket:
        for at in range(0, len(audio), 320):
            await socket.send_bytes(audio[at : at + 320])
        await socket.send_str('{"type":"Finalize"}')
        async with asyncio.timeout(20):
            while not (message := orjson.loads(await socket.receive_str())).get("from_finalize"):
                pass
    # At 8 kHz half of what the acoustic model knows is missing, so the last word is often wrong.
    assert message["channel"]["alternatives"][0]["transcript"].startswith("Are you open on")


async def test_digital_silence_never_starts_the_recogniser() -> None:
    speech = FreeSpeech(("/nonexistent",))
    line = speech.open_line(8000)
    for n in range(500):
        line.hear_ulaw(mulaw.SILENT_FRAME, (n + 1) * FRAME_S)
    assert not speech.is_running
    assert not line.is_speaking
