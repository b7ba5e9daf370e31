import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import Frame

from processors.voice_health import BreakerState, ProcessVoiceHealth
from processors.voice_keeper import (
    CONNECT_LIMIT_S,
    PROBE_LIMIT_S,
    STEADY_S,
    Probe,
    Redial,
    VoiceKeeper,
)
from processors.voices import FailureKind, TimedWord, Voice, VoiceFailed, VoiceFailure
from tests.fakes.voices import RATE, FakeVoice, Fault, SpokenBook

LOUD = b"\0\x10" * RATE


# When it may be dialled again


def test_a_connection_that_lasted_is_replaced_at_once() -> None:
    redial = Redial()
    redial.connected(1.0)
    redial.lost(1.0 + STEADY_S)
    assert redial.not_before_s <= 1.0 + STEADY_S


def test_one_that_does_not_last_is_replaced_later_and_later_but_not_ever_later() -> None:
    redial, now_s, pauses_s = Redial(), 0.0, list[float]()
    for _ in range(8):
        redial.connected(now_s)
        redial.lost(now_s)
        pauses_s.append(redial.not_before_s - now_s)
        now_s = redial.not_before_s
    assert pauses_s == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_a_loss_that_is_told_twice_counts_once() -> None:
    redial = Redial()
    redial.connected(0.0)
    redial.lost(0.1)
    before_s = redial.not_before_s
    redial.lost(0.1)
    assert redial.not_before_s == before_s


def test_after_a_good_connection_the_pause_is_short_again() -> None:
    redial = Redial()
    for _ in range(5):
        redial.refused(0.0)
    redial.connected(10.0)
    redial.lost(10.0 + STEADY_S)
    redial.refused(20.0)
    assert redial.not_before_s == pytest.approx(20.2)


@given(st.lists(st.sampled_from(["refused", "short", "long"]), max_size=60))
def test_a_vendor_is_never_dialled_in_a_tight_loop_nor_left_alone(tries: Sequence[str]) -> None:
    redial, now_s = Redial(), 0.0
    for kind in tries:
        at_s = max(now_s, redial.not_before_s)
        assert at_s - now_s <= 5.0 + 1e-9
        now_s = at_s
        if kind == "refused":
            redial.refused(now_s)
        else:
            redial.connected(now_s)
            now_s += STEADY_S if kind == "long" else 0.01
            redial.lost(now_s)
        if kind != "long":
            assert redial.not_before_s - now_s >= 0.2 - 1e-9


# A probe


def test_a_word_in_time_is_a_good_probe() -> None:
    probe = Probe()
    probe.audio(LOUD[: RATE // 2], 1.0)
    probe.judge(1.1, RATE)


@pytest.mark.parametrize(
    ("pcm", "after_s", "kind"),
    [
        (b"", 0.1, FailureKind.SILENT),
        (bytes(800), 0.1, FailureKind.SILENT),
        (LOUD[:800], 1.0, FailureKind.STARVING),
    ],
)
def test_a_word_that_is_silent_or_slow_is_a_bad_one(pcm: bytes, after_s: float, kind: FailureKind) -> None:
    probe = Probe()
    probe.audio(pcm, 1.0)
    with pytest.raises(VoiceFailure) as wrong:
        probe.judge(1.0 + after_s, RATE)
    assert wrong.value.kind is kind


def test_what_the_vendor_says_is_wrong_counts_more_than_what_was_heard() -> None:
    probe = Probe()
    probe.audio(LOUD[:800], 1.0)
    probe.failed(VoiceFailure(FailureKind.QUOTA))
    assert probe.over.is_set()
    with pytest.raises(VoiceFailure, match="quota"):
        probe.judge(1.1, RATE)


# Keeping a voice


class Kept:
    """A voice that is kept, and its listener: tells the keeper what `FailoverTTS` would."""

    def __init__(self, *, health: ProcessVoiceHealth | None = None, connect_s: float = 0.05) -> None:
        self.health = health or ProcessVoiceHealth()
        self.voice = FakeVoice("first", SpokenBook(), connect_s=connect_s)
        self.failed: list[VoiceFailed] = []
        self.keeper = VoiceKeeper(self.voice, self.health, rate_hz=RATE, tell=self._tell)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["Kept"]:
        self.voice._listener = self
        task = asyncio.create_task(self.keeper.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
            await self.voice.close()

    async def _tell(self, failed: VoiceFailed) -> None:
        self.failed.append(failed)

    async def voice_audio(self, voice: Voice, context_id: str, pcm: bytes) -> None:
        if self.keeper.probe is not None:
            self.keeper.probe.audio(pcm, asyncio.get_running_loop().time())

    async def voice_words(self, voice: Voice, context_id: str, words: Sequence[TimedWord]) -> None:
        pass

    async def voice_ended(self, voice: Voice, context_id: str) -> None:
        if self.keeper.probe is not None:
            self.keeper.probe.over.set()

    async def voice_failed(self, voice: Voice, context_id: str, failure: VoiceFailure) -> None:
        if self.keeper.probe is not None:
            self.keeper.probe.failed(failure)

    async def voice_lost(self, voice: Voice, failure: VoiceFailure | None) -> None:
        await self.keeper.lost(failure or VoiceFailure(FailureKind.CLOSED), was_speaking=False)

    async def voice_frame(self, voice: Voice, frame: Frame) -> None:
        pass


async def test_a_voice_is_connected_and_connected_again() -> None:
    async with Kept().running() as kept:
        await asyncio.sleep(STEADY_S + 1.0)
        assert (kept.voice.is_connected, kept.voice.dials) == (True, 1)
        await kept.voice.lose()
        await asyncio.sleep(0.1)
        assert (kept.voice.is_connected, kept.voice.dials) == (True, 2)
        assert kept.failed == []
        assert kept.health.is_well("first")


async def test_a_vendor_that_accepts_and_hangs_up_is_not_dialled_in_a_tight_loop() -> None:
    kept = Kept()
    kept.voice.faults = [Fault("unwelcome", failure=FailureKind.CLOSED)]
    async with kept.running():
        await asyncio.sleep(10.0)
        assert 2 <= kept.voice.dials <= 8


async def test_a_vendor_that_accepts_and_says_the_key_is_wrong_is_left_alone() -> None:
    kept = Kept()
    kept.voice.faults = [Fault("unwelcome", failure=FailureKind.UNAUTHORIZED)]
    async with kept.running():
        await asyncio.sleep(30.0)
        assert kept.voice.dials == 1
        assert kept.health.state("first") is BreakerState.OPEN
        [failed] = kept.failed
        assert (failed.kind, failed.stage, failed.action) == (FailureKind.UNAUTHORIZED, "connect", "none")


async def test_what_fails_while_it_speaks_is_told_by_who_has_it_speak() -> None:
    async with Kept().running() as kept:
        await asyncio.sleep(1.0)
        await kept.keeper.lost(VoiceFailure(FailureKind.QUOTA), was_speaking=True)
        assert kept.failed == []
        assert kept.health.is_well("first")


@pytest.mark.parametrize("connect_s", [0.05, 100.0])
async def test_a_vendor_that_cannot_be_reached_is_told_of_and_probed_later(connect_s: float) -> None:
    kept = Kept(connect_s=connect_s)
    kept.voice.faults = [Fault("refuse", count=2)]
    async with kept.running():
        await asyncio.sleep(CONNECT_LIMIT_S + 0.5)
        first = kept.failed[0]
        assert (first.kind, first.stage, first.cost_s) == (FailureKind.REFUSED, "connect", 0.0)
        await asyncio.sleep(20.0)
        assert kept.failed[1].stage == "probe"
        assert kept.health.is_well("first") == (connect_s < CONNECT_LIMIT_S)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault("hang"), FailureKind.LATE),
        (Fault("zeros"), FailureKind.SILENT),
        (Fault("error", failure=FailureKind.QUOTA), FailureKind.QUOTA),
        (Fault("close"), FailureKind.CLOSED),
    ],
)
async def test_a_bad_probe_keeps_the_vendor_away(fault: Fault, kind: FailureKind) -> None:
    kept = Kept()
    kept.health.failed("first", FailureKind.LATE, asyncio.get_running_loop().time())
    kept.voice.faults = [fault]
    async with kept.running():
        await asyncio.sleep(3.0 + PROBE_LIMIT_S + 1.0)
        assert [(failed.kind, failed.stage) for failed in kept.failed] == [(kind, "probe")]
        assert not kept.health.is_well("first")
        assert kept.keeper.probe is None


async def test_a_good_probe_brings_the_vendor_back() -> None:
    kept = Kept()
    kept.health.failed("first", FailureKind.LATE, asyncio.get_running_loop().time())
    async with kept.running():
        await asyncio.sleep(5.0)
        assert kept.health.is_well("first")
        assert [text.strip() for text in kept.voice.asked] == ["Okay."]
        assert kept.failed == []


async def test_only_one_call_probes() -> None:
    health = ProcessVoiceHealth()
    health.failed("first", FailureKind.LATE, asyncio.get_running_loop().time())
    one, other = Kept(health=health), Kept(health=health)
    async with one.running(), other.running():
        await asyncio.sleep(6.0)
        assert len(one.voice.asked) + len(other.voice.asked) == 1
        assert one.voice.is_connected
        assert other.voice.is_connected, "it learns from the other"
