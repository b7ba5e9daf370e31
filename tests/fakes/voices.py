"""A vendor's voice on the test's clock: each word is a fifth of a second of one value, and it fails as told."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from pipecat.processors.frame_processor import FrameProcessorSetup

from processors.voices import FailureKind, TimedWord, VoiceFailure, VoiceListener

RATE = 8000
WORD_S = 0.2
_VALUES: Iterator[int] = itertools.cycle(range(1000, 30000))


@dataclass
class SpokenBook:
    """Which value of a sample stands for which word of which vendor."""

    words: dict[int, tuple[str, str]] = field(default_factory=dict)

    def enter(self, vendor: str, word: str) -> int:
        value = next(_VALUES)
        self.words[value] = vendor, word
        return value

    def heard(self, pcm: bytes, *, least_s: float = WORD_S / 2) -> list[tuple[str, str]]:
        """Return (vendor, word) of what was played, each that lasted at least `least_s`."""
        heard: list[tuple[str, str]] = []
        samples = np.frombuffer(pcm, "<i2").tolist()
        for value, run in itertools.groupby(samples):
            if value and len(list(run)) >= least_s * RATE:
                heard.append(self.words[value])
        return heard


@dataclass
class Fault:
    """What goes wrong with a context; `after_words` were said by then."""

    kind: str
    """`close`, `hang`, `error`, `mute`, `zeros`, `slow`, `refuse`, `no_end`, `unwelcome` (accepted and hung up on)."""
    after_words: float = 0.0
    failure: FailureKind = FailureKind.SERVER
    count: int = 1_000_000


class FakeVoice:
    """See `processors.voices.Voice`. Says a text `latency_s` after it came, `speed` times as fast as it is heard."""

    def __init__(
        self,
        vendor: str,
        book: SpokenBook,
        *,
        latency_s: float = 0.15,
        speed: float = 4.0,
        tells_ends: bool = True,
        connect_s: float = 0.05,
    ) -> None:
        self.vendor = vendor
        self.sound = vendor
        self.idle_limit_s = 15.0
        self.most_at_once: int | None = None
        self.is_connected = False
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        self.opened = 0
        self.dials = 0
        self.cuts = 0
        self.gain = 1.0
        self.make: Callable[[str], int] = lambda word: book.enter(vendor, word)
        self._latency_s = latency_s
        self._speed = speed
        self._tells_ends = tells_ends
        self._connect_s = connect_s
        self._listener: VoiceListener | None = None
        self._contexts: dict[str, asyncio.Queue[str | None]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def open(self, setup: FrameProcessorSetup, listener: VoiceListener) -> None:
        self._listener = listener

    async def connect(self) -> None:
        if self.is_connected:
            return
        self.dials += 1
        await asyncio.sleep(self._connect_s)
        if (fault := self._take("refuse")) is not None:
            raise VoiceFailure(FailureKind.REFUSED if fault.failure is FailureKind.SERVER else fault.failure)
        self.is_connected = True
        if (fault := self._take("unwelcome")) is not None:
            self._tasks["unwelcome"] = asyncio.create_task(self._show_the_door(fault))

    async def speak(self, text: str, context_id: str) -> None:
        if not self.is_connected:
            raise VoiceFailure(FailureKind.CLOSED)
        self.asked.append(text)
        if context_id not in self._contexts:
            self.opened += 1
            self._contexts[context_id] = asyncio.Queue()
            self._tasks[context_id] = asyncio.create_task(self._say(context_id))
        self._contexts[context_id].put_nowait(text)

    async def finish(self, context_id: str) -> None:
        if context_id in self._contexts:
            self._contexts[context_id].put_nowait(None)

    async def drop(self, context_id: str) -> None:
        self._forget(context_id)

    def cut(self) -> None:
        self.cuts += 1
        self.is_connected = False
        for context_id in list(self._contexts):
            self._forget(context_id)

    def whole_word(self, context_id: str) -> TimedWord | None:
        return None

    async def close(self) -> None:
        self.cut()

    async def lose(self, kind: FailureKind = FailureKind.CLOSED) -> None:
        """Lose the connection."""
        self.cut()
        assert self._listener is not None
        await self._listener.voice_lost(self, VoiceFailure(kind))

    async def _show_the_door(self, fault: Fault) -> None:
        await asyncio.sleep(0.01)
        await self.lose(fault.failure)

    def _take(self, *kinds: str) -> Fault | None:
        for fault in self.faults:
            if fault.count and fault.kind in kinds:
                fault.count -= 1
                return fault
        return None

    def _forget(self, context_id: str) -> None:
        self._contexts.pop(context_id, None)
        task = self._tasks.pop(context_id, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _say(self, context_id: str) -> None:
        listener, texts = self._listener, self._contexts[context_id]
        assert listener is not None
        fault = self._take("close", "hang", "error", "mute", "zeros", "slow", "no_end")
        kind, said = (fault.kind, 0) if fault is not None else ("", 0)
        at_s = 0.0
        while (text := await texts.get()) is not None:
            if kind == "mute":
                continue
            await asyncio.sleep(self._latency_s)
            for word in text.split():
                end_s = at_s + WORD_S if self._tells_ends else None
                times = [TimedWord(word, at_s, end_s)]
                if (
                    fault is not None
                    and kind in ("close", "hang", "error")
                    and said >= int(fault.after_words)
                ):
                    if part := fault.after_words % 1:
                        await listener.voice_words(self, context_id, times)
                        await self._send(context_id, word, part)
                    await self._fail(context_id, fault)
                    return
                await listener.voice_words(self, context_id, times)
                await self._send(context_id, "" if kind == "zeros" else word)
                said, at_s = said + 1, at_s + WORD_S
                await asyncio.sleep(WORD_S / (0.2 if kind == "slow" else self._speed))
        if kind != "no_end":
            self._forget(context_id)
            await listener.voice_ended(self, context_id)

    async def _send(self, context_id: str, word: str, part: float = 1.0) -> None:
        value = self.make(word) if word else 0
        samples = round(WORD_S * part * RATE)
        assert self._listener is not None
        await self._listener.voice_audio(self, context_id, np.full(samples, value, "<i2").tobytes())

    async def _fail(self, context_id: str, fault: Fault) -> None:
        assert self._listener is not None
        if fault.kind == "close":
            self._tasks.pop(context_id, None)
            await self.lose()
        elif fault.kind == "error":
            self._forget(context_id)
            await self._listener.voice_failed(self, context_id, VoiceFailure(fault.failure))
