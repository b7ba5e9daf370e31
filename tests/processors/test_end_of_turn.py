import asyncio
from typing import Any

import pytest
from pipecat.audio.turn.base_turn_analyzer import BaseTurnAnalyzer, BaseTurnParams, EndOfTurnState
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import MetricsData
from pipecat.utils.asyncio.task_manager import TaskManager

from processors.end_of_turn import EndOfTurnStrategy
from processors.frames import TranscriptFlushedFrame

PAUSE_S = 0.2


class Verdict(BaseTurnAnalyzer):
    """A turn model with a fixed opinion."""

    def __init__(self, *, complete: bool, is_known: bool = True, takes_s: float = 0.0) -> None:
        super().__init__()
        self._complete = complete
        self._takes_s = takes_s
        self.is_known = is_known

    @property
    def speech_triggered(self) -> bool:
        return False

    @property
    def params(self) -> BaseTurnParams:
        return BaseTurnParams()

    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        return EndOfTurnState.INCOMPLETE

    async def analyze_end_of_turn(self) -> tuple[EndOfTurnState, MetricsData | None]:
        await asyncio.sleep(self._takes_s)
        return (EndOfTurnState.COMPLETE if self._complete else EndOfTurnState.INCOMPLETE), None

    def clear(self) -> None:
        pass


class Turn:
    """One caller turn in front of a strategy; notes when it was found to be over."""

    def __init__(self, *, complete: bool, is_known: bool = True, takes_s: float = 0.0) -> None:
        analyzer: Any = Verdict(complete=complete, is_known=is_known, takes_s=takes_s)
        self.strategy = EndOfTurnStrategy(analyzer, max_pause_s=0.5, utterance_end_s=1.0)
        self.ended_at: list[float] = []
        self._loop = asyncio.get_running_loop()

    async def begin(self) -> None:
        self.strategy._task_manager = TaskManager()
        self.strategy.add_event_handler("on_user_turn_stopped", self._on_stopped)
        await self.strategy.handle_user_turn_started()
        await self.take(VADUserStartedSpeakingFrame(start_secs=PAUSE_S))

    async def take(self, frame: Frame) -> None:
        await self.strategy.process_frame(frame)

    async def say(self, text: str, *, finalized: bool = False) -> None:
        frame = TranscriptionFrame(text, "", "")
        frame.finalized = finalized
        await self.take(frame)

    async def pause(self) -> None:
        await self.take(VADUserStoppedSpeakingFrame(stop_secs=PAUSE_S))

    async def _on_stopped(self, *_: Any) -> None:
        self.ended_at.append(self._loop.time())
        await self.strategy.handle_user_turn_stopped()


async def ended_after(turn: Turn, wait_s: float = 3.0) -> float | None:
    """Return the silence after which the turn ended, the pause the VAD waits for included."""
    began_s = asyncio.get_running_loop().time() - PAUSE_S
    await asyncio.sleep(wait_s)
    await turn.strategy.cleanup()
    return turn.ended_at[0] - began_s if turn.ended_at else None


async def test_finished_words_and_a_flushed_transcript_end_the_turn_at_once() -> None:
    turn = Turn(complete=True)
    await turn.begin()
    await turn.say("Yes, please.")
    await turn.pause()
    await turn.take(TranscriptFlushedFrame())
    assert await ended_after(turn) == pytest.approx(PAUSE_S, abs=0.01)


async def test_a_finalized_transcript_needs_no_flush() -> None:
    turn = Turn(complete=True)
    await turn.begin()
    await turn.pause()
    await turn.say("Yes, please.", finalized=True)
    assert await ended_after(turn) == pytest.approx(PAUSE_S, abs=0.01)


@pytest.mark.parametrize(
    ("text", "is_known", "silence_s"),
    [
        ("Tuesday would be good.", True, 0.5),
        ("I would like to", True, 1.0),
        ("I would like to", False, 0.5),
    ],
    ids=["reads finished", "neither sounds nor reads finished", "the model knows nothing"],
)
async def test_silence_ends_what_does_not_sound_finished(text: str, is_known: bool, silence_s: float) -> None:
    turn = Turn(complete=False, is_known=is_known)
    await turn.begin()
    await turn.say(text)
    await turn.pause()
    await turn.take(TranscriptFlushedFrame())
    assert await ended_after(turn) == pytest.approx(silence_s, abs=0.01)


async def test_the_time_that_the_verdict_takes_is_silence_too() -> None:
    turn = Turn(complete=False, takes_s=0.2)
    await turn.begin()
    await turn.say("Tuesday would be good.", finalized=True)
    began_s = asyncio.get_running_loop().time() - PAUSE_S
    await turn.pause()
    await asyncio.sleep(2.0)
    await turn.strategy.cleanup()
    assert [at - began_s for at in turn.ended_at] == [pytest.approx(0.5, abs=0.01)]


async def test_words_that_come_late_can_make_the_sentence_whole() -> None:
    turn = Turn(complete=False)
    await turn.begin()
    await turn.say("Tuesday would")
    await turn.pause()
    began_s = asyncio.get_running_loop().time() - PAUSE_S
    await asyncio.sleep(0.1)
    await turn.say("be good.", finalized=True)
    await asyncio.sleep(2.0)
    await turn.strategy.cleanup()
    assert [at - began_s for at in turn.ended_at] == [pytest.approx(0.5, abs=0.01)]


async def test_a_caller_who_goes_on_keeps_the_turn() -> None:
    turn = Turn(complete=False)
    await turn.begin()
    await turn.say("It's eight five oh.")
    await turn.pause()
    await asyncio.sleep(0.2)
    await turn.take(VADUserStartedSpeakingFrame(start_secs=PAUSE_S))
    await asyncio.sleep(3.0)
    assert turn.ended_at == []
    await turn.say("five five five.", finalized=True)
    await turn.pause()
    assert await ended_after(turn) == pytest.approx(0.5, abs=0.01)


async def test_an_interim_after_the_flush_means_that_text_is_still_on_its_way() -> None:
    turn = Turn(complete=True)
    await turn.begin()
    await turn.say("Tuesday.")
    await turn.take(TranscriptFlushedFrame())
    await turn.take(InterimTranscriptionFrame("or", "", ""))
    await turn.pause()
    await turn.say("or Wednesday.", finalized=True)
    assert await ended_after(turn) == pytest.approx(PAUSE_S, abs=0.01)


async def test_no_words_no_turn() -> None:
    turn = Turn(complete=True)
    await turn.begin()
    await turn.pause()
    await turn.take(TranscriptFlushedFrame())
    assert await ended_after(turn) is None


def test_limits_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="max_pause_s"):
        EndOfTurnStrategy(Verdict(complete=True), max_pause_s=1.0, utterance_end_s=0.5)  # pyright: ignore[reportArgumentType] - refused before it is used
