"""Recognisers fail on the test's clock: what was said is understood, each word once."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from processors.frames import CallerPausedFrame, CallerStoppedFrame, WordsDelayedFrame
from processors.recognisers import RecogniserFailed
from processors.stt_failover import FailoverSTT
from processors.voice_health import ProcessVoiceHealth
from processors.voices import FailureKind
from tests.fakes.recognisers import GAP_S, RATE, WORD_S, FakeRecogniser, Fault, SpokenWords
from tests.virtual_time import VirtualTimeLoop

FRAME_S = 0.02
SAYING = tuple(f"word{number}" for number in range(12))
SAYING_S = len(SAYING) * (WORD_S + GAP_S)


class _Collector(FrameProcessor):
    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[float, Frame]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append((asyncio.get_running_loop().time(), frame))
        await self.push_frame(frame, direction)


@dataclass
class Line:
    """A caller and who listens to them."""

    stt: FailoverSTT
    recognisers: Sequence[FakeRecogniser]
    spoken: SpokenWords
    collector: _Collector
    failed: list[RecogniserFailed] = field(default_factory=list[RecogniserFailed])
    gave_up_s: float | None = None
    stopped_s: float = 0.0
    """When the caller ended their last words."""

    @property
    def understood(self) -> list[str]:
        """All final words."""
        return [word for _, frame in self.all_of(TranscriptionFrame) for word in frame.text.split()]

    @property
    def understood_s(self) -> float:
        """When the last of them came."""
        return self.all_of(TranscriptionFrame)[-1][0]

    def all_of(self, kind: type[Any]) -> list[tuple[float, Any]]:
        return [(at_s, frame) for at_s, frame in self.collector.frames if isinstance(frame, kind)]

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def quiet(self, length_s: float) -> None:
        await self._play(bytes(2 * round(length_s * RATE)))

    async def say(self, *words: str, voiced: bool = True) -> None:
        """Speak, with the edges that the voice model would tell, and half a second of quiet behind."""
        began_s = self.now_s
        pcm = self.spoken.say(*words) if voiced else bytes(2 * round(len(words) * 0.24 * RATE))
        head = 2 * round(0.2 * RATE)
        await self._play(pcm[:head])
        await self.take(VADUserStartedSpeakingFrame(start_secs=self.now_s - began_s))
        await self._play(pcm[head:])
        self.stopped_s = self.now_s - GAP_S
        await self.quiet(0.1)
        await self.take(CallerPausedFrame(at_s=self.stopped_s))
        await self.quiet(0.1)
        await self.take(CallerStoppedFrame(at_s=self.stopped_s, stop_secs=0.2))
        await self.quiet(0.5)

    async def take(self, frame: Frame) -> None:
        await self.stt.queue_frame(frame, FrameDirection.DOWNSTREAM)

    async def _play(self, pcm: bytes) -> None:
        size = 2 * round(FRAME_S * RATE)
        for at in range(0, len(pcm), size):
            await asyncio.sleep(FRAME_S)
            await self.take(InputAudioRawFrame(pcm[at : at + size], RATE, 1))


@contextlib.asynccontextmanager
async def line(
    *faults: Sequence[Fault], health: ProcessVoiceHealth | None = None, **options: Any
) -> AsyncGenerator[Line]:
    """Open a line with one recogniser for each list of faults."""
    spoken = SpokenWords()
    recognisers = [FakeRecogniser(f"v{number}", spoken, **options) for number in range(len(faults))]
    for recogniser, its_faults in zip(recognisers, faults, strict=True):
        recogniser.faults = list(its_faults)
    stt = FailoverSTT(recognisers, health=health or ProcessVoiceHealth(), rate_hz=RATE)
    made = Line(stt, recognisers, spoken, _Collector())

    async def on_failed(_: FailoverSTT, failed: RecogniserFailed) -> None:
        made.failed.append(failed)

    async def on_all_failed(*_: object) -> None:
        made.gave_up_s = made.now_s

    stt.add_event_handler("on_recogniser_failed", on_failed)
    stt.add_event_handler("on_recognisers_failed", on_all_failed)
    worker = PipelineWorker(
        Pipeline([stt, made.collector]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        yield made
    finally:
        await worker.cancel()
        await running


async def test_words_are_understood_live_by_the_first() -> None:
    async with line([], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        assert made.understood == list(SAYING)
        assert made.understood_s - made.stopped_s < 0.5
        assert (made.recognisers[0].dials, made.recognisers[1].dials) == (1, 0)
        assert made.failed == []
        assert made.all_of(WordsDelayedFrame) == []


@pytest.mark.parametrize("after_words", [0, 1, 3, 6, 11, 12])
async def test_a_drop_while_the_caller_speaks_costs_no_word(after_words: int) -> None:
    async with line([Fault("close", after_words, count=1)], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(1.5)
        assert made.understood == list(SAYING)
        assert (made.recognisers[0].dials, made.recognisers[1].dials) == (2, 0)
        assert made.understood_s - made.stopped_s < 0.25 + 1.0 + 0.8 * WORD_S * 12


async def test_a_drop_is_told_once_with_what_it_cost_and_words_are_waited_for() -> None:
    async with line([Fault("close", 11, count=1)], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(2.0)
        (failed,) = made.failed
        assert (failed.vendor, failed.kind, failed.stage) == ("v0", FailureKind.CLOSED, "speaking")
        assert failed.action == "again:v0"
        assert 0.5 < failed.cost_s < 3.0
        (_, wait), *_, (over_s, over) = made.all_of(WordsDelayedFrame)
        assert wait.until_s is not None
        assert over.until_s is None
        assert over_s >= made.understood_s


async def test_what_drops_twice_is_followed_by_the_next() -> None:
    async with line([Fault("close", 5, count=2)], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(2.5)
        assert made.understood == list(SAYING)
        assert made.recognisers[1].dials == 1
        assert {failed.vendor for failed in made.failed} == {"v0"}
        assert made.failed[-1].action == "next:v1"


@pytest.mark.parametrize("kind", ["refuse", "stall"])
async def test_a_vendor_that_cannot_be_reached_is_followed_by_the_next(kind: str) -> None:
    async with line([Fault(kind, failure=FailureKind.RATE_LIMITED)], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(1.0)
        assert made.understood == list(SAYING)
        (failed,) = (one for one in made.failed if one.stage != "probe")
        assert (failed.stage, failed.action) == ("connect", "next:v1")
        assert failed.kind is (FailureKind.REFUSED if kind == "stall" else FailureKind.RATE_LIMITED)


@pytest.mark.parametrize("after_words", [0, 4])
async def test_a_vendor_that_hangs_is_followed_by_the_next(after_words: int) -> None:
    async with line([Fault("hang", after_words)], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(3.0)
        assert made.understood == list(SAYING)
        assert [(one.vendor, one.kind) for one in made.failed] == [("v0", FailureKind.LATE)]


async def test_a_short_answer_into_a_vendor_that_hangs_is_understood() -> None:
    async with line([Fault("hang")], []) as made:
        await made.quiet(2.0)
        await made.say("yes", "please")
        await made.quiet(3.0)
        assert made.understood == ["yes", "please"]
        assert made.understood_s - made.stopped_s < 2.5


async def test_a_vendor_that_falls_behind_is_followed_by_the_next() -> None:
    async with line([Fault("slow")], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(4.0)
        assert made.understood == list(SAYING)
        assert made.failed[0].kind is FailureKind.LATE


async def test_a_vendor_that_hears_no_words_is_found_out_by_another() -> None:
    async with line([Fault("empty")], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(4.0)
        assert made.understood == list(SAYING)
        assert [(one.vendor, one.kind, one.action) for one in made.failed] == [
            ("v0", FailureKind.SILENT, "next:v1")
        ]


async def test_who_hears_no_words_is_asked_again_when_no_other_can_be_reached() -> None:
    async with line([Fault("refuse", failure=FailureKind.RATE_LIMITED)], [Fault("empty", count=1)]) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(3.0)
        assert made.understood == list(SAYING)
        assert made.gave_up_s is None
        assert made.understood_s - made.stopped_s < 3.0


@pytest.mark.parametrize("acknowledges", [True, False])
async def test_nobody_is_blamed_for_a_noise(acknowledges: bool) -> None:
    async with line([], [], acknowledges=acknowledges) as made:
        await made.quiet(2.0)
        for _ in range(3):
            await made.say(*SAYING[:6], voiced=False)
            await made.quiet(3.0)
        assert made.failed == []
        assert made.gave_up_s is None
        assert sum(one.dials for one in made.recognisers) <= 5
        await made.say(*SAYING)
        await made.quiet(2.0)  # who was asked about the noise may still be behind
        assert made.understood == list(SAYING)
        delays = [frame.until_s for _, frame in made.all_of(WordsDelayedFrame)]
        assert delays == [] or delays[-1] is None


@pytest.mark.parametrize("after_words", [0, 3, 6])
async def test_who_failed_is_asked_when_who_stands_in_hears_nothing(after_words: int) -> None:
    async with line([Fault("hang", after_words, count=1)], [Fault("empty")]) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(6.0)
        assert made.understood == list(SAYING)


async def test_words_are_waited_for_longer_when_the_next_vendor_cannot_be_reached() -> None:
    async with line([Fault("hang", 3, count=1)], [Fault("stall", count=1)]) as made:
        await made.quiet(2.0)
        await made.say(*SAYING[:4])
        await made.quiet(4.0)
        assert made.understood == list(SAYING[:4])
        waits = [(at_s, frame.until_s) for at_s, frame in made.all_of(WordsDelayedFrame)]
        (began_s, first_s), (later_s, second_s), *_, (_, last) = waits
        assert first_s is not None
        assert second_s is not None
        assert last is None
        assert later_s < first_s < made.understood_s < second_s <= began_s + 3.0


async def test_words_are_waited_for_while_whoever_stands_in_shows_more_of_them() -> None:
    async with line([Fault("hang")], []) as made:
        await made.quiet(2.0)
        await made.say(*SAYING)
        await made.quiet(4.0)
        assert made.understood == list(SAYING)
        waits = [frame.until_s for _, frame in made.all_of(WordsDelayedFrame)]
        assert waits[0] < made.understood_s - 0.2
        assert waits == [*sorted(waits[:-1]), None]
        told = [at_s for at_s, _ in made.all_of(WordsDelayedFrame)]
        assert all(at_s < until_s for at_s, until_s in zip(told[1:], waits, strict=False)), "a wait ran out"


async def test_what_is_said_behind_a_replay_is_understood_without_delay() -> None:
    async with line([Fault("hang", count=1)], [Fault("stall", count=1)]) as made:
        await made.quiet(2.0)
        await made.say(*SAYING[:4])
        await made.quiet(4.0)
        await made.say("and", "now")
        await made.quiet(1.5)
        assert made.understood == [*SAYING[:4], "and", "now"]
        assert made.understood_s - made.stopped_s < 0.6


async def test_the_first_vendor_is_returned_to_between_turns() -> None:
    async with line([Fault("hang", count=1)], []) as made:
        await made.quiet(1.0)
        await made.say(*SAYING)
        await made.quiet(1.5)
        assert made.stt.listening is made.recognisers[1]
        await made.quiet(6.0)
        assert made.stt.listening is made.recognisers[0]
        assert made.recognisers[1].partings == 1
        await made.say("and", "now")
        await made.quiet(1.0)
        assert made.understood == [*SAYING, "and", "now"]


async def test_a_vendor_that_still_hangs_is_not_returned_to() -> None:
    async with line([Fault("hang")], []) as made:
        await made.quiet(1.0)
        await made.say(*SAYING)
        await made.quiet(9.0)
        assert made.stt.listening is made.recognisers[1]
        assert [one.stage for one in made.failed][1:] == ["probe"] * (len(made.failed) - 1)
        assert len(made.failed) > 1
        await made.say("and", "now")
        await made.quiet(1.0)
        assert made.understood == [*SAYING, "and", "now"]


async def test_who_hangs_again_after_each_return_is_returned_to_later() -> None:
    async with line([Fault("hang", after_words=7)], []) as made:  # more than it is tried with
        for _ in range(6):
            await made.say(*SAYING[:8])
            await made.quiet(8.0)
        assert made.understood == list(SAYING[:8]) * 6
        stages = [one.stage for one in made.failed]
        assert stages == ["speaking"] * 3  # of the six times that it would have been


async def test_what_one_call_learned_another_knows() -> None:
    health = ProcessVoiceHealth()
    async with line([Fault("refuse", failure=FailureKind.UNAUTHORIZED)], [], health=health) as made:
        await made.quiet(1.0)
    async with line([], [], health=health) as made:
        await made.quiet(1.0)
        assert (made.recognisers[0].dials, made.recognisers[1].dials) == (0, 1)


@pytest.mark.parametrize("count", [1, 2])
async def test_when_nobody_listens_the_caller_is_told(count: int) -> None:
    async with line(*[[Fault("refuse")]] * count) as made:
        await made.quiet(1.0)
        assert made.gave_up_s is None
        await made.say(*SAYING)
        await made.quiet(3.0)
        assert made.gave_up_s is not None
        assert made.gave_up_s - made.stopped_s < 2.8
        assert {failed.action for failed in made.failed} == {"gave_up"}
        assert {failed.vendor for failed in made.failed} == {one.vendor for one in made.recognisers}


async def test_vendors_that_show_words_and_drop_are_given_up_too() -> None:
    async with line([Fault("close", 4)], [Fault("close", 4)]) as made:
        await made.quiet(1.0)
        await made.say(*SAYING)
        await made.quiet(4.0)
        assert made.gave_up_s is not None
        assert made.gave_up_s - made.stopped_s < 2.8
        assert sum(one.dials for one in made.recognisers) < 20


async def test_who_is_alone_is_dialled_until_it_answers() -> None:
    async with line([Fault("refuse", count=4)]) as made:
        await made.quiet(1.0)
        await made.say(*SAYING)
        await made.quiet(1.5)
        assert made.understood == list(SAYING)
        assert made.gave_up_s is None


async def test_a_drop_in_silence_costs_nothing() -> None:
    async with line([]) as made:
        await made.quiet(3.0)
        await made.recognisers[0].lose()
        await made.quiet(20.0)
        assert made.gave_up_s is None
        assert [(one.stage, one.action, one.cost_s) for one in made.failed] == [
            ("listening", "again:v0", 0.0)
        ]
        await made.say(*SAYING)
        assert made.understood == list(SAYING)


async def test_a_peer_that_does_not_read_does_not_hold_the_line_up() -> None:
    async with line([], []) as made:
        await made.quiet(1.0)
        made.recognisers[0].is_writable = False
        await made.say(*SAYING)
        await made.quiet(0.5)
        assert made.understood == list(SAYING)


async def test_turns_are_proposed_for_a_stand_in_that_proposes_none() -> None:
    spoken = SpokenWords()
    first = FakeRecogniser("flux", spoken, proposes_turns=True)
    first.faults = [Fault("refuse")]
    stt = FailoverSTT([first, FakeRecogniser("v1", spoken)], health=ProcessVoiceHealth(), rate_hz=RATE)
    assert stt.proposes_turns
    async with line([], []) as made:
        made.stt.proposes_turns = True
        await made.quiet(1.0)
        await made.say(*SAYING)
        await made.quiet(1.0)
        assert len(made.all_of(ProposedUserStoppedSpeakingFrame)) == 1


def test_what_cannot_be_is_refused() -> None:
    spoken, health = SpokenWords(), ProcessVoiceHealth()
    with pytest.raises(ValueError, match="needs a recogniser"):
        FailoverSTT([], health=health, rate_hz=RATE)
    second = FakeRecogniser("flux", spoken, proposes_turns=True)
    with pytest.raises(ValueError, match="must be the first"):
        FailoverSTT([FakeRecogniser("v0", spoken), second], health=health, rate_hz=RATE)


# Over whatever happens


def play(coroutine: Callable[[], Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine())


def is_overcome(faults: list[tuple[int, str, int]]) -> bool:
    """Whether the words can be there in time: of two that hang one after the other the caller is told."""
    return sum(kind == "hang" for _, kind, _ in faults) < 2


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])  # one takes half a second
@example([9, 5, 3], [0.78, 0.0, 0.0], [], [(0, "hang", 6)])  # the next phrase comes before it is found out
@example([9, 4, 12], [0.4, 1.3, 0.0], [], [(0, "hang", 2), (1, "close", 11)])  # lost while it catches up
@example(
    [9, 7, 6], [0.0, 0.0, 0.0], [(0, 0.9702898174091035)], [(0, "refuse", 13)]
)  # a wait, to the last ulp
@given(
    phrases=st.lists(st.integers(2, 14), min_size=1, max_size=3),  # a sound too short to be owed may be lost
    pauses_s=st.lists(st.floats(0.0, 1.5), min_size=3, max_size=3),
    drops=st.lists(st.tuples(st.integers(0, 1), st.floats(0.0, 9.0)), max_size=4),
    faults=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["close", "hang", "refuse"]), st.integers(0, 14)),
        max_size=2,
    ).filter(is_overcome),
)
def test_each_word_is_understood_once_whenever_connections_are_lost(
    phrases: list[int],
    pauses_s: list[float],
    drops: list[tuple[int, float]],
    faults: list[tuple[int, str, int]],
) -> None:
    async def call() -> tuple[list[str], list[str]]:
        of = [[Fault(kind, words, count=1) for who, kind, words in faults if who == one] for one in (0, 1)]
        async with line(*of) as made:

            async def drop(who: int, at_s: float) -> None:
                await asyncio.sleep(at_s)
                await made.recognisers[who].lose()

            dropping = [asyncio.create_task(drop(*one)) for one in drops]
            said: list[str] = []
            for number, (count, pause_s) in enumerate(zip(phrases, pauses_s, strict=False)):
                await made.quiet(pause_s)
                words = [f"w{number}x{at}" for at in range(count)]
                said += words
                await made.say(*words)
            await made.quiet(6.0)
            for one in dropping:
                one.cancel()
            return said, made.understood

    said, understood = play(call)
    assert understood == said
