"""Records both sides of a call as they are heard: a stereo WAV, caller left, agent right.

Stands beside the pipeline and is handed audio with its place on the call's time line. A pure core
(`StereoTrack`) lays the sides out and gives up blocks that cannot change any more; one thread per process
(`DiskThread`) writes them. It never blocks the event loop, never grows with the call and never ends it: a
full disk costs the recording only.
"""

import asyncio
import contextlib
import queue
import struct
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from loguru import logger

CHANNELS = 2
SAMPLE_BYTES = 2
FRAME_BYTES = CHANNELS * SAMPLE_BYTES
"""One sample of each side."""
HEADER_BYTES = 44
LEFT, RIGHT = 0, 1

SETTLE_S = 2.0
"""The agent's audio may still be taken back, and the caller's arrive late, for this long."""
WINDOW_S = 6.0
"""What is held in memory at most; the agent may be written ahead of the caller by the rest of it."""
BLOCK_S = 1.0
MAX_CALL_S = 4 * 3600.0
"""A position past this is a mistake, not a call. Keeps the file far below the 4 GiB that a WAV can say."""
MAX_BLOCKS_IN_FLIGHT = 8
"""Blocks of one call waiting for the disk; more are dropped and leave silence."""


@dataclass(frozen=True)
class Block:
    """Settled audio: interleaved s16le stereo for the samples from `at_samples` on."""

    at_samples: int
    frames: bytes


class StereoTrack:
    """Both sides on one time line, in a window of a few seconds. Pure: positions in, settled blocks out.

    Positions count samples since the call began. What nobody wrote is silence; what is written twice is what
    was written last. A stretch in which neither side wrote at all is left out of the blocks: the file has a
    hole there, which reads as silence.
    """

    def __init__(self, rate_hz: int) -> None:
        """Create an empty track.

        Args:
            rate_hz: Sample rate of both sides, > 0.

        Raises:
            ValueError: If `rate_hz` is not positive.
        """
        if rate_hz <= 0:
            raise ValueError(f"rate_hz must be > 0, got {rate_hz}")
        self._settle_samples = round(SETTLE_S * rate_hz)
        self._window_samples = round(WINDOW_S * rate_hz)
        self._block_samples = round(BLOCK_S * rate_hz)
        self._max_samples = round(MAX_CALL_S * rate_hz)
        self._window = np.zeros((self._window_samples, CHANNELS), dtype="<i2")
        self._base = 0  # first sample of the window
        self._heads = [0, 0]  # where each side's audio ends
        self.lost_samples = 0
        """Samples that came too late, too far ahead or were cut back too late."""

    @property
    def end_samples(self) -> int:
        """Where the audio of both sides ends."""
        return max(self._heads)

    def caller(self, pcm: bytes, at_samples: int) -> list[Block]:
        """Lay down what the caller said; return what is settled by it.

        Args:
            pcm: s16le mono.
            at_samples: Place of its first sample.
        """
        blocks = self._write(LEFT, pcm, at_samples)
        return blocks + self._settle(self._heads[LEFT] - self._settle_samples, self._block_samples)

    def agent(self, pcm: bytes, at_samples: int) -> list[Block]:
        """Lay down what the agent will have said, at the place where it is heard; may be ahead of now.

        Args:
            pcm: s16le mono.
            at_samples: Place of its first sample.
        """
        return self._write(RIGHT, pcm, at_samples)

    def cut_agent(self, at_samples: int) -> None:
        """Take back the agent's audio from `at_samples` on: it was dropped unheard."""
        self.lost_samples += max(0, min(self._base, self._heads[RIGHT]) - at_samples)
        start = max(0, at_samples - self._base)
        self._window[start:, RIGHT] = 0
        self._heads[RIGHT] = min(self._heads[RIGHT], max(at_samples, self._base))

    def finish(self, end_samples: int | None = None) -> list[Block]:
        """Return all that is left.

        Args:
            end_samples: Where the call ended: the agent's audio past it was never heard, and what is
                missing up to it is silence.
        """
        if end_samples is not None:
            self.cut_agent(end_samples)
            self._heads[LEFT] = max(self._heads[LEFT], min(end_samples, self._max_samples))
        return self._settle(self.end_samples, 1)

    def _write(self, side: int, pcm: bytes, at_samples: int) -> list[Block]:
        samples = np.frombuffer(pcm, dtype="<i2", count=len(pcm) // SAMPLE_BYTES)
        end = at_samples + len(samples)
        if end > self._max_samples:
            self.lost_samples += len(samples)
            return []
        blocks: list[Block] = []
        if (missing := end - self._window_samples - self._base) > 0:
            # A whole block at least, so that a burst far ahead does not become a flood of tiny ones.
            blocks = self._settle(self._base + max(missing, self._block_samples), 1)
        late = min(max(0, self._base - at_samples), len(samples))
        self.lost_samples += late
        start = at_samples + late - self._base
        self._window[start : start + len(samples) - late, side] = samples[late:]
        if late < len(samples):
            self._heads[side] = max(self._heads[side], end)
        return blocks

    def _settle(self, until: int, at_least: int) -> list[Block]:
        """Move the window to start at `until`, if that is `at_least` samples on; return what leaves it."""
        count = until - self._base
        if count < at_least:
            return []
        written = min(count, self._window_samples, max(0, self.end_samples - self._base))
        block = Block(self._base, self._window[:written].tobytes())
        kept = max(0, self._window_samples - count)
        self._window[:kept] = self._window[self._window_samples - kept :]
        self._window[kept:] = 0
        self._base = until
        return [block] if written else []


def wav_header(rate_hz: int, frames: int) -> bytes:
    """Return the 44 bytes before `frames` stereo frames of 16 bit PCM.

    Source: Microsoft/IBM "Multimedia Programming Interface and Data Specifications 1.0", RIFF WAVE.
    """
    size = frames * FRAME_BYTES
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", HEADER_BYTES - 8 + size, b"WAVE"),
        *(b"fmt ", 16, 1, CHANNELS, rate_hz, rate_hz * FRAME_BYTES, FRAME_BYTES, 8 * SAMPLE_BYTES),
        *(b"data", size),
    )


class DiskThread:
    """One thread that runs short disk jobs in order, for all recorders of a process.

    A daemon: a disk that hangs must not keep the process from ending. Bounded by its users, each of which
    has a fixed number of jobs in flight.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` after those submitted before; it must not raise."""
        self._jobs.put(job)

    def close(self, timeout_s: float) -> bool:
        """Run what was submitted, then end; return whether that took less than `timeout_s`. Blocks."""
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - the thread serves every call of the process
                logger.exception("a recording job failed")


class _WavFile:
    """The file of one call; lives on the disk thread. The first failure is logged and ends the writing."""

    def __init__(self, path: Path, rate_hz: int) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._file: BinaryIO | None = None
        self._frames = 0
        self.failure: str | None = None

    def open(self) -> None:
        with self._guarded():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
            self._file.write(wav_header(self._rate_hz, 0))
            self._file.flush()

    def write(self, block: Block) -> None:
        with self._guarded():
            if self._file is None:
                return
            self._file.seek(HEADER_BYTES + block.at_samples * FRAME_BYTES)
            self._file.write(block.frames)
            self._file.flush()  # audio first: a header may promise less than there is, never more
            self._frames = max(self._frames, block.at_samples + len(block.frames) // FRAME_BYTES)
            self._write_header()

    def close(self, frames: int) -> None:
        """Make the file `frames` long, a missing end as silence, and close it."""
        with self._guarded():
            if self._file is not None:
                self._frames = max(self._frames, frames)
                self._file.truncate(HEADER_BYTES + self._frames * FRAME_BYTES)
                self._write_header()
        with self._guarded():
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _write_header(self) -> None:
        if self._file is not None:
            self._file.seek(0)
            self._file.write(wav_header(self._rate_hz, self._frames))
            self._file.flush()

    @contextlib.contextmanager
    def _guarded(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self.failure is None:
            self.failure = error.strerror or type(error).__name__
            logger.error("the recording {} is not written any further: {}", self._path, error)
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # closing flushes once more into the same full disk
                file.close()


@dataclass(frozen=True)
class Recording:
    """What became of a recording."""

    path: Path
    duration_s: float
    is_whole: bool
    """Written to its end, nothing dropped on the way to the disk."""
    failure: str | None
    """Why it was not written, None when it was."""
    lost_samples: int
    """Samples of either side that found no place (see `StereoTrack`)."""


class StereoRecorder:
    """Streams one call to a WAV file.

    All methods belong to the event loop's thread and return at once but `close`.
    """

    def __init__(self, path: Path, *, rate_hz: int, disk: DiskThread) -> None:
        """Open the file, in the background; its folder is made.

        Args:
            path: The WAV file; an existing one is replaced.
            rate_hz: Sample rate of both sides, > 0.
            disk: The process's disk thread, owned by the caller.

        Raises:
            ValueError: If `rate_hz` is not positive.
        """
        self._path = path
        self._rate_hz = rate_hz
        self._track = StereoTrack(rate_hz)
        self._disk = disk
        self._wav = _WavFile(path, rate_hz)
        self._room = threading.BoundedSemaphore(MAX_BLOCKS_IN_FLIGHT)
        self._dropped_blocks = 0
        self._is_closing = False
        self._closed: Future[None] = Future()
        self._closed.set_running_or_notify_cancel()  # nobody who waits for it may cancel it
        disk.submit(self._wav.open)

    def caller(self, pcm: bytes, at_samples: int) -> None:
        """Record what the caller said: s16le mono, first sample at `at_samples` since the call began."""
        if not self._is_closing:
            self._write(self._track.caller(pcm, at_samples))

    def agent(self, pcm: bytes, at_samples: int) -> None:
        """Record the agent's s16le mono at the place where it is (or will be) heard."""
        if not self._is_closing:
            self._write(self._track.agent(pcm, at_samples))

    def cut_agent(self, at_samples: int) -> None:
        """Take back the agent's audio from `at_samples` on: dropped before it was heard."""
        if not self._is_closing:
            self._track.cut_agent(at_samples)

    async def close(self, *, end_samples: int | None = None, timeout_s: float = 1.0) -> Recording:
        """Write the rest and close the file; wait for the disk at most `timeout_s`.

        A disk that is slower goes on in the background. Closing twice is one closing.

        Args:
            end_samples: Where the call ended; the agent's audio past it was never heard.
            timeout_s: Longest wait in seconds.
        """
        if not self._is_closing:
            self._is_closing = True
            self._submit_rest(end_samples)
        await asyncio.wait([asyncio.wrap_future(self._closed)], timeout=timeout_s)
        return self._outcome()

    def _write(self, blocks: list[Block]) -> None:
        for block in blocks:
            if self._room.acquire(blocking=False):
                self._disk.submit(partial(self._write_on_disk, block))
            else:
                self._drop_block()

    def _write_on_disk(self, block: Block) -> None:
        try:
            self._wav.write(block)
        finally:
            self._room.release()

    def _drop_block(self) -> None:
        if self._dropped_blocks == 0:
            logger.warning("the disk is too slow for the recording {}: parts of it are silent", self._path)
        self._dropped_blocks += 1

    def _submit_rest(self, end_samples: int | None) -> None:
        for block in self._track.finish(end_samples):
            self._disk.submit(partial(self._wav.write, block))
        self._disk.submit(self._close_on_disk)

    def _close_on_disk(self) -> None:
        try:
            self._wav.close(self._track.end_samples)
        finally:
            self._closed.set_result(None)

    def _outcome(self) -> Recording:
        failure = self._wav.failure if self._closed.done() else "the disk did not answer in time"
        return Recording(
            path=self._path,
            duration_s=self._track.end_samples / self._rate_hz,
            is_whole=failure is None and self._dropped_blocks == 0,
            failure=failure,
            lost_samples=self._track.lost_samples,
        )
