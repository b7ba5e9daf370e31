"""What the rows say beside the goals, as a table for the terminal and as `RESULTS.md`. Pure."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.figures import AUDIBLE_GAP_S, CallFigures, call_figures, held_lines, ratio
from bench.load import Row
from bench.page import (
    Goal,
    Line,
    goal_markdown,
    goal_table,
    line_table,
    markdown,
    percent,
    seconds,
    times,
)
from bench.servers import Bot

GREETING_P95_S = 0.15
ANSWER_SHARE = 0.88
GAPLESS_CALLS = 10
CPU_SHARE = 0.5
MEMORY_MB = 15.0
COMPLETED_SHARE = 0.9
"""Below it the figures are those of the survivors, and a server that answers nobody uses little CPU."""


@dataclass(frozen=True)
class Measured:
    """Both servers under one load."""

    calls: int
    rows: Mapping[Bot, Row]
    figures: Mapping[Bot, CallFigures]

    def cpu_per_call_minute(self, bot: Bot) -> float | None:
        """Return CPU seconds of the server for each minute of each call."""
        return ratio(self.rows[bot].cpu_s, self.figures[bot].call_minutes)

    @property
    def is_comparable(self) -> bool:
        """Whether both completed enough of their calls for a ratio to mean something."""
        return all(f.completed >= COMPLETED_SHARE * f.calls for f in self.figures.values())

    @property
    def noise(self) -> list[str]:
        """What disturbed either row."""
        return [f"{bot.value}: {reason}" for bot, row in self.rows.items() for reason in row.noise.reasons()]


def measure(rows: Sequence[Row]) -> list[Measured]:
    """Pair the rows by load; repeated rows of the same load are put together.

    Args:
        rows: Each load with both servers.
    """
    loads = sorted({row.calls for row in rows})
    plain = {load: _joined(rows, Bot.PLAIN, load) for load in loads}
    held = held_lines({load: row.reports for load, row in plain.items()})
    paired: list[Measured] = []
    for load in loads:
        both = {Bot.OURS: _joined(rows, Bot.OURS, load), Bot.PLAIN: plain[load]}
        paired.append(
            Measured(load, both, {bot: call_figures(row.reports, held) for bot, row in both.items()})
        )
    return paired


def further_call_mb(measured: Sequence[Measured], bot: Bot) -> float | None:
    """Return the private memory that each call beyond the lightest load took at its peak, None with one load."""
    least, most = measured[0], measured[-1]
    if most.calls == least.calls:
        return None
    grown_mb = most.rows[bot].private_mb - least.rows[bot].private_mb
    return grown_mb / (most.calls - least.calls)


def goals(measured: Sequence[Measured]) -> list[Goal]:
    """Judge every "Must hold" figure at the heaviest load; ratios at the heaviest that both could bear."""
    most = measured[-1]
    ours = most.figures[Bot.OURS]
    answer, cpu, at_both = _ratios(next((one for one in reversed(measured) if one.is_comparable), None))
    memory_mb = further_call_mb(measured, Bot.OURS)
    gapless = next((m.figures[Bot.OURS] for m in measured if m.calls == GAPLESS_CALLS), None)
    return [
        Goal(
            f"greeting p95 ≤ {GREETING_P95_S:g} s",
            f"{seconds(ours.greeting.p95)} s at {most.calls} at once",
            None if ours.greeting.p95 is None else ours.greeting.p95 <= GREETING_P95_S,
        ),
        Goal(
            "answer p50 ≥ 12% below plain's, on lines it decides at once",
            f"{percent(answer)} of plain's {at_both}",
            None if answer is None else answer <= ANSWER_SHARE,
        ),
        Goal(
            f"no gap over {AUDIBLE_GAP_S * 1000:.0f} ms at {GAPLESS_CALLS} calls on one core",
            "not measured"
            if gapless is None
            else f"{gapless.gaps}, longest {gapless.longest_gap_s * 1000:.0f} ms",
            None if gapless is None else gapless.gaps == 0,
        ),
        Goal(
            f"CPU per call-minute ≤ {CPU_SHARE:g} of plain's",
            f"{percent(cpu)} {at_both}",
            None if cpu is None else cpu <= CPU_SHARE,
        ),
        Goal(
            f"memory per further call ≤ {MEMORY_MB:g} MB",
            "not measured" if memory_mb is None else f"{memory_mb:.1f} MB",
            None if memory_mb is None else memory_mb <= MEMORY_MB,
        ),
    ]


def _ratios(one: Measured | None) -> tuple[float | None, float | None, str]:
    """Return the ratios of answers and of CPU at one load, and which load that is."""
    if one is None:
        return None, None, "(at no load did both complete their calls)"
    ours, plain = (one.figures[bot].answer_decided.p50 for bot in (Bot.OURS, Bot.PLAIN))
    cpu = ratio(one.cpu_per_call_minute(Bot.OURS), one.cpu_per_call_minute(Bot.PLAIN))
    return ratio(ours, plain), cpu, f"at {one.calls} at once"


def lines(measured: Measured) -> list[Line]:
    """Return the figures of one load."""
    ours, plain = (measured.figures[bot] for bot in (Bot.OURS, Bot.PLAIN))
    row, plain_row = (measured.rows[bot] for bot in (Bot.OURS, Bot.PLAIN))

    def spread(name: str, of: Callable[[CallFigures], float | None]) -> Line:
        return Line(name, seconds(of(ours)), seconds(of(plain)), times(ratio(of(ours), of(plain))))

    cpu = [measured.cpu_per_call_minute(bot) for bot in (Bot.OURS, Bot.PLAIN)]
    return [
        Line("calls completed", f"{ours.completed}/{ours.calls}", f"{plain.completed}/{plain.calls}", ""),
        spread("greeting p50, s", lambda f: f.greeting.p50),
        spread("greeting p95, s", lambda f: f.greeting.p95),
        Line("answers", str(ours.answer.count), str(plain.answer.count), ""),
        spread("answer p25, s", lambda f: f.answer.p25),
        spread("answer p50, s", lambda f: f.answer.p50),
        spread("answer p75, s", lambda f: f.answer.p75),
        spread("answer p95, s", lambda f: f.answer.p95),
        Line("answers on decided lines", str(ours.answer_decided.count), str(plain.answer_decided.count), ""),
        spread("decided: p50, s", lambda f: f.answer_decided.p50),
        spread("decided: p95, s", lambda f: f.answer_decided.p95),
        Line("answers held over 2.5 s", str(ours.held), str(plain.held), ""),
        Line("began before the caller was done", str(ours.early), str(plain.early), ""),
        Line("turns without an answer", str(ours.unanswered), str(plain.unanswered), ""),
        Line("interruptions", str(ours.stop.count), str(plain.stop.count), ""),
        spread("pause p50, s", lambda f: f.pause.p50),
        spread("stop p50, s", lambda f: f.stop.p50),
        spread("stop p95, s", lambda f: f.stop.p95),
        Line("gaps over 60 ms", str(ours.gaps), str(plain.gaps), ""),
        Line("longest gap, ms", _ms(ours.longest_gap_s), _ms(plain.longest_gap_s), ""),
        Line("CPU-s per call-minute", _number(cpu[0]), _number(cpu[1]), times(ratio(cpu[0], cpu[1]))),
        Line(
            "loop lag p99, ms (≤)",
            _ms(row.lag_p99_s),
            _ms(plain_row.lag_p99_s),
            times(ratio(row.lag_p99_s, plain_row.lag_p99_s)),
        ),
        Line("resident memory, MB", f"{row.resident_mb:.0f}", f"{plain_row.resident_mb:.0f}", ""),
        Line("private memory, MB", f"{row.private_mb:.0f}", f"{plain_row.private_mb:.0f}", ""),
    ]


def run_lines(measured: Sequence[Measured], idle_mb: Mapping[Bot, float]) -> list[Line]:
    """Return the figures that belong to no single load.

    Args:
        measured: All loads.
        idle_mb: Resident memory before the first call.
    """
    further = [further_call_mb(measured, bot) for bot in (Bot.OURS, Bot.PLAIN)]
    return [
        Line("idle, resident MB", f"{idle_mb[Bot.OURS]:.0f}", f"{idle_mb[Bot.PLAIN]:.0f}", ""),
        Line(
            "memory per further call, MB",
            _number(further[0]),
            _number(further[1]),
            times(ratio(further[0], further[1])),
        ),
    ]


def terminal_tables(measured: Sequence[Measured], idle_mb: Mapping[Bot, float]) -> list[Table]:
    """Return what is printed: a table for each load, one for the run, one for the goals."""
    tables = [line_table(f"{one.calls} at once" + _noise_mark(one), lines(one)) for one in measured]
    tables.append(line_table("whole run", run_lines(measured, idle_mb)))
    return [*tables, goal_table("goals", goals(measured))]


def results_page(
    measured: Sequence[Measured], idle_mb: Mapping[Bot, float], *, conditions: Sequence[str], how: str
) -> str:
    """Return `RESULTS.md`.

    Args:
        measured: All loads.
        idle_mb: Resident memory before the first call.
        conditions: Machine, versions, seed, date: one line each.
        how: What was measured how, in plain words.
    """
    parts = ["# First Ring beside a plain Pipecat bot\n", *(f"- {line}" for line in conditions)]
    if any(one.noise for one in measured):
        parts.append("\n**The machine was not quiet: rows marked noisy are not to be quoted. Run it again.**")
    parts += ["\n## Must hold\n", *goal_markdown(goals(measured))]
    for one in measured:
        parts += [f"\n## {one.calls} at once\n", *markdown(lines(one))]
        parts += [f"\nNoisy: {reason}." for reason in one.noise]
        parts += [
            f"\n{bot.value}, {times} failed: {failure}."
            for bot, figures in one.figures.items()
            for failure, times in Counter(figures.failures).most_common()
        ]
    parts += ["\n## Whole run\n", *markdown(run_lines(measured, idle_mb)), "", how.strip()]
    return "\n".join(parts) + "\n"


def _joined(rows: Sequence[Row], bot: Bot, load: int) -> Row:
    """Put the repeats of one row together: calls and CPU added, the rest at its worst."""
    same = [row for row in rows if row.bot is bot and row.calls == load]
    lags = [row.lag_p99_s for row in same if row.lag_p99_s is not None]
    worst = max(same, key=lambda row: len(row.noise.reasons()))
    return Row(
        bot=bot,
        calls=load,
        reports=tuple(report for row in same for report in row.reports),
        cpu_s=sum(row.cpu_s for row in same),
        resident_mb=max(row.resident_mb for row in same),
        private_mb=max(row.private_mb for row in same),
        lag_p99_s=max(lags, default=None),
        noise=worst.noise,
        took_s=sum(row.took_s for row in same),
    )


def _noise_mark(one: Measured) -> str:
    return f"  - NOISY: {'; '.join(one.noise)}" if one.noise else ""


def _ms(value_s: float | None) -> str:
    if value_s is None:
        return "-"
    return "over 1000" if math.isinf(value_s) else f"{value_s * 1000:g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
