import asyncio
from dataclasses import dataclass, field

import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMAssistantPushAggregationFrame,
    LLMFullResponseEndFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.text.base_text_aggregator import TextType
from pipecat.workers.runner import WorkerRunner

from processors.frames import CachedSpeechFrame, SpeechAnchorFrame
from processors.playout import CUT_MARK, LONGEST_PAUSE_S, PlayoutProcessor, SpokenWord

RATE = 8000
NS = 1_000_000_000
ANCHOR_NS = 5 * NS


@dataclass
class FakeWire:
    """A far end that plays in real time and returns marks, half of `round_trip_s` after they were played."""

    playout: PlayoutProcessor
    round_trip_s: float = 0.1
    loses_marks: bool = False
    blocks: asyncio.Event | None = None
    log: list[tuple[str, float, object]] = field(default_factory=list)
    _free_s: float = 0.0

    async def send_audio(self, pcm: bytes) -> None:
        self._note("audio", len(pcm) // 2)
        if self.blocks is not None:
            await self.blocks.wait()
        now_s = asyncio.get_running_loop().time()
        self._free_s = max(self._free_s, now_s + self.round_trip_s / 2) + len(pcm) / 2 / RATE

    async def send_mark(self, name: str) -> None:
        self._note("mark", name)
        if not self.loses_marks:
            at_s = max(self._free_s, asyncio.get_running_loop().time()) + self.round_trip_s / 2
            asyncio.get_running_loop().call_at(at_s, self.playout.mark_played, name)

    async def clear(self) -> None:
        self._note("clear", None)
        self._free_s = 0.0

    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.log]

    def audio_s(self) -> float:
        return sum(what for kind, _, what in self.log if kind == "audio" and isinstance(what, int)) / RATE

    def _note(self, kind: str, what: object) -> None:
        self.log.append((kind, asyncio.get_running_loop().time(), what))


class Tail(FrameProcessor):
    """Notes what reaches it and when; in direct mode, as the assistant aggregator is."""

    def __init__(self) -> None:
        super().__init__(enable_direct_mode=True)
        self.seen: list[tuple[float, Frame]] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, StartFrame):
            self.seen.append((asyncio.get_running_loop().time(), frame))
        await self.push_frame(frame, direction)

    def words(self) -> list[str]:
        return [frame.text for _, frame in self.seen if isinstance(frame, TTSTextFrame)]

    def kinds(self) -> list[type[Frame]]:
        return [type(frame) for _, frame in self.seen]

    def at(self, kind: type[Frame]) -> float:
        return next(at for at, frame in self.seen if isinstance(frame, kind))


class Rig:
    """A playout in a real pipeline, with a wire and a tail."""

    async def __aenter__(self) -> "Rig":
        self.playout = PlayoutProcessor(rate_hz=RATE)
        self.tail = Tail()
        self.wire = FakeWire(self.playout)
        self.worker = PipelineWorker(
            Pipeline([self.playout, self.tail]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self._running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.1)
        self.began_s = asyncio.get_running_loop().time()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.cancel()
        await self._running

    async def give(self, *frames: Frame) -> None:
        for frame in frames:
            await self.playout.queue_frame(frame)

    async def interrupt(self) -> None:
        await self.playout.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.01)


def audio(seconds: float, context: str = "c1") -> TTSAudioRawFrame:
    return TTSAudioRawFrame(bytes(round(seconds * RATE) * 2), RATE, 1, context_id=context)


def word(text: str, at_s: float) -> TTSTextFrame:
    frame = TTSTextFrame(text, text_type=TextType.WORD, context_id="c1")
    frame.pts = ANCHOR_NS + round(at_s * NS)
    return frame


def utterance(seconds: float, *words: tuple[str, float]) -> list[Frame]:
    return [
        TTSStartedFrame(context_id="c1"),
        SpeechAnchorFrame("c1", ANCHOR_NS),
        audio(seconds),
        *(word(text, at_s) for text, at_s in words),
        TTSStoppedFrame(context_id="c1"),
        LLMFullResponseEndFrame(),
    ]


THREE = (("one", 0.1), ("two", 0.9), ("three", 1.7))
HALVES_S = (0.5, 1.3, 1.85)
"""When half of each was played: its sound reaches to the next word here."""


async def test_words_and_the_end_of_a_reply_pass_when_they_were_heard() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(3.0)
        times = [at - rig.began_s for at, frame in rig.tail.seen if isinstance(frame, TTSTextFrame)]
        assert rig.tail.words() == ["one", "two", "three"]
        assert times == [pytest.approx(at_s, abs=0.15) for at_s in HALVES_S]
        assert rig.tail.at(LLMFullResponseEndFrame) - rig.began_s == pytest.approx(2.1, abs=0.05)
        assert rig.tail.at(BotStartedSpeakingFrame) - rig.began_s < 0.01
        assert rig.tail.at(BotStoppedSpeakingFrame) - rig.began_s == pytest.approx(2.1, abs=0.05)
        assert TTSAudioRawFrame not in rig.tail.kinds()


async def test_audio_leaves_with_a_lead_and_not_all_at_once() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0))
        await asyncio.sleep(0.05)
        assert rig.wire.audio_s() == pytest.approx(0.25, abs=0.05)
        await asyncio.sleep(1.0)
        assert rig.wire.audio_s() == pytest.approx(1.25, abs=0.11)


async def test_an_interruption_keeps_what_was_heard_and_nothing_else_is_sent() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(1.5)
        await rig.interrupt()
        await asyncio.sleep(2.0)
        assert rig.tail.words() == ["one", "two", CUT_MARK]
        assert rig.wire.kinds().count("clear") == 1
        assert rig.wire.kinds()[-1] == "clear"
        interrupted = rig.tail.kinds().index(InterruptionFrame)
        assert all(not isinstance(frame, TTSTextFrame) for _, frame in rig.tail.seen[interrupted:])
        assert rig.tail.kinds().count(BotStoppedSpeakingFrame) == 1


async def test_what_was_heard_is_settled_when_it_is_in_the_context() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        assert rig.playout.is_settled
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(1.5)
        assert not rig.playout.is_settled
        waiting = asyncio.create_task(rig.playout.wait_until_settled(1.0))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await rig.playout.queue_frame(InterruptionFrame())
        await waiting
        assert rig.tail.words() == ["one", "two", CUT_MARK]
        assert InterruptionFrame in rig.tail.kinds()
        await rig.give(*utterance(0.5, ("four", 0.0)), LLMFullResponseEndFrame())
        await asyncio.sleep(0.2)
        assert not rig.playout.is_settled
        await rig.playout.wait_until_settled(3.0)
        assert rig.playout.is_settled
        assert rig.tail.words()[-1] == "four"


async def test_nothing_is_sent_after_the_clear_even_when_the_wire_was_busy() -> None:
    async with Rig() as rig:
        rig.wire.blocks = asyncio.Event()
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(0.1)
        await rig.interrupt()
        rig.wire.blocks.set()
        await asyncio.sleep(2.0)
        assert rig.wire.kinds() == ["mark", "audio", "clear"]


async def test_results_and_the_end_of_the_pipeline_survive_an_interruption() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        result = FunctionCallResultFrame("tool", "id", {}, {"ok": True})
        await rig.give(*utterance(2.0, *THREE), result, EndFrame())
        await asyncio.sleep(0.5)
        await rig.interrupt()
        kinds = rig.tail.kinds()
        assert kinds.index(InterruptionFrame) < kinds.index(FunctionCallResultFrame) < kinds.index(EndFrame)


async def test_an_interruption_before_anything_was_said_clears_nothing() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.interrupt()
        assert rig.wire.log == []
        await rig.give(*utterance(0.5, ("again", 0.1)))
        await asyncio.sleep(1.0)
        assert rig.tail.words() == ["again"]


async def test_lost_marks_delay_but_do_not_stop_the_call() -> None:
    async with Rig() as rig:
        rig.wire.loses_marks = True
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("late", 0.8)))
        await asyncio.sleep(4.0)
        assert rig.tail.words() == ["late"]
        assert rig.playout.marks_lost > 0
        assert not rig.playout.is_speaking


async def test_words_timed_after_their_audio_are_heard_in_their_place() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(TTSStartedFrame(context_id="c1"), SpeechAnchorFrame("c1", ANCHOR_NS), audio(1.0))
        await asyncio.sleep(0.7)
        await rig.give(word("early", 0.1), word("late", 0.9), TTSStoppedFrame(context_id="c1"))
        await asyncio.sleep(0.05)
        assert rig.tail.words() == ["early"]
        await asyncio.sleep(1.0)
        assert rig.tail.words() == ["early", "late"]


async def test_a_word_without_a_time_of_its_own_is_heard_with_the_last_audio() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("said", 0.1), ("tail", 0.1)))
        await asyncio.sleep(0.8)
        assert rig.tail.words() == ["said"]
        await asyncio.sleep(1.0)
        assert rig.tail.words() == ["said", "tail"]


async def test_two_utterances_are_played_one_after_the_other() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(0.5, ("first", 0.1)), *utterance(0.5, ("second", 0.1)))
        await asyncio.sleep(0.5)
        assert rig.tail.words() == ["first"]
        await asyncio.sleep(1.5)
        assert rig.tail.words() == ["first", "second"]
        assert rig.wire.audio_s() == pytest.approx(1.0)
        assert rig.playout.underruns == 0


async def test_a_rendered_line_needs_no_voice_and_reaches_the_context() -> None:
    async with Rig() as rig:
        rig.playout.speak(bytes(RATE * 2), [SpokenWord("Good", 0.0), SpokenWord("morning.", 0.4)])
        await asyncio.sleep(0.5)
        assert rig.wire.log == []
        rig.playout.connect(rig.wire)
        await asyncio.sleep(3.0)
        assert rig.tail.words() == ["Good", "morning."]
        assert rig.tail.kinds()[-2:] == [LLMAssistantPushAggregationFrame, BotStoppedSpeakingFrame]


async def test_audio_of_another_rate_is_refused() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(TTSAudioRawFrame(bytes(4800), 24000, 1, context_id="c1"))
        await asyncio.sleep(0.5)
        assert rig.wire.log == []


async def test_the_tap_gets_all_that_is_sent_and_is_told_of_drops() -> None:
    class Tap:
        def __init__(self) -> None:
            self.samples = 0
            self.drops = 0

        def agent_audio(self, pcm: bytes, ahead_s: float) -> None:
            assert -0.01 <= ahead_s <= 0.3
            self.samples += len(pcm) // 2

        def agent_dropped(self) -> None:
            self.drops += 1

    async with Rig() as rig:
        tap = Tap()
        rig.playout._sink = tap
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0))
        await asyncio.sleep(1.0)
        await rig.interrupt()
        assert tap.samples / RATE == pytest.approx(rig.wire.audio_s())
        assert tap.drops == 1


# Pause and resume


async def test_a_pause_clears_the_wire_and_resume_goes_on_from_the_cut_word() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(1.2)
        rig.playout.pause()
        await asyncio.sleep(0.01)
        assert rig.wire.kinds()[-1] == "clear"
        sent_s = rig.wire.audio_s()
        await asyncio.sleep(1.0)
        assert rig.wire.audio_s() == sent_s
        assert rig.playout.is_audible
        assert BotStoppedSpeakingFrame not in rig.tail.kinds()
        rig.playout.resume()
        await asyncio.sleep(2.0)
        assert rig.wire.audio_s() - sent_s == pytest.approx(2.0 - 0.9, abs=0.02)
        assert rig.tail.words() == ["one", "two", "three"]
        assert rig.tail.kinds().count(BotStartedSpeakingFrame) == 1
        assert rig.tail.kinds().count(BotStoppedSpeakingFrame) == 1


async def test_an_interruption_while_paused_leaves_the_words_heard_before() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(1.0)
        rig.playout.pause()
        await asyncio.sleep(0.5)
        await rig.interrupt()
        await asyncio.sleep(2.0)
        assert rig.tail.words() == ["one", CUT_MARK]
        assert rig.wire.kinds().count("clear") == 1
        assert not rig.playout.is_paused


async def test_what_comes_while_paused_in_silence_waits() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        rig.playout.pause()
        await rig.give(*utterance(0.5, ("later", 0.0)))
        await asyncio.sleep(0.5)
        assert rig.wire.log == []
        rig.playout.resume()
        await asyncio.sleep(1.0)
        assert rig.tail.words() == ["later"]


async def test_a_pause_that_nobody_ends_ends_by_itself() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(0.3)
        rig.playout.pause()
        await asyncio.sleep(LONGEST_PAUSE_S + 3.0)
        assert rig.tail.words() == ["one", "two", "three"]


async def test_a_line_that_may_not_be_interrupted_plays_to_its_end() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        words = [SpokenWord("This", 0.0), SpokenWord("is", 0.4), SpokenWord("recorded.", 0.6)]
        rig.playout.speak(voiced(1.0), words, is_interruptible=False)
        await asyncio.sleep(0.2)
        assert not rig.playout.is_interruptible
        rig.playout.pause()
        await rig.interrupt()
        await asyncio.sleep(2.0)
        assert rig.tail.words() == ["This", "is", "recorded."]
        assert "clear" not in rig.wire.kinds()
        assert rig.playout.is_interruptible
        assert not rig.playout.is_speaking


async def test_the_agent_does_not_begin_while_the_caller_makes_a_sound() -> None:
    async with Rig() as rig:
        quiet_s = 0.0
        rig.playout._gate_s, rig.playout._caller_quiet_s = 0.06, lambda: quiet_s
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(0.5, ("now", 0.0)))
        await asyncio.sleep(0.3)
        assert rig.wire.log == []
        quiet_s = 0.1
        await asyncio.sleep(0.1)
        assert rig.wire.audio_s() > 0


async def test_noise_does_not_keep_the_agent_silent() -> None:
    async with Rig() as rig:
        rig.playout._gate_s, rig.playout._caller_quiet_s = 0.06, lambda: 0.0
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(0.5, ("now", 0.0)))
        await asyncio.sleep(1.2)
        assert rig.wire.audio_s() > 0


async def test_no_cut_mark_without_heard_words_or_after_the_last_one() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("unheard", 0.1)))
        await asyncio.sleep(0.1)
        await rig.interrupt()
        await rig.give(*utterance(0.4, ("whole", 0.0)))
        await asyncio.sleep(1.0)
        await rig.interrupt()
        assert rig.tail.words() == ["whole"]


async def test_a_cached_opener_is_said_before_what_the_voice_says() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(
            CachedSpeechFrame("Sure.", voiced(0.4), RATE, (("Sure.", 0.0),)), *utterance(0.6, ("What", 0.0))
        )
        await asyncio.sleep(0.3)
        assert rig.tail.words() == ["Sure."]
        await asyncio.sleep(1.5)
        assert rig.tail.words() == ["Sure.", "What"]
        assert rig.wire.audio_s() == pytest.approx(1.0)
        assert rig.playout.underruns == 0


async def test_what_may_come_back_as_an_echo_is_what_was_heard_and_what_is_on_the_line() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        words = [(f"w{n}", n * 0.5) for n in range(12)]
        await rig.give(*utterance(6.0, *words))
        await asyncio.sleep(1.3)
        recent = rig.playout.recent_words()
        assert recent[:2] == ["w0", "w1"]
        assert "w3" in recent
        assert "w7" not in recent
        assert rig.playout.current_text().split() == [text for text, _ in words]
        assert rig.playout.remaining_s == pytest.approx(4.8, abs=0.25)


def voiced(seconds: float) -> bytes:
    return b"\x00\x20" * round(seconds * RATE)
