"""From the callers' reports of a corpus to figures of turn-taking, goals, faults and `TURNS.md`. Pure.

Everything was measured by the callers from their own waveform; see `sims.report` for what each figure means.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.figures import (
    HELD_S,
    CallerOver,
    CallerReport,
    CallerTurn,
    OverFigures,
    Spread,
    call_figures,
    over_figures,
    ratio,
)
from bench.page import Goal, Line, goal_markdown, goal_table, line_table, markdown, percent, seconds, times
from bench.servers import BOTH, Bot
from bench.turn_corpus import HARMLESS

ANSWER_P50_SHARE = 0.60
ANSWER_P95_SHARE = 0.65
PAUSE_P95_S = 0.12
STOP_P95_S = 0.25
RESUME_S = 0.8
RESUMED_SHARE = 0.95
HEEDED_SHARE = 0.98
ENOUGH = 100
"""Sounds, or interruptions, below which a share is shown and not judged."""
_INTERRUPTION = "interruption"
_SPOKEN = (_INTERRUPTION, "backchannel")
_WORD_EDGE_S = 0.06
"""A word that begins so shortly before the agent's silence had not been heard any more."""


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """Return the share, None of nothing."""
        return self.count / self.of if self.of else None

    def __str__(self) -> str:
        return f"{self.count}/{self.of}"


@dataclass(frozen=True)
class TurnFigures:
    """What the callers made of one server."""

    calls: Share
    """That went to their end."""
    turns: int
    answer: Spread
    answer_decided: Spread
    """Of turns after which the plain bot's turn model thought the caller finished."""
    held: int
    early: int
    """Answers that began before the caller was done."""
    cut_off: Share
    cut_off_in_pauses: Share
    """Of the turns with pauses in them."""
    missed: Share
    """Turns without an answer before the caller spoke again or the call ended."""
    pause: Spread
    """From the onset of the caller's speech, interruption or backchannel, to the agent's silence, if it fell silent."""
    stop: Spread
    """The same of interruptions that were heeded, to the end of the agent's phrase."""
    heeded: Share
    """Interruptions over the agent after which it said no more of what it had been saying."""
    taken_up: int
    """Heeded interruptions during which it had gone on first."""
    old_words: int
    """Words heard of the old phrase after it had paused for an interruption that was heeded, caller still speaking."""
    harmless: Mapping[str, OverFigures]
    """By kind of sound."""
    all_harmless: OverFigures
    unmoved: Share
    """Harmless sounds that cost no word, and after which the agent was heard again within `RESUME_S`."""
    back_after: Spread
    """From the end of a harmless sound to the agent's voice; 0 when it was back before."""
    lost_words: int
    repeated_words: int
    resumed_words: int


@dataclass(frozen=True)
class Fault:
    """Something that went wrong in one call, at a time of that call."""

    call: str
    at_s: float
    what: str


TurnKey = tuple[str, int]
"""Which call of the corpus, which turn in it: both servers were told the same then, to the sample."""


def decided_turns(plain: Iterable[CallerReport]) -> frozenset[TurnKey]:
    """Return the turns which the plain bot's turn model decided at once, as far as it was called."""
    return frozenset(key for key, answer_s in _answers(plain) if answer_s < HELD_S)


def turn_figures(reports: Sequence[CallerReport], decided: frozenset[TurnKey]) -> TurnFigures:
    """Count and order what the callers of one server measured.

    Args:
        reports: Of calls that have ended.
        decided: Turns that `answer_decided` is about.
    """
    base = call_figures(reports, frozenset())
    turns = [turn for report in reports for turn in report.turns]
    paused = [turn for turn in turns if turn.inner_pauses_s]
    over_agent = [over for report in reports for over in report.overs if over.over_agent]
    interruptions = [over for over in over_agent if over.kind == _INTERRUPTION]
    heeded = [over for over in interruptions if over.stopped]
    harmless = [over for over in over_agent if over.kind in HARMLESS]
    return TurnFigures(
        calls=Share(base.completed, base.calls),
        turns=len(turns),
        answer=base.answer,
        answer_decided=Spread.of([answer_s for key, answer_s in _answers(reports) if key in decided]),
        held=base.held,
        early=base.early,
        cut_off=Share(base.cut_off, len(turns)),
        cut_off_in_pauses=Share(sum(turn.cut_off for turn in paused), len(paused)),
        missed=Share(base.unanswered, len(turns)),
        pause=Spread.of([o.pause_s for o in over_agent if o.kind in _SPOKEN and o.pause_s is not None]),
        stop=Spread.of([stop_s for report in reports for stop_s in _stops(report)]),
        heeded=Share(len(heeded), len(interruptions)),
        taken_up=sum(over.pauses > 1 for over in heeded),
        old_words=sum(_old_words(over, report) for report in reports for over in report.overs),
        harmless={kind: over_figures(reports, {kind}) for kind in HARMLESS},
        all_harmless=over_figures(reports, HARMLESS),
        unmoved=Share(sum(map(_is_unmoved, harmless)), len(harmless)),
        back_after=Spread.of([back_s for over in harmless if (back_s := _back_after_s(over)) is not None]),
        lost_words=sum(report.lost_words for report in reports),
        repeated_words=sum(report.repeated_words for report in reports),
        resumed_words=sum(report.resumed_words for report in reports),
    )


def measure_turns(reports: Mapping[Bot, Sequence[CallerReport]]) -> dict[Bot, TurnFigures]:
    """Return the figures of every server that was called."""
    decided = decided_turns(reports.get(Bot.PLAIN, ()))
    return {bot: turn_figures(of_bot, decided) for bot, of_bot in reports.items()}


def faults(reports: Iterable[CallerReport]) -> list[Fault]:
    """Return what went wrong, call by call."""
    found: list[Fault] = []
    for report in reports:
        mine = [Fault(report.scenario, over.end_s, what) for over in report.overs if (what := _wrong(over))]
        mine += [
            Fault(report.scenario, over.start_s, f"went on with the old phrase during “{over.text}”")
            for over in report.overs
            if over.kind == _INTERRUPTION and over.stopped and _old_words(over, report)
        ]
        mine += [
            Fault(report.scenario, turn.start_s, what) for turn in report.turns for what in _misses(turn)
        ]
        if report.lost_words:
            mine.append(Fault(report.scenario, 0.0, f"{report.lost_words} words lost in all"))
        if report.repeated_words:
            mine.append(Fault(report.scenario, 0.0, f"{report.repeated_words} words repeated in all"))
        if report.outcome != "ok":
            mine.append(Fault(report.scenario, report.duration_s, "failed: " + "; ".join(report.reasons)))
        found += sorted(mine, key=lambda fault: fault.at_s)
    return sorted(found, key=lambda fault: fault.call)


def turn_goals(figures: Mapping[Bot, TurnFigures]) -> list[Goal]:
    """Judge every "Must hold" figure; those that compare need both servers."""
    ours, plain = figures[Bot.OURS], figures.get(Bot.PLAIN)
    decided = ours.answer_decided
    p50 = ratio(decided.p50, plain.answer_decided.p50 if plain else None)
    p95 = ratio(decided.p95, plain.answer_decided.p95 if plain else None)
    harmless, heeded = ours.all_harmless, ours.heeded
    cut_off, plain_cut_off = ours.cut_off.value, plain.cut_off.value if plain else None
    return [
        Goal(
            f"answer p50 ≤ {ANSWER_P50_SHARE:g} of plain's, where that decides at once",
            f"{percent(p50)}, {seconds(decided.p50)} s",
            None if p50 is None else p50 <= ANSWER_P50_SHARE,
        ),
        Goal(
            f"answer p95 ≤ {ANSWER_P95_SHARE:g} of plain's, on the same",
            f"{percent(p95)}, {seconds(decided.p95)} s",
            None if p95 is None else p95 <= ANSWER_P95_SHARE,
        ),
        _at_most(f"pause p95 ≤ {PAUSE_P95_S:g} s after the onset of speech", ours.pause.p95, PAUSE_P95_S),
        _at_most(f"stop p95 ≤ {STOP_P95_S:g} s", ours.stop.p95, STOP_P95_S),
        Goal(
            "nothing of the old phrase after the pause",
            f"{ours.old_words} words, went on {ours.taken_up} times, in {heeded.of} interruptions",
            ours.old_words == ours.taken_up == 0 if heeded.of else None,
        ),
        Goal(
            "no harmless sound costs a word",
            f"{harmless.harmed} of {harmless.made} did",
            harmless.harmed == 0 if harmless.made >= ENOUGH or harmless.harmed else None,
        ),
        _at_least(
            f"{RESUMED_SHARE:.0%} of harmless sounds: on within {RESUME_S:g} s of them",
            ours.unmoved,
            RESUMED_SHARE,
        ),
        _at_least(f"{HEEDED_SHARE:.0%} of interruptions stop the agent", heeded, HEEDED_SHARE),
        Goal(
            "callers cut off no more often than by plain",
            f"{ours.cut_off}, plain {plain.cut_off if plain else '-'}",
            None if cut_off is None or plain_cut_off is None else cut_off <= plain_cut_off,
        ),
        _cautious_goal(figures.get(Bot.CAUTIOUS), plain),
    ]


def _cautious_goal(cautious: TurnFigures | None, plain: TurnFigures | None) -> Goal:
    text = "without speculation: answer p50 and p95 no worse than plain's, on the same"
    if cautious is None or plain is None:
        return Goal(text, "-", None)
    ours, theirs = cautious.answer_decided, plain.answer_decided
    p50, p95 = ratio(ours.p50, theirs.p50), ratio(ours.p95, theirs.p95)
    is_held = None if p50 is None or p95 is None else max(p50, p95) <= 1.0
    return Goal(
        text, f"{percent(p50)} and {percent(p95)}, {seconds(ours.p50)} and {seconds(ours.p95)} s", is_held
    )


def turn_lines(figures: Mapping[Bot, TurnFigures]) -> list[Line]:
    """Return the figures side by side."""

    def counted(name: str, of: Callable[[TurnFigures], object]) -> Line:
        return Line(name, *(str(of(figures[bot])) if bot in figures else "-" for bot in BOTH))

    def spread(name: str, of: Callable[[TurnFigures], float | None]) -> Line:
        ours, plain = (of(figures[bot]) if bot in figures else None for bot in BOTH)
        return Line(name, seconds(ours), seconds(plain), times(ratio(ours, plain)))

    return [
        counted("calls completed", lambda f: f.calls),
        counted("caller turns", lambda f: f.turns),
        counted("answers", lambda f: f.answer.count),
        spread("answer p50, s", lambda f: f.answer.p50),
        spread("answer p95, s", lambda f: f.answer.p95),
        counted("answers on decided turns", lambda f: f.answer_decided.count),
        spread("decided: p50, s", lambda f: f.answer_decided.p50),
        spread("decided: p95, s", lambda f: f.answer_decided.p95),
        counted(f"answers held over {HELD_S:g} s", lambda f: f.held),
        counted("callers cut off", lambda f: f.cut_off),
        counted("cut off in turns with pauses", lambda f: f.cut_off_in_pauses),
        counted("turns missed", lambda f: f.missed),
        counted("interruptions heeded", lambda f: f.heeded),
        spread("pause p50, s", lambda f: f.pause.p50),
        spread("pause p95, s", lambda f: f.pause.p95),
        spread("stop p50, s", lambda f: f.stop.p50),
        spread("stop p95, s", lambda f: f.stop.p95),
        counted("went on before it stopped", lambda f: f.taken_up),
        counted("old words after the pause", lambda f: f.old_words),
        counted(
            "harmless sounds that cost words", lambda f: Share(f.all_harmless.harmed, f.all_harmless.made)
        ),
        counted(f"harmless: on within {RESUME_S:g} s", lambda f: f.unmoved),
        counted("harmless: paused", lambda f: Share(f.all_harmless.paused, f.all_harmless.made)),
        spread("recovery, silence p50, s", lambda f: f.all_harmless.resumed_after.p50),
        spread("recovery, silence p95, s", lambda f: f.all_harmless.resumed_after.p95),
        spread("recovery, after the sound p50, s", lambda f: f.back_after.p50),
        spread("recovery, after the sound p95, s", lambda f: f.back_after.p95),
        counted("words lost", lambda f: f.lost_words),
        counted("words repeated", lambda f: f.repeated_words),
        counted("words heard again after a pause", lambda f: f.resumed_words),
    ]


def kind_lines(figures: Mapping[Bot, TurnFigures]) -> list[Line]:
    """Return, for each kind of harmless sound, how many cost words of how many."""

    def harmed(bot: Bot, kind: str) -> str:
        of = figures[bot].harmless[kind] if bot in figures else None
        return "-" if of is None else f"{of.harmed}/{of.made}"

    return [Line(kind, harmed(Bot.OURS, kind), harmed(Bot.PLAIN, kind)) for kind in HARMLESS]


def terminal_tables(figures: Mapping[Bot, TurnFigures]) -> list[Table]:
    """Return what is printed."""
    return [
        line_table("turn-taking", turn_lines(figures)),
        line_table("false barge-ins: harmless sounds that cost words", kind_lines(figures)),
        goal_table("goals of turn-taking", turn_goals(figures)),
    ]


def turns_page(
    figures: Mapping[Bot, TurnFigures],
    *,
    conditions: Sequence[str],
    noise: Sequence[str],
    made_of: Sequence[tuple[str, int]],
    wasted: Sequence[tuple[str, float]],
    wrong: Mapping[Bot, Sequence[Fault]],
    seeds: Mapping[str, int],
    how: str,
    special: Sequence[str] = (),
) -> str:
    """Return `TURNS.md`.

    Args:
        figures: Of both servers.
        conditions: Machine, versions, seed, date: one line each.
        noise: What disturbed the run.
        made_of: What the corpus holds, and how much of it.
        wasted: What First Ring counted of answers begun too early.
        wrong: Faults of each server; the plain bot's are only counted.
        seeds: Of the calls, by name.
        how: What was measured how, in plain words.
        special: The table of the special calls.
    """
    parts = ["# Turn-taking: First Ring beside a plain Pipecat bot\n", *(f"- {line}" for line in conditions)]
    if noise:
        parts.append("\n**The machine was not quiet; trust the ratios only, or run it again.**")
        parts += [f"\nNoisy: {reason}." for reason in noise]
    parts += ["\n## Must hold\n", *goal_markdown(turn_goals(figures))]
    parts += ["\n## Figures\n", *markdown(turn_lines(figures))]
    parts += ["\n## Harmless sounds that cost words\n", *markdown(kind_lines(figures))]
    if special:
        parts += ["\n## Special calls\n", *special]
    if wasted:
        parts += ["\n## Answers begun too early\n", "| counted by First Ring | |", "|---|---:|"]
        parts += [f"| {name} | {value:g} |" for name, value in wasted]
    parts += [
        "\n## The corpus\n",
        "| | |",
        "|---|---:|",
        *(f"| {name} | {count} |" for name, count in made_of),
    ]
    parts += ["\n## What went wrong\n", 'One call alone: `make bench ARGS="turns --only CALL --keep"`.\n']
    for bot, of_bot in wrong.items():
        parts.append(f"{bot.value}: {len(of_bot)} faults.\n")
        if bot is Bot.OURS:
            parts += [f"- {f.call} (seed {seeds[f.call]}) at {f.at_s:.1f} s: {f.what}" for f in of_bot]
            parts.append("")
    return "\n".join([*parts, how.strip()]) + "\n"


def _answers(reports: Iterable[CallerReport]) -> Iterable[tuple[TurnKey, float]]:
    for report in reports:
        for number, turn in enumerate(report.turns):
            if turn.answer_s is not None and turn.answer_s >= 0:
                yield (report.scenario, number), turn.answer_s


def _stops(report: CallerReport) -> list[float]:
    heeded = {over.start_s for over in report.overs if over.kind == _INTERRUPTION and over.stopped}
    return [turn.stop_s for turn in report.turns if turn.stop_s is not None and turn.start_s in heeded]


def _old_words(over: CallerOver, report: CallerReport) -> int:
    """Count the words that were heard of the old phrase while the caller still interrupted it."""
    if over.kind != _INTERRUPTION or not over.stopped or over.pause_s is None:
        return 0
    turn = next((turn for turn in report.turns if turn.start_s == over.start_s), None)
    if turn is not None and turn.cut_off:  # another phrase
        return 0
    silent_s = over.start_s + over.pause_s + _WORD_EDGE_S
    return sum(silent_s < start_s < over.end_s for _, start_s, _ in report.agent_words)


def _back_after_s(over: CallerOver) -> float | None:
    """Return how long after the sound the agent, which had paused for it, was heard again; None when it was not."""
    if over.pause_s is None or over.resumed_s is None:
        return None
    return max(over.start_s + over.pause_s + over.resumed_s - over.end_s, 0.0)


def _is_unmoved(over: CallerOver) -> bool:
    back_s = _back_after_s(over)
    is_back = over.pause_s is None or (back_s is not None and back_s <= RESUME_S)
    return is_back and not over.stopped and over.lost_words == 0


def _wrong(over: CallerOver) -> str:
    """Say what the agent made wrong of a sound over it, nothing if it was right."""
    if not over.over_agent:
        return ""
    named = f"{over.kind} “{over.text}”" if over.text else over.kind
    if over.kind == _INTERRUPTION:
        return "" if over.stopped else f"{named} was not heeded"
    if over.stopped:
        return f"{named} stopped the agent"
    if over.lost_words:
        return f"{named} cost {over.lost_words} words"
    return "" if _is_unmoved(over) else f"{named} silenced the agent for {seconds(over.resumed_s)} s"


def _misses(turn: CallerTurn) -> Iterable[str]:
    if turn.cut_off:
        yield f"the caller was cut off in “{turn.text}”"
    if turn.answer_s is None:
        yield f"no answer to “{turn.text}”"


def _at_most(text: str, value: float | None, limit: float) -> Goal:
    return Goal(text, f"{seconds(value)} s", None if value is None else value <= limit)


def _at_least(text: str, share: Share, limit: float) -> Goal:
    is_enough = share.of >= ENOUGH and share.value is not None
    return Goal(text, str(share), share.value >= limit if is_enough and share.value is not None else None)
