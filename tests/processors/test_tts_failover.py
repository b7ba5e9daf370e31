import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    StartFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.metrics.metrics import TTSUsageMetricsData
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from processors.loudness import LoudnessBook
from processors.playout import CUT_MARK, PlayoutProcessor
from processors.tts_failover import CLOSE_LIMIT_S, MOST_FAILURES, FailoverTTS
from processors.voice_health import BreakerState, ProcessVoiceHealth
from processors.voices import FailureKind, VoiceFailed
from tests.fakes.voices import RATE, FakeVoice, Fault, SpokenBook
from tests.virtual_time import VirtualTimeLoop

REPLY = ("We are at twelve Harrison Avenue. ", "It is across from the library. ", "Anything else? ")
WORDS = [word for text in REPLY for word in text.split()]


class Tail(FrameProcessor):
    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.seen: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, StartFrame):
            self.seen.append(frame)
        await self.push_frame(frame, direction)


class Phone:
    """A far end that plays in real time and keeps what it played."""

    def __init__(self, playout: PlayoutProcessor) -> None:
        self._playout = playout
        self._loop = asyncio.get_running_loop()
        self._free_s = 0.0
        self.pcm = b""
        self.gaps: list[float] = []

    async def send_audio(self, pcm: bytes) -> None:
        now_s = self._loop.time()
        if self.pcm and now_s > self._free_s:
            self.gaps.append(now_s - self._free_s)
        self._free_s = max(self._free_s, now_s) + len(pcm) / 2 / RATE
        self.pcm += pcm

    async def send_mark(self, name: str) -> None:
        self._loop.call_at(max(self._free_s, self._loop.time()), self._playout.mark_played, name)

    async def clear(self) -> None:
        late = max(0, round((self._free_s - self._loop.time()) * RATE)) * 2
        self.pcm = self.pcm[: len(self.pcm) - late]
        self._free_s = 0.0


class Rig:
    """A voice of two vendors and its playout in a pipeline."""

    def __init__(
        self,
        *voices: FakeVoice,
        health: ProcessVoiceHealth | None = None,
        loudness: LoudnessBook | None = None,
    ) -> None:
        self.health = health or ProcessVoiceHealth()
        self.tts = FailoverTTS(voices, health=self.health, loudness=loudness or LoudnessBook(), rate_hz=RATE)
        self.playout = PlayoutProcessor(rate_hz=RATE)
        self.is_listening = True
        self.tts.follow_playout(
            lambda: self.playout.remaining_s if self.is_listening else None,
            unsent_s=lambda: self.playout.unsent_s,
        )
        self.tail = Tail()
        self.phone = Phone(self.playout)
        self.failed: list[VoiceFailed] = []
        self.given_up = 0

    async def __aenter__(self) -> "Rig":
        async def on_failed(_: FailoverTTS, failed: VoiceFailed) -> None:
            self.failed.append(failed)

        async def on_none_left(_: FailoverTTS) -> None:
            self.given_up += 1

        self.tts.add_event_handler("on_voice_failed", on_failed)
        self.tts.add_event_handler("on_voices_failed", on_none_left)
        self.worker = PipelineWorker(
            Pipeline([self.tts, self.playout, self.tail]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self._running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.5)
        self.playout.connect(self.phone)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.cancel()
        await self._running

    async def reply(self, *texts: str, wait_s: float = 12.0, every_s: float = 0.02) -> None:
        """Have the model say texts and wait."""
        await self.worker.queue_frame(LLMFullResponseStartFrame())
        for text in texts:
            await self.worker.queue_frame(LLMTextFrame(text))
            await asyncio.sleep(every_s)
        await self.worker.queue_frame(LLMFullResponseEndFrame())
        await asyncio.sleep(wait_s)

    @property
    def told(self) -> list[str]:
        """Words that the model was told."""
        return " ".join(frame.text for frame in self.tail.seen if isinstance(frame, TTSTextFrame)).split()

    def count(self, kind: type[Frame]) -> int:
        return sum(isinstance(frame, kind) for frame in self.tail.seen)


@pytest.fixture
def book() -> SpokenBook:
    return SpokenBook()


@pytest.fixture
def voices(book: SpokenBook) -> list[FakeVoice]:
    return [FakeVoice("first", book), FakeVoice("second", book)]


def said_by(book: SpokenBook, rig: Rig, vendor: str) -> list[str]:
    return [word for by, word in book.heard(rig.phone.pcm) if by == vendor]


def heard(book: SpokenBook, rig: Rig) -> list[str]:
    return [word for _, word in book.heard(rig.phone.pcm)]


async def test_while_all_is_well_the_first_vendor_speaks_and_all_are_connected(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY)
        assert heard(book, rig) == rig.told == WORDS
        assert voices[1].is_connected
        assert voices[1].asked == []
        assert rig.failed == []
        assert rig.count(TTSStoppedFrame) == rig.count(LLMFullResponseEndFrame) == 1


MID_SENTENCE = [
    pytest.param(Fault("close", 4.5), id="closed in a word"),
    pytest.param(Fault("close", 4), id="closed between words"),
    pytest.param(Fault("close", 7.9), id="closed at the end of a word"),
    pytest.param(Fault("hang", 4.5), id="falls silent"),
    pytest.param(Fault("error", 4.5), id="error"),
    pytest.param(Fault("close", 0.5), id="closed in the first word"),
    pytest.param(Fault("hang", 0.4), id="silent in the first word"),
    pytest.param(Fault("hang", 1.4), id="silent early in the second word"),
    pytest.param(Fault("hang", 1.9), id="silent late in the second word"),
    pytest.param(Fault("close", 2.9), id="closed late in the third word"),
    pytest.param(Fault("slow"), id="slower than speech"),
]


@pytest.mark.parametrize("fault", MID_SENTENCE)
@pytest.mark.parametrize("tells_ends", [True, False])
async def test_the_next_vendor_goes_on_at_the_first_word_that_was_not_said(
    book: SpokenBook, fault: Fault, tells_ends: bool
) -> None:
    voices = [FakeVoice("first", book, tells_ends=tells_ends), FakeVoice("second", book)]
    voices[0].faults = [Fault(fault.kind, fault.after_words, fault.failure, count=1)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY)
        assert rig.told == WORDS
        assert heard(book, rig) == WORDS
        assert said_by(book, rig, "second") == WORDS[-len(said_by(book, rig, "second")) :]
        (failed,) = rig.failed
        assert (failed.vendor, failed.action) == ("first", "next:second")
        assert sum(rig.phone.gaps) <= 0.4
        if said_by(book, rig, "first"):
            assert failed.cost_s == pytest.approx(sum(rig.phone.gaps), abs=0.06)
        assert failed.cost_s <= 0.6, "with the time any voice takes to begin"
        assert rig.count(TTSStoppedFrame) == 1
        assert rig.given_up == 0


@pytest.mark.parametrize("part", [0.3, 0.9])
async def test_a_vendor_that_falls_silent_in_the_last_word_does_not_leave_the_utterance_open(
    book: SpokenBook, voices: list[FakeVoice], part: float
) -> None:
    voices[0].faults = [Fault("hang", 4 + part, count=1)]
    async with Rig(*voices) as rig:
        await rig.reply("We are on the go. ", wait_s=4.0)
        assert rig.told == heard(book, rig) == ["We", "are", "on", "the", "go."]
        assert rig.count(TTSStoppedFrame) == 1
        assert [failed.kind for failed in rig.failed] == [FailureKind.STARVING]
        assert sum(rig.phone.gaps) <= 1.0


async def test_what_is_buffered_covers_the_change(book: SpokenBook, voices: list[FakeVoice]) -> None:
    voices[0].faults = [Fault("close", 6.5, count=1)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY)
        assert rig.phone.gaps == []
        assert rig.failed[0].cost_s == 0.0


@pytest.mark.parametrize(
    ("fault", "kind", "stage", "silence_s"),
    [
        (Fault("hang"), FailureKind.LATE, "first_audio", 1.8),
        (Fault("mute"), FailureKind.SILENT, "first_audio", 0.7),
        (Fault("zeros"), FailureKind.SILENT, "first_audio", 1.2),
        (Fault("error", failure=FailureKind.QUOTA), FailureKind.QUOTA, "first_audio", 0.6),
        (Fault("close"), FailureKind.CLOSED, "first_audio", 0.6),
    ],
)
async def test_a_vendor_that_never_begins_is_left(
    book: SpokenBook,
    voices: list[FakeVoice],
    fault: Fault,
    kind: FailureKind,
    stage: str,
    silence_s: float,
) -> None:
    voices[0].faults = [fault]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY)
        assert heard(book, rig) == rig.told == WORDS
        failed = rig.failed[0]
        assert (failed.kind, failed.stage, failed.action) == (kind, stage, "next:second")
        assert failed.cost_s <= silence_s


async def test_a_vendor_that_cannot_be_reached_is_not_asked(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].faults = [Fault("refuse")]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY)
        assert heard(book, rig) == rig.told == WORDS
        assert voices[0].asked == []
        failed = rig.failed[0]
        assert (failed.kind, failed.stage, failed.cost_s) == (FailureKind.REFUSED, "connect", 0.0)


async def test_a_vendor_that_hangs_while_it_is_dialled_does_not_hold_up_the_call(book: SpokenBook) -> None:
    voices = [FakeVoice("first", book, connect_s=100.0), FakeVoice("second", book)]
    async with Rig(*voices) as rig:
        assert asyncio.get_running_loop().time() < 2.0
        await rig.reply(*REPLY)
        assert heard(book, rig) == rig.told == WORDS


async def test_a_reply_without_text_is_no_failure(voices: list[FakeVoice]) -> None:
    async with Rig(*voices) as rig:
        for _ in range(5):
            await rig.reply(wait_s=2.0)
        assert (rig.failed, rig.given_up) == ([], 0)
        assert rig.count(LLMFullResponseEndFrame) == 5
        assert rig.health.is_well("first")


async def test_it_is_returned_to_the_first_vendor_when_that_is_back(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].faults = [Fault("close", 2.5, count=1)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY, wait_s=8.0)
        assert rig.health.state("first") is BreakerState.CLOSED, "it was probed"
        assert voices[0].asked[-1].strip() == "Okay."
        assert "Okay." not in heard(book, rig)
        await rig.reply("Good bye then. ")
        assert said_by(book, rig, "first")[-3:] == ["Good", "bye", "then."]


async def test_it_is_returned_to_between_sentences(book: SpokenBook, voices: list[FakeVoice]) -> None:
    voices[0].faults = [Fault("close", 1.5, count=1)]
    texts = [f"This is sentence number {n}. " for n in ("ten", "six", "two", "five", "nine", "one", "four")]
    async with Rig(*voices) as rig:
        await rig.reply(*texts, every_s=1.0, wait_s=10.0)
        assert heard(book, rig) == rig.told == [word for text in texts for word in text.split()]
        by = [vendor for vendor, _ in book.heard(rig.phone.pcm)]
        changes = [n for n in range(1, len(by)) if by[n] != by[n - 1]]
        assert [by[0], *(by[n] for n in changes)] == ["first", "second", "first"]
        assert changes[1] % 5 == 0, "at the start of a sentence"


async def test_a_vendor_is_kept_away_while_its_probes_fail(book: SpokenBook, voices: list[FakeVoice]) -> None:
    voices[0].faults = [Fault("hang")]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY, wait_s=30.0)
        await rig.reply(*REPLY)
        assert said_by(book, rig, "first") == []
        assert [failed.stage for failed in rig.failed][:3] == ["first_audio", "probe", "probe"]
        assert voices[0].cuts >= 1, "a connection that hangs is not used again"


async def test_calls_know_of_failures_from_each_other(book: SpokenBook) -> None:
    health = ProcessVoiceHealth()
    first = FakeVoice("first", book)
    first.faults = [Fault("hang")]
    others = [FakeVoice("first", book), FakeVoice("second", book)]
    async with Rig(first, FakeVoice("second", book), health=health) as rig:
        await rig.reply("Hello there. ", wait_s=1.8)
        assert health.state("first") is BreakerState.OPEN
        async with Rig(*others, health=health) as other:
            await other.reply("Hello there. ", wait_s=2.0)
            assert others[0].asked == []
            assert heard(book, other) == ["Hello", "there."]
        assert rig.failed[0].kind is FailureKind.LATE


async def test_a_voice_whose_plan_is_used_up_is_not_asked(book: SpokenBook, voices: list[FakeVoice]) -> None:
    voices[0].most_at_once = 1
    async with Rig(*voices) as rig:
        assert rig.health.begin("first", 1), "another call speaks"
        await rig.reply("Hello there. ", wait_s=3.0)
        assert said_by(book, rig, "second") == ["Hello", "there."]
        rig.health.end("first")
        await rig.reply("Good bye. ", wait_s=3.0)
        assert said_by(book, rig, "first") == ["Good", "bye."]
        assert rig.health.begin("first", 1), "and what was begun was ended"


async def test_voices_that_all_break_off_after_a_word_are_given_up(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    for voice in voices:
        voice.faults = [Fault("close", 1)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY, wait_s=20.0)
        assert rig.given_up == 1
        assert rig.told == heard(book, rig)
        assert len([failed for failed in rig.failed if failed.stage != "probe"]) == MOST_FAILURES
        voices[0].faults = []
        await rig.reply("Good bye. ", wait_s=5.0)
        assert rig.told[-2:] == ["Good", "bye."], "the next utterance begins anew"
        assert rig.given_up == 1


@pytest.mark.parametrize("kind", ["hang", "close", "error", "mute"])
async def test_when_no_voice_is_left_the_rest_is_not_told_as_said(
    book: SpokenBook, voices: list[FakeVoice], kind: str
) -> None:
    voices[0].faults = [Fault(kind, 2, count=1), Fault(kind)]
    voices[1].faults = [Fault(kind)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY, wait_s=20.0)
        assert rig.given_up == 1
        assert rig.told == heard(book, rig)
        assert len(rig.told) < len(WORDS)
        assert rig.count(TTSStoppedFrame) == rig.count(LLMFullResponseEndFrame) == 1
        assert not rig.playout.is_speaking
        assert {failed.action for failed in rig.failed if failed.stage != "probe"} <= {
            "gave_up",
            "next:second",
            "again:first",
            "next:first",
        }


async def test_text_that_comes_when_no_voice_is_left_holds_nothing_up(voices: list[FakeVoice]) -> None:
    for voice in voices:
        voice.faults = [Fault("error")]
    async with Rig(*voices) as rig:
        await rig.reply("One. ", "Two. ", "Three. ", "Four. ", every_s=2.0, wait_s=3.0)
        assert rig.told == []
        assert rig.count(LLMFullResponseEndFrame) == 1
        for voice in voices:
            voice.faults = []
        await rig.reply("Hello again. ", wait_s=4.0)
        assert rig.told == ["Hello", "again."]


@pytest.mark.parametrize("after_s", [0.02, 0.3, 1.0, 1.6, 1.75])
async def test_an_interruption_while_voices_change_drops_everything(
    book: SpokenBook, voices: list[FakeVoice], after_s: float
) -> None:
    voices[0].faults = [Fault("hang", 1.5, count=1)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY, wait_s=after_s)
        await rig.worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.3)
        played = len(rig.phone.pcm)
        await asyncio.sleep(8.0)
        assert len(rig.phone.pcm) == played
        told = [word for word in rig.told if word != CUT_MARK]
        assert told == WORDS[: len(told)]
        await rig.reply("Hello again. ", wait_s=4.0)
        assert heard(book, rig)[-2:] == rig.told[-2:] == ["Hello", "again."]
        assert rig.given_up == 0


async def test_a_line_that_may_not_be_interrupted_is_said_to_its_end_by_another_voice(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].faults = [Fault("close", 2.5, count=1)]
    line = TTSSpeakFrame("This call may be recorded for you.")
    line.interruptible = False
    async with Rig(*voices) as rig:
        await rig.worker.queue_frame(line)
        await asyncio.sleep(0.25)
        await rig.worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(5.0)
        assert heard(book, rig) == rig.told == line.text.split()


async def test_while_nobody_listens_a_pause_of_the_vendor_is_no_failure(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].faults = [Fault("slow", count=1)]
    async with Rig(*voices) as rig:
        rig.is_listening = False
        await rig.reply("Hello there. ", wait_s=4.0)
        assert rig.failed == []
        assert rig.told == ["Hello", "there."]


async def test_a_vendor_that_forgets_to_say_that_it_is_done_holds_nothing_up(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].faults = [Fault("no_end")]
    async with Rig(*voices) as rig:
        await rig.reply("Hello there. ", wait_s=3.0)
        await rig.reply("Good bye. ", wait_s=3.0)
        assert heard(book, rig) == rig.told == ["Hello", "there.", "Good", "bye."]
        assert rig.failed == []


async def test_a_context_that_is_idle_for_too_long_is_not_used_again(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].idle_limit_s = 0.7
    async with Rig(*voices) as rig:
        await rig.reply("Hello there. ", "Good bye. ", every_s=2.0, wait_s=3.0)
        assert heard(book, rig) == rig.told == ["Hello", "there.", "Good", "bye."]
        assert voices[0].opened == 2
        assert rig.failed == []


async def test_a_vendor_that_has_forgotten_a_context_gets_the_text_in_another(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    voices[0].faults = [Fault("error", 2, FailureKind.FORGOTTEN, count=1)]
    async with Rig(*voices) as rig:
        await rig.reply(*REPLY)
        assert said_by(book, rig, "first") == WORDS
        assert rig.health.is_well("first")


async def test_a_connection_lost_between_replies_is_dialled_again(voices: list[FakeVoice]) -> None:
    async with Rig(*voices) as rig:
        await voices[1].lose()
        await asyncio.sleep(0.5)
        assert voices[1].is_connected
        assert rig.health.is_well("second")
        assert rig.failed == []


async def test_a_vendor_that_accepts_and_hangs_up_is_not_dialled_in_a_tight_loop(
    voices: list[FakeVoice],
) -> None:
    voices[1].faults = [Fault("unwelcome", failure=FailureKind.CLOSED)]
    async with Rig(*voices):
        await asyncio.sleep(10.0)
        assert voices[1].dials <= 8


async def test_a_process_that_is_held_up_again_and_again_still_finds_a_vendor_that_hangs(
    voices: list[FakeVoice],
) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)

    async def be_held_up() -> None:
        while True:
            await asyncio.sleep(0.03)
            loop.stall(0.15)

    voices[0].faults = [Fault("hang")]
    async with Rig(*voices) as rig:
        held_up = asyncio.create_task(be_held_up())
        await rig.reply("Hello there. ", wait_s=5.0)
        held_up.cancel()
        assert rig.failed[0].kind is FailureKind.LATE


async def test_text_that_comes_when_the_call_is_over_is_given_to_nobody(voices: list[FakeVoice]) -> None:
    async with Rig(*voices) as rig:
        pass
    async for _ in rig.tts.run_tts("Too late.", "late"):
        pass
    voices[0].most_at_once = 1
    assert rig.health.begin("first", 1), "nothing was begun"
    assert voices[0].asked == voices[1].asked == []


async def test_a_voice_that_does_not_let_itself_be_closed_holds_nothing_up(
    voices: list[FakeVoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang() -> None:
        await asyncio.sleep(1000.0)

    async def fail() -> None:
        raise OSError("no route")

    warnings: list[str] = []
    sink = logger.add(lambda line: warnings.append(str(line)), level="WARNING", format="{message}")
    monkeypatch.setattr(voices[0], "close", hang)
    monkeypatch.setattr(voices[1], "close", fail)
    async with Rig(*voices):
        began_s = asyncio.get_running_loop().time()
    logger.remove(sink)
    assert asyncio.get_running_loop().time() - began_s < CLOSE_LIMIT_S + 0.5
    assert "second could not be closed: OSError('no route')" in "".join(warnings)


async def test_the_other_voice_is_made_as_loud_as_the_first(
    book: SpokenBook, voices: list[FakeVoice]
) -> None:
    loudness = LoudnessBook()
    for sound, level in (("first", 4000), ("second", 2000)):
        loudness.hear(sound, np.full(RATE * 2, level, "<i2").tobytes(), RATE)
    voices[0].faults = [Fault("error")]
    voices[1].make = lambda _: 2000
    async with Rig(*voices, loudness=loudness) as rig:
        await rig.reply("Hello there. ", wait_s=4.0)
        levels = set(np.frombuffer(rig.phone.pcm, "<i2").tolist()) - {0}
        assert all(abs(level - 4000) < 60 for level in levels), levels


async def test_usage_is_told_under_its_vendors_name(voices: list[FakeVoice]) -> None:
    async with Rig(*voices) as rig:
        frame = MetricsFrame(data=[TTSUsageMetricsData(processor="_Cartesia#3", value=7)])
        await rig.tts.voice_frame(voices[1], frame)
        await asyncio.sleep(0.1)
        reports = [frame for frame in rig.tail.seen if isinstance(frame, MetricsFrame)]
        assert [report.processor for frame in reports for report in frame.data] == ["second"]


async def test_audio_cut_within_a_sample_stays_whole(voices: list[FakeVoice]) -> None:
    async def speak(text: str, context_id: str) -> None:
        for start, end in ((0, 201), (201, 202), (202, len(pcm))):
            await rig.tts.voice_audio(voices[0], context_id, pcm[start:end])
        await rig.tts.voice_ended(voices[0], context_id)

    pcm = np.arange(1000, 4000, dtype="<i2").tobytes()
    voices[0].speak = speak
    async with Rig(*voices) as rig:
        await rig.reply("Hello. ", wait_s=2.0)
        assert rig.phone.pcm[: len(pcm)] == pcm
        assert rig.told == ["Hello."]


def test_a_call_needs_a_voice() -> None:
    with pytest.raises(ValueError, match="needs a voice"):
        FailoverTTS((), health=ProcessVoiceHealth(), loudness=LoudnessBook(), rate_hz=RATE)


async def _say_with(faults: Sequence[Fault], lags: Sequence[float]) -> None:
    book = SpokenBook()
    voices = [FakeVoice("first", book), FakeVoice("second", book)]
    voices[0].faults = [Fault(f.kind, f.after_words, count=1) for f in faults[::2]]
    voices[1].faults = [Fault(f.kind, f.after_words, count=1) for f in faults[1::2]]
    async with Rig(*voices) as rig:
        await rig.worker.queue_frame(LLMFullResponseStartFrame())
        for text, lag_s in zip(REPLY, lags, strict=True):
            await rig.worker.queue_frame(LLMTextFrame(text))
            await asyncio.sleep(lag_s)
        await rig.worker.queue_frame(LLMFullResponseEndFrame())
        await asyncio.sleep(20.0)
        assert rig.count(LLMFullResponseEndFrame) == 1
        assert not rig.playout.is_speaking
        if rig.given_up:
            assert rig.told == WORDS[: len(rig.told)]
        else:
            assert rig.told == WORDS
        played = heard(book, rig)
        assert played == rig.told, (played, rig.failed)


FAULTS = st.builds(
    Fault,
    st.sampled_from(["close", "hang", "error", "mute", "zeros", "no_end"]),
    st.sampled_from([0.0, 0.3, 1.0, 2.4, 5.0, 6.2, 11.4]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(FAULTS, max_size=4), st.lists(st.sampled_from([0.0, 0.1, 0.9]), min_size=3, max_size=3))
def test_whatever_fails_each_word_is_heard_once_and_told_as_heard(
    faults: list[Fault], lags: list[float]
) -> None:
    loop = VirtualTimeLoop()
    try:
        loop.run_until_complete(_say_with(faults, lags))
    finally:
        loop.close()
