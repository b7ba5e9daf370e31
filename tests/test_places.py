"""Room for whole calls, taken by several processes."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.places import MOST, Places, fit, free_share


@pytest.mark.parametrize(
    ("wanted", "taken", "free", "fits"),
    [
        (1, [], 0.0, True),
        (9, [], 0.0, True),
        (1, [2, 1], 0.21, True),
        (1, [2, 1], 0.19, False),
        (2, [2, 1], 0.39, False),
        (2, [2, 1], 0.41, True),
        (1, [3, 3], 1.0, False),
    ],
)
def test_what_fits(wanted: int, taken: list[int], free: float, fits: bool) -> None:
    assert fit(wanted, taken, free) is fits


def test_what_is_free_is_a_share() -> None:
    assert 0.0 <= free_share() <= 1.0


def hold(file: Path, number: int) -> "subprocess.Popen[str]":
    """Have another process take places, and keep them until it ends."""
    program = (
        "import pathlib, sys, tests.places as p\n"
        f"p.Places(pathlib.Path({str(file)!r})).take({number})\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()"
    )
    return subprocess.Popen(  # noqa: S603 - ours
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_who_finds_no_room_waits_until_another_ends(tmp_path: Path) -> None:
    file = tmp_path / "places"
    with hold(file, MOST) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        mine = Places(file)
        taking = threading.Thread(target=mine.take, args=(1,))
        taking.start()
        taking.join(0.6)
        assert taking.is_alive()
        other.kill()
        other.wait(5)
        taking.join(5)
        assert not taking.is_alive()


def test_who_wants_none_takes_none_and_what_is_given_back_is_free(tmp_path: Path) -> None:
    one = Places(tmp_path / "places")
    one.take(MOST)
    one.take(0)
    one.take(1)
    one.give_back()
    with hold(tmp_path / "places", MOST) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        other.kill()
