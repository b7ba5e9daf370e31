"""Pipecat's services, hosted: what each vendor does comes as what it is. Against the stand-ins, on real sockets."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from pipecat.frames.frames import MetricsFrame
from pipecat.services.cartesia.tts import CartesiaTTSService
from pipecat.services.deepgram.tts import DeepgramTTSService
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from processors.aura_voice import MOST_FLUSHES, AuraVoice
from processors.cartesia_words import CartesiaWords
from processors.context_words import MOST_CONTEXTS, ContextWords
from processors.hosted_voice import failure_of, failure_of_status, failure_of_words
from processors.voices import FailureKind, Voice, VoiceFailure
from sims.aura import AuraSim
from sims.cartesia import CartesiaSim
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.speech import SpeechSynthesizer
from sims.voice_vendor import VoiceVendorSim
from tests.fakes.hosted import hosted
from tests.fakes.hosting import RATE

pytestmark = pytest.mark.real_time

TEXT = "We are open on Saturday. "


class Eleven(ContextWords, ElevenLabsTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    vendor = "elevenlabs"


class Sonic(CartesiaWords, CartesiaTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    vendor = "cartesia"


class Aura(AuraVoice, DeepgramTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]
    vendor = "deepgram"


SIMS = {"elevenlabs": ElevenLabsSim, "cartesia": CartesiaSim, "deepgram": AuraSim}
VOICE = "aura-2-thalia-en"
"""The others take any name."""


@dataclass
class Vendor:
    sim: VoiceVendorSim
    voice: Voice

    def arm(self, kind: FaultKind, **more: Any) -> None:
        self.sim.faults.arm(FaultSpec(kind=kind, **more))


@pytest_asyncio.fixture(params=list(SIMS))
async def vendor(request: pytest.FixtureRequest) -> AsyncGenerator[Vendor]:
    synthesizer = SpeechSynthesizer(None)
    async with SIMS[request.param](PROFILES["instant"], synthesizer=synthesizer, api_key="right") as sim:
        yield Vendor(sim, make(sim))
    synthesizer.close()


def make(sim: VoiceVendorSim, *, api_key: str = "right") -> Voice:
    if isinstance(sim, ElevenLabsSim):
        settings = ElevenLabsTTSService.Settings(voice=VOICE, model="eleven_flash_v2_5")
        return Eleven(
            api_key=api_key, url=sim.base_url, sample_rate=RATE, append_trailing_space=True, settings=settings
        )
    if isinstance(sim, AuraSim):
        return Aura(
            api_key=api_key,
            base_url=sim.base_url,
            sample_rate=RATE,
            settings=DeepgramTTSService.Settings(voice=VOICE),
        )
    return Sonic(
        api_key=api_key,
        url=f"{sim.base_url}/tts/websocket",
        sample_rate=RATE,
        settings=CartesiaTTSService.Settings(voice=VOICE, model="sonic-3.6"),
    )


async def test_a_text_comes_as_audio_words_and_an_end(vendor: Vendor) -> None:
    async with hosted(vendor.voice) as heard:
        assert not vendor.voice.is_connected
        await vendor.voice.connect()
        await vendor.voice.connect()
        assert vendor.voice.is_connected
        assert vendor.sim.stats["sockets"] == 1
        await vendor.voice.speak(TEXT, "c1")
        await vendor.voice.finish("c1")
        await heard.until(lambda heard: heard.ended)
        assert heard.ended == ["c1"]
        length_s = heard.audio["c1"] / 2 / RATE
        assert 1.0 < length_s < 4.0
        assert " ".join(word.text for word in heard.words) == TEXT.strip()
        starts = [word.start_s for word in heard.words]
        assert starts == sorted(starts)
        assert all(word.end_s is not None and word.start_s < word.end_s <= length_s for word in heard.words)
        assert any(isinstance(frame, MetricsFrame) for frame in heard.frames)
        assert (heard.failed, heard.lost) == ([], [])
        assert vendor.voice.sound.split("/")[:2] == [vendor.voice.vendor, VOICE]


async def test_whatever_a_service_raises_is_its_voices_failure(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def raise_it(*_: Any) -> AsyncGenerator[None]:
        raise KeyError("alignment")
        yield

    async def fail(*_: Any) -> None:
        raise ConnectionResetError("by peer")

    async with hosted(vendor.voice):
        await vendor.voice.connect()
        with monkeypatch.context() as patch:
            patch.setattr(vendor.voice, "run_tts", raise_it)
            with pytest.raises(VoiceFailure) as garbled:
                await vendor.voice.speak(TEXT, "c1")
        assert garbled.value.kind is FailureKind.GARBAGE
        vendor.voice.cut()
        await asyncio.sleep(0.05)
        with monkeypatch.context() as patch:
            patch.setattr(vendor.voice, "_connect", fail)
            with pytest.raises(VoiceFailure) as unreachable:
                await vendor.voice.connect()
        assert unreachable.value.kind is FailureKind.REFUSED
        await vendor.voice.connect()
        assert vendor.voice.is_connected


CONNECTING = [
    (FaultKind.REFUSE, FailureKind.REFUSED),
    (FaultKind.UNAUTHORIZED, FailureKind.UNAUTHORIZED),
    (FaultKind.RATE_LIMITED, FailureKind.RATE_LIMITED),
    (FaultKind.SERVER_ERROR, FailureKind.SERVER),
]


@pytest.mark.parametrize(("fault", "kind"), CONNECTING)
async def test_a_vendor_that_does_not_let_us_in_says_why(
    vendor: Vendor, fault: FaultKind, kind: FailureKind
) -> None:
    async with hosted(vendor.voice):
        vendor.arm(fault, count=1)
        with pytest.raises(VoiceFailure) as caught:
            await vendor.voice.connect()
        assert caught.value.kind is kind
        await vendor.voice.connect()  # the next time it does


async def test_a_wrong_key_and_nobody_there(vendor: Vendor) -> None:
    for voice, kind in (
        (make(vendor.sim, api_key="wrong"), FailureKind.UNAUTHORIZED),
        (vendor.voice, FailureKind.REFUSED),
    ):
        async with hosted(voice):
            with pytest.raises(VoiceFailure) as caught:
                await voice.connect()
            assert caught.value.kind is kind
        await vendor.sim.stop()


SPEAKING = [
    (FaultKind.REFUSE, FailureKind.CLOSED),
    (FaultKind.UNAUTHORIZED, FailureKind.UNAUTHORIZED),
    (FaultKind.RATE_LIMITED, FailureKind.RATE_LIMITED),
    (FaultKind.SERVER_ERROR, FailureKind.SERVER),
    (FaultKind.CLOSE_MID_STREAM, FailureKind.CLOSED),
    (FaultKind.GARBAGE, FailureKind.GARBAGE),
]


ONCE_CONNECTED = {FaultKind.UNAUTHORIZED, FaultKind.RATE_LIMITED}
"""Faults for which Aura has no word once it has let us in: it hangs up."""


@pytest.mark.parametrize(("fault", "kind"), SPEAKING)
async def test_what_goes_wrong_while_it_speaks_is_told_as_what_it_is(
    vendor: Vendor, fault: FaultKind, kind: FailureKind
) -> None:
    if isinstance(vendor.sim, AuraSim) and fault in ONCE_CONNECTED:
        kind = FailureKind.SERVER
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        vendor.arm(fault, count=1)
        await vendor.voice.speak(TEXT, "c1")
        await heard.until(lambda heard: heard.failed or heard.lost)
        failures = [failure for _, failure in heard.failed] + heard.lost
        assert failures[0] is not None
        assert failures[0].kind is kind
        assert heard.ended == []
        if kind is FailureKind.GARBAGE:
            vendor.voice.cut()  # as whoever uses it does: such a connection is not to be trusted
        await vendor.voice.connect()
        await vendor.voice.speak(TEXT, "c2")
        await vendor.voice.finish("c2")
        await heard.until(lambda heard: heard.ended == ["c2"])


async def test_text_for_a_connection_that_was_just_closed_is_told_why_it_was(vendor: Vendor) -> None:
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        vendor.arm(FaultKind.UNAUTHORIZED, count=1)
        await vendor.voice.speak(TEXT, "c1")
        while vendor.voice.is_connected and not heard.failed:  # noqa: ASYNC110 - its reader is not to be first
            await asyncio.sleep(0)
        if vendor.voice.is_connected:
            return  # this vendor refuses a context, and keeps the connection
        with pytest.raises(VoiceFailure) as caught:
            await vendor.voice.speak(TEXT, "c2")
        await heard.until(lambda heard: heard.lost)
        assert caught.value == heard.lost[0]
        assert caught.value.kind is not FailureKind.CLOSED


async def test_the_end_of_a_text_for_a_connection_that_was_just_closed_is_told_why_it_was(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find_it_closed() -> None:
        raise ConnectionClosedError(None, None)

    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        vendor.arm(FaultKind.SERVER_ERROR, count=1)
        await vendor.voice.speak(TEXT, "c1")
        while vendor.voice.is_connected and not heard.failed:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        if vendor.voice.is_connected:
            return  # as above
        monkeypatch.setattr(vendor.voice, "on_turn_context_completed", find_it_closed)
        with pytest.raises(VoiceFailure) as caught:
            await vendor.voice.finish("c1")
        await heard.until(lambda heard: heard.lost)
        assert caught.value == heard.lost[0]
        assert caught.value.kind is FailureKind.SERVER


async def test_an_empty_account_is_told_as_that(vendor: Vendor) -> None:
    vendor.sim.character_quota = 0
    async with hosted(vendor.voice) as heard:
        if isinstance(vendor.sim, AuraSim):
            with pytest.raises(VoiceFailure, match="quota"):
                await vendor.voice.connect()
            return
        await vendor.voice.connect()
        await vendor.voice.speak(TEXT, "c1")
        await heard.until(lambda heard: heard.failed or heard.lost)
        failures = [failure for _, failure in heard.failed] + heard.lost
        assert failures[0] is not None
        assert failures[0].kind is FailureKind.QUOTA


async def test_an_empty_answer_has_an_end_and_no_audio(vendor: Vendor) -> None:
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        vendor.arm(FaultKind.EMPTY, count=1)
        await vendor.voice.speak(TEXT, "c1")
        await vendor.voice.finish("c1")
        await heard.until(lambda heard: heard.ended)
        assert heard.audio == {}


async def test_what_was_dropped_is_heard_of_no_more(vendor: Vendor) -> None:
    vendor.sim.profile = PROFILES["realistic"]
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        await vendor.voice.speak(TEXT, "c1")
        await heard.until(lambda heard: heard.audio)
        await vendor.voice.drop("c1")
        size = dict(heard.audio)
        await vendor.voice.finish("c1")
        await asyncio.sleep(0.5)
        assert (heard.audio, heard.ended, heard.failed, heard.lost) == (size, [], [], [])
        assert vendor.voice.is_connected
        await vendor.voice.drop("c1")


async def test_a_connection_that_is_cut_is_gone_at_once(vendor: Vendor) -> None:
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        await vendor.voice.speak(TEXT, "c1")
        vendor.voice.cut()
        await heard.until(lambda heard: heard.lost)
        assert not vendor.voice.is_connected
        with pytest.raises(VoiceFailure):
            await vendor.voice.speak(TEXT, "c2")


async def test_who_connects_right_after_a_cut_gets_a_new_connection(vendor: Vendor) -> None:
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        vendor.voice.cut()
        assert not vendor.voice.is_connected
        await vendor.voice.connect()
        await vendor.voice.speak(TEXT, "c2")
        await vendor.voice.finish("c2")
        await heard.until(lambda heard: heard.ended == ["c2"])


async def test_it_does_not_dial_by_itself(vendor: Vendor) -> None:
    async with hosted(vendor.voice) as heard:
        await vendor.voice.connect()
        await vendor.sim.stop()
        await heard.until(lambda heard: heard.lost)
        await vendor.sim.start()
        await asyncio.sleep(0.3)
        assert not vendor.voice.is_connected


async def test_a_closed_voice_stays_closed(vendor: Vendor) -> None:
    async with hosted(vendor.voice):
        await vendor.voice.connect()
    await vendor.voice.connect()
    assert not vendor.voice.is_connected


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError("no"), FailureKind.REFUSED),
        (TimeoutError(), FailureKind.REFUSED),
        (ConnectionClosedError(None, None), FailureKind.CLOSED),
        (ConnectionClosedError(Close(1008, "exceeds your quota"), None), FailureKind.QUOTA),
        (json.JSONDecodeError("x", "<", 0), FailureKind.GARBAGE),
        (KeyError("context_id"), FailureKind.GARBAGE),
        (VoiceFailure(FailureKind.LATE), FailureKind.LATE),
    ],
)
def test_what_an_exception_means(error: BaseException, kind: FailureKind) -> None:
    assert failure_of(error).kind is kind


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, FailureKind.UNAUTHORIZED),
        (403, FailureKind.UNAUTHORIZED),
        (402, FailureKind.QUOTA),
        (404, FailureKind.REQUEST),
        (418, FailureKind.REQUEST),
        (429, FailureKind.RATE_LIMITED),
        (503, FailureKind.SERVER),
    ],
)
def test_what_a_status_means(status: int, kind: FailureKind) -> None:
    assert failure_of_status(status).kind is kind


def test_what_nobody_knows_is_what_was_expected() -> None:
    assert failure_of_words("the moon is full", FailureKind.CLOSED).kind is FailureKind.CLOSED
    assert len(failure_of_words("x" * 1000, FailureKind.CLOSED).detail) == 200


async def test_many_short_replies_in_a_minute_are_said_on_two_connections_of_auras() -> None:
    synthesizer = SpeechSynthesizer(None)
    async with AuraSim(PROFILES["instant"], synthesizer=synthesizer, api_key="right") as sim:
        voice = make(sim)
        async with hosted(voice) as heard:
            await voice.connect()
            again: list[FailureKind] = []
            for number in range(MOST_FLUSHES):
                try:
                    await voice.speak("Yes. ", f"c{number}")
                except VoiceFailure as failure:
                    again.append(failure.kind)  # `FailoverTTS` has the same voice say it, anew
                    await voice.connect()
                    await voice.speak("Yes. ", f"c{number}")
                await voice.finish(f"c{number}")
                await heard.until(lambda heard, number=number: f"c{number}" in heard.ended)
            assert len(heard.audio) == len(heard.words) == MOST_FLUSHES
            assert (heard.failed, heard.lost, again) == ([], [], [FailureKind.FORGOTTEN])
        assert (sim.stats["sockets"], sim.stats["flushes_refused"]) == (2, 0)
    synthesizer.close()


# --- Contexts of a connection


@pytest_asyncio.fixture
async def eleven() -> AsyncGenerator[Vendor]:
    synthesizer = SpeechSynthesizer(None)
    async with ElevenLabsSim(PROFILES["realistic"], synthesizer=synthesizer, api_key="right") as sim:
        yield Vendor(sim, make(sim))
    synthesizer.close()


@pytest.mark.parametrize("ends_after_s", [0.0, 0.12])
async def test_however_often_it_is_interrupted_no_context_too_many_is_opened(
    eleven: Vendor, ends_after_s: float
) -> None:
    eleven.sim.ends_contexts_after_s = ends_after_s
    async with hosted(eleven.voice) as heard:
        await eleven.voice.connect()
        await keep_alive(eleven.voice)
        for number in range(2 * MOST_CONTEXTS):
            await eleven.voice.speak(TEXT, f"cut {number}")
            if number % MOST_CONTEXTS == 0:
                await heard.until(lambda heard, number=number: f"cut {number}" in heard.audio)
            await eleven.voice.drop(f"cut {number}")
        for number in range(MOST_CONTEXTS + 1):
            await eleven.voice.speak(TEXT, f"whole {number}")
            await eleven.voice.finish(f"whole {number}")
            await heard.until(lambda heard, number=number: f"whole {number}" in heard.ended)
        assert (heard.failed, heard.lost) == ([], [])
    assert eleven.sim.stats["contexts_refused"] == 0
    assert eleven.sim.stats["sockets"] == 1


async def test_text_of_more_contexts_than_the_vendor_takes_waits(
    eleven: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processors.context_words.ROOM_LIMIT_S", 5.0)  # whoever is late has time
    eleven.sim.ends_contexts_after_s = 0.05
    async with hosted(eleven.voice) as heard:
        await eleven.voice.connect()
        for number in range(4):
            await eleven.voice.speak(TEXT, f"c{number}")
        waiting = asyncio.create_task(eleven.voice.speak(TEXT, "c4"))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await eleven.voice.drop("c0")
        await waiting
        await heard.until(lambda heard: "c4" in heard.audio)
        assert "contexts_refused" not in eleven.sim.stats


async def test_what_never_ends_is_left_behind_with_its_connection(eleven: Vendor) -> None:
    eleven.sim.ends_contexts_after_s = 60.0
    async with hosted(eleven.voice) as heard:
        await eleven.voice.connect()
        for number in range(4):
            await eleven.voice.speak(TEXT, f"c{number}")
            await eleven.voice.drop(f"c{number}")
        began_s = asyncio.get_running_loop().time()
        for _ in range(2):
            with pytest.raises(VoiceFailure) as caught:
                await eleven.voice.speak(TEXT, "c4")
            assert caught.value.kind is FailureKind.FORGOTTEN
            assert not eleven.voice.is_connected
        await eleven.voice.connect()
        assert asyncio.get_running_loop().time() - began_s < 1.0
        await eleven.voice.speak(TEXT, "c5")
        await heard.until(lambda heard: "c5" in heard.audio)
        assert (heard.failed, heard.lost) == ([], [])
    assert eleven.sim.stats["contexts_refused"] == 0
    assert eleven.sim.stats["sockets"] == 2


async def keep_alive(voice: Any) -> None:
    """Do what Pipecat does every ten seconds: it opens a context, which stays."""
    await voice._send_keepalive()
