import asyncio
from dataclasses import dataclass, field

import pytest
from pipecat.frames.frames import (
    AggregatedTextProgressFrame,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    Frame,
    FunctionCallResultFrame,
    InterruptionFrame,
    LLMAssistantPushAggregationFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.utils.text.base_text_aggregator import TextType

from processors.audio_cache import CachedSpeech, CachedWord
from processors.frames import AnswerDroppedFrame, CachedSpeechFrame, SpeechAnchorFrame, SpeechCutFrame
from processors.playout import CUT_MARK, LONGEST_PAUSE_S, PlayoutProcessor, SpokenWord
from processors.turn_record import TurnLedger
from tests.fakes.pipeline_rig import PipelineRig

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


class Listener(TurnLedger):
    """Notes when the agent fell silent and when it went on."""

    def __init__(self) -> None:
        super().__init__(started_s=0.0)
        self.told: list[str] = []

    def agent_paused(self, now_s: float) -> None:
        self.told.append("paused")

    def agent_resumed(self, now_s: float) -> None:
        self.told.append("resumed")


class Rig(PipelineRig):
    """A playout with a wire."""

    def __init__(self) -> None:
        self.playout = PlayoutProcessor(rate_hz=RATE)
        self.wire = FakeWire(self.playout)
        super().__init__(self.playout, rate_hz=RATE)

    def words(self) -> list[str]:
        return [frame.text for frame in self.tail.of(TTSTextFrame)]

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
        times = [at_s - rig.began_s for at_s in rig.tail.times(TTSTextFrame)]
        assert rig.words() == ["one", "two", "three"]
        assert times == [pytest.approx(at_s, abs=0.15) for at_s in HALVES_S]
        assert rig.tail.times(LLMFullResponseEndFrame)[0] - rig.began_s == pytest.approx(2.1, abs=0.05)
        assert rig.tail.times(BotStartedSpeakingFrame)[0] - rig.began_s < 0.01
        assert rig.tail.times(BotStoppedSpeakingFrame)[0] - rig.began_s == pytest.approx(2.1, abs=0.05)
        assert TTSAudioRawFrame not in rig.tail.kinds()


async def test_the_progress_told_with_a_word_holds_up_no_other_word() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        frames: list[Frame] = []
        for frame in utterance(2.0, *THREE):
            frames.append(frame)
            if isinstance(frame, TTSTextFrame):
                frames.append(AggregatedTextProgressFrame(1, "c1", "", TextType.SENTENCE, frame.text, ""))
        await rig.give(*frames)
        await asyncio.sleep(3.0)
        times = [at - rig.began_s for at, frame in rig.tail.seen if isinstance(frame, TTSTextFrame)]
        assert times == [pytest.approx(at_s, abs=0.15) for at_s in HALVES_S]
        kinds = rig.tail.kinds()
        for place in (place for place, kind in enumerate(kinds) if kind is TTSTextFrame):
            assert kinds[place + 1] is AggregatedTextProgressFrame


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
        assert rig.words() == ["one", "two", CUT_MARK]
        assert rig.wire.kinds().count("clear") == 1
        assert rig.wire.kinds()[-1] == "clear"
        interrupted = rig.tail.kinds().index(InterruptionFrame)
        assert TTSTextFrame not in rig.tail.kinds()[interrupted:]
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
        assert rig.words() == ["one", "two", CUT_MARK]
        assert InterruptionFrame in rig.tail.kinds()
        await rig.give(*utterance(0.5, ("four", 0.0)), LLMFullResponseEndFrame())
        await asyncio.sleep(0.2)
        assert not rig.playout.is_settled
        await rig.playout.wait_until_settled(3.0)
        assert rig.playout.is_settled
        assert rig.words()[-1] == "four"


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


async def test_what_came_just_before_an_interruption_is_dropped_by_it() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("late", 0.1)))
        await rig.interrupt()
        await asyncio.sleep(1.5)
        assert rig.words() == []
        assert rig.wire.audio_s() == 0


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
        assert rig.words() == ["again"]


async def test_lost_marks_delay_but_do_not_stop_the_call() -> None:
    async with Rig() as rig:
        rig.wire.loses_marks = True
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("late", 0.8)))
        await asyncio.sleep(4.0)
        assert rig.words() == ["late"]
        assert rig.playout.marks_lost > 0
        assert not rig.playout.is_speaking


async def test_words_timed_after_their_audio_are_heard_in_their_place() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(TTSStartedFrame(context_id="c1"), SpeechAnchorFrame("c1", ANCHOR_NS), audio(1.0))
        await asyncio.sleep(0.7)
        await rig.give(word("early", 0.1), word("late", 0.9), TTSStoppedFrame(context_id="c1"))
        await asyncio.sleep(0.05)
        assert rig.words() == ["early"]
        await asyncio.sleep(1.0)
        assert rig.words() == ["early", "late"]


async def test_a_word_without_a_time_of_its_own_is_heard_with_the_last_audio() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("said", 0.1), ("tail", 0.1)))
        await asyncio.sleep(0.8)
        assert rig.words() == ["said"]
        await asyncio.sleep(1.0)
        assert rig.words() == ["said", "tail"]


async def test_the_first_word_of_a_reply_has_its_own_time_though_it_is_that_of_the_word_before() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(1.0, ("last", 0.6)))
        await rig.give(TTSStartedFrame(context_id="c2"), SpeechAnchorFrame("c2", ANCHOR_NS + round(0.6 * NS)))
        await rig.give(audio(2.0, "c2"), word("first", 0.6), word("second", 1.6))
        await asyncio.sleep(2.0)
        assert rig.words() == ["last", "first"]


async def test_another_voice_goes_on_within_an_utterance() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        anchor = SpeechAnchorFrame(context_id="c1", anchor_ns=ANCHOR_NS)
        began_s = asyncio.get_running_loop().time()
        await rig.give(TTSStartedFrame(context_id="c1"), anchor, audio(1.0), word("one", 0.0))
        await rig.give(SpeechCutFrame("c1", keep=round(0.6 * RATE)))
        await rig.give(audio(0.4), word("two", 0.6), TTSStoppedFrame(context_id="c1"))
        await asyncio.sleep(2.0)
        assert rig.wire.audio_s() == pytest.approx(1.0, abs=0.021)
        assert rig.words() == ["one", "two"]
        assert rig.tail.times(TTSStoppedFrame)[0] - began_s == pytest.approx(1.1, abs=0.1)


async def test_a_voice_that_is_cut_takes_nothing_of_a_line_that_was_said_meanwhile() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(TTSStartedFrame(context_id="c1"))
        await asyncio.sleep(0.05)
        rig.playout.speak(bytes(2 * RATE), [SpokenWord("Sorry.", 0.0)])
        await rig.give(SpeechCutFrame("c1", keep=0), TTSStoppedFrame(context_id="c1"))
        await asyncio.sleep(2.0)
        assert rig.wire.audio_s() == pytest.approx(1.0, abs=0.021)
        assert rig.words() == ["Sorry."]


async def test_words_behind_audio_that_could_not_be_taken_back_keep_their_place() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        anchor = SpeechAnchorFrame(context_id="c1", anchor_ns=ANCHOR_NS)
        await rig.give(TTSStartedFrame(context_id="c1"), anchor, audio(0.2))
        await asyncio.sleep(0.05)  # all of it is sent
        await rig.give(SpeechCutFrame("c1", keep=0), audio(1.0), word("one", 0.0), word("two", 0.8))
        await rig.give(TTSStoppedFrame(context_id="c1"))
        await asyncio.sleep(0.85)
        assert rig.words() == ["one"]
        await asyncio.sleep(1.0)
        assert rig.words() == ["one", "two"]
        assert rig.wire.audio_s() == pytest.approx(1.2, abs=0.021)


async def test_two_utterances_are_played_one_after_the_other() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(0.5, ("first", 0.1)), *utterance(0.5, ("second", 0.1)))
        await asyncio.sleep(0.5)
        assert rig.words() == ["first"]
        await asyncio.sleep(1.5)
        assert rig.words() == ["first", "second"]
        assert rig.wire.audio_s() == pytest.approx(1.0)
        assert rig.playout.underruns == 0


async def test_a_rendered_line_needs_no_voice_and_reaches_the_context() -> None:
    async with Rig() as rig:
        rig.playout.speak(bytes(RATE * 2), [SpokenWord("Good", 0.0), SpokenWord("morning.", 0.4)])
        await asyncio.sleep(0.5)
        assert rig.wire.log == []
        rig.playout.connect(rig.wire)
        await asyncio.sleep(3.0)
        assert rig.words() == ["Good", "morning."]
        assert rig.tail.kinds()[-2:] == [LLMAssistantPushAggregationFrame, BotStoppedSpeakingFrame]


GREETING = [SpokenWord("Good", 0.0), SpokenWord("morning.", 0.4)]


async def test_a_greeting_does_not_wait_for_the_pipeline_which_is_told_of_it_later() -> None:
    rig = Rig()
    rig.playout.connect(rig.wire)
    rig.playout.play_ahead()
    rig.playout.speak(bytes(RATE * 2), GREETING)
    began_s = asyncio.get_running_loop().time()
    await asyncio.sleep(0.4)
    assert next(at_s for kind, at_s, _ in rig.wire.log if kind == "audio") == began_s
    assert rig.wire.audio_s() == pytest.approx(0.65, abs=0.11)
    async with rig:
        await asyncio.sleep(0.1)
        assert rig.tail.frames == []
        await rig.playout.let_through()
        assert rig.tail.kinds()[:1] == [BotStartedSpeakingFrame]
        assert rig.words() == ["Good"]
        await asyncio.sleep(2.0)
        assert rig.words() == ["Good", "morning."]
        assert rig.tail.kinds()[-2:] == [LLMAssistantPushAggregationFrame, BotStoppedSpeakingFrame]
        assert rig.wire.audio_s() == pytest.approx(1.0)
        assert rig.playout.underruns == 0


async def test_a_greeting_that_was_heard_before_the_pipeline_came_reaches_the_context_in_its_order() -> None:
    rig = Rig()
    rig.playout.connect(rig.wire)
    rig.playout.play_ahead()
    rig.playout.speak(bytes(RATE * 2), GREETING)
    await asyncio.sleep(3.0)
    async with rig:
        await rig.playout.let_through()
        assert rig.words() == ["Good", "morning."]
        kinds = rig.tail.kinds()
        assert kinds.index(BotStartedSpeakingFrame) < kinds.index(TTSTextFrame)
        assert kinds[-2:] == [LLMAssistantPushAggregationFrame, BotStoppedSpeakingFrame]
        assert rig.playout.is_settled


async def test_who_interrupts_a_greeting_that_was_begun_ahead_is_heard() -> None:
    rig = Rig()
    rig.playout.connect(rig.wire)
    rig.playout.play_ahead()
    rig.playout.speak(bytes(RATE * 2), GREETING)
    await asyncio.sleep(0.5)
    async with rig:
        await rig.interrupt()
        assert rig.words() == ["Good", CUT_MARK]
        assert rig.wire.kinds()[-1] == "clear"
        assert rig.tail.kinds()[-1] is InterruptionFrame


async def test_a_call_that_ends_before_it_has_a_pipeline_sends_no_more() -> None:
    rig = Rig()
    rig.playout.connect(rig.wire)
    rig.playout.play_ahead()
    rig.playout.speak(bytes(RATE * 2), GREETING)
    await asyncio.sleep(0.3)
    await rig.playout.stop_ahead()
    sent_s = rig.wire.audio_s()
    await asyncio.sleep(1.0)
    assert rig.wire.audio_s() == sent_s < 1.0


async def test_once_the_pipeline_is_told_there_is_nothing_to_play_ahead_of() -> None:
    async with Rig() as rig:
        await rig.playout.let_through()
        rig.playout.connect(rig.wire)
        rig.playout.play_ahead()
        rig.playout.speak(bytes(RATE * 2), GREETING)
        await asyncio.sleep(3.0)
        assert rig.words() == ["Good", "morning."]


async def test_behind_the_last_word_nothing_is_said() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        rig.playout.speak(bytes(RATE * 2), [SpokenWord("goodbye", 0.1)], is_interruptible=False)
        rig.playout.say_no_more()
        await rig.give(*utterance(2.0, *THREE))
        rig.playout.speak(bytes(RATE * 2), [SpokenWord("more", 0.1)])
        await asyncio.sleep(3.0)
        assert rig.words() == ["goodbye"]
        assert rig.wire.audio_s() == pytest.approx(1.0)
        assert LLMFullResponseEndFrame in rig.tail.kinds()


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
        assert rig.words() == ["one", "two", "three"]
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
        assert rig.words() == ["one", CUT_MARK]
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
        assert rig.words() == ["later"]


async def test_a_pause_that_nobody_ends_ends_by_itself() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(0.3)
        rig.playout.pause()
        await asyncio.sleep(LONGEST_PAUSE_S + 3.0)
        assert rig.words() == ["one", "two", "three"]


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
        assert rig.words() == ["This", "is", "recorded."]
        assert "clear" not in rig.wire.kinds()
        assert rig.playout.is_interruptible
        assert not rig.playout.is_speaking


async def test_what_is_cut_in_front_of_a_line_that_plays_on_is_marked() -> None:
    async with Rig() as rig:
        listener = Listener()
        rig.playout._listener = listener
        rig.playout.connect(rig.wire)
        await rig.give(LLMFullResponseStartFrame(), *utterance(2.0, *THREE))
        await asyncio.sleep(0.1)
        rig.playout.speak(
            voiced(1.0), [SpokenWord("This", 0.0), SpokenWord("too.", 0.5)], is_interruptible=False
        )
        await asyncio.sleep(0.7)
        rig.playout.pause()
        await rig.interrupt()
        assert rig.words() == ["one", CUT_MARK]
        assert listener.told == ["paused", "resumed"]
        await asyncio.sleep(1.5)
        assert rig.words() == ["one", CUT_MARK, "This", "too."]


def turns(rig: Rig) -> list[list[str]]:
    """The words that reach an assistant aggregator, as it commits them: none without a turn that was opened."""
    committed: list[list[str]] = []
    is_open = False
    for _, frame in rig.tail.seen:
        if isinstance(frame, LLMFullResponseStartFrame | TTSStartedFrame) and not is_open:
            is_open = True
            committed.append([])
        elif isinstance(frame, TTSTextFrame):
            assert is_open, f"{frame.text} comes outside of a turn"
            committed[-1].append(frame.text)
        elif isinstance(
            frame, LLMAssistantPushAggregationFrame | LLMFullResponseEndFrame | InterruptionFrame
        ):
            is_open = False
    return [words for words in committed if words]


async def test_a_line_in_the_middle_of_a_reply_takes_nothing_from_its_words() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        start, anchor, _, *words = utterance(2.0, *THREE)
        await rig.give(LLMFullResponseStartFrame(), start, anchor, audio(0.7), words[0])
        await asyncio.sleep(0.1)
        rig.playout.speak(voiced(0.5), [SpokenWord("Wait.", 0.0)])
        await rig.give(audio(1.3), *words[1:])
        await asyncio.sleep(4.0)
        assert turns(rig) == [["one", "Wait."], ["two", "three"]]
        times = [at - rig.began_s for at, frame in rig.tail.seen if isinstance(frame, TTSTextFrame)]
        assert times[2:] == [pytest.approx(at_s + 0.5, abs=0.15) for at_s in HALVES_S[1:]]
        assert not rig.playout.is_speaking


async def test_a_line_before_a_replys_first_audio_takes_nothing_from_its_words() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        start, *rest = utterance(2.0, *THREE)
        await rig.give(LLMFullResponseStartFrame(), start)
        await asyncio.sleep(0.1)
        rig.playout.speak(voiced(0.5), [SpokenWord("Wait.", 0.0)])
        await rig.give(*rest)
        await asyncio.sleep(4.0)
        assert turns(rig) == [["Wait."], ["one", "two", "three"]]


async def test_a_line_that_plays_on_over_an_interruption_is_told_to_its_end() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        words = [SpokenWord("This", 0.0), SpokenWord("is", 0.4), SpokenWord("recorded.", 0.6)]
        rig.playout.speak(voiced(1.0), words, is_interruptible=False)
        await asyncio.sleep(0.3)
        await rig.interrupt()
        await asyncio.sleep(2.0)
        assert turns(rig) == [["This"], ["is", "recorded."]]


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
        assert rig.words() == ["whole"]


async def test_a_reply_whose_rest_the_voice_had_not_made_yet_is_marked_as_cut() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        start, anchor, *_ = utterance(0.0)
        await rig.give(LLMFullResponseStartFrame(), start, anchor, audio(0.5), word("one", 0.0))
        await asyncio.sleep(1.0)
        await rig.interrupt()
        assert rig.words() == ["one", CUT_MARK]


async def test_a_cached_opener_is_said_before_what_the_voice_says() -> None:
    async with Rig() as rig:
        rig.playout.connect(rig.wire)
        await rig.give(
            CachedSpeechFrame("Sure.", voiced(0.4), RATE, (("Sure.", 0.0),)), *utterance(0.6, ("What", 0.0))
        )
        await asyncio.sleep(0.3)
        assert rig.words() == ["Sure."]
        await asyncio.sleep(1.5)
        assert rig.words() == ["Sure.", "What"]
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


# Fillers

FILLER = CachedSpeech(bytes(RATE * 2), RATE, (CachedWord("One", 0.0, 0.4), CachedWord("moment.", 0.5, 1.0)))


class Ear:
    """What the playout tells of the line and of replies."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []
        self.words: list[str] = []

    def heard_word(self, text: str, now_s: float) -> None:
        self.words.append(text)

    def agent_stopped(self, cut: bool, now_s: float) -> None:
        self._note("cut" if cut else "stopped", now_s)

    def filler_started(self, text: str, now_s: float) -> None:
        assert text == "One moment."
        self._note("filler", now_s)

    def agent_gap(self, began_s: float, now_s: float) -> None:
        self._note(f"gap {now_s - began_s:.1f}", now_s)

    def filler_stopped(self, now_s: float) -> None:
        self._note("filler over", now_s)

    def heard_started(self, now_s: float) -> None:
        self._note("answer", now_s)

    def tts_first_audio(self, now_s: float) -> None:
        self._note("audio", now_s)

    def audio_sent(self, now_s: float) -> None:
        pass

    def agent_paused(self, now_s: float) -> None:
        self._note("paused", now_s)

    def agent_resumed(self, now_s: float) -> None:
        self._note("resumed", now_s)

    def voice_came(self, now_s: float) -> None:
        self._note("voice", now_s)

    def reply_heard(self, now_s: float) -> None:
        self._note("reply heard", now_s)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def _note(self, kind: str, now_s: float) -> None:
        self.told.append((kind, now_s))


class FillerRig(PipelineRig):
    """A connected playout that is listened to."""

    def __init__(self) -> None:
        self.ear = Ear()
        self.playout = PlayoutProcessor(rate_hz=RATE, listener=self.ear)
        self.playout.tell_replies(self.ear)
        self.wire = FakeWire(self.playout)
        self.playout.connect(self.wire)
        super().__init__(self.playout, rate_hz=RATE)

    def fill(self) -> bool:
        return self.playout.speak_filler("One moment.", FILLER)


async def test_a_filler_is_heard_and_is_no_turn() -> None:
    async with FillerRig() as rig:
        assert rig.fill()
        await asyncio.sleep(0.5)
        assert rig.playout.is_audible
        assert rig.playout.sounds_until_s > asyncio.get_running_loop().time()
        await asyncio.sleep(1.5)
        assert rig.wire.audio_s() == pytest.approx(1.0, abs=0.02)
        assert not rig.playout.is_audible
        assert rig.ear.kinds() == ["filler", "filler over"]
        assert rig.ear.words == []
        assert BotStartedSpeakingFrame not in rig.tail.kinds()
        assert BotStoppedSpeakingFrame not in rig.tail.kinds()
        assert {frame.append_to_context for frame in rig.tail.of(TTSTextFrame)} == {False}
        assert "moment." in rig.playout.recent_words(), "its echo is known"


async def test_an_answer_that_comes_meanwhile_follows_whole_and_without_a_gap() -> None:
    async with FillerRig() as rig:
        rig.fill()
        await asyncio.sleep(0.4)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(4.0)
        assert rig.wire.audio_s() == pytest.approx(3.0, abs=0.02)
        assert rig.playout.underruns == 0
        assert rig.ear.kinds() == [
            "filler",
            "voice",
            "audio",
            "filler over",
            "answer",
            "reply heard",
            "stopped",
        ]
        times = dict(rig.ear.told)
        assert times["answer"] - times["filler"] == pytest.approx(1.05, abs=0.06), (
            "when it is heard, not sent"
        )
        assert rig.ear.words == ["one", "two", "three"]
        assert rig.tail.times(BotStartedSpeakingFrame) == [pytest.approx(times["answer"], abs=0.01)]


async def test_an_answer_behind_the_end_of_a_filler_begins_when_it_is_sent() -> None:
    async with FillerRig() as rig:
        rig.fill()
        await asyncio.sleep(2.0)
        await rig.give(*utterance(1.0))
        await asyncio.sleep(0.01)
        assert rig.ear.kinds()[-1] == "answer"


async def test_a_filler_is_never_put_behind_audio_that_waits() -> None:
    async with FillerRig() as rig:
        await rig.give(*utterance(1.0))
        await asyncio.sleep(0.1)
        assert not rig.fill()
        await asyncio.sleep(2.0)
        assert rig.fill()


async def test_an_utterance_whose_audio_is_late_is_whole_behind_a_filler() -> None:
    async with FillerRig() as rig:
        begin, *rest = utterance(2.0, *THREE)
        await rig.give(begin)
        await asyncio.sleep(0.01)
        assert rig.fill()
        await asyncio.sleep(0.2)
        await rig.give(*rest)
        await asyncio.sleep(4.0)
        assert rig.wire.audio_s() == pytest.approx(3.0, abs=0.02)
        assert rig.ear.words == ["one", "two", "three"]
        assert rig.ear.kinds().count("answer") == 1


async def test_a_caller_who_cuts_in_stops_a_filler_and_what_waits_behind_it() -> None:
    async with FillerRig() as rig:
        rig.fill()
        await asyncio.sleep(0.4)
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(0.1)
        await rig.playout.queue_frame(InterruptionFrame())
        await asyncio.sleep(2.0)
        assert rig.ear.kinds() == ["filler", "voice", "audio", "filler over"]
        assert CUT_MARK not in [frame.text for frame in rig.tail.of(TTSTextFrame)]
        assert rig.ear.words == []
        await rig.give(*utterance(1.0))
        await asyncio.sleep(0.01)
        assert rig.ear.kinds()[-1] == "answer", "what comes next is no filler"


async def test_a_line_that_plays_on_when_a_filler_is_cut_is_no_filler() -> None:
    async with FillerRig() as rig:
        rig.fill()
        await asyncio.sleep(0.2)
        rig.playout.speak(voiced(2.0), [SpokenWord("Recorded.", 0.0)], is_interruptible=False)
        await asyncio.sleep(0.2)
        await rig.playout.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.05)
        assert rig.ear.kinds() == ["filler", "audio", "filler over", "answer"]
        assert BotStartedSpeakingFrame in rig.tail.kinds()
        await asyncio.sleep(3.0)
        assert rig.ear.kinds()[4:] == ["stopped"]


async def test_two_fillers_are_told_as_two() -> None:
    async with FillerRig() as rig:
        rig.fill()
        await asyncio.sleep(1.2)
        assert rig.fill()
        await asyncio.sleep(2.0)
        assert rig.ear.kinds() == ["filler", "filler over"] * 2


async def test_a_pause_over_a_filler_loses_nothing_of_the_answer_behind_it() -> None:
    async with FillerRig() as rig:
        rig.fill()
        await asyncio.sleep(0.4)
        await rig.give(*utterance(2.0, *THREE))
        rig.playout.pause()
        await asyncio.sleep(0.5)
        assert rig.playout.sounds_until_s == asyncio.get_running_loop().time(), "that is no silence of ours"
        rig.playout.resume()
        await asyncio.sleep(5.0)
        assert rig.playout.sounds_until_s < asyncio.get_running_loop().time() - 1.0
        assert rig.ear.words == ["one", "two", "three"]
        assert rig.ear.kinds().count("filler") == 1
        assert rig.ear.kinds()[-1] == "stopped"


async def test_a_pause_in_silence_says_nothing_again() -> None:
    async with FillerRig() as rig:
        await rig.give(*utterance(2.0, *THREE))
        await asyncio.sleep(2.5)
        rig.playout.pause()
        rig.playout.resume()
        await asyncio.sleep(2.0)
        assert rig.wire.audio_s() == pytest.approx(2.0, abs=0.02)


async def test_a_hole_in_what_is_said_is_told_when_it_ends() -> None:
    async with FillerRig() as rig:
        begin, anchor, sound, *rest = utterance(1.0)
        await rig.give(begin, anchor, sound)
        await asyncio.sleep(3.0)
        await rig.give(audio(1.0), *rest)
        await asyncio.sleep(2.0)
        assert [kind for kind in rig.ear.kinds() if kind.startswith("gap")] == ["gap 2.0"]


async def test_a_reply_that_became_no_audio_is_heard_at_once() -> None:
    async with FillerRig() as rig:
        await rig.give(
            TTSStartedFrame(context_id="c1"), TTSStoppedFrame(context_id="c1"), LLMFullResponseEndFrame()
        )
        await asyncio.sleep(0.01)
        assert rig.ear.kinds() == ["reply heard"]


async def test_who_drops_an_answer_learns_when_it_is_dropped() -> None:
    async with FillerRig() as rig:
        await rig.give(*utterance(2.0))
        await asyncio.sleep(0.2)
        dropped = AnswerDroppedFrame()
        await rig.playout.queue_frame(dropped)
        async with asyncio.timeout(0.1):
            await dropped.done.wait()
        assert rig.fill(), "nothing of the answer is in front of it"
