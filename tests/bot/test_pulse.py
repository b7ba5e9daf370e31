import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.pulse import PulseWatch


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="> 0"):
        PulseWatch(limit_s=0)


def test_who_stops_is_told_of_when_the_limit_is_over() -> None:
    watch = PulseWatch(limit_s=3.0)
    told = {second: watch.look({"a": min(second, 4), "b": second}, float(second)) for second in range(9)}
    assert {second: processes for second, processes in told.items() if processes} == {7: ["a"]}
    assert watch.is_alive("b", 8.0)
    assert not watch.is_alive("a", 8.0)
    assert not watch.is_alive("nobody", 8.0)


def test_who_stays_stopped_is_told_of_again() -> None:
    watch = PulseWatch(limit_s=3.0, again_s=5.0)
    told = [second for second in range(20) if watch.look({"a": 1}, float(second))]
    assert told == [3, 8, 13, 18]


def test_who_beats_again_is_alive() -> None:
    watch = PulseWatch(limit_s=3.0)
    numbers = [1, 1, 1, 1, 2, 2, 2, 2]
    told = [second for second, number in enumerate(numbers) if watch.look({"a": number}, float(second))]
    assert told == [3, 7]


def test_who_has_left_is_forgotten() -> None:
    watch = PulseWatch(limit_s=3.0)
    for second in range(3):
        watch.look({"a": 1}, float(second))
    assert watch.look({}, 3.0) == []
    assert watch.look({"a": 1}, 4.0) == []


def test_who_was_held_up_itself_suspects_nobody() -> None:
    watch = PulseWatch(limit_s=3.0, held_up_s=2.0)
    watch.look({"a": 1}, 0.0)
    assert watch.look({"a": 1}, 60.0) == []
    assert watch.look({"a": 1}, 61.0) == []
    assert watch.look({"a": 1}, 63.0) == ["a"]


@given(gaps=st.lists(st.floats(0.01, 1.9), min_size=1, max_size=60), beats=st.data())
def test_nobody_is_suspected_before_the_limit_and_nobody_is_missed(
    gaps: list[float], beats: st.DataObject
) -> None:
    watch = PulseWatch(limit_s=3.0, held_up_s=2.0, again_s=1e9)
    now_s, number, last_beat_s = 0.0, 0, 0.0
    watch.look({"a": number}, now_s)
    is_told = False
    for gap_s in gaps:
        now_s += gap_s
        if beats.draw(st.booleans()):
            number, last_beat_s, is_told = number + 1, now_s, False
        told = watch.look({"a": number}, now_s)
        silent_s = now_s - last_beat_s
        assert bool(told) == (silent_s >= 3.0 and not is_told)
        is_told = is_told or bool(told)
