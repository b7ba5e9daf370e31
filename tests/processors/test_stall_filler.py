import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.audio_cache import CachedSpeech
from processors.stall_filler import Fillers

SPEECH = CachedSpeech(b"\1\0" * 80, 8000)


def fillers(*lines: str, memory: set[str] | None = None, missed: list[str] | None = None) -> Fillers:
    def lookup(line: str) -> CachedSpeech | None:
        return SPEECH if memory is None or line in memory else None

    return Fillers(lines, lookup=lookup, on_miss=[].append if missed is None else missed.append)


def test_lines_come_in_turn() -> None:
    lines = fillers("one", "two", "three")
    said = [said[0] for _ in range(4) if (said := lines.next())]
    assert said == ["one", "two", "three", "one"]


def test_what_is_not_in_memory_is_left_out_and_asked_for() -> None:
    missed: list[str] = []
    lines = fillers("one", "two", "three", memory={"one", "three"}, missed=missed)
    assert [said[0] for _ in range(3) if (said := lines.next())] == ["one", "three", "one"]
    assert missed == ["two"]


def test_nothing_is_said_rather_than_the_same_again() -> None:
    memory = {"one"}
    lines = fillers("one", "two", memory=memory)
    assert lines.next() == ("one", SPEECH)
    assert lines.next() is None
    memory.add("two")
    assert lines.next() == ("two", SPEECH)


def test_two_lines_that_differ_are_the_least() -> None:
    with pytest.raises(ValueError, match="at least two different"):
        fillers("one", "one")


@given(
    st.sets(st.sampled_from("abcde"), min_size=2), st.lists(st.sets(st.sampled_from("abcde")), max_size=30)
)
def test_never_the_same_twice_in_a_row_whatever_is_in_memory(
    lines: set[str], memories: list[set[str]]
) -> None:
    memory: set[str] = set()
    chosen = fillers(*sorted(lines), memory=memory)
    last = None
    for held in memories:
        memory.clear()
        memory.update(held)
        said = chosen.next()
        if said is None:
            assert memory & lines <= {last}
            continue
        assert said[0] in memory
        assert said[0] != last
        last = said[0]
