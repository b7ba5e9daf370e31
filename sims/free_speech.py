"""Speech that no script explains (a browser's microphone, a real phone), recognised by PocketSphinx.

A low-accuracy stand-in: it knows some 500 words of a dental front desk, so that a conversation without a key is
possible at all. A line per STT stream cuts the sound into utterances by loudness; one process (`sims.sphinx`,
started at the first utterance or wideband line) recognises them. Whatever happens to that process, an utterance
then has no words, and nothing else. Nothing here blocks the loop or touches a socket.
"""

import asyncio
import contextlib
import enum
import itertools
import math
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import orjson
import soxr
from loguru import logger

from sims import mulaw
from sims.sphinx import AUDIO, BEGIN, DROP, END, HEADER, RATE_HZ, RESULT
from sims.spoken import HeardWord

FRAME_S = 0.020
CONFIDENCE = 0.8
"""What every recognised word claims; the recogniser's own scores say little."""

_LOUD_DB = -45.0
_OVER_FLOOR_DB = 10.0
_FLOOR_RISE_DB = 0.05
"""Per frame; the floor falls at once and rises slowly."""
_FLOOR_MAX_DB = -35.0
_ONSET_FRAMES = 15
_ONSET_LOUD_FRAMES = 9
_PAUSE_FRAMES = 25
_TAIL_FRAMES = 8
"""Quiet frames that still belong to the last word; a recogniser makes words of the noise after it."""
_LONGEST_FRAMES = 600
"""Twelve seconds: longer speech is cut."""
_PREROLL_FRAMES = 30
_BATCH_FRAMES = 5
_OUTBOX_MESSAGES = 512
"""Messages that may wait for the process: 50 s of one speaker's audio."""
_MAX_DEATHS = 3
_LONGEST_ANSWER_BYTES = 64 * 1024
_EXIT_LIMIT_S = 1.0


class Gate(enum.Enum):
    """What a frame is."""

    QUIET = "quiet"
    BEGAN = "began"
    SPEECH = "speech"
    PAUSE = "pause"
    """Part of the utterance if it goes on."""
    ENDED = "ended"


class SpeechGate:
    """Finds utterances by loudness alone; a function of the levels it was given.

    QUIET --9 loud of 15 frames--> SPEECH --25 quiet frames | 600 frames | `end`--> QUIET
    """

    def __init__(self) -> None:
        """Start in silence."""
        self._floor_db = _FLOOR_MAX_DB
        self._recent: deque[bool] = deque(maxlen=_ONSET_FRAMES)
        self._quiet_run = 0
        self._length = 0
        self.is_speech = False

    def take(self, level_db: float) -> Gate:
        """Judge one 20 ms frame by its level in dBFS."""
        self._floor_db = min(level_db, self._floor_db + _FLOOR_RISE_DB, _FLOOR_MAX_DB)
        is_loud = level_db > max(_LOUD_DB, self._floor_db + _OVER_FLOOR_DB)
        if not self.is_speech:
            self._recent.append(is_loud)
            if sum(self._recent) < _ONSET_LOUD_FRAMES:
                return Gate.QUIET
            self.is_speech = True
            self._quiet_run = self._length = 0
            return Gate.BEGAN
        self._length += 1
        self._quiet_run = 0 if is_loud else self._quiet_run + 1
        if self._quiet_run >= _PAUSE_FRAMES or self._length >= _LONGEST_FRAMES:
            self.end()
            return Gate.ENDED
        return Gate.SPEECH if self._quiet_run <= _TAIL_FRAMES else Gate.PAUSE

    def end(self) -> None:
        """Forget the utterance."""
        self.is_speech = False
        self._recent.clear()


class LineListener(Protocol):
    """Who wants to know what was said on a line; called on the event loop, in order."""

    def recognition_began(self) -> None:
        """Somebody speaks."""
        ...

    def recognition_ended(self) -> None:
        """They paused; `recognised` follows."""
        ...

    def guessed(self, words: Sequence[HeardWord]) -> None:
        """What the speech may be so far."""
        ...

    def recognised(self, words: Sequence[HeardWord]) -> None:
        """What it was, once for each `recognition_began`; empty when nobody knows."""
        ...


class FreeSpeechLine:
    """One stream's unexplained sound. Get it from `FreeSpeech.open_line`."""

    def __init__(self, owner: "FreeSpeech", rate_hz: int) -> None:
        """Use `FreeSpeech.open_line` instead."""
        self._owner = owner
        self._rate_hz = rate_hz
        self._frame_bytes = round(rate_hz * FRAME_S) * 2
        self._gate = SpeechGate()
        self._listener: LineListener | None = None
        self._rest = b""
        self._preroll: deque[bytes] = deque(maxlen=_PREROLL_FRAMES)
        self._resampler: soxr.ResampleStream | None = None
        self._batch: list[bytes] = []
        self._pause: list[bytes] = []
        self._number: int | None = None
        self._starts: dict[int, float] = {}

    @property
    def is_speaking(self) -> bool:
        """Whether somebody speaks now, as far as loudness tells."""
        return self._gate.is_speech

    def listen(self, listener: LineListener) -> None:
        """Set who is told."""
        self._listener = listener

    def hear(self, pcm: bytes, end_s: float) -> None:
        """Take sound.

        Args:
            pcm: s16le mono at the line's rate, any length.
            end_s: Stream audio time at the end of it.
        """
        pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % self._frame_bytes
        self._rest = pcm[whole:]
        end_s -= len(self._rest) / 2 / self._rate_hz
        for at in range(0, whole, self._frame_bytes):
            frame = pcm[at : at + self._frame_bytes]
            left_s = (whole - at - self._frame_bytes) / 2 / self._rate_hz
            self._take(frame, _level_db(frame), end_s - left_s)

    def hear_ulaw(self, ulaw: bytes, end_s: float) -> None:
        """Take 8 kHz mu-law; digital silence costs next to nothing."""
        if ulaw == mulaw.SILENT_FRAME and not self._rest:
            self._take(bytes(self._frame_bytes), -100.0, end_s)
        else:
            self.hear(mulaw.decode(ulaw), end_s)

    def finish(self) -> None:
        """End the utterance now, if there is one."""
        self._rest = b""
        self._preroll.clear()
        if self._gate.is_speech:
            self._gate.end()
            self._end()

    def close(self) -> None:
        """Forget everything; nobody is told any more."""
        self._listener = None
        self._gate.end()
        for number in self._starts:
            self._owner.send(DROP, number)
            self._owner.forget(number)
        self._starts.clear()

    def told(self, number: int, words: Sequence[tuple[str, float, float]], *, is_final: bool) -> None:
        """Take what the process says about utterance `number`."""
        start_s = self._starts.get(number)
        if start_s is None or self._listener is None:
            return
        heard = _written(words, start_s, is_final=is_final)
        if is_final:
            del self._starts[number]
            self._listener.recognised(heard)
        else:
            self._listener.guessed(heard)

    def _take(self, frame: bytes, level_db: float, end_s: float) -> None:
        verdict = self._gate.take(level_db)
        if verdict is Gate.QUIET:
            self._preroll.append(frame)
        elif verdict is Gate.BEGAN:
            self._begin(frame, end_s)
        elif verdict is Gate.PAUSE:
            self._pause.append(frame)
        elif verdict is Gate.SPEECH:
            self._batch += [*self._pause, frame]
            self._pause.clear()
            if len(self._batch) >= _BATCH_FRAMES:
                self._send_batch(is_last=False)
        else:
            self._end()

    def _begin(self, frame: bytes, end_s: float) -> None:
        self._batch = [*self._preroll, frame]
        self._preroll.clear()
        if self._rate_hz != RATE_HZ:
            self._resampler = soxr.ResampleStream(self._rate_hz, RATE_HZ, 1, dtype="int16")
        self._number = self._owner.begin(self)
        self._starts[self._number] = end_s - len(self._batch) * FRAME_S
        if self._listener is not None:
            self._listener.recognition_began()
        self._send_batch(is_last=False)

    def _end(self) -> None:
        number, self._number = self._number, None
        self._pause.clear()
        if number is None:
            return
        self._send_batch(is_last=True, number=number)
        if self._listener is not None:
            self._listener.recognition_ended()
        self._owner.send(END, number)

    def _send_batch(self, *, is_last: bool, number: int | None = None) -> None:
        pcm, self._batch = b"".join(self._batch), []
        if self._resampler is not None:
            pcm = self._resampler.resample_chunk(np.frombuffer(pcm, np.int16), last=is_last).tobytes()
        number = self._number if number is None else number
        if pcm and number is not None:
            self._owner.send(AUDIO, number, pcm)


def _level_db(frame: bytes) -> float:
    samples = np.frombuffer(frame, "<i2").astype(np.float32)
    return 10 * math.log10(float(np.dot(samples, samples)) / max(len(samples), 1) / 2**30 + 1e-10)


def _written(
    words: Sequence[tuple[str, float, float]], start_s: float, *, is_final: bool
) -> tuple[HeardWord, ...]:
    """Return recognised words as a sentence: a capital first, a full stop last."""
    texts = [
        text.capitalize() if n == 0 or text[:2] in ("i", "i'") else text
        for n, (text, _, _) in enumerate(words)
    ]
    if texts and is_final:
        texts[-1] += "."
    return tuple(
        HeardWord(text, start_s + begin_s, start_s + end_s, CONFIDENCE)
        for text, (_, begin_s, end_s) in zip(texts, words, strict=True)
    )


class FreeSpeech:
    """The recogniser process and the utterances it owes an answer for.

    IDLE --first utterance | wideband line--> RUNNING --process ends--> IDLE, at most three times; then
    utterances have no words.
    """

    def __init__(self, command: Sequence[str] = (sys.executable, "-P", "-m", "sims.sphinx")) -> None:
        """Create an idle one.

        Args:
            command: What to run; speaks the protocol of `sims.sphinx`.
        """
        self._command = command
        self._numbers = itertools.count(1)
        self._lines: dict[int, FreeSpeechLine] = {}
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(_OUTBOX_MESSAGES)
        self._running: asyncio.Task[None] | None = None
        self._deaths = 0

    @property
    def is_running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._running is not None

    def open_line(self, rate_hz: int) -> FreeSpeechLine:
        """Return a line for one stream of `rate_hz`; close it with the stream.

        A wideband stream is a person in a browser, whom only the recogniser understands: it starts now, so that
        their first words do not wait for it.
        """
        if rate_hz > mulaw.RATE_HZ:
            self._start()
        return FreeSpeechLine(self, rate_hz)

    def begin(self, line: FreeSpeechLine) -> int:
        """Start an utterance for `line` and return its number."""
        number = next(self._numbers)
        self._lines[number] = line
        self._start()
        self.send(BEGIN, number)
        return number

    def send(self, kind: bytes, number: int, payload: bytes = b"") -> None:
        """Queue a message about utterance `number`; without process or room its words are lost."""
        if number not in self._lines:
            return
        has_room = self._running is not None and not self._outbox.full()
        if has_room:
            self._outbox.put_nowait(HEADER.pack(kind, number, len(payload)) + payload)
        elif kind == END:
            self._answer(number, ())

    def forget(self, number: int) -> None:
        """Owe no answer for utterance `number`."""
        self._lines.pop(number, None)

    async def close(self) -> None:
        """End the process; owed answers become empty."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running], timeout=2 * _EXIT_LIMIT_S)

    def _start(self) -> None:
        if self._running is None and self._deaths < _MAX_DEATHS:
            self._outbox = asyncio.Queue(_OUTBOX_MESSAGES)
            self._running = asyncio.get_running_loop().create_task(self._run(), name="free_speech")

    def _answer(self, number: int, words: Sequence[tuple[str, float, float]]) -> None:
        line = self._lines.pop(number, None)
        if line is not None:
            line.told(number, words, is_final=True)

    async def _run(self) -> None:
        process: asyncio.subprocess.Process | None = None
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )
            assert process.stdin is not None  # noqa: S101 - asked for above
            assert process.stdout is not None  # noqa: S101 - asked for above
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(process.stdin))
                tasks.create_task(self._read(process.stdout))
        except* (OSError, asyncio.IncompleteReadError, ValueError) as errors:
            self._deaths += 1
            logger.warning("free speech: the recogniser ended ({}): {}", self._deaths, errors.exceptions[0])
        finally:
            if process is not None:
                await _end_process(process)
            self._running = None
            for number in list(self._lines):  # those that began while it was ending, too
                self._answer(number, ())

    async def _write(self, stdin: asyncio.StreamWriter) -> None:
        while True:
            stdin.write(await self._outbox.get())
            await stdin.drain()

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        while True:
            kind, number, length = HEADER.unpack(await stdout.readexactly(HEADER.size))
            if length > _LONGEST_ANSWER_BYTES:
                raise ValueError(f"an answer of {length} bytes is not one")
            words = orjson.loads(await stdout.readexactly(length))
            if kind == RESULT:
                self._answer(number, words)
            elif number in self._lines:
                self._lines[number].told(number, words, is_final=False)


async def _end_process(process: asyncio.subprocess.Process) -> None:
    """Close its stdin, which ends it; kill it when that takes too long."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_EXIT_LIMIT_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
