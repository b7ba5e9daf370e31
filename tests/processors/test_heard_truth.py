"""What the model is told was heard is what a far end played: the real playout and aggregator, the sims' telephone."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from numpy.typing import NDArray
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMAssistantAggregator
from pipecat.utils.text.base_text_aggregator import TextType
from pipecat.workers.runner import WorkerRunner

from processors.frames import SpeechAnchorFrame
from processors.playout import CUT_MARK, PlayoutProcessor
from tests.fakes.far_end import FarEnd

RATE = 8000
NS = 1_000_000_000
FIRST_VALUE = 200
"""Of the sample at the start of an utterance; each next one is one more, so that a sample tells its place."""
DELAYS_S = (0.0, 0.01, 0.05, 0.12)
"""Each way."""
SLACK = 24
"""Samples, 3 ms, at the middle of a word, where marks cannot tell whether half of it was heard."""


def places(telephone: FarEnd) -> NDArray[np.int_]:
    """Return the places of all samples that were played since the last time, each once, in order."""
    found = np.unique(telephone.take().astype(int) - FIRST_VALUE)
    return found[(found >= 0) & (found < 30_000)]


class Line:
    """A playout between a voice and the model's memory."""

    def __init__(self, dice: random.Random, *, lost_marks: float = 0.0) -> None:
        self.playout = PlayoutProcessor(rate_hz=RATE)
        self.context = LLMContext()
        self.telephone = FarEnd(self.playout.mark_played, dice, lost_marks=lost_marks)
        aggregator = LLMAssistantAggregator(self.context, enable_direct_mode=True)
        self.worker = PipelineWorker(
            Pipeline([self.playout, aggregator]),
            params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
            enable_rtvi=False,
            enable_turn_tracking=False,
            idle_timeout_secs=None,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the pipeline for as long as the block lasts."""
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.1)
        self.playout.connect(self.telephone)
        try:
            yield
        finally:
            await self.worker.cancel()
            await running

    async def say(self, number: int, starts: list[int], length: int) -> list[str]:
        """Say words that start at these samples; return them."""
        texts = [f"u{number}w{place}" for place in range(len(starts))]
        pcm = np.arange(FIRST_VALUE, FIRST_VALUE + length, dtype="<i2").tobytes()
        context_id = f"c{number}"
        anchor_ns = (number + 1) * 100 * NS
        frames: list[Frame] = [
            LLMFullResponseStartFrame(),
            TTSStartedFrame(context_id=context_id),
            SpeechAnchorFrame(context_id, anchor_ns),
            TTSAudioRawFrame(pcm, RATE, 1, context_id=context_id),
        ]
        for text, start in zip(texts, starts, strict=True):
            word = TTSTextFrame(text, text_type=TextType.WORD, context_id=context_id)
            word.pts = anchor_ns + round(start / RATE * NS)
            frames.append(word)
        for frame in [*frames, TTSStoppedFrame(context_id=context_id), LLMFullResponseEndFrame()]:
            await self.playout.queue_frame(frame)
        return texts

    def told(self, number: int) -> list[str]:
        """Return the words of an utterance that stand in the model's memory, the cut mark included."""
        said = " ".join(
            str(message.get("content", ""))
            for message in self.context.get_messages()
            if isinstance(message, dict)
        ).split()
        return [word for word in said if word.startswith(f"u{number}w")]

    def last_word(self) -> str:
        messages = [m for m in self.context.get_messages() if isinstance(m, dict)]
        return str(messages[-1].get("content", "")).split()[-1] if messages else ""


async def cut(
    line: Line, dice: random.Random, number: int, delay_s: float
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Interrupt an utterance somewhere; return its words, those told, those surely and those possibly heard."""
    line.telephone.delay_s = delay_s
    starts = [0]
    while starts[-1] < 1.6 * RATE:
        starts.append(starts[-1] + round(dice.uniform(0.12, 0.6) * RATE))
    length = starts[-1] + round(0.3 * RATE)
    places(line.telephone)
    texts = await line.say(number, starts, length)
    await asyncio.sleep(dice.uniform(0.0, 1.9))
    if dice.random() < 0.4:
        line.playout.pause()
        await asyncio.sleep(dice.uniform(0.0, 0.4))
        if dice.random() < 0.5:
            line.playout.resume()
            await asyncio.sleep(dice.uniform(0.0, 0.4))
    await line.playout.queue_frame(InterruptionFrame())
    await asyncio.sleep(0.6)
    played = places(line.telephone)
    heard_to = len(played)
    assert np.array_equal(played, np.arange(heard_to)), "the far end missed something in the middle"
    halves = [(a + b) // 2 for a, b in zip(starts, [*starts[1:], length], strict=True)]
    sure = [text for text, half in zip(texts, halves, strict=True) if half <= heard_to - SLACK]
    possible = [text for text, half in zip(texts, halves, strict=True) if half <= heard_to + SLACK]
    told = line.told(number)
    if told and len(told) < len(texts):
        assert line.last_word() == CUT_MARK
    return texts, told, sure, possible


@pytest.mark.timeout(60)
async def test_after_500_cuts_the_model_knows_exactly_the_words_that_were_heard() -> None:
    dice = random.Random(20261126)
    line = Line(dice)
    async with line.running():
        for number in range(500):
            texts, told, sure, possible = await cut(line, dice, number, dice.choice(DELAYS_S))
            assert told == texts[: len(told)], number
            assert len(sure) <= len(told) <= len(possible), number


@pytest.mark.timeout(60)
@pytest.mark.parametrize("delay_s", DELAYS_S)
async def test_with_lost_marks_cuts_are_right_to_within_a_word(delay_s: float) -> None:
    """The way of a mark is learned from marks, so it stays the same here."""
    dice = random.Random(7)
    line = Line(dice, lost_marks=0.3)
    async with line.running():
        for number in range(125):
            texts, told, sure, possible = await cut(line, dice, number, delay_s)
            assert told == texts[: len(told)], number
            assert len(sure) - 1 <= len(told) <= len(possible) + 1, number
