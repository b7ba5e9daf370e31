from io import StringIO

import pytest
from rich.console import Console

from bench.figures import CallerOver, CallerReport, CallerTurn
from bench.servers import Bot
from bench.turn_figures import (
    Fault,
    Share,
    decided_turns,
    faults,
    measure_turns,
    terminal_tables,
    turn_figures,
    turn_goals,
    turns_page,
)


def turn(answer_s: float | None, start_s: float = 5.0, **fields: object) -> CallerTurn:
    shape = {"text": "Where?", "answer_s": answer_s, "pause_s": None, "stop_s": None, "start_s": start_s}
    return CallerTurn.model_validate(shape | {"end_s": start_s + 1.0} | fields)


def over(kind: str, start_s: float = 5.0, **fields: object) -> CallerOver:
    shape = {"kind": kind, "over_agent": True, "start_s": start_s, "end_s": start_s + 1.0}
    return CallerOver.model_validate(shape | fields)


def report(*turns: CallerTurn, overs: tuple[CallerOver, ...] = (), **fields: object) -> CallerReport:
    shape = {"scenario": "t01", "outcome": "ok", "turns": turns, "overs": overs}
    return CallerReport.model_validate(shape | fields)


HEEDED = over("interruption", pauses=1, pause_s=0.04, stopped=True)
RESUMED = over("cough", 8.0, pauses=1, pause_s=0.05, resumed_s=0.5)


def test_turns_are_compared_where_the_plain_bot_decided_at_once() -> None:
    plain = report(turn(0.9), turn(3.8), turn(None))
    ours = report(turn(0.5), turn(0.7), turn(0.6))
    figures = measure_turns({Bot.OURS: [ours], Bot.PLAIN: [plain]})
    assert decided_turns([plain]) == {("t01", 0)}
    assert (figures[Bot.OURS].answer.count, figures[Bot.OURS].answer_decided.p95) == (3, 0.5)
    assert figures[Bot.PLAIN].answer_decided.p95 == 0.9
    assert figures[Bot.PLAIN].missed == Share(1, 3)


def test_only_heeded_interruptions_have_a_stop() -> None:
    ignored = over("interruption", 20.0, pauses=1, pause_s=0.04, resumed_s=0.3)
    turns = (turn(0.5, stop_s=0.05), turn(0.5, 20.0, stop_s=4.0))
    figures = turn_figures([report(*turns, overs=(HEEDED, ignored))], frozenset())
    assert figures.heeded == Share(1, 2)
    assert (figures.stop.count, figures.stop.p95) == (1, 0.05)
    assert figures.pause.count == 2


@pytest.mark.parametrize(
    ("word_s", "cut_off", "old"),
    [(5.02, False, 0), (5.5, False, 1), (5.5, True, 0), (6.4, False, 0)],
    ids=["before the pause", "after it", "of another phrase", "of the answer"],
)
def test_words_of_the_old_phrase_are_counted_while_the_caller_speaks(
    word_s: float, *, cut_off: bool, old: int
) -> None:
    call = report(
        turn(0.4, cut_off=cut_off), overs=(HEEDED,), agent_words=[("we", 4.0, 4.2), ("open", word_s, 9.0)]
    )
    assert turn_figures([call], frozenset()).old_words == old


@pytest.mark.parametrize(
    ("sound", "harmed", "unmoved"),
    [
        (RESUMED, 0, 1),
        (over("click"), 0, 1),
        (over("echo", pauses=1, pause_s=0.1, resumed_s=1.75), 0, 0),
        (over("hum", pauses=1, pause_s=0.1, resumed_s=1.65), 0, 1),
        (over("door", pauses=1, pause_s=0.1, stopped=True), 1, 0),
        (over("hum", pauses=1, pause_s=0.1, resumed_s=0.2, lost_words=2), 1, 0),
    ],
    ids=["resumed", "not moved", "too late", "soon after a long sound", "stopped", "words lost"],
)
def test_what_a_harmless_sound_may_do(sound: CallerOver, harmed: int, unmoved: int) -> None:
    call = report(overs=(sound,))
    figures = turn_figures([call], frozenset())
    assert (figures.all_harmless.harmed, figures.unmoved) == (harmed, Share(unmoved, 1))
    assert figures.harmless[sound.kind].made == 1
    assert bool(faults([call])) == (not unmoved)


def test_sounds_in_a_silence_count_for_nothing() -> None:
    silent = over("cough", over_agent=False)
    assert turn_figures([report(overs=(silent,))], frozenset()).all_harmless.made == 0
    assert faults([report(overs=(silent,))]) == []


def test_faults_are_told_with_call_and_time() -> None:
    call = report(
        turn(None, 3.0),
        turn(0.5, 4.0, cut_off=True),
        overs=(over("interruption", 6.0, text="stop"),),
        outcome="failed",
        reasons=("too long",),
        duration_s=60.0,
        lost_words=3,
        repeated_words=1,
    )
    assert faults([call]) == [
        Fault("t01", 0.0, "3 words lost in all"),
        Fault("t01", 0.0, "1 words repeated in all"),
        Fault("t01", 3.0, "no answer to “Where?”"),
        Fault("t01", 4.0, "the caller was cut off in “Where?”"),
        Fault("t01", 7.0, "interruption “stop” was not heeded"),
        Fault("t01", 60.0, "failed: too long"),
    ]


def corpus(
    *, answer_s: float, pause_s: float, harmed: int = 0, late: int = 0, ignored: int = 0, cut_off: int = 0
) -> list[CallerReport]:
    overs = [over("cough", pauses=1, pause_s=0.1, stopped=True)] * harmed
    overs += [over("cough", pauses=1, pause_s=0.1, resumed_s=1.9)] * late
    overs += [RESUMED] * (100 - harmed - late)
    overs += [over("interruption", 5.0, pauses=1, pause_s=pause_s, stopped=True)] * (100 - ignored)
    overs += [over("interruption", 90.0)] * ignored
    turns = [turn(answer_s, stop_s=pause_s, interrupts=True, cut_off=n < cut_off) for n in range(100)]
    return [report(*turns, overs=tuple(overs))]


PLAIN = corpus(answer_s=1.0, pause_s=0.4, harmed=40, cut_off=5)


def test_every_goal_can_be_held() -> None:
    figures = measure_turns(
        {
            Bot.OURS: corpus(answer_s=0.5, pause_s=0.1),
            Bot.PLAIN: PLAIN,
            Bot.CAUTIOUS: corpus(answer_s=1.0, pause_s=0.1),
        }
    )
    assert [goal.is_held for goal in turn_goals(figures)] == [True] * 10


def test_who_pauses_and_goes_on_during_an_interruption_played_old_audio() -> None:
    ours = corpus(answer_s=0.5, pause_s=0.1)
    went_on = over("interruption", 5.0, pauses=2, pause_s=0.1, stopped=True)
    goals = turn_goals(measure_turns({Bot.OURS: [*ours, report(overs=(went_on,))], Bot.PLAIN: PLAIN}))
    assert [number for number, goal in enumerate(goals) if goal.is_held is False] == [4]


def test_without_speculation_it_must_be_no_slower_than_plain() -> None:
    ours, cautious = corpus(answer_s=0.5, pause_s=0.1), corpus(answer_s=1.01, pause_s=0.1)
    goals = turn_goals(measure_turns({Bot.OURS: ours, Bot.PLAIN: PLAIN, Bot.CAUTIOUS: cautious}))
    assert [number for number, goal in enumerate(goals) if goal.is_held is False] == [9]


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        (corpus(answer_s=0.62, pause_s=0.1), {0}),
        (corpus(answer_s=0.7, pause_s=0.1), {0, 1}),
        (corpus(answer_s=0.5, pause_s=0.13), {2}),
        (corpus(answer_s=0.5, pause_s=0.3), {2, 3}),
        (corpus(answer_s=0.5, pause_s=0.1, harmed=1), {5}),
        (corpus(answer_s=0.5, pause_s=0.1, late=6), {6}),
        (corpus(answer_s=0.5, pause_s=0.1, ignored=3), {7}),
        (corpus(answer_s=0.5, pause_s=0.1, cut_off=6), {8}),
    ],
    ids=["p50", "p95", "pause", "stop", "word", "late", "ignored", "cut off"],
)
def test_each_goal_can_be_missed(ours: list[CallerReport], missed: set[int]) -> None:
    goals = turn_goals(measure_turns({Bot.OURS: ours, Bot.PLAIN: PLAIN}))
    assert {number for number, goal in enumerate(goals) if goal.is_held is False} == missed


def test_a_server_alone_is_not_compared_and_few_sounds_are_not_judged() -> None:
    figures = measure_turns({Bot.OURS: [report(turn(0.5), overs=(RESUMED, HEEDED))]})
    held = [goal.is_held for goal in turn_goals(figures)]
    assert held == [None, None, True, None, True, None, None, None, None, None]
    out = Console(file=StringIO(), width=120)
    for table in terminal_tables(figures):
        out.print(table)


def test_the_page_names_what_went_wrong_with_its_seed() -> None:
    ours = corpus(answer_s=0.5, pause_s=0.1, harmed=1)
    figures = measure_turns({Bot.OURS: ours, Bot.PLAIN: PLAIN})
    page = turns_page(
        figures,
        conditions=["today"],
        noise=[],
        made_of=[("calls", 1)],
        wasted=[("firstring_speculations", 3.0)],
        wrong={Bot.OURS: faults(ours), Bot.PLAIN: faults(PLAIN)},
        seeds={"t01": 77},
        how="How.",
        special=["| call | expected |", "|---|---|"],
    )
    assert "\n## Special calls\n\n| call | expected |\n" in page
    assert "- t01 (seed 77) at 6.0 s: cough stopped the agent" in page
    assert "plain Pipecat: 45 faults." in page
    assert "| firstring_speculations | 3 |" in page
    assert "not quiet" not in page
