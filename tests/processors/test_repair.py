"""Repair in front of a real user aggregator with the strategies of a call."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallInProgressFrame,
    InterimTranscriptionFrame,
    LLMContextFrame,
    LLMMessagesAppendFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMUserAggregator,
    LLMUserAggregatorParams,
    UserTurnStoppedMessage,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.tests.utils import run_test
from pipecat.turns.user_start import TranscriptionUserTurnStartStrategy, VADUserTurnStartStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from processors.confidence import MISSED_NOTE, Trust
from processors.end_of_turn import EndOfTurnStrategy
from processors.end_of_turn_table import Patience
from processors.frames import CallerPausedFrame, CallerStoppedFrame, TranscriptFlushedFrame
from processors.language import load_language
from processors.repair import ASK_LIMIT_S, RepairProcessor, UnheardTurnStopStrategy
from processors.repair_lines import lines_of
from tests.fakes.pipeline_rig import PipelineRig

LINES = lines_of("en")
PAUSE_S = 0.2
WATCHDOG_S = 3.0


class Verdict:
    """A turn model with one opinion."""

    async def turn_verdict(self) -> float | None:
        return 0.9

    def end_turn(self) -> None:
        pass


class Purse:
    """Always pays for thinking ahead."""

    def may_start(self) -> bool:
        return True


@dataclass
class Line:
    """One caller in front of repair and the aggregator. Times are seconds since the line came up."""

    asked: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    turns_ended: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    model_asked: list[list[Any]] = field(default_factory=list[list[Any]])
    failed: list[int] = field(default_factory=list[int])
    trusts: list[Trust] = field(default_factory=list[Trust])
    gives_up_at: int = 100
    """From so many failed turns on somebody else has the caller."""
    idle: int = 0
    open_turns: int = 0
    ask: Callable[[str], Awaitable[None]] | None = None
    thinks_ahead: bool = False

    def __post_init__(self) -> None:
        self.context = LLMContext()
        self.repair = RepairProcessor(load_language("en"), ask=self._ask, listener=self)
        stop = EndOfTurnStrategy(
            Verdict(), load_language("en"), patience=Patience, account=Purse() if self.thinks_ahead else None
        )
        self.aggregator = LLMUserAggregator(
            self.context,
            params=LLMUserAggregatorParams(
                user_turn_strategies=UserTurnStrategies(
                    start=[VADUserTurnStartStrategy(), TranscriptionUserTurnStartStrategy()],
                    stop=[stop, UnheardTurnStopStrategy()],
                ),
                user_turn_stop_timeout=WATCHDOG_S,
                user_idle_timeout=7.0,
                empty_user_turn=None,
            ),
        )
        self.aggregator.add_event_handler("on_user_turn_stopped", self._on_stopped)
        self.aggregator.add_event_handler("on_user_turn_idle", self._on_idle)
        self.rig = PipelineRig(self.repair, self.aggregator, note=self._note)

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time() - self.rig.began_s

    @property
    def said(self) -> list[str]:
        return [line for line, _ in self.asked]

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncGenerator["Line"]:
        async with self.rig:
            yield self

    # The caller

    async def sound(self, length_s: float) -> None:
        """A sound, as the voice model tells it: late by `PAUSE_S` at both ends."""
        await asyncio.sleep(PAUSE_S)
        await self.send(VADUserStartedSpeakingFrame(start_secs=PAUSE_S))
        await asyncio.sleep(length_s)
        await self.send(VADUserStoppedSpeakingFrame(stop_secs=PAUSE_S))

    async def say(
        self, text: str, confidence: float | None = None, *, words: Sequence[tuple[str, float]] = ()
    ) -> None:
        """Half a second of speech and its final transcript, flushed."""
        await self.sound(0.5)
        await asyncio.sleep(0.05)
        await self.send(transcript(text, confidence, words))
        await self.send(TranscriptFlushedFrame())

    async def send(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        await self.rig.worker.queue_frame(frame, direction)
        await asyncio.sleep(0.001)  # virtual: whatever it sets off is done

    # The agent

    async def agent_starts(self) -> None:
        await self.send(BotStartedSpeakingFrame(), FrameDirection.UPSTREAM)

    async def agent_stops(self) -> None:
        await self.send(BotStoppedSpeakingFrame(), FrameDirection.UPSTREAM)

    def failed_turn(self, count: int) -> bool:
        self.failed.append(count)
        return count < self.gives_up_at

    def heard(self, trust: Trust) -> None:
        self.trusts.append(trust)

    async def _ask(self, line: str) -> None:
        self.asked.append((line, self.now_s))
        if self.ask is not None:
            await self.ask(line)

    async def _on_stopped(self, _: Any, __: Any, message: UserTurnStoppedMessage) -> None:
        self.turns_ended.append((message.content or "", self.now_s))

    async def _on_idle(self, *_: Any) -> None:
        self.idle += 1

    def _note(self, frame: Frame) -> None:
        if isinstance(frame, LLMContextFrame):
            self.model_asked.append([*frame.context.messages])
        elif isinstance(frame, UserStartedSpeakingFrame):
            self.open_turns += 1
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self.open_turns -= 1


def transcript(
    text: str, confidence: float | None = None, words: Sequence[tuple[str, float]] = ()
) -> TranscriptionFrame:
    result = {
        "channel": {
            "alternatives": [
                {
                    "confidence": confidence,
                    "words": [{"word": word, "confidence": sure} for word, sure in words],
                }
            ]
        }
    }
    return TranscriptionFrame(text, "", "", result=result)


async def nobody(_: str) -> None:
    raise AssertionError("nobody is to be asked")


def roles(messages: Sequence[Any]) -> list[str]:
    return [message["role"] for message in messages]


async def test_words_that_are_sure_pass_at_once_and_alone() -> None:
    async with Line().up() as line:
        await line.say("On Tuesday.", 0.9)
        await asyncio.sleep(3.0)
    assert [roles(messages) for messages in line.model_asked] == [["user"]]
    assert line.asked == []
    assert line.failed == []


async def test_a_vendor_that_tells_no_confidence_is_trusted() -> None:
    async with Line().up() as line:
        await line.sound(0.5)
        await line.send(TranscriptionFrame("On Tuesday.", "", "", result="whatever"))
        await line.send(TranscriptFlushedFrame())
        await asyncio.sleep(3.0)
    assert [roles(messages) for messages in line.model_asked] == [["user"]]


async def test_doubt_stands_in_the_context_just_before_the_words() -> None:
    async with Line().up() as line:
        line.context.add_message({"role": "assistant", "content": "What day?"})
        await line.say("On Tuesday.", 0.7, words=[("on", 0.9), ("Tuesday", 0.61)])
        await asyncio.sleep(3.0)
    assert line.model_asked == [
        [
            {"role": "assistant", "content": "What day?"},
            {
                "role": "developer",
                "content": '<heard>The line was poor; "Tuesday" may be misheard (confidence 0.61). '
                'Ask "Did I hear Tuesday right?" before acting on it.</heard>',
            },
            {"role": "user", "content": "On Tuesday."},
        ]
    ]
    assert line.asked == []


async def test_doubt_is_known_to_an_answer_that_is_thought_ahead() -> None:
    async with Line(thinks_ahead=True).up() as line:
        await line.send(VADUserStartedSpeakingFrame(start_secs=PAUSE_S))
        await asyncio.sleep(0.5)
        paused_s = asyncio.get_running_loop().time()
        await line.send(transcript("On Tuesday.", 0.7))
        await asyncio.sleep(0.05)
        await line.send(CallerPausedFrame(at_s=paused_s))
        await line.send(TranscriptFlushedFrame())
        assert [roles(messages) for messages in line.model_asked] == [["developer", "user"]], "ahead"
        await asyncio.sleep(0.1)
        await line.send(CallerStoppedFrame(stop_secs=PAUSE_S, at_s=paused_s))
        await asyncio.sleep(3.0)
    assert len(line.model_asked) == 1
    assert roles(line.context.messages) == ["developer", "user"]


async def test_the_model_is_asked_once_for_a_turn_of_several_doubtful_parts() -> None:
    async with Line().up() as line:
        await line.sound(0.5)
        await line.send(transcript("On Tuesday", 0.6))
        await line.sound(0.5)
        await line.send(transcript("at nine.", 0.6))
        await line.send(TranscriptFlushedFrame())
        await asyncio.sleep(3.0)
    assert [roles(messages) for messages in line.model_asked] == [["developer", "developer", "user"]]
    assert line.model_asked[0][-1]["content"] == "On Tuesday at nine."


async def test_unclear_words_never_reach_the_model_and_are_asked_for() -> None:
    async with Line().up() as line:
        await line.say("On blue stay.", 0.3)
        heard_at = line.now_s
        await asyncio.sleep(3.0)
    assert line.model_asked == []
    assert line.context.messages == []
    assert line.said == [LINES.first[0]]
    assert line.asked[0][1] - (heard_at - 0.05 - PAUSE_S) <= 1.5
    assert [content for content, _ in line.turns_ended] == [""]
    assert line.turns_ended[0][1] == pytest.approx(line.asked[0][1], abs=0.01)
    assert line.open_turns == 0
    assert (line.failed, line.repair.failed_turns) == ([1], 1)


@pytest.mark.parametrize("finalized", [True, False])
async def test_interims_of_unclear_words_change_nothing(finalized: bool) -> None:
    async with Line().up() as line:
        await asyncio.sleep(PAUSE_S)
        await line.send(VADUserStartedSpeakingFrame(start_secs=PAUSE_S))
        await asyncio.sleep(0.4)
        await line.send(InterimTranscriptionFrame("On blue stay.", "", ""))
        await line.send(VADUserStoppedSpeakingFrame(stop_secs=PAUSE_S))
        ended_s = line.now_s - PAUSE_S
        words = transcript("On blue stay.", 0.3)
        words.finalized = finalized
        await line.send(words)
        await asyncio.sleep(3.0)
    assert line.model_asked == []
    assert line.said == [LINES.first[0]]
    assert line.asked[0][1] - ended_s == pytest.approx(1.0 if finalized else 1.4, abs=0.02)
    assert [content for content, _ in line.turns_ended] == [""]


async def test_a_turn_of_unclear_words_that_others_end_is_asked_about_at_once() -> None:
    async with Line().up() as line:
        await line.say("On blue stay.", 0.3)
        await line.repair.process_frame(UserStoppedSpeakingFrame(), FrameDirection.UPSTREAM)
        ended_s = line.now_s
        await asyncio.sleep(3.0)
    assert [at_s for _, at_s in line.asked] == [pytest.approx(ended_s, abs=0.01)]


async def test_a_caller_who_goes_on_after_unclear_words_is_not_cut_off() -> None:
    async with Line().up() as line:
        await line.say("On blue stay.", 0.3)
        await asyncio.sleep(0.3)
        await line.say("I mean on Tuesday.", 0.9)
        await asyncio.sleep(3.0)
    assert line.said == []
    assert [message["content"] for message in line.model_asked[0]] == [MISSED_NOTE, "I mean on Tuesday."]
    assert line.repair.failed_turns == 0


async def test_unclear_words_behind_clear_ones_are_told_to_the_model() -> None:
    async with Line().up() as line:
        await line.sound(0.5)
        await line.send(transcript("I'd like to come", 0.95))
        await line.send(transcript("on blue stay.", 0.3))
        await line.send(TranscriptFlushedFrame())
        await asyncio.sleep(3.0)
    assert [message["content"] for message in line.model_asked[0]] == [MISSED_NOTE, "I'd like to come"]
    assert len(line.model_asked) == 1
    assert line.said == []


async def test_speech_without_words_is_asked_about_and_the_turn_is_closed() -> None:
    async with Line().up() as line:
        await line.sound(0.6)
        ended_s = line.now_s - PAUSE_S
        await line.send(TranscriptFlushedFrame())
        await asyncio.sleep(2.0)
    assert line.said == [LINES.first[0]]
    assert line.asked[0][1] - ended_s == pytest.approx(1.0, abs=0.02)
    assert [at_s - ended_s for _, at_s in line.turns_ended] == [pytest.approx(1.0, abs=0.02)]
    assert line.model_asked == []


async def test_silence_counts_from_the_last_sound_when_barge_in_tells_of_it_late() -> None:
    async with Line().up() as line:
        await line.send(VADUserStartedSpeakingFrame(start_secs=PAUSE_S))
        await asyncio.sleep(1.0)
        ended_s = asyncio.get_running_loop().time() - 0.5
        await line.send(CallerStoppedFrame(stop_secs=PAUSE_S, at_s=ended_s))
        await asyncio.sleep(3.0)
    assert line.asked[0][1] + line.rig.began_s - ended_s == pytest.approx(1.4, abs=0.02)


async def test_speech_without_words_is_asked_about_in_time_when_the_recogniser_hangs() -> None:
    async with Line().up() as line:
        await line.sound(0.6)
        ended_s = line.now_s - PAUSE_S
        await asyncio.sleep(2.0)
    assert line.asked[0][1] - ended_s == pytest.approx(1.4, abs=0.02)
    assert line.open_turns == 0


async def test_a_cough_closes_its_turn_without_a_word_and_the_caller_is_waited_for() -> None:
    async with Line().up() as line:
        await line.agent_starts()
        await line.agent_stops()
        await line.sound(0.3)
        await line.send(TranscriptFlushedFrame())
        await asyncio.sleep(1.0)
        assert line.open_turns == 0
        await asyncio.sleep(7.0)
    assert line.asked == []
    assert line.idle == 1


async def test_the_caller_is_asked_once_for_each_time_they_speak() -> None:
    async with Line().up() as line:
        for _ in range(3):
            await line.sound(0.6)
            await asyncio.sleep(6.0)
    assert line.said == [LINES.first[0], LINES.again[1], LINES.again[0]]
    assert line.failed == [1, 2, 3]


async def test_a_good_turn_ends_a_row_of_failed_ones() -> None:
    async with Line().up() as line:
        await line.sound(0.6)
        await asyncio.sleep(3.0)
        await line.say("On Tuesday.", 0.9)
        await asyncio.sleep(3.0)
        assert line.repair.failed_turns == 0
        await line.agent_starts()
        await line.agent_stops()
        await line.sound(0.6)
        await asyncio.sleep(3.0)
    assert line.failed == [1, 1]


async def test_nobody_is_asked_when_the_agent_speaks_before_the_wait_is_over() -> None:
    async with Line().up() as line:
        await line.sound(0.6)
        await line.agent_starts()
        await asyncio.sleep(2.0)
        await line.agent_stops()
        await asyncio.sleep(2.0)
    assert line.asked == []
    assert line.open_turns == 0


async def test_a_noise_that_cut_the_agent_off_is_asked_about() -> None:
    async with Line().up() as line:
        await line.agent_starts()
        await line.sound(0.3)  # the start strategies of this line interrupt
        await line.agent_stops()
        await asyncio.sleep(2.0)
    assert line.said == [LINES.first[0]]


async def test_a_sound_while_a_tool_works_is_not_asked_about() -> None:
    async with Line().up() as line:
        await line.send(
            FunctionCallInProgressFrame("find_slots", "1", {}, cancel_on_interruption=False),
            FrameDirection.UPSTREAM,
        )
        await line.repair.process_frame(
            VADUserStartedSpeakingFrame(start_secs=PAUSE_S), FrameDirection.UPSTREAM
        )  # one that starts no turn, as barge-in lets none start here
        await asyncio.sleep(0.6)
        await line.repair.process_frame(
            VADUserStoppedSpeakingFrame(stop_secs=PAUSE_S), FrameDirection.UPSTREAM
        )
        await asyncio.sleep(2.0)
    assert line.asked == []


async def test_words_that_come_after_the_question_are_a_turn_of_their_own() -> None:
    async with Line().up() as line:
        await line.sound(0.6)
        await asyncio.sleep(1.5)
        assert line.said == [LINES.first[0]]
        await line.send(transcript("On Tuesday.", 0.9))
        await line.send(TranscriptFlushedFrame())
        await asyncio.sleep(2.0)
    assert [roles(messages) for messages in line.model_asked] == [["user"]]
    assert line.repair.failed_turns == 0
    assert line.open_turns == 0


@pytest.mark.parametrize("interruptible", [True, False])
async def test_an_interruption_drops_the_words_and_their_note_together_or_neither(
    interruptible: bool,
) -> None:
    frame = transcript("On Tuesday.", 0.6)
    frame.interruptible = interruptible
    down, _ = await run_test(RepairProcessor(load_language("en"), ask=nobody), frames_to_send=[frame])
    assert [(type(one), one.interruptible) for one in down] == [
        (LLMMessagesAppendFrame, interruptible),
        (TranscriptionFrame, interruptible),
    ]


async def test_a_line_that_hangs_or_fails_keeps_nothing_from_going_on() -> None:
    async def hang(_: str) -> None:
        await asyncio.sleep(ASK_LIMIT_S * 10)

    async def fail(_: str) -> None:
        raise ConnectionError("no voice")

    for ask in (hang, fail):
        async with Line(ask=ask).up() as line:
            await line.sound(0.6)
            await asyncio.sleep(2.0)
            await line.say("On Tuesday.", 0.9)
            await asyncio.sleep(ASK_LIMIT_S)
            await line.sound(0.6)
        assert [roles(messages) for messages in line.model_asked] == [["user"]]


async def test_a_call_that_ends_while_words_are_waited_for_asks_nobody() -> None:
    async with Line().up() as line:
        await line.sound(0.6)
    await asyncio.sleep(3.0)
    assert line.asked == []


async def test_who_is_put_through_is_not_asked_again() -> None:
    async with Line(gives_up_at=2).up() as line:
        await line.sound(0.6)
        await asyncio.sleep(3)
        await line.sound(0.6)
        await asyncio.sleep(3)
    assert line.failed == [1, 2]
    assert len(line.said) == 1


async def test_how_well_words_were_heard_is_told_unless_they_were_not() -> None:
    async with Line().up() as line:
        await line.say("I need a cleaning on Tuesday.", 0.99)
        await line.say("At nine thirty please.", 0.6)
        await line.say("mumble mumble.", 0.1)
    assert line.trusts == [Trust.CLEAR, Trust.DOUBTFUL]
