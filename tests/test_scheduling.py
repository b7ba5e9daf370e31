"""Who tests what next."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.scheduling import LOADS, PLACES, choose, load_of

ROOT = Path(__file__).parents[1]
HEAVY = "tests/e2e/test_hang_ups.py"
OTHER_HEAVY = "tests/e2e/test_resume.py"
CALLS = "tests/e2e/test_whole_calls.py"
SHORTER_CALLS = "tests/e2e/test_silence.py"
OTHER = "tests/bot/test_call.py"
SHORT = "tests/test_docs.py"


def test_every_file_that_is_known_is_there() -> None:
    assert [file for file in LOADS if not (ROOT / file).is_file()] == []


def test_what_plays_calls_is_known() -> None:
    players = [
        path
        for path in (ROOT / "tests" / "e2e").glob("test_*.py")
        if "open_call_player" in path.read_text() or "open_served_process" in path.read_text()
    ]
    assert len(players) > 10
    assert [path for path in players if not load_of(str(path.relative_to(ROOT))).places] == []


def test_calls_begin_first_the_heaviest_and_longest_before() -> None:
    waiting = [SHORT, CALLS, OTHER, OTHER_HEAVY, HEAVY]
    assert choose(waiting, [], []) == HEAVY
    assert choose(waiting[:-1], [], []) == OTHER_HEAVY
    assert choose([SHORT, SHORTER_CALLS, CALLS], [], []) == CALLS


def test_calls_that_find_no_place_give_way() -> None:
    others = [[HEAVY], [CALLS], [CALLS]]
    assert choose([HEAVY, CALLS, SHORT], [], others) == CALLS
    assert choose([HEAVY, CALLS, OTHER, SHORT], [], [*others, [CALLS]]) == OTHER


def test_who_plays_calls_gets_something_else_for_afterwards() -> None:
    assert choose([HEAVY, OTHER, SHORT], [CALLS], []) == SHORT
    assert choose([HEAVY, CALLS], [CALLS], []) == CALLS


files = st.sampled_from([*LOADS, SHORT])


@given(st.lists(files, min_size=1), st.lists(files), st.lists(st.lists(files), max_size=5))
def test_there_is_always_something_to_do_and_too_much_only_when_nothing_else_is_left(
    waiting: list[str], own: list[str], others: list[list[str]]
) -> None:
    chosen = choose(waiting, own, others)
    assert chosen in waiting
    taken = sum(max((load_of(file).places for file in one), default=0) for one in others)
    if load_of(chosen).places and taken + load_of(chosen).places > PLACES:
        assert all(load_of(file).places for file in waiting)
