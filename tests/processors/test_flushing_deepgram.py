import asyncio
from typing import Any

import pytest
from deepgram.listen.v1.types import ListenV1Results
from pipecat.frames.frames import Frame, TextFrame, TranscriptionFrame, VADUserStartedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.tests.utils import SleepFrame, run_test

from processors.flushing_deepgram import FlushingDeepgramSTTService
from processors.frames import (
    CallerPausedFrame,
    CallerResumedFrame,
    CallerStoppedFrame,
    TranscriptFlushedFrame,
)


def results(
    text: str,
    *,
    is_final: bool,
    from_finalize: bool,
    duration_s: float = 1.0,
    word_end_s: float | None = None,
) -> ListenV1Results:
    words = [] if word_end_s is None else [{"word": "w", "start": 0.0, "end": word_end_s, "confidence": 0.9}]
    shape: dict[str, Any] = {
        "type": "Results",
        "channel_index": [0, 1],
        "duration": duration_s,
        "start": 0.0,
        "is_final": is_final,
        "speech_final": False,
        "from_finalize": from_finalize,
        "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": words}]},
        "metadata": {
            "request_id": "r",
            "model_info": {"name": "n", "version": "v", "arch": "a"},
            "model_uuid": "u",
        },
    }
    return ListenV1Results.model_validate(shape)


class Connection:
    """Counts what is sent."""

    def __init__(self) -> None:
        self.finalizes = 0

    async def send_media(self, audio: bytes) -> None:
        pass

    async def send_finalize(self, message: object) -> None:
        self.finalizes += 1


class Recogniser(FlushingDeepgramSTTService):
    """Keeps what it pushes instead of pushing it."""

    def __init__(self) -> None:
        super().__init__(api_key="key", sample_rate=8000)
        self._sample_rate = 8000
        self.pushed: list[type[Frame]] = []
        self.connection: Any = Connection()
        self._connection = self.connection

    async def hear(self, seconds: float) -> None:
        async for _ in self.run_stt(bytes(2 * round(seconds * 8000))):
            pass

    async def take(self, *frames: Frame) -> None:
        for frame in frames:
            await self.process_frame(frame, FrameDirection.DOWNSTREAM)

    @property
    def flushes(self) -> int:
        return self.pushed.count(TranscriptFlushedFrame)

    async def push_frame(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        self.pushed.append(type(frame))


@pytest.mark.parametrize(
    ("text", "is_final", "from_finalize", "pushed"),
    [
        ("", True, True, [TranscriptFlushedFrame]),
        ("Yes.", True, True, [TranscriptionFrame, TranscriptFlushedFrame]),
        ("Yes.", True, False, [TranscriptionFrame]),
        ("", True, False, []),
        ("", False, True, []),
    ],
    ids=["empty answer", "answer with text", "ordinary final", "silence", "interim"],
)
async def test_only_the_answer_to_finalize_flushes(
    text: str, is_final: bool, from_finalize: bool, pushed: list[type[Frame]]
) -> None:
    recogniser = Recogniser()
    await recogniser._on_message(results(text, is_final=is_final, from_finalize=from_finalize))
    assert recogniser.pushed == pushed


def answer(duration_s: float, text: str = "") -> ListenV1Results:
    return results(text, is_final=True, from_finalize=True, duration_s=duration_s)


async def test_a_pause_is_finalized_early_and_again_when_that_is_wanted() -> None:
    for early, finalizes in ((True, [1, 2]), (False, [0, 1])):
        recogniser = Recogniser()
        recogniser.finalizes_early = early
        await recogniser.take(VADUserStartedSpeakingFrame(), CallerPausedFrame(at_s=0.0))
        seen = [recogniser.connection.finalizes]
        await recogniser.take(CallerStoppedFrame(at_s=0.0))
        assert [*seen, recogniser.connection.finalizes] == finalizes


@pytest.mark.parametrize("is_stopped", [False, True], ids=["before the pause is one", "after"])
async def test_an_early_answer_without_a_word_is_asked_for_once_more(is_stopped: bool) -> None:
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    await recogniser.take(VADUserStartedSpeakingFrame(), CallerPausedFrame(at_s=0.0))
    if is_stopped:
        await recogniser.take(CallerStoppedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.0))
    assert recogniser.flushes == 0
    if not is_stopped:
        await recogniser.take(CallerStoppedFrame(at_s=0.0))
    assert recogniser.connection.finalizes == 2
    await recogniser._on_message(answer(1.0))
    assert recogniser.flushes == 1
    assert recogniser.connection.finalizes == 2


async def test_a_short_sound_before_the_callers_first_words_is_asked_about_once() -> None:
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    await recogniser.take(CallerPausedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.0))
    assert recogniser.flushes == 1


async def test_the_first_answer_behind_words_flushes() -> None:
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    await recogniser.take(VADUserStartedSpeakingFrame())
    await recogniser._on_message(results("Yes.", is_final=True, from_finalize=False))
    await recogniser.take(CallerPausedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.0))
    await recogniser.take(CallerStoppedFrame(at_s=0.0))
    assert (recogniser.flushes, recogniser.connection.finalizes) == (1, 2)


async def test_a_last_word_that_faded_away_comes_with_the_second_answer() -> None:
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    await recogniser.take(VADUserStartedSpeakingFrame(), CallerPausedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.0, "Can you tell me your"))
    await recogniser.take(CallerStoppedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.1, "address?"))
    assert recogniser.pushed.count(TranscriptionFrame) == 2
    assert recogniser.flushes == 1


@pytest.mark.parametrize(("word_end_s", "flushes"), [(1.5, 1), (0.9, 0), (None, 0)])
async def test_words_that_end_long_before_the_quiet_are_not_all(
    word_end_s: float | None, flushes: int
) -> None:
    """What is final after five seconds of speech stands behind the early answer, and the last word is to come."""
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    await recogniser.hear(1.7)
    await recogniser.take(VADUserStartedSpeakingFrame())
    words = results("Where are you", is_final=True, from_finalize=False, word_end_s=word_end_s)
    await recogniser._on_message(words)
    await recogniser.take(CallerPausedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.7))
    assert recogniser.flushes == flushes
    await recogniser.hear(0.1)
    await recogniser.take(CallerStoppedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.8, "located?"))
    assert recogniser.flushes == 1


async def test_every_pause_is_finalized_anew() -> None:
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    for _ in range(3):
        await recogniser.take(CallerPausedFrame(at_s=0.0), CallerResumedFrame())
    await recogniser.take(CallerStoppedFrame(at_s=0.0))
    assert recogniser.connection.finalizes == 4


async def test_an_answer_to_an_earlier_pause_says_nothing_of_this_one() -> None:
    recogniser = Recogniser()
    recogniser.finalizes_early = True
    await recogniser.hear(1.0)
    await recogniser.take(CallerPausedFrame(at_s=0.0), CallerResumedFrame())
    await recogniser.hear(0.6)
    await recogniser.take(CallerPausedFrame(at_s=0.0))
    await recogniser._on_message(answer(1.0, "I'd like"))
    assert recogniser.flushes == 0
    await recogniser._on_message(answer(1.6, "a cleaning."))
    assert recogniser.flushes == 1


async def test_a_new_connection_counts_its_audio_from_the_start() -> None:
    recogniser = Recogniser()
    await recogniser.hear(5.0)
    await recogniser.take(CallerStoppedFrame(at_s=0.0))
    recogniser._connection = recogniser.connection = Connection()
    await recogniser.hear(0.5)
    await recogniser.take(CallerStoppedFrame(at_s=0.0))
    await recogniser._on_message(answer(0.5, "Yes."))
    assert recogniser.flushes == 1


async def test_the_sign_does_not_overtake_the_last_words() -> None:
    """Both wait in the queue of a processor that is busy: they come out in the order they came."""
    last_words = TranscriptionFrame("Whitfield.", "", "")
    down, _ = await run_test(
        Busy(), frames_to_send=[TextFrame("hold"), last_words, TranscriptFlushedFrame(), SleepFrame(0.2)]
    )
    assert [type(frame) for frame in down[-2:]] == [TranscriptionFrame, TranscriptFlushedFrame]


class Busy(FrameProcessor):
    """Takes its time with every frame that waits in a queue."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TextFrame):
            await asyncio.sleep(0.05)
        await self.push_frame(frame, direction)
