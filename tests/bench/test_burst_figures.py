from bench.burst_figures import BurstReport, burst_figures, burst_goals, burst_lines
from bench.figures import CallerTurn

TURN = CallerTurn(text="Hi", answer_s=0.5, pause_s=None, stop_s=None)


def greeted(greeting_s: float, *turns: CallerTurn) -> BurstReport:
    return BurstReport(
        scenario="burst",
        outcome="ok",
        streams=1,
        rang_s=0.1,
        first_sound_s=0.2 + greeting_s,
        greeting_s=greeting_s,
        turns=turns,
    )


TOLD = BurstReport(scenario="burst", outcome="ok", rang_s=0.3, first_sound_s=0.05)
LOST = BurstReport(scenario="burst", outcome="failed", rang_s=None)


def test_who_heard_what() -> None:
    reports = [greeted(0.1, TURN), greeted(0.4), TOLD, LOST]
    figures = burst_figures(reports, cpu_s=1.0, lag_p99_s=None, noise=["noisy"])
    assert (figures.callers, figures.greeted, figures.told, figures.lost) == (4, 2, 1, 1)
    assert figures.greeting_s == (0.1, 0.4, 0.4)
    assert figures.answer_s == (0.5, 0.5, 0.5)
    assert figures.answered == 1
    assert [round(value or 0.0, 3) for value in figures.ring_to_voice_s] == [0.4, 0.7, 0.7]


def test_a_stream_without_a_sound_is_a_lost_caller() -> None:
    mute = BurstReport(scenario="burst", outcome="failed", streams=1, rang_s=0.1)
    assert burst_figures([mute], cpu_s=0.0, lag_p99_s=None, noise=[]).lost == 1


def test_goals_are_for_every_caller_and_for_the_greeting() -> None:
    good = burst_figures([greeted(0.3), TOLD], cpu_s=0.0, lag_p99_s=None, noise=[])
    bad = burst_figures([greeted(0.31), LOST], cpu_s=0.0, lag_p99_s=None, noise=[])
    none = burst_figures([LOST], cpu_s=0.0, lag_p99_s=None, noise=[])
    assert [goal.is_held for goal in burst_goals(good)] == [True, True]
    assert [goal.is_held for goal in burst_goals(bad)] == [False, False]
    assert [goal.is_held for goal in burst_goals(none)] == [False, False]


def test_figures_stand_side_by_side_or_alone() -> None:
    one = burst_figures([greeted(0.1, TURN)], cpu_s=1.0, lag_p99_s=0.01, noise=[])
    other = burst_figures([greeted(0.2, TURN)], cpu_s=2.0, lag_p99_s=0.02, noise=[])
    rows = {line.name: line for line in burst_lines(one, other)}
    assert rows["greeting from start, s: p50"].ratio == "0.50"
    assert {line.plain for line in burst_lines(one, None)} == {"-"}
