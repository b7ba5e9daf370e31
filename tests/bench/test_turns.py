import pytest

from bench.turn_corpus import QUICK, build
from bench.turns import halves, read_waste

EXPOSITION = """\
# HELP firstring_speculations_total Answers begun early.
# TYPE firstring_speculations_total counter
firstring_speculations_total{outcome="withdrawn"} 7.0
firstring_speculations_created{outcome="withdrawn"} 1.7e+09
firstring_speculation_wasted_usd_total 0.25
firstring_turns_total{agent="reception"} 12.0
"""


@pytest.mark.parametrize(("callers", "sizes"), [(2, [2, 2]), (3, [4]), (4, [4])])
def test_a_corpus_is_halved_where_both_halves_keep_everybody_busy(callers: int, sizes: list[int]) -> None:
    calls = build(1, QUICK)
    parts = halves(calls, callers)
    assert [len(part) for part in parts] == sizes
    assert {call.name for part in parts for call in part} == {call.name for call in calls}


def test_waste_is_what_is_counted_of_speculation() -> None:
    assert read_waste(EXPOSITION) == [
        ('firstring_speculations{outcome="withdrawn"}', 7.0),
        ("firstring_speculation_wasted_usd", 0.25),
    ]
    assert read_waste("") == []
