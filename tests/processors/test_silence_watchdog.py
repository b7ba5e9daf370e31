import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallFromLLM,
    FunctionCallResultFrame,
    FunctionCallResultProperties,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    LLMRunFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection

from processors.audio_cache import CachedSpeech
from processors.frames import AnswerDroppedFrame, CallerStoppedFrame, WordsDelayedFrame
from processors.silence_watchdog import (
    DROP_LIMIT_S,
    RETRY_NOTE,
    Apology,
    SilenceWatchdogProcessor,
    WatchedLine,
)
from processors.silence_watchdog_table import SilenceWatchParams, Step
from processors.stall_filler import Fillers
from tests.fakes.pipeline_rig import PipelineRig

UP = FrameDirection.UPSTREAM
LINES = ("One moment.", "Just a second.")
SORRY = "Sorry, again."
LINE_S = 1.0
SPEECH = CachedSpeech(bytes(16000), 8000)


@dataclass
class Line:
    """A playout that says fillers, and a caller's ear."""

    sounds_until_s: float = float("-inf")
    has_unsent_audio: bool = False
    is_stuck: bool = False
    said: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def speak_filler(self, text: str, speech: CachedSpeech) -> bool:
        assert speech is SPEECH
        now_s = asyncio.get_running_loop().time()
        if self.is_stuck:
            return False
        self.said.append((text, now_s))
        self.sounds_until_s = max(now_s, self.sounds_until_s) + LINE_S
        return True


class Rig(PipelineRig):
    """A watchdog; `tail` stands where the aggregator would, and drops an answer at once unless told not to."""

    def __init__(self, params: SilenceWatchParams | None = None) -> None:
        self.line = Line()
        self.memory = {*LINES, SORRY}
        self.given_up: list[str] = []
        self.nudges: list[str] = []
        self.steps: list[Step] = []
        self.quiet_s = 100.0
        self.drops = True
        self.watchdog = SilenceWatchdogProcessor(
            WatchedLine(self.line, caller_quiet_s=lambda: self.quiet_s),
            Fillers(LINES, lookup=self._lookup, on_miss=lambda _: None),
            Apology(SORRY, lookup=self._lookup),
            give_up=self._give_up,
            listener=self,
            on_step=self.steps.append,
            params=params,
        )
        super().__init__(self.watchdog, note=self._note)

    def nudged(self, text: str, now_s: float) -> None:
        self.nudges.append(text)

    def said(self) -> list[str]:
        return [text for text, _ in self.line.said]

    def times(self) -> list[float]:
        return [round(at_s - self.began_s, 2) for _, at_s in self.line.said]

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def turn(self, text: str = "When?") -> None:
        """The caller spoke, until 0.3 s ago."""
        await self.up(UserStartedSpeakingFrame(), InterruptionFrame())
        await self.give(TranscriptionFrame(text, "caller", ""))
        await self.give(CallerStoppedFrame(stop_secs=0.2, at_s=self.now_s() - 0.3))
        await self.up(UserStoppedSpeakingFrame())
        self.began_s = self.now_s() - 0.3

    async def up(self, *frames: Frame) -> None:
        for frame in frames:
            await self.tail.push_frame(frame, UP)
        await asyncio.sleep(0)

    async def answer(self, length_s: float = 1.0) -> None:
        self.watchdog.reply_started(self.now_s(), is_ahead=False)
        self.watchdog.reply_text(self.now_s(), needs_voice=True)
        self.watchdog.voice_came(self.now_s())
        await self.up(BotStartedSpeakingFrame())
        self.line.sounds_until_s = self.now_s() + length_s
        await asyncio.sleep(length_s)
        self.watchdog.reply_heard(self.now_s())
        await self.up(BotStoppedSpeakingFrame())

    def _lookup(self, text: str) -> CachedSpeech | None:
        return SPEECH if text in self.memory else None

    async def _give_up(self, reason: str) -> None:
        self.given_up.append(reason)

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, AnswerDroppedFrame) and self.drops:
            frame.done.set()


@pytest_asyncio.fixture
async def rig() -> AsyncGenerator[Rig]:
    async with Rig() as rig:
        yield rig


async def test_an_answer_in_time_needs_no_filler(rig: Rig) -> None:
    await rig.turn()
    assert rig.watchdog.owes
    await asyncio.sleep(1.0)
    await rig.answer()
    assert not rig.watchdog.owes
    await asyncio.sleep(30)
    assert rig.said() == []


async def test_the_whole_ladder(rig: Rig) -> None:
    await rig.turn()
    await asyncio.sleep(60)
    assert rig.said() == [*LINES, SORRY]
    assert rig.times() == [2.0, 5.8, 9.6]
    assert len(rig.tail.of(LLMRunFrame)) == 1
    assert rig.given_up == ["model"]
    assert [frame.asks_again for frame in rig.tail.of(AnswerDroppedFrame)] == [True, False]
    kinds = [kind for kind in rig.tail.kinds() if kind in (AnswerDroppedFrame, LLMRunFrame)]
    assert kinds == [AnswerDroppedFrame, LLMRunFrame, AnswerDroppedFrame]
    assert not rig.tail.of(LLMRunFrame)[0].interruptible
    assert not rig.watchdog.owes


async def test_the_wait_is_told_in_the_log(rig: Rig) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    await rig.turn()
    await asyncio.sleep(2.0)
    logger.remove(sink)
    assert [line.strip() for line in lines] == ["silence: cause=model rung=filler silence_s=2.00"]
    assert [(step.cause.value, step.rung.value) for step in rig.steps] == [("model", "filler")]


async def test_who_waits_for_words_that_are_heard_again_hears_a_filler(rig: Rig) -> None:
    await rig.up(UserStartedSpeakingFrame())
    await rig.give(CallerStoppedFrame(stop_secs=0.2, at_s=rig.now_s() - 0.3))
    rig.began_s, rig.quiet_s = rig.now_s() - 0.3, 0.3
    await rig.give(WordsDelayedFrame(rig.now_s() + 2.0))
    for _ in range(60):
        await asyncio.sleep(0.05)
        rig.quiet_s += 0.05
    assert rig.said() == list(LINES[:1])
    assert rig.times() == [pytest.approx(2.8, abs=0.06)]
    assert [step.cause.value for step in rig.steps] == ["words"]


async def test_a_second_try_that_is_answered(rig: Rig) -> None:
    await rig.turn()
    await asyncio.sleep(11)
    assert rig.said()[-1] == SORRY
    await rig.answer()
    await asyncio.sleep(60)
    assert rig.said() == [*LINES, SORRY]
    assert rig.given_up == []


async def test_an_answer_that_broke_off_is_gone_on_with(rig: Rig) -> None:
    await rig.turn()
    rig.watchdog.reply_started(rig.now_s(), is_ahead=False)
    rig.watchdog.reply_text(rig.now_s(), needs_voice=True)
    rig.watchdog.voice_came(rig.now_s())
    await rig.up(BotStartedSpeakingFrame())
    rig.line.sounds_until_s = rig.now_s() + 1.0
    await asyncio.sleep(4.5)
    assert rig.said() == [SORRY]
    [ask] = rig.tail.of(LLMMessagesAppendFrame)
    assert ask.run_llm
    assert ask.messages == [{"role": "developer", "content": RETRY_NOTE}]
    assert not rig.tail.of(LLMRunFrame)


async def test_a_pipeline_that_drops_nothing_is_asked_again_all_the_same(rig: Rig) -> None:
    rig.drops = False
    await rig.turn()
    await asyncio.sleep(9.8)
    assert rig.said() == list(LINES)
    await asyncio.sleep(DROP_LIMIT_S + 0.1)
    assert rig.said()[-1] == SORRY
    await asyncio.sleep(30)
    assert rig.given_up == ["model"]


async def test_a_second_try_that_is_given_up_while_it_is_begun_is_not_made() -> None:
    async with Rig(SilenceWatchParams(stall_after_s=0.2, slack_s=0.1, second_after_s=0.5)) as rig:
        rig.drops = False
        await rig.turn()
        await asyncio.sleep(10.0)
        assert rig.given_up == ["model"]
        assert [frame.asks_again for frame in rig.tail.of(AnswerDroppedFrame)] == [True, False]
        assert LLMRunFrame not in rig.tail.kinds()


async def test_what_is_not_in_memory_is_passed_over(rig: Rig) -> None:
    rig.memory.clear()
    await rig.turn()
    await asyncio.sleep(60)
    assert rig.said() == []
    assert rig.given_up == ["model"]
    rig.memory.add(LINES[1])
    assert len(rig.tail.of(LLMRunFrame)) == 1


async def test_a_stuck_line_is_given_up(rig: Rig) -> None:
    rig.line.is_stuck = rig.line.has_unsent_audio = True
    await rig.turn()
    await asyncio.sleep(15)
    assert rig.given_up == ["playout"]


async def test_a_caller_who_speaks_is_not_spoken_over(rig: Rig) -> None:
    await rig.turn()
    rig.quiet_s = 0.0
    await asyncio.sleep(3.0)
    assert rig.said() == []
    rig.quiet_s = 1.0
    await asyncio.sleep(0.5)
    assert rig.said() == [LINES[0]]
    await rig.up(UserStartedSpeakingFrame(), InterruptionFrame())
    await asyncio.sleep(30)
    assert rig.said() == [LINES[0]]


async def test_a_cough_is_not_answered_and_keys_count_from_the_decision(rig: Rig) -> None:
    await rig.up(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame())
    await asyncio.sleep(10)
    assert rig.said() == []
    await rig.up(UserStartedSpeakingFrame())
    await rig.give(TranscriptionFrame("DTMF: 5#", "caller", ""))
    await rig.up(UserStoppedSpeakingFrame())
    decided_s = rig.now_s()
    await asyncio.sleep(2.5)
    assert [at_s - decided_s for _, at_s in rig.line.said] == [pytest.approx(2.0, abs=0.01)]


async def test_a_greeting_is_owed_when_the_line_is_up(rig: Rig) -> None:
    rig.watchdog.line_up()
    assert rig.watchdog.owes
    await asyncio.sleep(2.1)
    assert rig.said() == [LINES[0]]
    await rig.up(BotStartedSpeakingFrame(), BotStoppedSpeakingFrame())
    assert not rig.watchdog.owes


async def test_a_nudge_is_answered_at_once_and_told(rig: Rig) -> None:
    await rig.turn()
    await asyncio.sleep(1.0)
    rig.watchdog.nudged("Hello?")
    assert rig.nudges == ["Hello?"]
    assert rig.said() == [LINES[0]]
    rig.watchdog.nudged("Hello?")
    assert rig.said() == [LINES[0]], "it is being heard"
    await asyncio.sleep(3.5)
    rig.watchdog.nudged("Hello?")
    assert rig.said() == list(LINES)
    assert rig.watchdog.is_thinking
    assert not rig.tail.of(AnswerDroppedFrame)


async def test_nothing_is_said_when_the_call_is_to_end(rig: Rig) -> None:
    await rig.turn()
    rig.watchdog.stop()
    assert not rig.watchdog.owes
    rig.watchdog.nudged("Hello?")
    await asyncio.sleep(30)
    assert rig.said() == []
    assert rig.given_up == []


def call(name: str = "book") -> FunctionCallFromLLM:
    return FunctionCallFromLLM(function_name=name, tool_call_id="1", arguments={}, context=LLMContext())


def result(**more: Any) -> FunctionCallResultFrame:
    return FunctionCallResultFrame("book", "1", {}, {}, **more)


@pytest.mark.parametrize(
    ("ends", "is_owed"),
    [
        (result(), True),
        (result(run_llm=False), False),
        (result(properties=FunctionCallResultProperties(run_llm=False)), False),
        (FunctionCallCancelFrame("book", "1", run_llm=True), True),
        (FunctionCallCancelFrame("book", "1"), False),
    ],
)
async def test_a_tool_is_filled_and_what_it_found_is_owed(rig: Rig, ends: Frame, is_owed: bool) -> None:
    await rig.turn()
    await rig.up(FunctionCallsStartedFrame([call()]))
    await rig.answer(0.5)  # "Let me book that."
    said_s = rig.now_s()
    assert rig.watchdog.owes
    await asyncio.sleep(2.5)
    assert [at_s - said_s for _, at_s in rig.line.said] == [pytest.approx(2.0, abs=0.01)]
    await rig.up(ends)
    assert rig.watchdog.owes is is_owed


async def test_a_tool_that_tells_how_far_it_is_still_runs(rig: Rig) -> None:
    await rig.turn()
    await rig.up(FunctionCallsStartedFrame([call()]))
    await rig.answer(0.5)
    await rig.up(result(run_llm=False, properties=FunctionCallResultProperties(is_final=False)))
    assert rig.watchdog.owes
    await rig.up(result(run_llm=False))
    assert not rig.watchdog.owes


async def test_frames_pass(rig: Rig) -> None:
    frames = [TranscriptionFrame("Hi", "caller", ""), LLMRunFrame()]
    await rig.give(*frames)
    await asyncio.sleep(0.01)
    assert rig.tail.frames == frames
