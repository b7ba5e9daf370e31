"""What a run has shown: a row for each fault and stage, and the seeds that failed. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from bench.chaos.evidence import Evidence
from bench.chaos.faults import CELLS, Cell, Stage, Target
from bench.chaos.verdict import Outcome, Verdict
from bench.figures import percentile

PAIRED = "two at once"
LONGEST_SHOWN = 5


@dataclass(frozen=True)
class Judged:
    """One call that was played."""

    evidence: Evidence
    verdict: Verdict

    @property
    def is_held(self) -> bool:
        """Tell whether all that a caller may expect held."""
        return not self.verdict.violations


@dataclass(frozen=True)
class Row:
    """All calls of one row of the table."""

    name: str
    calls: int
    hit: int
    """Calls in which the fault came to anything."""
    silence_p50_s: float | None
    silence_max_s: float | None
    lost: int
    repeated: int
    outcomes: str
    failed: int

    @classmethod
    def of(cls, name: str, calls: Sequence[Judged]) -> "Row":
        """Count some calls."""
        silences_s = [one.verdict.longest_silence_s for one in calls]
        counts = [(out, sum(one.verdict.outcome is out for one in calls)) for out in Outcome]
        return cls(
            name=name,
            calls=len(calls),
            hit=sum(one.evidence.hits > 0 for one in calls),
            silence_p50_s=percentile(silences_s, 0.5),
            silence_max_s=max(silences_s, default=None),
            lost=sum(one.evidence.report.lost_words for one in calls),
            repeated=sum(one.evidence.report.repeated_words for one in calls),
            outcomes=", ".join(f"{count} {out.value}" for out, count in counts if count),
            failed=sum(not one.is_held for one in calls),
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """Return it as text, in the order of `HEADINGS`."""
        return (
            self.name,
            str(self.calls),
            str(self.hit),
            _seconds(self.silence_p50_s),
            _seconds(self.silence_max_s),
            str(self.lost),
            str(self.repeated),
            self.outcomes,
            str(self.failed or ""),
        )


PAGE_HEADINGS = (
    "who, when",
    "how, in so many calls",
    "calls",
    "hit",
    "silence p50",
    "max, s",
    "lost",
    "repeated",
    "ended",
    "failed",
)
HEADINGS = ("fault, stage", "calls", "hit", "silence p50", "max, s", "lost", "repeated", "ended", "failed")


def rows(played: Iterable[Judged]) -> list[Row]:
    """Return a row for each fault and stage that was played alone, one for pairs, and one for all."""
    alone: dict[Cell, list[Judged]] = defaultdict(list)
    paired: list[Judged] = []
    everything = list(played)
    for one in everything:
        first, *others = one.evidence.plan.injections
        if others:
            paired.append(one)
        else:
            alone[first.cell].append(one)
    found = [Row.of(str(cell), alone[cell]) for cell in CELLS if cell in alone]
    if paired:
        found.append(Row.of(PAIRED, paired))
    return [*found, Row.of("all", everything)]


def table(played: Iterable[Judged]) -> Table:
    """Return the rows as the terminal shows them."""
    shown = Table(title="chaos", title_justify="left")
    for number, heading in enumerate(HEADINGS):
        shown.add_column(heading, justify="left" if number in (0, 7) else "right")
    for row in rows(played):
        shown.add_row(*row.cells)
    return shown


def markdown(played: Iterable[Judged]) -> list[str]:
    """Return who failed, at which stage and how, as lines of a page; a call with two faults stands in two rows."""
    head = [f"| {' | '.join(PAGE_HEADINGS)} |", "|---|---|" + "---:|" * 6 + "---|---:|"]
    by_stage: dict[tuple[Target, Stage], list[Judged]] = defaultdict(list)
    by_cell: Counter[Cell] = Counter()
    everything = list(played)
    for one in everything:
        cells = [injection.cell for injection in one.evidence.plan.injections]
        by_cell.update(cells)
        for cell in cells:
            by_stage[cell.target, cell.stage].append(one)
    lines: list[str] = []
    for target, stage in dict.fromkeys((cell.target, cell.stage) for cell in CELLS):
        cells = [cell for cell in CELLS if (cell.target, cell.stage) == (target, stage)]
        kinds = ", ".join(f"{cell.kind.value} {by_cell[cell]}" for cell in cells)
        calls = by_stage[target, stage]
        hit = sum(target in one.evidence.hit for one in calls)
        row = replace(Row.of(f"{target.value}, {stage.value}", calls), hit=hit)
        lines.append(f"| {row.name} | {kinds} | {' | '.join(row.cells[1:])} |")
    return [*head, *lines, f"| all | | {' | '.join(Row.of('all', everything).cells[1:])} |"]


def page(played: Iterable[Judged], *, conditions: Sequence[str], how: str) -> str:
    """Return CHAOS.md: what a whole run has shown.

    Args:
        played: All calls of the run.
        conditions: When, of what and on what it was played, one line each.
        how: What was played and judged.
    """
    everything = list(played)
    whole = Row.of("all", everything)
    not_hit = sum(not one.evidence.hits for one in everything)
    failed = failures(everything)
    lines = [
        "# Calls while something fails",
        "",
        f"{whole.calls} calls: {whole.outcomes}; {whole.calls - whole.failed} as their callers may expect.",
        f"In {not_hit} of them nothing was hit: the call was over, or had no need of what would have failed.",
        "",
        *(f"- {condition}" for condition in conditions),
        "",
        *_longest(everything),
        "",
        "## What was played",
        "",
        *markdown(everything),
        "",
        "## What did not hold",
        "",
        *(["```", *failed, "```"] if failed else ["Nothing."]),
    ]
    return "\n".join([*lines, "", how.rstrip(), ""])


def _longest(played: Sequence[Judged]) -> list[str]:
    """Return the calls in which somebody waited longest, as lines of a page."""
    worst = sorted(played, key=lambda one: one.verdict.longest_silence_s, reverse=True)[:LONGEST_SHOWN]
    head = ["| longest silence, s | call |", "|---:|---|"]
    return head + [f"| {one.verdict.longest_silence_s:.2f} | {one.evidence.plan} |" for one in worst]


def failures(played: Iterable[Judged]) -> list[str]:
    """Return what did not hold, call by call, each with the command that plays it again."""
    lines: list[str] = []
    for one in sorted(played, key=lambda judged: judged.evidence.plan.seed):
        if one.is_held:
            continue
        seed = one.evidence.plan.seed
        lines.append(str(one.evidence.plan))
        lines += [f"    {violation}" for violation in one.verdict.violations]
        lines.append(f'    again: make chaos ARGS="--only {seed}"; kept: runs/chaos/{seed}/')
    return lines


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
