import asyncio
from typing import Any, cast

import pytest
from pipecat.frames.frames import Frame, VADUserStartedSpeakingFrame

from processors.caller_replay import CallerReplay
from processors.frames import CallerStoppedFrame
from processors.recogniser_trial import CONNECT_LIMIT_S, TRIAL_LIMIT_S, RecogniserTrial, dial
from processors.recognisers import Recogniser, RecogniserFailure, Report
from processors.voices import FailureKind
from tests.fakes.recognisers import RATE, FakeRecogniser, Fault, SpokenWords


class Trial:
    """A trial with a few words, and the listener that brings it what the recogniser says."""

    def __init__(self, *faults: Fault, **options: Any) -> None:
        spoken = SpokenWords()
        self.recogniser = FakeRecogniser("a", spoken, **options)
        self.recogniser.faults = list(faults)
        self.replay = CallerReplay(rate_hz=RATE)
        self.replay.add(bytes(2 * RATE) + spoken.say("tomorrow", "at", "nine") + bytes(RATE))
        self.words = (RATE, self.replay.end - RATE // 2)
        self.trial = RecogniserTrial(self.recogniser, self.replay, rate_hz=RATE)

    async def run(self, *, words: tuple[int, int] | None) -> RecogniserFailure | None:
        await self.recogniser.open(cast(Any, None), self)
        return await self.trial.run(words)

    async def recogniser_frame(self, recogniser: Recogniser, frame: Frame) -> None:
        """Nobody listens to its words."""

    async def recogniser_reported(self, recogniser: Recogniser, report: Report) -> None:
        self.trial.reported(report)

    async def recogniser_lost(self, recogniser: Recogniser, failure: RecogniserFailure) -> None:
        self.trial.lost(failure)


async def took_s(work: Any) -> tuple[Any, float]:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    return await work, loop.time() - began_s


@pytest.mark.parametrize("connect_s", [0.0, CONNECT_LIMIT_S - 0.1])
async def test_a_recogniser_that_connects_in_time_is_dialled(connect_s: float) -> None:
    recogniser = FakeRecogniser("a", SpokenWords(), connect_s=connect_s)
    assert await dial(recogniser) is None
    assert recogniser.is_connected
    await recogniser.close()


async def test_a_recogniser_that_refuses_says_why() -> None:
    one = Trial(Fault("refuse", failure=FailureKind.SERVER))
    failure = await dial(one.recogniser)
    assert failure is not None
    assert failure.kind is FailureKind.SERVER


async def test_a_recogniser_that_hangs_is_not_waited_for() -> None:
    failure, waited_s = await took_s(dial(Trial(Fault("stall")).recogniser))
    assert failure.kind is FailureKind.REFUSED
    assert waited_s == pytest.approx(CONNECT_LIMIT_S, abs=0.01)


async def test_who_understands_the_words_has_passed_and_is_cut() -> None:
    one = Trial()
    assert await one.run(words=one.words) is None
    assert not one.recogniser.is_connected
    assert [type(frame) for frame in one.recogniser.told] == [VADUserStartedSpeakingFrame, CallerStoppedFrame]


async def test_of_much_that_was_understood_the_end_is_heard_again() -> None:
    one = Trial()
    one.replay.add(bytes(2 * 10 * RATE))
    await one.run(words=(0, one.replay.end))
    assert one.recogniser.sent_s < 2.0


@pytest.mark.parametrize("fault", ["hang", "empty"])
async def test_who_does_not_understand_them_is_late(fault: str) -> None:
    one = Trial(Fault(fault))
    failure, waited_s = await took_s(one.run(words=one.words))
    assert failure.kind is FailureKind.LATE
    assert waited_s == pytest.approx(TRIAL_LIMIT_S + 0.1, abs=0.05)
    assert not one.recogniser.is_connected


async def test_who_loses_the_connection_over_them_says_so() -> None:
    one = Trial(Fault("close", after_words=1))
    failure = await one.run(words=one.words)
    assert failure is not None
    assert failure.kind is FailureKind.CLOSED


async def test_who_cannot_be_dialled_has_failed() -> None:
    failure, waited_s = await took_s(Trial(Fault("stall")).run(words=None))
    assert failure.kind is FailureKind.LATE
    assert waited_s == pytest.approx(CONNECT_LIMIT_S)


@pytest.mark.parametrize("words", [None, (5, 5)])
async def test_where_there_are_no_words_a_connection_is_enough(words: tuple[int, int] | None) -> None:
    one = Trial()
    assert await one.run(words=words) is None
    assert one.recogniser.sent_s == 0.0
