"""Pipecat's recognisers, hosted: what each vendor does comes as what it is. Against the stand-ins, on real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from pipecat.frames.frames import (
    MetricsFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.services.deepgram import stt as deepgram_stt
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTSettings
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from bot.settings import Settings
from bot.vendor_clients import VendorClients
from processors.assemblyai_recogniser import HostedAssemblyAI
from processors.hosted_recogniser import HostedDeepgram, HostedFlux, hearing_failure
from processors.recognisers import Recogniser, RecogniserFailure
from processors.voices import FailureKind
from sims.assemblyai import AssemblyAISim
from sims.deepgram import DeepgramSim
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from tests.fakes.hearing import TEXT, hosted, index, play, say
from tests.fakes.hosting import RATE

pytestmark = pytest.mark.real_time

MADE = ["deepgram", "flux", "assemblyai"]


@dataclass
class Vendor:
    sim: Any
    recogniser: Recogniser

    def arm(self, kind: FaultKind, **more: Any) -> None:
        self.sim.faults.arm(FaultSpec(kind=kind, **more))


def make(name: str, sim: Any, *, key: str = "right") -> Recogniser:
    if name == "assemblyai":
        return HostedAssemblyAI(
            api_key=key,
            api_endpoint_base_url=f"{sim.base_url}/v3/ws",
            sample_rate=RATE,
            audio_passthrough=False,
        )
    if name == "flux":
        return HostedFlux(
            api_key=key,
            url=f"{sim.base_url}/v2/listen",
            sample_rate=RATE,
            settings=DeepgramFluxSTTSettings(model="flux-general-en"),
        )
    deepgram: Any = {"api_key": key, "base_url": sim.base_url}
    settings = Settings(_env_file=None, deepgram=deepgram)  # pyright: ignore[reportCallIssue]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deepgram_stt, "AsyncDeepgramClient", lambda **_: SimpleNamespace())
        service = HostedDeepgram(api_key=key, sample_rate=RATE)
    service._client = VendorClients(settings).deepgram  # pyright: ignore[reportAttributeAccessIssue]
    return service


@contextlib.asynccontextmanager
async def serving(name: str) -> AsyncGenerator[Any]:
    kind = AssemblyAISim if name == "assemblyai" else DeepgramSim
    async with kind(PROFILES["instant"], spoken_index=index(), api_key="right") as sim:
        yield sim


@pytest_asyncio.fixture(params=MADE)
async def vendor(request: pytest.FixtureRequest) -> AsyncGenerator[Vendor]:
    async with serving(request.param) as sim:
        yield Vendor(sim, make(request.param, sim))


async def test_words_come_with_what_they_reach_to(vendor: Vendor) -> None:
    recogniser = vendor.recogniser
    async with hosted(recogniser) as told:
        assert not recogniser.is_connected
        await recogniser.connect()
        await recogniser.connect()
        assert recogniser.is_connected
        assert recogniser.is_writable
        assert vendor.sim.stats["connects"] == 1
        await say(recogniser)
        if recogniser.proposes_turns:  # it ends turns on audio, not when it is asked
            await play(recogniser, bytes([0xFF]) * 160 * 300, speed=20)
        await told.until(lambda told: told.text)
        assert told.text == TEXT
        assert told.all_of(TranscriptionFrame)[0].result is not None
        assert told.interims
        (final,) = (report for report in told.reports if report.words_until_s is not None)
        assert final.is_answer
        assert final.words_until_s == pytest.approx(1.2, abs=0.05)
        assert any(report.has_words and report.words_until_s is None for report in told.reports)
        assert told.lost == []
        assert recogniser.shown() == () or list(recogniser.shown()) == []
        await recogniser.report_usage()
        assert told.all_of(MetricsFrame)


@pytest.mark.parametrize("name", ["deepgram", "assemblyai"])
async def test_a_pause_is_flushed_behind_its_words(name: str) -> None:
    async with serving(name) as sim:
        recogniser = make(name, sim)
        async with hosted(recogniser) as told:
            await recogniser.connect()
            await say(recogniser)
            await told.until(lambda told: told.flushes)
            kinds = [type(frame).__name__ for frame in told.frames]
            assert kinds.index("TranscriptFlushedFrame") > kinds.index("TranscriptionFrame")


@pytest.mark.parametrize("name", MADE)
async def test_words_that_are_not_final_are_shown_with_their_times(name: str) -> None:
    async with serving(name) as sim:
        recogniser = make(name, sim)
        async with hosted(recogniser) as told:
            await recogniser.connect()
            await say_without_end(recogniser)
            await told.until(lambda _: len(recogniser.shown()) >= 3)
            words = recogniser.shown()
            assert [word.text.strip(",").lower() for word in words][:3] == ["hello", "i", "need"]
            assert words[1].start_s == pytest.approx(0.4, abs=0.05)
            assert told.text == ""


async def say_without_end(recogniser: Recogniser) -> None:
    from tests.fakes.hearing import HELLO

    await play(recogniser, bytes([0xFF]) * 1600 + HELLO[:7800])


async def test_flux_proposes_turns_and_does_not_end_what_a_lost_connection_cuts() -> None:
    async with serving("flux") as sim:
        recogniser = make("flux", sim)
        sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, after_words=4, count=1))
        async with hosted(recogniser) as told:
            await recogniser.connect()
            with contextlib.suppress(RecogniserFailure):
                await say(recogniser)
            await told.until(lambda told: told.lost)
            assert told.all_of(ProposedUserStartedSpeakingFrame)
            assert told.all_of(ProposedUserStoppedSpeakingFrame) == []
            assert told.text == ""
            await recogniser.connect()
            assert recogniser.is_connected


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (FaultKind.REFUSE, FailureKind.REFUSED),
        (FaultKind.UNAUTHORIZED, FailureKind.UNAUTHORIZED),
        (FaultKind.RATE_LIMITED, FailureKind.RATE_LIMITED),
        (FaultKind.SERVER_ERROR, FailureKind.SERVER),
    ],
)
async def test_a_dial_that_fails_says_why_and_the_next_may_succeed(
    vendor: Vendor, fault: FaultKind, kind: FailureKind
) -> None:
    vendor.arm(fault, count=1)
    async with hosted(vendor.recogniser) as told:
        with pytest.raises(RecogniserFailure) as failure:
            await vendor.recogniser.connect()
        assert failure.value.kind is kind, failure.value
        assert not vendor.recogniser.is_connected
        await vendor.recogniser.connect()
        assert vendor.recogniser.is_connected
        del told


@pytest.mark.parametrize("name", MADE)
async def test_a_wrong_key_is_told_as_one(name: str) -> None:
    async with serving(name) as sim:
        recogniser = make(name, sim, key="wrong")
        async with hosted(recogniser):
            with pytest.raises(RecogniserFailure) as failure:
                await recogniser.connect()
            assert failure.value.kind is FailureKind.UNAUTHORIZED


async def test_a_dial_that_hangs_can_be_given_up(vendor: Vendor) -> None:
    vendor.arm(FaultKind.HANG_BEFORE_FIRST_BYTE, count=1)
    async with hosted(vendor.recogniser):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await vendor.recogniser.connect()
        assert not vendor.recogniser.is_connected
        await vendor.recogniser.connect()
        assert vendor.recogniser.is_connected


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(FaultKind.CLOSE_MID_STREAM, FailureKind.CLOSED), (FaultKind.GARBAGE, FailureKind.GARBAGE)],
)
async def test_a_connection_that_is_lost_is_told_once(
    vendor: Vendor, fault: FaultKind, kind: FailureKind
) -> None:
    recogniser = vendor.recogniser
    vendor.arm(fault, after_s=0.3, count=1)
    async with hosted(recogniser) as told:
        await recogniser.connect()
        with contextlib.suppress(RecogniserFailure):
            await say(recogniser)
        if recogniser.vendor == "flux" and fault is FaultKind.GARBAGE:
            assert told.lost == []  # Pipecat's Flux does not mind it, and goes on
            return
        await told.until(lambda told: told.lost)
        assert [failure.kind for failure in told.lost] == [kind]
        with pytest.raises(RecogniserFailure):
            await recogniser.hear(bytes(320))
        await recogniser.connect()
        await say(recogniser)
        if recogniser.proposes_turns:
            await play(recogniser, bytes([0xFF]) * 160 * 300, speed=20)
        await told.until(lambda told: told.text)
        assert told.text == TEXT


async def test_who_sends_to_what_was_broken_off_hears_what_it_was_broken_off_for() -> None:
    """The reader says goodbye in good order to a vendor it cannot read: until it has, whoever sends meets that."""
    garbage = RecogniserFailure(FailureKind.GARBAGE, "not JSON")
    async with serving("deepgram") as sim, hosted(recogniser := make("deepgram", sim)):
        await recogniser.connect()
        assert isinstance(recogniser, HostedDeepgram)
        recogniser._fault = garbage
        closing = asyncio.create_task(recogniser._socket.close())
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(RecogniserFailure) as raised:
                await recogniser.hear(bytes(320))
            assert raised.value is garbage
            await closing


async def test_who_is_cut_or_left_tells_nothing_more(vendor: Vendor) -> None:
    recogniser = vendor.recogniser
    async with hosted(recogniser) as told:
        for leave in (recogniser.cut, recogniser.disconnect):
            await recogniser.connect()
            await play(recogniser, bytes([0xFF]) * 1600)
            left = leave()
            if left is not None:
                await left
            await asyncio.sleep(0.05)
            assert not recogniser.is_connected
        assert told.lost == []
        assert vendor.sim.stats["connects"] == 2


async def test_a_server_that_goes_away_is_a_lost_connection(vendor: Vendor) -> None:
    async with hosted(vendor.recogniser) as told:
        await vendor.recogniser.connect()
        await vendor.sim.stop()
        await told.until(lambda told: told.lost)
        assert told.lost[0].kind is FailureKind.CLOSED


def test_what_is_known_of_a_failure_is_kept() -> None:
    failure = RecogniserFailure(FailureKind.QUOTA, "no credit")
    assert hearing_failure(failure) is failure
    assert str(failure) == "quota: no credit"
    closed = ConnectionClosedError(Close(1011, "net0001"), None)
    assert hearing_failure(closed).kind is FailureKind.CLOSED
