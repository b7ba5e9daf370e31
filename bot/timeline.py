"""A finished call as a person reads it: the terminal picture, `timeline.json` and `transcript.txt`.

Made of the ledger's turns by the server and `make call`; the caller's own measurements stand first where there are
any, because only those are what the caller heard. Reads and draws; measures nothing itself. File functions block.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from processors.atomic_file import write_atomically
from processors.turn_record import LedgerCounts, Stage, ToolRun, TurnRecord, lines_of

SCHEMA = 1
"""Of `timeline.json`; rises when a reader of the old one would go wrong."""
MATCH_WITHIN_S = 1.0
"""Our end of speech and the caller's lie this close for the same turn."""
MAX_BAR_CELLS = 72
BAR_MARGIN_CELLS = 42
"""Columns beside a bar: time, label, figures."""
CUT_MARK = " —"

STAGE_STYLES = {
    Stage.PAUSE: "bright_black",
    Stage.TRANSCRIPT: "blue",
    Stage.DECISION: "cyan",
    Stage.MODEL: "magenta",
    Stage.SENTENCE: "bright_blue",
    Stage.VOICE: "yellow",
    Stage.EAR: "green",
}


@dataclass(frozen=True)
class CallerTurn:
    """One turn as measured at the caller's end. Durations in seconds; `end_s` since the call was answered."""

    text: str = ""
    end_s: float | None = None
    answer_s: float | None = None
    stop_s: float | None = None


@dataclass(frozen=True)
class CallerGap:
    """The phone ran dry for a moment."""

    length_s: float
    inside: bool = True
    """Within an utterance, not between two."""


@dataclass(frozen=True)
class CallerEnd:
    """What the caller's end measured. Durations in seconds."""

    greeting_s: float | None = None
    turns: tuple[CallerTurn, ...] = ()
    gaps: tuple[CallerGap, ...] = ()
    longest_wait_s: float | None = None
    longest_silence_s: float | None = None
    lost_words: int = 0
    repeated_words: int = 0
    stream_started_s: float | None = None
    """When our clock's zero was, on the caller's."""
    outcome: str = ""
    reasons: tuple[str, ...] = ()

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> "CallerEnd":
        """Read the caller's JSON report; fields it lacks stay unknown, further ones are ignored.

        Raises:
            pydantic.ValidationError: If a field has the wrong type.
        """
        return _CALLER_END.validate_python({**(report.get("measures") or {}), **report})


@dataclass(frozen=True)
class CallTimeline:
    """All of one call that is kept and shown."""

    call_sid: str
    agent: str
    channel: str
    """`phone` or `browser`."""
    started_at: str
    """ISO 8601, UTC."""
    duration_s: float
    ended_reason: str
    turns: tuple[TurnRecord, ...]
    counts: LedgerCounts = field(default_factory=LedgerCounts)
    caller_end: CallerEnd | None = None


_CALLER_END = TypeAdapter(CallerEnd)
_TIMELINE = TypeAdapter(CallTimeline)


def write_timeline(path: Path, call: CallTimeline) -> None:
    """Write `timeline.json`, whole or not at all; the folder must exist.

    Raises:
        OSError: If it cannot be written.
    """
    shape = {"schema": SCHEMA, **_TIMELINE.dump_python(call, mode="json")}
    shape["turns"] = [turn.to_json() for turn in call.turns]
    shape["transcript"] = [
        {"who": line.who, "text": line.text, "at_s": round(line.at_s, 4), "cut": line.cut}
        for line in lines_of(call.turns)
    ]
    write_atomically(path, orjson.dumps(shape, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_timeline(path: Path) -> CallTimeline:
    """Read what `write_timeline` wrote.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not JSON, of another schema, or has a field of the wrong type.
    """
    shape = orjson.loads(path.read_bytes())
    schema = shape.get("schema") if isinstance(shape, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"schema of {path.name} must be {SCHEMA}, got {schema}")
    return _TIMELINE.validate_python(shape)


def write_transcript(path: Path, call: CallTimeline) -> None:
    """Write who said what, as heard, as plain text; the folder must exist.

    Raises:
        OSError: If it cannot be written.
    """
    head = f"{call.call_sid}  {call.agent}  {call.channel}  {call.started_at}\n\n"
    body = "".join(
        f"[{_clock(line.at_s)}] {line.who}: {_printable(line.text)}{CUT_MARK if line.cut else ''}\n"
        for line in lines_of(call.turns)
    )
    write_atomically(path, (head + body).encode())


def print_timeline(call: CallTimeline, console: Console | None = None) -> None:
    """Draw the call; 80 columns are enough, and stages are letters where there is no colour."""
    console = console or Console(highlight=False)
    console.print(render_timeline(call, width=console.width, coloured=_has_colour(console)))


def render_timeline(call: CallTimeline, *, width: int, coloured: bool) -> RenderableType:
    """Return the picture for a terminal `width` columns wide."""
    bar_cells = max(8, min(MAX_BAR_CELLS, width - BAR_MARGIN_CELLS))
    full_s = max((_wait_s(turn) or 0.0 for turn in call.turns), default=0.0)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    ears = match_caller_turns(call)
    for turn in call.turns:
        for row in _turn_rows(turn, ears.get(turn.index), _Bars(bar_cells, full_s, coloured)):
            grid.add_row(*row)
        grid.add_row()
    return Group(_headline(call), "", _figures(call), _notes(call), "", _legend(full_s, coloured), "", grid)


def match_caller_turns(call: CallTimeline) -> dict[int, CallerTurn]:
    """Return which of the caller's turns each of ours was, by our index: the nearest end of speech."""
    if call.caller_end is None:
        return {}
    zero_s = call.caller_end.stream_started_s or 0.0
    theirs = [(turn.end_s - zero_s, turn) for turn in call.caller_end.turns if turn.end_s is not None]
    matches: dict[int, CallerTurn] = {}
    for turn in call.turns:
        if turn.speech_end is None or not theirs:
            continue
        speech_end = turn.speech_end
        end_s, nearest = min(theirs, key=lambda candidate: abs(candidate[0] - speech_end))
        if abs(end_s - speech_end) <= MATCH_WITHIN_S:
            matches[turn.index] = nearest
    return matches


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile, None of nothing; `share` is 0 to 1."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _headline(call: CallTimeline) -> Text:
    parts = (call.agent, call.channel, f"{call.duration_s:.1f} s", f"ended: {call.ended_reason}")
    text = Text(_printable(call.call_sid), style="bold")
    return text.append(_printable("  " + " · ".join(parts)), style="not bold")


def _figures(call: CallTimeline) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for number, title in enumerate(("", "greeting", "answer p50", "answer p95", "stop p50", "longest wait")):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    ear = call.caller_end
    if ear is not None:
        answers, stops = [turn.answer_s for turn in ear.turns], [turn.stop_s for turn in ear.turns]
        row = _figure_cells(ear.greeting_s, answers, stops, ear.longest_wait_s)
        table.add_row("at the caller's ear", *row, style="bold")
    greeting_s = next((turn.heard for turn in call.turns if turn.kind == "greeting"), None)
    answers, stops = [turn.answer_s for turn in call.turns], [turn.stop_s for turn in call.turns]
    table.add_row("in the server", *_figure_cells(greeting_s, answers, stops, call.counts.longest_silence_s))
    return table


def _figure_cells(
    greeting_s: float | None,
    answers: Iterable[float | None],
    stops: Iterable[float | None],
    longest_wait_s: float | None,
) -> tuple[str, ...]:
    known_answers = [value for value in answers if value is not None]
    known_stops = [value for value in stops if value is not None]
    figures = (
        greeting_s,
        percentile(known_answers, 0.5),
        percentile(known_answers, 0.95),
        percentile(known_stops, 0.5),
        longest_wait_s,
    )
    return tuple(map(_duration, figures))


def _notes(call: CallTimeline) -> Text:
    counts = call.counts
    notes = [
        _counted(counts.turns, "turn"),
        _counted(counts.interruptions, "interruption"),
        _counted(counts.tools, "tool run"),
    ]
    text = Text(" · ".join(notes))
    if call.caller_end is not None:
        text.append("\n").append_text(_ear_notes(call.caller_end))
    return text


def _ear_notes(ear: CallerEnd) -> Text:
    gaps = [gap.length_s for gap in ear.gaps if gap.inside]
    text = Text(f"heard: {_counted(len(gaps), 'gap')}")
    if gaps:
        text.append(f" (longest {_duration(max(gaps))})", style="red")
    if ear.longest_silence_s is not None:
        text.append(f" · longest silence {_duration(ear.longest_silence_s)}")
    faults = f" · words lost {ear.lost_words}, repeated {ear.repeated_words}"
    text.append(faults, style="red" if ear.lost_words or ear.repeated_words else "")
    if ear.outcome:
        style = "green" if ear.outcome == "ok" else "red"
        text.append(f" · {_printable(ear.outcome)}", style=style)
    for reason in ear.reasons:
        text.append(f"\n  {_printable(reason)}", style="red")
    return text


def _legend(full_s: float, coloured: bool) -> Text:
    text = Text().append("the wait: ", style="dim")
    for stage, style in STAGE_STYLES.items():
        text.append(f"{_cell(stage, coloured)} ", style=style if coloured else "")
        text.append(f"{stage.value}  ", style="dim")
    return text.append(f"(longest {_duration(full_s or None)})", style="dim")


@dataclass(frozen=True)
class _Bars:
    """How waits are drawn: `cells` columns are `full_s` seconds."""

    cells: int
    full_s: float
    coloured: bool

    def bar(self, turn: TurnRecord) -> Text:
        text, reached_s, drawn = Text(), 0.0, 0
        for stage, share_s in turn.stages():
            reached_s += share_s
            upto = round(self.cells * reached_s / self.full_s) if self.full_s > 0 else 0
            style = STAGE_STYLES[stage] if self.coloured else ""
            text.append(_cell(stage, self.coloured) * (upto - drawn), style=style)
            drawn = upto
        return text


_Row = tuple[RenderableType, RenderableType, RenderableType]


def _turn_rows(turn: TurnRecord, ear: CallerTurn | None, bars: _Bars) -> list[_Row]:
    rows: list[_Row] = []
    if turn.caller_text:
        rows.append((_clock(turn.caller_start), Text("caller", style="bold blue"), _said(turn.caller_text)))
    if turn.kind == "reprompt":
        rows.append(("", Text("reprompt", style="dim"), Text("the caller said nothing", style="dim")))
    rows.extend(_meanwhile_rows(turn))
    rows.extend(_wait_rows(turn, ear, bars))
    rows.extend(("", Text("tool", style="cyan"), _tool(tool)) for tool in turn.tools)
    if turn.agent_text or turn.cut:
        said = _said(turn.agent_text).append(CUT_MARK if turn.cut else "", style="bold red")
        rows.append((_clock(turn.heard), Text("agent", style="bold green"), said))
    if turn.interrupted_at is not None:
        rows.append((_clock(turn.interrupted_at), Text("cut in", style="bold red"), _cut_in(turn, ear)))
    return rows


def _meanwhile_rows(turn: TurnRecord) -> list[_Row]:
    """What was said while the answer took its time, by either side."""
    told = [(filler.start, "filler", "dim green", filler.text) for filler in turn.fillers]
    told += [(nudge.at, "nudge", "blue", nudge.text) for nudge in turn.nudges]
    rows: list[_Row] = [
        (_clock(at), Text(what, style=style), _said(text)) for at, what, style, text in sorted(told)
    ]
    if turn.retries:
        rows.append(
            ("", Text("retried", style="red"), Text("nothing came of the answer: asked again", style="red"))
        )
    return rows


def _wait_rows(turn: TurnRecord, ear: CallerTurn | None, bars: _Bars) -> list[_Row]:
    wait_s = _wait_s(turn)
    if wait_s is None:
        if turn.kind == "answer" and turn.heard is None:
            return [("", Text("wait", style="dim"), Text("no answer was heard", style="red"))]
        return []
    line = bars.bar(turn).append(f" {_duration(wait_s)}", style="bold")
    if ear is not None and ear.answer_s is not None:
        line.append(f", at the ear {_duration(ear.answer_s)}", style="bold")
    stages = ", ".join(f"{stage.value} {_milliseconds(share_s)}" for stage, share_s in turn.stages())
    return [("", Text("wait", style="dim"), line), ("", "", Text(stages, style="dim"))]


def _cut_in(turn: TurnRecord, ear: CallerTurn | None) -> Text:
    if turn.heard is None:
        return Text("the caller spoke on before the answer", style="red")
    text = Text("the caller interrupted", style="red")
    if turn.stop_s is not None:
        text.append(f", silent {_duration(turn.stop_s)} later")
    return text


def _tool(tool: ToolRun) -> Text:
    text = Text(f"{_printable(tool.name)} ")
    if tool.end is None:
        return text.append("did not finish", style="red")
    text.append(_duration(tool.end - tool.start))
    return text if tool.ok else text.append(" failed", style="red")


def _wait_s(turn: TurnRecord) -> float | None:
    """The wait a bar shows: the answer's, or from the call's start to the greeting."""
    return turn.heard if turn.kind == "greeting" else turn.answer_s


def _cell(stage: Stage, coloured: bool) -> str:
    return "█" if coloured else stage.value[0]


def _said(text: str) -> Text:
    return Text(_printable(text))


def _printable(text: str) -> str:
    """Return `text` without what a terminal obeys: it was said by a stranger or a model."""
    return "".join(character if character.isprintable() else " " for character in text)


def _clock(at_s: float | None) -> str:
    if at_s is None:
        return ""
    minutes, seconds = divmod(round(at_s, 1), 60)
    return f"{int(minutes)}:{seconds:04.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{_milliseconds(seconds)} ms" if seconds < 1 else f"{seconds:.2f} s"


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _has_colour(console: Console) -> bool:
    return console.color_system is not None and not console.no_color
