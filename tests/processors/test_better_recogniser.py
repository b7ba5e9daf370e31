import asyncio
from typing import Any, cast

from pipecat.frames.frames import Frame

from processors.better_recogniser import LONGEST_RELAPSE_S, RELAPSE_S, BetterRecogniser
from processors.caller_replay import CallerReplay
from processors.recognisers import Recogniser, RecogniserFailed, RecogniserFailure, Report
from processors.voice_health import FIRST_OPEN_S, ProcessVoiceHealth
from processors.voices import FailureKind
from tests.fakes.recognisers import RATE, FakeRecogniser, Fault, SpokenWords


class Call:
    """A call that listens to another recogniser than the first, `first`, whose vendor may have failed."""

    def __init__(self, *faults: Fault) -> None:
        spoken = SpokenWords()
        self.health = ProcessVoiceHealth()
        self.first = FakeRecogniser("first", spoken)
        self.first.faults = list(faults)
        self.listens = FakeRecogniser("second", spoken)
        self.told: list[RecogniserFailed] = []
        replay = CallerReplay(rate_hz=RATE)
        replay.add(bytes(2 * RATE) + spoken.say("tomorrow", "at", "nine") + bytes(RATE))
        self.better = BetterRecogniser(self.health, replay, rate_hz=RATE, tell=self._tell)
        self.better.understood(RATE, replay.end - RATE // 2)

    async def find(self) -> Recogniser | None:
        await self.first.open(cast(Any, None), self)
        return await self.better.find((self.first,))

    def failed(self) -> None:
        self.health.failed("first", FailureKind.REFUSED, asyncio.get_running_loop().time())

    async def _tell(self, failed: RecogniserFailed) -> None:
        self.told.append(failed)

    async def recogniser_frame(self, recogniser: Recogniser, frame: Frame) -> None:
        """Nobody listens to its words."""

    async def recogniser_reported(self, recogniser: Recogniser, report: Report) -> None:
        assert self.better.reported(recogniser, report)
        assert not self.better.reported(self.listens, report)

    async def recogniser_lost(self, recogniser: Recogniser, failure: RecogniserFailure) -> None:
        assert self.better.lost(recogniser, failure)
        assert not self.better.lost(self.listens, failure)


async def test_who_is_well_is_dialled_without_a_trial() -> None:
    call = Call()
    assert await call.find() is call.first
    assert (call.first.is_connected, call.first.dials, call.first.sent_s) == (True, 1, 0.0)
    await call.first.close()


async def test_who_failed_just_now_is_left_alone() -> None:
    call = Call()
    call.failed()
    assert await call.find() is None
    assert call.first.dials == 0


async def test_who_failed_a_while_ago_is_tried_and_then_dialled() -> None:
    call = Call()
    call.failed()
    await asyncio.sleep(FIRST_OPEN_S + 0.1)
    assert await call.find() is call.first
    assert call.first.dials == 2
    assert call.first.sent_s > 0
    assert call.health.is_well("first")
    assert call.told == []
    await call.first.close()


async def test_who_was_returned_to_and_failed_again_is_left_alone_for_longer_each_time() -> None:
    call = Call()
    for relapse in range(6):
        assert await call.find() is call.first
        call.first.cut()
        now_s = asyncio.get_running_loop().time()
        call.better.failed("first", now_s)
        rest_s = min(RELAPSE_S * 2**relapse, LONGEST_RELAPSE_S)
        await asyncio.sleep(rest_s - 0.1)
        assert await call.find() is None
        await asyncio.sleep(0.2)


async def test_a_failure_before_the_first_return_leaves_it_to_the_health() -> None:
    call = Call()
    call.better.failed("first", asyncio.get_running_loop().time())
    assert await call.find() is call.first
    await call.first.close()


async def test_a_trial_that_fails_is_told_and_nobody_is_found() -> None:
    call = Call(Fault("close", after_words=1))
    call.failed()
    await asyncio.sleep(FIRST_OPEN_S + 0.1)
    assert await call.find() is None
    [failed] = call.told
    assert (failed.vendor, failed.kind, failed.stage, failed.action) == (
        "first",
        FailureKind.CLOSED,
        "probe",
        "none",
    )
    assert not call.health.is_well("first")


async def test_what_comes_without_a_trial_is_somebody_elses() -> None:
    call = Call()
    assert not call.better.reported(call.listens, Report(1.0))
    assert not call.better.lost(call.listens, RecogniserFailure(FailureKind.CLOSED))
