import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import spool_file
from store.spool_file import (
    MOST_REFUSED_BYTES,
    REFUSED_NAME,
    SpoolFile,
    keep_refused,
    next_orphan,
    read_writes,
)
from store.spool_table import Write

ROOT = Path(__file__).parent.parent.parent
ENDING = ".test.spool"


def write(number: int, body: bytes = b'{"a":1}') -> Write:
    return Write(number, "call", "CA1/1/one", body, supersedes=True, is_vital=True)


def open_file(folder: Path, *, most_bytes: int = 1 << 20) -> SpoolFile:
    return SpoolFile(folder / f"one{ENDING}", most_bytes=most_bytes)


def content(folder: Path) -> bytes:
    return (folder / f"one{ENDING}").read_bytes()


def test_what_waits_is_read_again_as_it_was(tmp_path: Path) -> None:
    file = open_file(tmp_path / "spool")
    file.append([write(1), write(2, b'"\xc3\xbc \\n\\t"'), Write(3, "event", "", b"null")], done_up_to=0)
    file.append([write(4)], done_up_to=1)
    assert read_writes(content(tmp_path / "spool")) == [
        write(2, b'"\xc3\xbc \\n\\t"'),
        Write(3, "event", "", b"null"),
        write(4),
    ]


@given(st.integers(0, 400), st.binary(max_size=30))
def test_of_a_file_that_was_cut_short_or_overwritten_whole_lines_are_read(cut: int, noise: bytes) -> None:
    whole = b"".join(spool_file._write_line(write(number)) for number in range(1, 5))
    found = read_writes(whole[:cut] + noise)
    assert found == [write(number) for number in range(1, 5)][: len(found)]
    assert len(found) >= whole[:cut].count(b"\n") - 1
    assert read_writes(noise) == []


def test_nothing_of_an_append_that_the_disk_refused_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = open_file(tmp_path)
    file.append([write(1)], done_up_to=0)
    real_write = os.write

    def half(descriptor: int, data: memoryview) -> int:
        if len(data) < 60:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[:50])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        file.append([write(2)], done_up_to=0)
    monkeypatch.undo()
    file.append([write(3)], done_up_to=0)
    assert read_writes(content(tmp_path)) == [write(1), write(3)]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    file = SpoolFile(Path("/dev/full"), most_bytes=100)
    with pytest.raises(OSError, match="No space"):
        file.append([write(1)], done_up_to=0)


def test_a_file_in_which_nothing_waits_is_emptied_and_removed_in_the_end(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.append([write(1, b'"' + b"x" * 300_000 + b'"')], done_up_to=0)
    file.tidy([])
    assert content(tmp_path) == b""
    file.append([write(2)], done_up_to=1)
    file.tidy([])
    assert read_writes(content(tmp_path)) == [write(2)]  # small enough to be left alone
    file.close([])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_grows_is_written_anew_with_what_waits(tmp_path: Path) -> None:
    file = open_file(tmp_path, most_bytes=1000)
    for number in range(1, 50):
        file.append([write(number)], done_up_to=number - 1)
        file.tidy([write(number)])
        assert len(content(tmp_path)) < 1200
    assert read_writes(content(tmp_path)) == [write(49)]
    assert next_orphan(tmp_path, ENDING) is None  # the new one is locked as the old one was
    file.append([write(50)], done_up_to=0)
    file.close([write(49), write(50)])
    assert read_writes(content(tmp_path)) == [write(49), write(50)]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_never_was_on_disk_is_left_there_in_the_end(tmp_path: Path) -> None:
    open_file(tmp_path / "new").close([write(1)])
    assert read_writes(content(tmp_path / "new")) == [write(1)]
    open_file(tmp_path / "none").close([])
    assert not (tmp_path / "none").exists()


def test_the_file_of_a_process_that_lives_is_nobodys_orphan(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.append([write(1)], done_up_to=0)
    assert next_orphan(tmp_path, ENDING) is None
    file.close([write(1)])
    orphan = next_orphan(tmp_path, ENDING)
    assert orphan is not None
    assert orphan.writes() == [write(1)]
    assert next_orphan(tmp_path, ENDING) is None  # while we hold it
    orphan.let_go()
    again = next_orphan(tmp_path, ENDING)
    assert again is not None
    again.remove()
    again.let_go()
    assert next_orphan(tmp_path, ENDING) is None
    assert next_orphan(tmp_path / "nowhere", ENDING) is None


def test_orphans_of_another_name_are_left_alone(tmp_path: Path) -> None:
    open_file(tmp_path).close([write(1)])
    assert next_orphan(tmp_path, ".other.spool") is None


def test_what_a_killed_process_left_is_an_orphan(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from store.spool_file import SpoolFile; from store.spool_table import Write;"
        f"f = SpoolFile(pathlib.Path(sys.argv[1]) / 'dead{ENDING}', most_bytes=1000);"
        "f.append([Write(1, 'call', 'k', b'1')], 0); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False, timeout=50)  # noqa: S603
    orphan = next_orphan(tmp_path, ENDING)
    assert orphan is not None
    assert orphan.writes() == [Write(1, "call", "k", b"1")]
    orphan.let_go()


def test_what_was_refused_is_kept_for_a_person_and_is_bounded(tmp_path: Path) -> None:
    keep_refused(tmp_path / "spool", [write(1)], "ValueError: no")
    text = (tmp_path / "spool" / REFUSED_NAME).read_text()
    assert '"kind":"call"' in text
    assert "ValueError: no" in text
    big = write(2, b"x" * (MOST_REFUSED_BYTES // 2))
    for _ in range(4):
        keep_refused(tmp_path / "spool", [big], "no")
    assert (tmp_path / "spool" / REFUSED_NAME).stat().st_size <= MOST_REFUSED_BYTES
