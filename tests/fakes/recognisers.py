"""A vendor's recogniser on the test's clock: each word is a fifth of a second of one value, and it fails as told."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pipecat.frames.frames import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameProcessorSetup

from processors.frames import TranscriptFlushedFrame
from processors.recognisers import RecogniserFailure, RecogniserListener, Report
from processors.shown_words import ShownWord
from processors.voices import FailureKind

RATE = 8000
WORD_S = 0.2
GAP_S = 0.04
"""Between two words."""
LOOK_S = 0.24
"""Of audio between two interim results."""
ENDPOINT_S = 0.3
"""Of silence, after which words are final by themselves."""


@dataclass
class SpokenWords:
    """Which value of a sample stands for which word."""

    by_value: dict[int, str] = field(default_factory=dict)

    def say(self, *words: str) -> bytes:
        """Return the audio of words, each another."""
        samples: list[np.ndarray] = []
        for word in words:
            value = 1000 + 10 * len(self.by_value)
            self.by_value[value] = word
            samples += [np.full(round(WORD_S * RATE), value, "<i2"), np.zeros(round(GAP_S * RATE), "<i2")]
        return np.concatenate(samples).tobytes() if samples else b""


@dataclass
class Fault:
    """What goes wrong with a connection; `after_words` were heard by then."""

    kind: str
    """`refuse`, `stall` (the dial hangs), `close`, `hang`, `empty` or `slow`."""
    after_words: int = 0
    failure: FailureKind = FailureKind.REFUSED
    count: int = 1_000_000


@dataclass(frozen=True)
class Heard:
    word: str
    start_s: float
    end_s: float


class FakeRecogniser:
    """See `processors.recognisers.Recogniser`. Listens 1.25 times as fast as people speak."""

    def __init__(
        self,
        vendor: str,
        spoken: SpokenWords,
        *,
        latency_s: float = 0.15,
        connect_s: float = 0.1,
        acknowledges: bool = True,
        proposes_turns: bool = False,
    ) -> None:
        self.vendor = vendor
        self.proposes_turns = proposes_turns
        self.acknowledges = acknowledges
        self.silence_limit_s = 2.0
        self.is_connected = False
        self.is_writable = True
        self.faults: list[Fault] = []
        self.dials = 0
        self.partings = 0
        self.sent_s = 0.0
        """Audio of all connections."""
        self.told: list[Frame] = []
        self._spoken = spoken
        self._latency_s = latency_s
        self._connect_s = connect_s
        self._listener: RecogniserListener | None = None
        self._inbox: asyncio.Queue[bytes | Frame] = asyncio.Queue()
        self._outbox: asyncio.Queue[tuple[float, list[Frame], Report, Sequence[Heard]]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._shown: Sequence[Heard] = ()
        self._asked: Frame | None = None
        """The last pause whose words were asked for: only that is told to be flushed."""

    async def open(self, setup: FrameProcessorSetup, listener: RecogniserListener) -> None:
        self._listener = listener

    async def connect(self) -> None:
        if self.is_connected:
            return
        self.dials += 1
        fault = next((fault for fault in self.faults if fault.count), None)
        if fault is not None:
            fault.count -= 1
        if fault is not None and fault.kind == "stall":
            await asyncio.sleep(3600)
        await asyncio.sleep(self._connect_s)
        if fault is not None and fault.kind == "refuse":
            raise RecogniserFailure(fault.failure)
        self._inbox, self._outbox = asyncio.Queue(), asyncio.Queue()
        self._shown = ()
        self.is_connected = True
        self._tasks = [
            asyncio.create_task(self._listen(fault)),
            asyncio.create_task(self._tell()),
        ]

    async def hear(self, pcm: bytes) -> None:
        if not self.is_connected:
            raise RecogniserFailure(FailureKind.CLOSED)
        self.sent_s += len(pcm) / 2 / RATE
        self._inbox.put_nowait(pcm)

    async def take(self, frame: Frame) -> None:
        self.told.append(frame)
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            self._asked = frame
        if self.is_connected:
            self._inbox.put_nowait(frame)

    def shown(self) -> Sequence[ShownWord]:
        return [ShownWord(word.word, word.start_s, word.end_s, 0.9) for word in self._shown]

    async def report_usage(self) -> None:
        pass

    async def disconnect(self) -> None:
        self.partings += 1
        self.cut()

    def cut(self) -> None:
        self.is_connected = False
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def close(self) -> None:
        self.cut()

    async def lose(self, kind: FailureKind = FailureKind.CLOSED) -> None:
        """Lose the connection."""
        if not self.is_connected:
            return
        self.cut()
        assert self._listener is not None
        await self._listener.recogniser_lost(self, RecogniserFailure(kind))

    async def _listen(self, fault: Fault | None) -> None:
        stream = _Stream(self._spoken, is_deaf=fault is not None and fault.kind == "empty")
        loop = asyncio.get_running_loop()
        free_s, known = loop.time(), 0
        speed = 0.2 if fault is not None and fault.kind == "slow" else 1.25
        while True:
            item = await self._inbox.get()
            if isinstance(item, bytes):
                free_s = max(free_s, loop.time()) + len(item) / 2 / RATE / speed
                if free_s - loop.time() > 0.05:
                    await asyncio.sleep(free_s - loop.time())
                before = stream.count
                stream.hear(item)
                known += stream.count - before
            if fault is not None and known >= fault.after_words:
                if fault.kind == "close":
                    await self.lose()
                    return
                if fault.kind == "hang":
                    continue
            self._answer(stream, item)

    def _answer(self, stream: "_Stream", item: bytes | Frame) -> None:
        due_s = asyncio.get_running_loop().time() + self._latency_s
        is_asked = isinstance(item, VADUserStoppedSpeakingFrame)
        if is_asked or stream.is_endpoint:
            words = stream.take()
            frames: list[Frame] = [_final(words)] if words else []
            if is_asked and (words or self.acknowledges):
                frames.append(_Flushed(item))
            if words or (self.acknowledges and is_asked):
                end_s = words[-1].end_s if words else None
                self._outbox.put_nowait((due_s, frames, Report(stream.at_s, bool(words), True, end_s), ()))
        elif stream.is_look_due:
            words = stream.look()
            if words or self.acknowledges:
                text = " ".join(word.word for word in words)
                frames = [InterimTranscriptionFrame(text, "", "")] if words else []
                self._outbox.put_nowait((due_s, frames, Report(stream.at_s, bool(words)), words))

    async def _tell(self) -> None:
        while True:
            due_s, frames, report, shown = await self._outbox.get()
            await asyncio.sleep(max(0.0, due_s - asyncio.get_running_loop().time()))
            assert self._listener is not None
            for frame in frames:
                if not isinstance(frame, _Flushed):
                    await self._listener.recogniser_frame(self, frame)
                elif frame.asked is self._asked:
                    await self._listener.recogniser_frame(self, TranscriptFlushedFrame())
            self._shown = shown
            await self._listener.recogniser_reported(self, report)


class _Flushed(Frame):
    def __init__(self, asked: Frame) -> None:
        super().__init__()
        self.asked = asked


class _Stream:
    """What one connection has heard."""

    def __init__(self, spoken: SpokenWords, *, is_deaf: bool) -> None:
        self._spoken = spoken
        self._is_deaf = is_deaf
        self._samples = 0
        self._value = 0
        self._run = 0
        self._words: list[Heard] = []
        self._looked_s = 0.0
        self.count = 0
        """Words heard."""

    @property
    def at_s(self) -> float:
        return self._samples / RATE

    @property
    def is_endpoint(self) -> bool:
        return bool(self._words) and self._value == 0 and self._run >= ENDPOINT_S * RATE

    @property
    def is_look_due(self) -> bool:
        return self.at_s - self._looked_s >= LOOK_S

    def hear(self, pcm: bytes) -> None:
        for value, run in itertools.groupby(np.frombuffer(pcm, "<i2").tolist()):
            length = len(list(run))
            if value != self._value:
                self._value, self._run = value, 0
            before, self._run = self._run, self._run + length
            self._samples += length
            least = 0.6 * WORD_S * RATE  # of a word that was cut, less than that is not understood
            if value and before < least <= self._run and not self._is_deaf:
                start_s = (self._samples - self._run) / RATE
                self._words.append(Heard(self._spoken.by_value[value], start_s, start_s + WORD_S))
                self.count += 1

    def look(self) -> Sequence[Heard]:
        self._looked_s = self.at_s
        return tuple(self._words)

    def take(self) -> Sequence[Heard]:
        words, self._words = tuple(self._words), []
        self._looked_s = self.at_s
        return words


def _final(words: Sequence[Heard]) -> TranscriptionFrame:
    result = {"words": [{"word": word.word, "confidence": 0.9} for word in words]}
    return TranscriptionFrame(" ".join(word.word for word in words), "", "", result=result)
