"""A host for one vendor's recogniser, without the pipeline that would stand around it, and a caller on its line."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
)

from processors.frames import CallerStoppedFrame, TranscriptFlushedFrame
from processors.recognisers import Recogniser, RecogniserFailure, Report
from sims import mulaw
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex
from tests.fakes.hosting import Noted, hosting

WORD_S = 0.2


def utterance(*texts: str, seed: int = 1) -> tuple[bytes, list[Word]]:
    """Return mu-law noise that says `texts`, a fifth of a second each, without gaps."""
    samples = np.random.default_rng(seed).normal(0, 4000, 1600 * len(texts)).clip(-32000, 32000)
    words = [Word(text, WORD_S * n, WORD_S * (n + 1)) for n, text in enumerate(texts)]
    return encode_ulaw(samples.astype("<i2").tobytes()), words


TEXT = "Hello, I need a cleaning."
HELLO, HELLO_WORDS = utterance(*TEXT.split())


def index() -> SpokenIndex:
    made = SpokenIndex()
    made.add(HELLO, HELLO_WORDS)
    return made


@dataclass
class Told(Noted):
    """What a recogniser told its listener."""

    frames: list[Frame] = field(default_factory=list[Frame])
    reports: list[Report] = field(default_factory=list[Report])
    lost: list[RecogniserFailure] = field(default_factory=list[RecogniserFailure])

    async def recogniser_frame(self, recogniser: Recogniser, frame: Frame) -> None:
        self.frames.append(frame)

    async def recogniser_reported(self, recogniser: Recogniser, report: Report) -> None:
        self.reports.append(report)

    async def recogniser_lost(self, recogniser: Recogniser, failure: RecogniserFailure) -> None:
        self.lost.append(failure)

    def all_of(self, kind: type[Any]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    @property
    def text(self) -> str:
        """All final words."""
        return " ".join(frame.text for frame in self.all_of(TranscriptionFrame))

    @property
    def interims(self) -> list[str]:
        return [frame.text for frame in self.all_of(InterimTranscriptionFrame)]

    @property
    def flushes(self) -> int:
        return len(self.all_of(TranscriptFlushedFrame))


@contextlib.asynccontextmanager
async def hosted(recogniser: Recogniser) -> AsyncGenerator[Told]:
    """Open a recogniser, not connected yet; closed when the block ends."""
    told = Told()
    async with hosting(recogniser, told):
        yield told


async def play(recogniser: Recogniser, ulaw: bytes, *, speed: float = 4.0) -> None:
    """Send mu-law as 20 ms of linear audio each, faster than life."""
    for at in range(0, len(ulaw), 160):
        await recogniser.hear(mulaw.decode(ulaw[at : at + 160]))
        await asyncio.sleep(0.02 / speed)


async def say(recogniser: Recogniser, ulaw: bytes = HELLO) -> None:
    """Say something behind a little silence, and be quiet."""
    await play(recogniser, mulaw.SILENT_FRAME * 10)
    await recogniser.take(VADUserStartedSpeakingFrame())
    await play(recogniser, ulaw + mulaw.SILENT_FRAME * 10)
    await recogniser.take(CallerStoppedFrame(at_s=asyncio.get_running_loop().time() - 0.05, stop_secs=0.2))
