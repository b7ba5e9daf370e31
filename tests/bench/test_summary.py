import dataclasses
from io import StringIO

import pytest
from rich.console import Console

from bench.figures import CallerGap, CallerReport, CallerTurn
from bench.load import Noise, Plan, Row, fit, person
from bench.servers import BOTH, Bot
from bench.summary import Goal, further_call_mb, goals, measure, results_page, terminal_tables

QUIET = Noise(steal_share=0.0, others_share=0.01, calibration=1.0, sims_late_s=0.001)
IDLE = {Bot.OURS: 250.0, Bot.PLAIN: 160.0}


def row(bot: Bot, calls: int, *, answer_s: float, cpu_s: float, private_mb: float, gap_s: float = 0.0) -> Row:
    turns = (
        CallerTurn(text="Yes.", answer_s=answer_s, pause_s=None, stop_s=None),
        CallerTurn(text="Tuesday.", answer_s=4.0 if bot is Bot.PLAIN else 0.9, pause_s=None, stop_s=None),
    )
    report = CallerReport(
        scenario="hours",
        outcome="ok",
        duration_s=60.0,
        greeting_s=0.05 if bot is Bot.OURS else 0.9,
        turns=turns,
        gaps=(CallerGap(length_s=gap_s, inside=True),),
    )
    return Row(bot, calls, (report,), cpu_s, 300.0, private_mb, 0.01, QUIET, 60.0)


def rows(*, ours_answer_s: float = 0.7, ours_cpu_s: float = 3.0, gap_s: float = 0.0) -> list[Row]:
    return [
        row(Bot.OURS, 1, answer_s=0.6, cpu_s=4.0, private_mb=200),
        row(Bot.PLAIN, 1, answer_s=0.9, cpu_s=10.0, private_mb=180),
        row(Bot.PLAIN, 10, answer_s=1.0, cpu_s=8.0, private_mb=720),
        row(Bot.OURS, 10, answer_s=ours_answer_s, cpu_s=ours_cpu_s, private_mb=290, gap_s=gap_s),
    ]


def held(found: list[Goal]) -> list[bool | None]:
    return [goal.is_held for goal in found]


def test_everything_held() -> None:
    assert held(goals(measure(rows()))) == [True] * 5


@pytest.mark.parametrize(
    ("worse", "number"),
    [
        (rows(ours_answer_s=0.89), 1),
        (rows(gap_s=0.061), 2),
        (rows(ours_cpu_s=4.1), 3),
    ],
    ids=["answer", "gap", "cpu"],
)
def test_each_goal_can_be_missed(worse: list[Row], number: int) -> None:
    assert held(goals(measure(worse))) == [n != number for n in range(5)]


def test_ratios_are_judged_at_the_heaviest_load_that_both_can_bear() -> None:
    def failed(one: Row) -> Row:
        lost = tuple(report.model_copy(update={"outcome": "failed"}) for report in one.reports)
        return dataclasses.replace(one, reports=lost)

    light_only = measure([failed(one) if one.calls == 10 and one.bot is Bot.PLAIN else one for one in rows()])
    assert [goal.measured.partition(" at ")[2] for goal in goals(light_only)][1::2] == ["1 at once"] * 2
    nowhere = measure([failed(one) if one.bot is Bot.OURS else one for one in rows()])
    assert held(goals(nowhere)) == [True, None, True, None, True]
    page = results_page(nowhere, IDLE, conditions=[], how="")
    assert "First Ring, 1 failed: hours: ." in page


def test_a_disturbed_run_says_so_at_the_top() -> None:
    noisy = Noise(steal_share=0.1, others_share=0.0, calibration=1.0, sims_late_s=0.0)
    disturbed = [dataclasses.replace(one, noise=noisy) for one in rows()]
    pages = [results_page(measure(some), IDLE, conditions=[], how="") for some in (rows(), disturbed)]
    assert ["not quiet" in page for page in pages] == [False, True]
    assert "Noisy: First Ring: 10% of the core stolen by the host." in pages[1]


def test_memory_is_the_growth_per_call_beyond_the_lightest_load() -> None:
    measured = measure(rows())
    assert further_call_mb(measured, Bot.OURS) == pytest.approx(10.0)
    assert further_call_mb(measured, Bot.PLAIN) == pytest.approx(60.0)
    assert further_call_mb(measured[:1], Bot.PLAIN) is None


def test_lines_the_plain_bot_waits_after_are_left_out_of_both() -> None:
    figures = measure(rows())[0].figures
    assert [figures[bot].answer_decided.p95 for bot in BOTH] == [0.6, 0.9]
    assert [figures[bot].answer.p95 for bot in BOTH] == [0.9, 4.0]


def test_what_was_not_measured_is_neither_held_nor_missed() -> None:
    light = [one for one in rows() if one.calls == 1]
    assert held(goals(measure(light))) == [True, True, None, True, None]


def test_repeats_are_put_together_and_the_noisier_one_marks_the_row() -> None:
    noisy = Noise(steal_share=0.1, others_share=0.5, calibration=2.0, sims_late_s=0.1)
    again = [dataclasses.replace(one, noise=noisy, cpu_s=one.cpu_s + 2) for one in rows()]
    light = measure([*rows(), *again])[0]
    assert light.figures[Bot.OURS].calls == 2
    assert light.cpu_per_call_minute(Bot.OURS) == pytest.approx(5.0)
    assert len(light.noise) == 8
    assert measure(rows())[0].noise == []


def test_page_and_tables_show_the_same_figures() -> None:
    measured = measure(rows())
    page = results_page(measured, IDLE, conditions=["a machine"], how="## How\n")
    console = Console(file=StringIO(), width=160)
    for table in terminal_tables(measured, IDLE):
        console.print(table)
    assert isinstance(console.file, StringIO)
    printed = console.file.getvalue()
    assert "| CPU-s per call-minute | 3.0 | 8.0 | 0.38 |" in page
    assert page.startswith("# First Ring")
    assert "- a machine" in page
    assert page.endswith("## How\n")
    for text in ("0.38", "1 at once", "10 at once", "memory per further call"):
        assert text in page
        assert text in printed


def test_the_same_people_call_either_server() -> None:
    plan = Plan(calls=3, window_s=60, mix=("booking", "hours", "message"), seed=4)
    first, again = ([next(script) for _ in range(5)] for script in (person(plan, 1), person(plan, 1)))
    # `zip` of two scripts would share one iterator's state if they had any.
    assert first == again
    assert [scenario for scenario, _ in first] == ["hours", "message", "booking", "hours", "message"]
    other = dataclasses.replace(plan, seed=5)
    assert next(person(other, 1)) != first[0]


@pytest.mark.parametrize(
    ("left_s", "expected"), [(200.0, "booking"), (60.0, "message"), (30.0, "hours"), (10.0, None)]
)
def test_a_call_begins_only_if_it_ends_in_time(left_s: float, expected: str | None) -> None:
    assert fit("booking", ("booking", "hours", "message"), left_s) == expected
