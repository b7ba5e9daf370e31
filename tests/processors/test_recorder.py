import asyncio
import errno
import io
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from processors.recorder import (
    BLOCK_S,
    HEADER_BYTES,
    MAX_BLOCKS_IN_FLIGHT,
    MAX_CALL_S,
    WINDOW_S,
    Block,
    DiskThread,
    StereoRecorder,
    StereoTrack,
    wav_header,
)

pytestmark = pytest.mark.real_time

RATE_HZ = 8000


def tone(value: int, samples: int) -> bytes:
    return np.full(samples, value, dtype="<i2").tobytes()


def laid_out(blocks: list[Block], length: int) -> np.ndarray:
    """Put blocks where they belong; what no block covers is silence."""
    out = np.zeros((length, 2), dtype="<i2")
    for block in blocks:
        frames = np.frombuffer(block.frames, dtype="<i2").reshape(-1, 2)
        out[block.at_samples : block.at_samples + len(frames)] = frames
    return out


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (2, 2, RATE_HZ)
        frames = wav.readframes(wav.getnframes())
        assert len(frames) == wav.getnframes() * 4
    return np.frombuffer(frames, dtype="<i2").reshape(-1, 2)


class TestTrack:
    def test_sides_gaps_and_places(self) -> None:
        track = StereoTrack(RATE_HZ)
        blocks = (
            track.caller(tone(1, 160), 0) + track.agent(tone(2, 320), 80) + track.caller(tone(3, 160), 400)
        )
        out = laid_out(blocks + track.finish(), 560)
        assert track.end_samples == 560
        assert (out[:160, 0] == 1).all()
        assert (out[160:400, 0] == 0).all()
        assert (out[400:560, 0] == 3).all()
        assert (out[:80, 1] == 0).all()
        assert (out[80:400, 1] == 2).all()
        assert (out[400:, 1] == 0).all()

    def test_agent_is_taken_back_and_speaks_again_elsewhere(self) -> None:
        track = StereoTrack(RATE_HZ)
        blocks = track.caller(tone(1, 8000), 0)
        blocks += track.agent(tone(2, 16000), 4000)
        track.cut_agent(6000)
        blocks += track.agent(tone(3, 1000), 9000)
        out = laid_out(blocks + track.finish(), 10_000)
        assert (out[4000:6000, 1] == 2).all()
        assert (out[6000:9000, 1] == 0).all()
        assert (out[9000:, 1] == 3).all()
        assert track.end_samples == 10_000
        assert track.lost_samples == 0

    def test_what_is_settled_cannot_be_taken_back_and_is_counted(self) -> None:
        track = StereoTrack(RATE_HZ)
        track.agent(tone(2, 2 * RATE_HZ), 0)
        for second in range(10):
            track.caller(tone(1, RATE_HZ), second * RATE_HZ)
        track.cut_agent(RATE_HZ)
        assert track.lost_samples == RATE_HZ

    def test_late_frame_within_the_window_finds_its_place_and_an_older_one_is_counted(self) -> None:
        track = StereoTrack(RATE_HZ)
        blocks: list[Block] = []
        for second in range(10):
            blocks += track.caller(tone(1, RATE_HZ), second * RATE_HZ)
        blocks += track.agent(tone(2, 160), 9 * RATE_HZ)
        blocks += track.agent(tone(2, 160), 0)
        out = laid_out(blocks + track.finish(), 10 * RATE_HZ)
        assert (out[9 * RATE_HZ : 9 * RATE_HZ + 160, 1] == 2).all()
        assert (out[:160, 1] == 0).all()
        assert track.lost_samples == 160

    def test_finish_drops_what_was_not_heard_and_fills_up_to_the_end(self) -> None:
        track = StereoTrack(RATE_HZ)
        track.agent(tone(2, 800), 0)
        out = laid_out(track.finish(400), 400)
        assert track.end_samples == 400
        assert (out[:, 1] == 2).all()
        short = StereoTrack(RATE_HZ)
        short.caller(tone(1, 80), 0)
        short.finish(400)
        assert short.end_samples == 400

    @pytest.mark.parametrize("at_samples", [2**60, -(2**60)])
    def test_absurd_place_is_refused(self, at_samples: int) -> None:
        track = StereoTrack(RATE_HZ)
        assert track.caller(tone(1, 160), at_samples) == []
        assert track.finish() == []
        assert track.lost_samples == 160

    def test_jump_leaves_a_hole_not_bytes(self) -> None:
        track = StereoTrack(RATE_HZ)
        blocks = track.caller(tone(1, 160), 0)
        blocks += track.caller(tone(1, 160), round(MAX_CALL_S * RATE_HZ) - 160)
        blocks += track.finish()
        assert sum(len(block.frames) for block in blocks) <= WINDOW_S * RATE_HZ * 4 + 160 * 4
        assert track.lost_samples == 0

    def test_agent_far_ahead_settles_in_whole_blocks(self) -> None:
        track = StereoTrack(RATE_HZ)
        blocks: list[Block] = []
        for frame in range(500):
            blocks += track.agent(tone(frame + 1, 160), frame * 160)
        assert len(blocks) <= 10 - WINDOW_S + 1
        out = laid_out(blocks + track.finish(), 80_000)
        assert (out[:, 1] == np.repeat(np.arange(1, 501), 160)).all()

    def test_half_a_sample_is_left_out(self) -> None:
        track = StereoTrack(RATE_HZ)
        track.caller(tone(1, 10) + b"\x01", 0)
        assert track.end_samples == 10

    def test_rate_is_checked(self) -> None:
        with pytest.raises(ValueError, match="rate_hz must be > 0, got 0"):
            StereoTrack(0)

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("caller"), st.integers(0, 400), st.integers(0, 300)),
                st.tuples(st.just("agent"), st.integers(0, 400), st.integers(0, 300)),
                st.tuples(st.just("cut"), st.integers(0, 400), st.just(0)),
            ),
            max_size=30,
        )
    )
    def test_within_the_window_it_equals_one_big_array(self, steps: list[tuple[str, int, int]]) -> None:
        rate_hz = 200  # a window of 1200 samples holds every position drawn
        track = StereoTrack(rate_hz)
        model = np.zeros((800, 2), dtype="<i2")
        heads = {"caller": 0, "agent": 0}
        blocks: list[Block] = []
        for number, (what, at, length) in enumerate(steps, start=1):
            if what == "cut":
                track.cut_agent(at)
                if at >= track._base:
                    model[at:, 1] = 0
                    heads["agent"] = min(heads["agent"], at)
                else:
                    model[track._base :, 1] = 0
                    heads["agent"] = min(heads["agent"], track._base)
                continue
            base = track._base
            blocks += getattr(track, what)(tone(number, length), at)
            start = min(max(at, base), at + length)
            model[start : at + length, 0 if what == "caller" else 1] = number
            if start < at + length:
                heads[what] = max(heads[what], at + length)
        blocks += track.finish()
        assert track.end_samples == max(heads.values())
        assert (laid_out(blocks, 800) == model).all()

    def test_an_hour_needs_no_more_memory_than_a_minute(self) -> None:
        track = StereoTrack(RATE_HZ)
        said, answered = tone(5, 4000), tone(6, 4000)
        written = 0
        tracemalloc.start()
        try:
            for chunk in range(3600 * 2):
                at = chunk * 4000
                track.agent(answered, at + 2000)
                if chunk % 20 == 0:
                    track.cut_agent(at + 2400)
                for block in track.caller(said, at):
                    assert len(block.frames) <= 2 * BLOCK_S * RATE_HZ * 4
                    written += len(block.frames)
            written += sum(len(block.frames) for block in track.finish())
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert written == pytest.approx(3600 * RATE_HZ * 4, rel=0.001)
        assert peak_bytes < 1_000_000


@pytest.fixture
def disk() -> Iterator[DiskThread]:
    thread = DiskThread()
    yield thread
    assert thread.close(5.0)


class TestRecorder:
    async def test_writes_both_sides(self, tmp_path: Path, disk: DiskThread) -> None:
        path = tmp_path / "CA1" / "call.wav"
        recorder = StereoRecorder(path, rate_hz=RATE_HZ, disk=disk)
        for frame in range(500):
            recorder.caller(tone(100 + frame, 160), frame * 160)
        recorder.agent(tone(7, 8000), 8 * RATE_HZ)
        recorder.cut_agent(8 * RATE_HZ + 400)
        recording = await recorder.close(end_samples=80_000)
        assert (recording.is_whole, recording.failure, recording.lost_samples) == (True, None, 0)
        assert recording.duration_s == 10.0
        wav = read_wav(path)
        assert len(wav) == 80_000
        assert (wav[:, 0] == np.repeat(np.arange(100, 600), 160)).all()
        assert (wav[64_000:64_400, 1] == 7).all()
        assert not wav[64_400:, 1].any()
        assert not wav[:64_000, 1].any()

    async def test_silence_at_the_end_and_nothing_at_all(self, tmp_path: Path, disk: DiskThread) -> None:
        recorder = StereoRecorder(tmp_path / "a.wav", rate_hz=RATE_HZ, disk=disk)
        await recorder.close(end_samples=4000)
        empty = StereoRecorder(tmp_path / "b.wav", rate_hz=RATE_HZ, disk=disk)
        assert (await empty.close()).is_whole
        assert len(read_wav(tmp_path / "a.wav")) == 4000
        assert len(read_wav(tmp_path / "b.wav")) == 0

    async def test_closing_twice_and_writing_afterwards_are_harmless(
        self, tmp_path: Path, disk: DiskThread
    ) -> None:
        recorder = StereoRecorder(tmp_path / "a.wav", rate_hz=RATE_HZ, disk=disk)
        recorder.caller(tone(1, 800), 0)
        first, second = await asyncio.gather(recorder.close(), recorder.close())
        recorder.caller(tone(1, 800), 800)
        recorder.agent(tone(1, 800), 800)
        recorder.cut_agent(0)
        assert first == second == await recorder.close()
        assert len(read_wav(tmp_path / "a.wav")) == 800

    async def test_folder_that_cannot_be_made_costs_the_recording_only(
        self, tmp_path: Path, disk: DiskThread, logged: list[str]
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        recorder = StereoRecorder(tmp_path / "file" / "call.wav", rate_hz=RATE_HZ, disk=disk)
        for second in range(5):
            recorder.caller(tone(1, RATE_HZ), second * RATE_HZ)
        recording = await recorder.close()
        assert not recording.is_whole
        assert recording.failure
        assert len(logged) == 1

    async def test_full_disk_is_said_once(self, tmp_path: Path, disk: DiskThread, logged: list[str]) -> None:
        recorder = StereoRecorder(tmp_path / "a.wav", rate_hz=RATE_HZ, disk=disk)
        disk.submit(lambda: fill_disk_under(recorder))
        for second in range(5):
            recorder.caller(tone(1, RATE_HZ), second * RATE_HZ)
        recording = await recorder.close()
        assert (recording.failure, recording.is_whole) == ("No space left on device", False)
        assert len(logged) == 1

    async def test_hanging_disk_drops_blocks_and_bounds_the_closing(
        self, tmp_path: Path, disk: DiskThread, logged: list[str]
    ) -> None:
        let_go = threading.Event()
        disk.submit(lambda: void(let_go.wait(10)))
        recorder = StereoRecorder(tmp_path / "a.wav", rate_hz=RATE_HZ, disk=disk)
        for second in range(30):
            recorder.caller(tone(1, RATE_HZ), second * RATE_HZ)
        hung = await recorder.close(timeout_s=0.05)
        let_go.set()
        late = await recorder.close(timeout_s=5)
        assert hung.failure is not None
        assert (late.failure, late.is_whole) == (None, False)
        assert len(logged) == 1
        wav = read_wav(tmp_path / "a.wav")
        assert len(wav) == 30 * RATE_HZ
        assert int(wav[:, 0].sum()) >= MAX_BLOCKS_IN_FLIGHT * RATE_HZ  # the rest reads as silence
        assert not wav[15 * RATE_HZ : 20 * RATE_HZ].any()

    async def test_other_calls_survive_a_job_that_raises(self, tmp_path: Path, disk: DiskThread) -> None:
        disk.submit(lambda: void(1 // 0))
        recorder = StereoRecorder(tmp_path / "a.wav", rate_hz=RATE_HZ, disk=disk)
        assert (await recorder.close()).is_whole

    def test_killed_process_leaves_a_file_that_plays(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        script = (
            "import sys, time; from pathlib import Path; from processors.recorder import *\n"
            f"recorder = StereoRecorder(Path(sys.argv[1]), rate_hz={RATE_HZ}, disk=DiskThread())\n"
            f"for s in range(6): recorder.caller(b'\\x01\\x00' * {RATE_HZ}, s * {RATE_HZ})\n"
            "time.sleep(30)"
        )
        process = subprocess.Popen([sys.executable, "-c", script, str(path)])  # noqa: S603 - our own script
        try:
            deadline = time.monotonic() + 20
            while not (path.exists() and path.stat().st_size >= HEADER_BYTES + 4 * RATE_HZ * 4):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(5)
        wav = read_wav(path)
        assert len(wav) >= 3 * RATE_HZ
        assert (wav[:, 0] == 1).all()


def test_header_says_the_rate_and_the_length() -> None:
    header = wav_header(8000, 10)
    assert len(header) == HEADER_BYTES
    assert header[4:8] == (36 + 40).to_bytes(4, "little")
    assert header[24:32] == (8000).to_bytes(4, "little") + (32000).to_bytes(4, "little")


class FullDisk(io.BytesIO):
    """A file on a disk without room: nothing can be written, nor flushed by closing."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, "No space left on device")


def fill_disk_under(recorder: StereoRecorder) -> None:
    file = recorder._wav._file
    assert file is not None
    file.close()
    recorder._wav._file = FullDisk()


def void(_: object) -> None:
    """Make a job of an expression."""


@pytest.fixture
def logged() -> Iterator[list[str]]:
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(str(message)), level="WARNING", format="{message}")
    yield messages
    logger.remove(sink)
