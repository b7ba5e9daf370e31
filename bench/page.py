"""Figures of both servers side by side and verdicts on goals, for the terminal and as Markdown. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from bench.servers import Bot


@dataclass(frozen=True)
class Goal:
    """One of an issue's "Must hold" figures."""

    text: str
    measured: str
    is_held: bool | None
    """None: this run did not measure it."""


@dataclass(frozen=True)
class Line:
    """One figure of both servers."""

    name: str
    ours: str
    plain: str
    ratio: str = ""


def line_table(title: str, body: Sequence[Line]) -> Table:
    """Return figures as the terminal shows them."""
    table = Table("", title=title, title_justify="left")
    for heading in (Bot.OURS.value, Bot.PLAIN.value, "ratio"):
        table.add_column(heading, justify="right")
    for line in body:
        table.add_row(line.name, line.ours, line.plain, line.ratio)
    return table


def goal_table(title: str, goals: Sequence[Goal]) -> Table:
    """Return verdicts as the terminal shows them."""
    verdicts = Table("must hold", "measured", "held", title=title, title_justify="left")
    for goal in goals:
        verdicts.add_row(goal.text, goal.measured, verdict(goal))
    return verdicts


def markdown(body: Sequence[Line]) -> list[str]:
    """Return figures as lines of a page."""
    head = [f"| | {Bot.OURS.value} | {Bot.PLAIN.value} | ratio |", "|---|---:|---:|---:|"]
    return head + [f"| {line.name} | {line.ours} | {line.plain} | {line.ratio} |" for line in body]


def goal_markdown(goals: Sequence[Goal]) -> list[str]:
    """Return verdicts as lines of a page."""
    head = ["| goal | measured | held |", "|---|---|---|"]
    return head + [f"| {goal.text} | {goal.measured} | {verdict(goal)} |" for goal in goals]


def section(text: str, heading: str) -> str:
    """Return one section of a page, from its heading to the next of the same rank.

    Raises:
        ValueError: If it is not there.
    """
    _, found, rest = text.partition(heading)
    if not found:
        raise ValueError(f"no section {heading!r}")
    return heading + rest.partition("\n## ")[0].rstrip() + "\n"


def verdict(goal: Goal) -> str:
    """Return a verdict in a word."""
    return {True: "yes", False: "NO", None: "-"}[goal.is_held]


def seconds(value: float | None) -> str:
    """Return a duration, `-` for none."""
    return "-" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Return a share, `-` for none."""
    return "-" if value is None else f"{value:.0%}"


def times(value: float | None) -> str:
    """Return a ratio, nothing where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.2f}"
