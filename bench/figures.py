"""From callers' reports to the figures of one row. Pure: no clock, no process, no file.

Everything that is published as latency was measured by the callers from their own waveform; see `sims.report`.
"""

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

HELD_S = 2.5
"""A plain bot's answer that takes longer than this waited for Smart Turn's 3 s of patience: without it the slowest
answers of an idle machine take half as long."""
AUDIBLE_GAP_S = 0.06


class CallerTurn(BaseModel, frozen=True):
    """One thing a caller said. Durations in seconds, `start_s` and `end_s` since the call was answered."""

    text: str
    answer_s: float | None
    pause_s: float | None
    stop_s: float | None
    start_s: float = 0.0
    end_s: float = 0.0
    interrupts: bool = False
    """It began while the agent was audible."""
    inner_pauses_s: tuple[tuple[float, float], ...] = ()
    """Start and end of each pause that belongs to it."""
    cut_off: bool = False
    """The agent began to speak before the caller had finished."""
    reply_text: str = ""


class CallerOver(BaseModel, frozen=True):
    """A sound made on purpose; seconds. See `sims.report` for what they mean."""

    kind: str
    over_agent: bool
    text: str = ""
    start_s: float = 0.0
    end_s: float = 0.0
    pauses: int = 0
    """How often the agent fell silent."""
    pause_s: float | None = None
    resumed_s: float | None = None
    stopped: bool = False
    lost_words: int = 0
    resumed_words: int = 0


class CallerKey(BaseModel, frozen=True):
    """A key that was pressed; seconds. See `sims.report` for what they mean."""

    digit: str
    at_s: float
    over_agent: bool
    stop_s: float | None


class CallerGap(BaseModel, frozen=True):
    """The phone ran dry for `length_s`; `inside` an utterance or between two."""

    length_s: float
    inside: bool


class CallerReport(BaseModel, frozen=True):
    """The part of a sim's call report that is measured here."""

    scenario: str
    outcome: str
    call_sid: str = ""
    reasons: tuple[str, ...] = ()
    ended_by: str | None = None
    duration_s: float = 0.0
    greeting_s: float | None = None
    turns: tuple[CallerTurn, ...] = ()
    gaps: tuple[CallerGap, ...] = ()
    overs: tuple[CallerOver, ...] = ()
    keys: tuple[CallerKey, ...] = ()
    agent_words: tuple[tuple[str, float, float], ...] = ()
    """What the agent was heard to say: word, start, end."""
    agent_audible_s: tuple[tuple[float, float], ...] = ()
    """When the agent was audible: start, end."""
    lost_words: int = 0
    repeated_words: int = 0
    resumed_words: int = 0
    sim_lateness_s: float = 0.0
    streams: int = 1
    """Media sockets, one after the other."""
    stream_started_s: float | None = None
    """When the server's clock of the call was at zero, on the caller's."""
    wav: str | None = None
    """The caller's recording, where one was ordered."""


@dataclass(frozen=True)
class Spread:
    """Percentiles of some durations, in seconds; None where there is nothing to count."""

    count: int
    p25: float | None
    p50: float | None
    p75: float | None
    p95: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the nearest-rank percentiles."""
        p25, p50, p75, p95 = (percentile(values, share) for share in (0.25, 0.5, 0.75, 0.95))
        return cls(len(values), p25, p50, p75, p95)


@dataclass(frozen=True)
class CallFigures:
    """What the callers of one row measured."""

    calls: int
    completed: int
    call_minutes: float
    greeting: Spread
    answer: Spread
    """Every answered turn."""
    answer_decided: Spread
    """Turns with lines that the plain bot's turn model thought finished."""
    held: int
    """Answers that took longer than `HELD_S`."""
    early: int
    """The agent began before the caller had finished."""
    cut_off: int
    """Turns in which the agent began to speak before the caller had finished, in a pause of theirs too."""
    unanswered: int
    """The caller spoke again, or the call ended, before the agent said anything; a goodbye may stay unanswered."""
    pause: Spread
    stop: Spread
    gaps: int
    """Inside an utterance and longer than `AUDIBLE_GAP_S`."""
    longest_gap_s: float
    failures: tuple[str, ...]
    """Why calls failed, with the scenario's name."""


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile: a value that occurred, None of nothing.

    Args:
        values: In any order.
        share: 0 < share <= 1.

    Raises:
        ValueError: If `share` is outside its range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if not values:
        return None
    return sorted(values)[math.ceil(share * len(values)) - 1]


def held_lines(reports_by_load: Mapping[int, Sequence[CallerReport]]) -> frozenset[str]:
    """Return the lines after which a plain bot's turn model waited for more.

    The voices are synthetic and the same line always sounds the same, so the model's verdict belongs to the line. It
    is read from the least loaded row in which the line was answered: under load everything is slow.

    Args:
        reports_by_load: The plain bot's reports by number of calls at once.
    """
    answers: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for load, reports in reports_by_load.items():
        for turn in _answered(reports):
            answers[turn.text][load].append(turn.answer_s or 0.0)
    medians = {text: percentile(by_load[min(by_load)], 0.5) for text, by_load in answers.items()}
    return frozenset(text for text, median in medians.items() if median is not None and median >= HELD_S)


def call_figures(reports: Sequence[CallerReport], held: frozenset[str]) -> CallFigures:
    """Count and order what the callers of one row measured.

    Args:
        reports: Of calls that have ended.
        held: Lines that `answer_decided` leaves out.
    """
    turns = [turn for report in reports for turn in report.turns]
    answers = [turn.answer_s for turn in turns if turn.answer_s is not None and turn.answer_s >= 0]
    gaps = [gap.length_s for report in reports for gap in report.gaps if gap.inside]
    return CallFigures(
        calls=len(reports),
        completed=sum(report.outcome == "ok" for report in reports),
        call_minutes=sum(report.duration_s for report in reports) / 60,
        greeting=Spread.of([report.greeting_s for report in reports if report.greeting_s is not None]),
        answer=Spread.of(answers),
        answer_decided=Spread.of([t.answer_s or 0.0 for t in _answered(reports) if t.text not in held]),
        held=sum(answer >= HELD_S for answer in answers),
        early=sum(turn.answer_s is not None and turn.answer_s < 0 for turn in turns),
        cut_off=sum(turn.cut_off for turn in turns),
        unanswered=sum(turn.answer_s is None for turn in turns),
        pause=Spread.of([turn.pause_s for turn in turns if turn.pause_s is not None]),
        stop=Spread.of([turn.stop_s for turn in turns if turn.stop_s is not None]),
        gaps=sum(gap > AUDIBLE_GAP_S for gap in gaps),
        longest_gap_s=max(gaps, default=0.0),
        failures=tuple(f"{r.scenario}: {'; '.join(r.reasons)}" for r in reports if r.outcome != "ok"),
    )


@dataclass(frozen=True)
class OverFigures:
    """What agents made of the sounds of some kinds that were made over them."""

    made: int
    paused: int
    resumed: int
    stopped: int
    lost_words: int
    """Words passed over by agents that went on."""
    harmed: int
    """Sounds that lost a word or the rest of what was being said."""
    pause: Spread
    resumed_after: Spread


def over_figures(reports: Iterable[CallerReport], kinds: Container[str]) -> OverFigures:
    """Count what became of each sound of `kinds` that was made while the agent was audible."""
    overs = [over for report in reports for over in report.overs if over.over_agent and over.kind in kinds]
    resumed_s = [over.resumed_s for over in overs if over.resumed_s is not None]
    pauses_s = [over.pause_s for over in overs if over.pause_s is not None]
    return OverFigures(
        made=len(overs),
        paused=len(pauses_s),
        resumed=len(resumed_s),
        stopped=sum(over.stopped for over in overs),
        lost_words=sum(over.lost_words for over in overs),
        harmed=sum(over.stopped or over.lost_words > 0 for over in overs),
        pause=Spread.of(pauses_s),
        resumed_after=Spread.of(resumed_s),
    )


def ratio(ours: float | None, plain: float | None) -> float | None:
    """Return ours / plain, None when either is missing or the divisor is 0."""
    return None if ours is None or not plain else ours / plain


def _answered(reports: Iterable[CallerReport]) -> list[CallerTurn]:
    return [
        turn
        for report in reports
        for turn in report.turns
        if turn.answer_s is not None and turn.answer_s >= 0
    ]
