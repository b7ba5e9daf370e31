import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import (
    CallerGap,
    CallerOver,
    CallerReport,
    CallerTurn,
    call_figures,
    held_lines,
    over_figures,
    percentile,
    ratio,
)


def turn(text: str, answer_s: float | None, *, stop_s: float | None = None) -> CallerTurn:
    return CallerTurn(text=text, answer_s=answer_s, pause_s=stop_s, stop_s=stop_s)


def report(*turns: CallerTurn, outcome: str = "ok", gaps: tuple[CallerGap, ...] = ()) -> CallerReport:
    return CallerReport(
        scenario="hours",
        outcome=outcome,
        reasons=() if outcome == "ok" else ("nobody answered",),
        duration_s=30.0,
        greeting_s=0.1,
        turns=turns,
        gaps=gaps,
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1.0), (0.25, 1.0), (0.5, 2.0), (0.51, 3.0), (0.95, 4.0), (1.0, 4.0)]
)
def test_percentiles_are_values_that_occurred(share: float, expected: float) -> None:
    assert percentile([4.0, 2.0, 1.0, 3.0], share) == expected


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.001, 1.0))
def test_at_least_the_share_lies_at_or_below_the_percentile(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        percentile([1.0], share)


def test_a_line_is_held_by_what_happened_under_the_least_load() -> None:
    quiet = [report(turn("Tuesday.", 4.0), turn("Yes.", 1.0)), report(turn("Tuesday.", 3.8))]
    busy = [report(turn("Tuesday.", 1.0), turn("Yes.", 5.0), turn("Bye.", 5.0))]
    # Under load a slow answer to "Yes." is slowness; "Bye." was only ever said there.
    assert held_lines({10: busy, 1: quiet}) == {"Tuesday.", "Bye."}


def test_figures_of_a_row() -> None:
    reports = [
        report(
            turn("Tuesday.", 0.6, stop_s=0.2),
            turn("Yes.", -0.1),
            turn("Bye.", None),
            gaps=(
                CallerGap(length_s=0.07, inside=True),
                CallerGap(length_s=0.05, inside=True),
                CallerGap(length_s=0.9, inside=False),
            ),
        ),
        report(turn("Tuesday.", 3.0), turn("Yes.", 0.8), outcome="failed"),
    ]
    figures = call_figures(reports, frozenset({"Tuesday."}))
    assert (figures.calls, figures.completed, figures.call_minutes) == (2, 1, 1.0)
    assert (figures.answer.count, figures.answer.p50, figures.answer.p95) == (3, 0.8, 3.0)
    assert (figures.answer_decided.count, figures.answer_decided.p50) == (1, 0.8)
    assert (figures.held, figures.early, figures.unanswered) == (1, 1, 1)
    assert (figures.stop.count, figures.stop.p50) == (1, 0.2)
    assert (figures.gaps, figures.longest_gap_s) == (1, 0.07)
    assert figures.failures == ("hours: nobody answered",)


def test_a_report_of_a_call_that_never_was_answered_is_read() -> None:
    raw = '{"scenario": "hours", "outcome": "failed", "reasons": ["rang out"], "state": "no-answer"}'
    figures = call_figures([CallerReport.model_validate_json(raw)], frozenset())
    assert (figures.completed, figures.greeting.p50, figures.answer.count) == (0, None, 0)


@pytest.mark.parametrize(
    ("ours", "plain", "expected"), [(1.0, 4.0, 0.25), (None, 1.0, None), (1.0, None, None), (1.0, 0.0, None)]
)
def test_ratios(ours: float | None, plain: float | None, expected: float | None) -> None:
    assert ratio(ours, plain) == expected


def test_what_became_of_sounds_over_the_agent() -> None:
    def over(kind: str, **fields: object) -> CallerOver:
        return CallerOver.model_validate({"kind": kind, "over_agent": True} | fields)

    overs = (
        over("cough", pause_s=0.1, resumed_s=0.6),
        over("click", pause_s=0.2, resumed_s=0.9, lost_words=2),
        over("cough", pause_s=0.1, stopped=True),
        over("echo"),
        over("interruption", pause_s=0.1, stopped=True),
        over("cough", over_agent=False),
    )
    turns = (turn("a", 1.0), turn("b", 1.0).model_copy(update={"cut_off": True}))
    one = report(*turns).model_copy(update={"overs": overs})
    figures = over_figures([one, report()], {"cough", "click", "echo"})
    assert (figures.made, figures.paused, figures.resumed, figures.stopped) == (4, 3, 2, 1)
    assert (figures.lost_words, figures.harmed) == (2, 2)
    assert (figures.pause.p95, figures.resumed_after.p50) == (0.2, 0.6)
    assert over_figures([one], {"interruption"}).stopped == 1
    assert call_figures([one], frozenset()).cut_off == 1
