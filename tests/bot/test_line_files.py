import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.line_files import MAX_PARTS, LineFiles
from processors.recorder import DiskThread

pytestmark = pytest.mark.real_time


@pytest.fixture
def disk() -> Iterator[DiskThread]:
    disk = DiskThread()
    yield disk
    disk.close(2.0)


def test_the_first_lines_files_have_plain_names_and_later_ones_a_number(tmp_path: Path) -> None:
    assert LineFiles(tmp_path, part=1, rate_hz=8000).name("audio.wav") == "audio.wav"
    assert LineFiles(tmp_path, part=2, rate_hz=8000).name("audio.wav") == "audio-2.wav"
    assert LineFiles(tmp_path, part=12, rate_hz=8000).name("timeline.json") == "timeline-12.json"


async def test_a_recording_is_written_from_when_the_line_is_up(tmp_path: Path, disk: DiskThread) -> None:
    files = LineFiles(tmp_path / "CA1", part=1, rate_hz=8000)
    assert files.recording is not None
    files.recording.caller_audio(bytes(320))
    assert not (tmp_path / "CA1").exists()
    files.begin(disk)
    files.recording.caller_audio(b"\1" * 320)
    await files.close(timeout_s=2.0)
    assert (tmp_path / "CA1" / "audio.wav").stat().st_size > 320


async def test_a_line_that_was_not_counted_replaces_no_recording(tmp_path: Path, disk: DiskThread) -> None:
    for name in ("audio-2.wav", "audio-3.wav"):
        (tmp_path / name).write_bytes(b"kept")
    files = LineFiles(tmp_path, part=2, rate_hz=8000)
    files.begin(disk)
    await files.close(timeout_s=2.0)
    assert files.part == 4
    assert (tmp_path / "audio-2.wav").read_bytes() == b"kept"
    assert files.name("transcript.txt") == "transcript-4.txt"


async def test_the_search_for_a_free_name_ends(tmp_path: Path, disk: DiskThread) -> None:
    for part in range(2, MAX_PARTS + 1):
        (tmp_path / f"audio-{part}.wav").write_bytes(b"")
    files = LineFiles(tmp_path, part=2, rate_hz=8000)
    files.begin(disk)
    await files.close(timeout_s=2.0)
    assert files.part == MAX_PARTS


async def test_without_a_folder_nothing_is_recorded(tmp_path: Path, disk: DiskThread) -> None:
    files = LineFiles(None, part=1, rate_hz=8000)
    assert files.recording is None
    files.begin(disk)
    await files.close(timeout_s=2.0)
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []
