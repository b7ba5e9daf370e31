"""Pieces of speech leave at the profile's pace, and faults strike where they should."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import Speech, SpeechSynthesizer, encode_ulaw
from sims.voice_vendor import (
    GARBAGE,
    TRICKLE_SPEED,
    AudioStream,
    HangUp,
    Piece,
    VoiceVendorSim,
    cut,
    read_json,
    to_float32,
)

EXACT = replace(PROFILES["realistic"], tail_sigma=0.0)


class Vendor(VoiceVendorSim):
    name = "test"


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    synthesizer = SpeechSynthesizer()
    yield Vendor(EXACT, synthesizer=synthesizer)
    synthesizer.close()


def speech_of(seconds: float, rate_hz: int = 8000) -> Speech:
    return Speech("text", "v", rate_hz, b"\1\0" * round(seconds * rate_hz), ())


class Listener:
    """Notes when each piece came, on the loop's clock."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.garbage: list[str] = []

    async def play(self, stream: AudioStream, pieces: list[Piece], text_at_s: float = 0.0) -> None:
        await stream.play(pieces, text_at_s=text_at_s, send=self._send, send_garbage=self._send_garbage)

    async def _send(self, index: int) -> None:
        self.times_s.append(round(asyncio.get_running_loop().time(), 6))

    async def _send_garbage(self, text: str) -> None:
        self.garbage.append(text)


@given(
    samples=st.integers(0, 60_000),
    rate_hz=st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000]),
    pause_ms=st.sampled_from([0, 150]),
)
def test_pieces_are_the_whole_audio(samples: int, rate_hz: int, pause_ms: int) -> None:
    speech = Speech("text", "v", rate_hz, b"\1\0" * samples, ())
    pieces = cut(speech, pause_ms=pause_ms)
    if not samples:
        assert not pieces
        return
    pause = bytes(2 * round(pause_ms * rate_hz / 1000))
    assert b"".join(piece.pcm for piece in pieces) == pause + speech.pcm
    assert pieces[0].start_s == 0.0
    assert pieces[-1].end_s == pytest.approx((len(pause) + len(speech.pcm)) / 2 / rate_hz)
    for before, after in itertools.pairwise(pieces):
        assert before.end_s == after.start_s
    for piece in pieces:
        assert 0 < piece.end_s - piece.start_s <= 0.2 + 1e-9
        assert len(piece.pcm) / 2 / rate_hz == pytest.approx(piece.end_s - piece.start_s, abs=1.1 / rate_hz)


async def test_first_audio_then_pace(vendor: Vendor) -> None:
    listener = Listener()
    await listener.play(AudioStream(vendor, None), cut(speech_of(1.0)))
    assert listener.times_s[0] == EXACT.tts_first_audio_s
    # Pieces of 100, 185, 200, 165, … ms at four times real time.
    assert listener.times_s[1] == pytest.approx(0.15 + 0.100 / 4)
    assert listener.times_s[3] == pytest.approx(0.15 + 0.485 / 4)


async def test_second_text_waits_for_the_first_and_needs_no_further_delay(vendor: Vendor) -> None:
    listener, stream = Listener(), AudioStream(vendor, None)
    await listener.play(stream, cut(speech_of(1.0)), text_at_s=0.0)
    assert asyncio.get_running_loop().time() == pytest.approx(0.15 + 1.0 / 4)
    first_count = len(listener.times_s)
    await listener.play(stream, cut(speech_of(0.5)), text_at_s=0.01)
    assert listener.times_s[first_count] == pytest.approx(0.15 + 1.0 / 4)
    assert stream.audio_s == pytest.approx(1.5)


async def test_instant_profile_sends_at_once(vendor: Vendor) -> None:
    vendor.profile = PROFILES["instant"]
    listener = Listener()
    await listener.play(AudioStream(vendor, None), cut(speech_of(3.0)))
    assert set(listener.times_s) == {0.0}


async def test_trickle_is_slower_than_speech(vendor: Vendor) -> None:
    listener = Listener()
    await listener.play(AudioStream(vendor, FaultSpec(kind=FaultKind.TRICKLE)), cut(speech_of(1.0)))
    assert listener.times_s[1] - listener.times_s[0] == pytest.approx(0.1 / TRICKLE_SPEED)


async def test_empty_gives_no_audio_and_no_delay(vendor: Vendor) -> None:
    listener, stream = Listener(), AudioStream(vendor, FaultSpec(kind=FaultKind.EMPTY))
    await listener.play(stream, cut(speech_of(1.0)))
    await stream.finish()
    assert listener.times_s == []
    assert not stream.is_dead


@pytest.mark.parametrize(("after_s", "pieces"), [(0.0, 1), (0.25, 2), (0.5, 4)])
async def test_cut_comes_after_so_much_audio(vendor: Vendor, after_s: float, pieces: int) -> None:
    listener = Listener()
    stream = AudioStream(vendor, FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_s=after_s))
    with pytest.raises(HangUp) as cut_off:
        await listener.play(stream, cut(speech_of(2.0)))
    assert cut_off.value.code is None
    assert len(listener.times_s) == pieces


async def test_cut_that_the_audio_was_too_short_for_comes_at_its_end(vendor: Vendor) -> None:
    listener = Listener()
    stream = AudioStream(vendor, FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_s=5.0))
    await listener.play(stream, cut(speech_of(0.5)))
    with pytest.raises(HangUp):
        await stream.finish()


@pytest.mark.parametrize(
    ("kind", "pieces"), [(FaultKind.HANG_BEFORE_FIRST_BYTE, 0), (FaultKind.HANG_AFTER_FIRST_BYTE, 4)]
)
async def test_hang_says_nothing_more(vendor: Vendor, kind: FaultKind, pieces: int) -> None:
    listener, stream = Listener(), AudioStream(vendor, FaultSpec(kind=kind))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await listener.play(stream, cut(speech_of(2.0)))
    assert len(listener.times_s) == pieces
    assert stream.is_dead


async def test_late_first_audio_is_late_once(vendor: Vendor) -> None:
    listener = Listener()
    stream = AudioStream(vendor, FaultSpec(kind=FaultKind.SLOW_FIRST_BYTE, after_s=2.0))
    began_s = asyncio.get_running_loop().time()
    await listener.play(stream, cut(speech_of(0.5)), text_at_s=began_s)
    first_s = listener.times_s[0] - began_s
    await listener.play(stream, cut(speech_of(0.5)))
    quick, again_s = AudioStream(vendor, None), asyncio.get_running_loop().time()
    listener.times_s.clear()
    await listener.play(quick, cut(speech_of(0.5)), text_at_s=again_s)
    assert first_s == pytest.approx(listener.times_s[0] - again_s + 2.0, abs=0.01)


async def test_garbage_takes_the_place_of_audio(vendor: Vendor) -> None:
    listener, stream = Listener(), AudioStream(vendor, FaultSpec(kind=FaultKind.GARBAGE))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await listener.play(stream, cut(speech_of(2.0)))
    assert listener.garbage == [GARBAGE]
    assert listener.times_s == []


def test_connect_faults_strike_at_connect_and_others_wait(vendor: Vendor) -> None:
    assert vendor.take_connect_fault() is None
    vendor.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    assert vendor.take_connect_fault() is None
    assert vendor.faults.take() == FaultSpec(kind=FaultKind.EMPTY, count=1)
    vendor.faults.arm(FaultSpec(kind=FaultKind.RATE_LIMITED, count=1, skip=1))
    assert vendor.take_connect_fault() is None
    fault = vendor.take_connect_fault()
    assert fault is not None
    assert fault.kind is FaultKind.RATE_LIMITED
    assert vendor.take_connect_fault() is None


def test_quota_counts_characters(vendor: Vendor) -> None:
    assert vendor.spend("Hello.")
    vendor.character_quota = 10
    assert vendor.spend("Hello.")
    assert not vendor.spend("Hello.")
    assert vendor.stats["characters"] == 12
    assert vendor.character_quota == 4


@pytest.mark.parametrize(("key", "is_right"), [("k", True), ("other", False), ("", False), (None, False)])
def test_key(vendor: Vendor, key: str | None, is_right: bool) -> None:
    assert vendor.accepts_key(key) == bool(key)
    vendor.api_key = "k"
    assert vendor.accepts_key(key) is is_right


@pytest.mark.real_time
async def test_log_keeps_what_the_phone_would_play(vendor: Vendor) -> None:
    speech = await vendor.synthesize("Hello.", "v", 8000)
    again = await vendor.synthesize("Hello.", "v", 8000)
    await vendor.synthesize("Hello.", "v", 24000)
    first, second, third = vendor.spoken_log
    assert (first.number, second.number, third.number) == (1, 2, 3)
    assert first.ulaw == encode_ulaw(speech.pcm)
    assert first.words == speech.words
    assert second.ulaw is first.ulaw
    assert third.ulaw is None
    assert again is speech
    assert vendor.stats["texts"] == 3


def test_derived_is_made_once_per_speech(vendor: Vendor) -> None:
    speech, made = speech_of(1.0), []
    for _ in range(3):
        vendor.derive(speech, "a", lambda: made.append("a"))
    vendor.derive(speech, "b", lambda: made.append("b"))
    assert made == ["a", "b"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", b"\xff", '"x"'])
def test_what_is_no_object_reads_as_empty(content: str | bytes) -> None:
    assert read_json(content) == {}


def test_float_samples() -> None:
    assert to_float32(b"\x00\x80\xff\x7f\0\0") == b"\0\0\x80\xbf\0\xfe\x7f\x3f\0\0\0\0"
