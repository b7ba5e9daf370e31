from pathlib import Path

import pytest

from processors.atomic_file import write_atomically


def test_replaces_the_whole_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "timeline.json"
    write_atomically(target, b"a long first version")
    write_atomically(target, b"second")
    assert target.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [target]


def test_failure_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "occupied"
    target.mkdir()  # a file cannot replace a folder
    with pytest.raises(OSError, match="occupied"):
        write_atomically(target, b"x")
    assert list(tmp_path.iterdir()) == [target]
