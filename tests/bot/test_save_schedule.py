import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from bot.save_schedule import GAP_S, LAZY_S, RETRY_S, SaveSchedule


def test_what_is_urgent_is_written_at_once() -> None:
    schedule = SaveSchedule()
    schedule.changed(5.0)
    assert schedule.due_s() <= 5.0


def test_what_changes_in_a_burst_is_written_once() -> None:
    schedule = SaveSchedule()
    schedule.changed(5.0)
    schedule.began(5.0)
    schedule.changed(5.01)
    assert schedule.due_s() == 5.0 + GAP_S


def test_what_changes_bit_by_bit_is_written_now_and_then() -> None:
    schedule = SaveSchedule()
    schedule.began(5.0)
    assert schedule.due_s() == 5.0 + LAZY_S


def test_what_the_store_refused_is_tried_again() -> None:
    schedule = SaveSchedule()
    schedule.began(5.0)
    schedule.refused(5.3)
    schedule.changed(5.4)
    assert schedule.due_s() == 5.3 + RETRY_S


def test_when_it_is_over_nothing_is_due() -> None:
    schedule = SaveSchedule()
    schedule.changed(5.0)
    schedule.over()
    assert schedule.due_s() == math.inf


@given(changes=st.lists(st.floats(0.0, 0.5), max_size=50))
def test_each_change_is_written_soon_and_writes_keep_their_distance(changes: list[float]) -> None:
    schedule, now_s = SaveSchedule(), 0.0
    writes = [0.0]
    schedule.began(0.0)
    for pause_s in changes:
        until_s = now_s + pause_s
        while schedule.due_s() <= until_s:
            writes.append(schedule.due_s())
            schedule.began(writes[-1])
        now_s = until_s
        schedule.changed(now_s)
        assert schedule.due_s() <= now_s + GAP_S
    gaps = [later - sooner for sooner, later in itertools.pairwise(writes)]
    assert all(gap_s >= GAP_S - 1e-9 for gap_s in gaps)
    assert all(gap_s <= LAZY_S + 1e-9 for gap_s in gaps)
