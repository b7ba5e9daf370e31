"""From the reports of callers who rang within a second to the figures of a burst. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import CallerReport, percentile
from bench.page import Goal, Line, percent, seconds, times

GREETING_GOAL_S = 0.3
"""Of the 95th percentile, from `start`."""


class BurstReport(CallerReport, frozen=True):
    """The part of a sim's report that a burst is measured by. Seconds."""

    streams: int = 0
    """Media sockets: none for who was not let in."""
    rang_s: float | None = None
    first_sound_s: float | None = None
    """From the answer, whoever is heard."""

    @property
    def is_greeted(self) -> bool:
        """Whether the agent was heard on a media socket."""
        return self.streams > 0 and self.greeting_s is not None

    @property
    def is_told(self) -> bool:
        """Whether somebody who was not let in heard why."""
        return self.streams == 0 and self.first_sound_s is not None

    @property
    def ring_to_voice_s(self) -> float | None:
        """From the first ring to the first thing heard."""
        return None if self.rang_s is None or self.first_sound_s is None else self.rang_s + self.first_sound_s


@dataclass(frozen=True)
class BurstFigures:
    """One server's bursts."""

    callers: int
    greeted: int
    told: int
    greeting_s: tuple[float | None, float | None, float | None]
    """Percentiles 50 and 95, and the longest, as in the next two."""
    ring_to_voice_s: tuple[float | None, float | None, float | None]
    answer_s: tuple[float | None, float | None, float | None]
    answered: int
    """Callers whose question was answered."""
    cpu_s: float
    lag_p99_s: float | None
    noise: tuple[str, ...]

    @property
    def lost(self) -> int:
        """Callers who heard nothing."""
        return self.callers - self.greeted - self.told


def burst_figures(
    reports: Sequence[BurstReport], *, cpu_s: float, lag_p99_s: float | None, noise: Sequence[str]
) -> BurstFigures:
    """Return the figures of all bursts of one server."""
    answers = [turn.answer_s for report in reports for turn in report.turns if turn.answer_s is not None]
    return BurstFigures(
        callers=len(reports),
        greeted=sum(report.is_greeted for report in reports),
        told=sum(report.is_told for report in reports),
        greeting_s=_spread([report.greeting_s for report in reports if report.is_greeted]),
        ring_to_voice_s=_spread([report.ring_to_voice_s for report in reports]),
        answer_s=_spread(answers),
        answered=len(answers),
        cpu_s=cpu_s,
        lag_p99_s=lag_p99_s,
        noise=tuple(noise),
    )


def burst_lines(ours: BurstFigures, plain: BurstFigures | None) -> list[Line]:
    """Return the figures side by side."""

    def line(name: str, of_ours: str, of_plain: str, share: float | None = None) -> Line:
        return Line(name, of_ours, of_plain if plain is not None else "-", times(share))

    nothing = (None, None, None)
    lines = [
        line(
            "callers: greeted / told / heard nothing",
            f"{ours.greeted} / {ours.told} / {ours.lost}",
            f"{plain.greeted} / {plain.told} / {plain.lost}" if plain else "",
        )
    ]
    for name, of_ours, of_plain in (
        ("greeting from start", ours.greeting_s, plain.greeting_s if plain else nothing),
        ("first ring to first voice", ours.ring_to_voice_s, plain.ring_to_voice_s if plain else nothing),
        ("answer to the first question", ours.answer_s, plain.answer_s if plain else nothing),
    ):
        for place, what in enumerate(("p50", "p95", "max")):
            mine, theirs = of_ours[place], of_plain[place]
            share = mine / theirs if mine is not None and theirs else None
            lines.append(line(f"{name}, s: {what}", seconds(mine), seconds(theirs), share))
    return [
        *lines,
        line("questions answered", str(ours.answered), str(plain.answered) if plain else ""),
        line("CPU-s", f"{ours.cpu_s:.1f}", f"{plain.cpu_s:.1f}" if plain else ""),
        line("loop lag p99, s (<=)", seconds(ours.lag_p99_s), seconds(plain.lag_p99_s) if plain else ""),
    ]


def burst_goals(ours: BurstFigures) -> list[Goal]:
    """Return what must hold."""
    share, p95_s = (ours.callers - ours.lost) / ours.callers, ours.greeting_s[1]
    return [
        Goal("every caller is answered or told", percent(share), ours.lost == 0),
        Goal(
            f"greeting p95 <= {GREETING_GOAL_S:g} s after start",
            f"{seconds(p95_s)} s",
            p95_s is not None and p95_s <= GREETING_GOAL_S,
        ),
    ]


def _spread(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    known = [value for value in values if value is not None]
    return percentile(known, 0.5), percentile(known, 0.95), max(known, default=None)
