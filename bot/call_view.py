"""A call as the pages show it: JSON. Reads a call, changes nothing of it."""

from collections.abc import Mapping
from typing import Any

from bot.call import Call
from bot.call_life import CallState
from processors.turn_record import Line, TurnRecord


def call_view(call: Call, *, with_turns: bool) -> dict[str, Any]:
    """Return a call as the page shows it."""
    setup = call.setup
    view: dict[str, Any] = {
        "call_sid": setup.call_sid,
        "agent": setup.agent.slug,
        "from": setup.caller_number,
        "channel": setup.channel,
        "state": CallState.LIVE if call.state is CallState.ENDING else call.state,
        "started_at": call.times.started_at.isoformat(),
        "duration_s": round(call.duration_s, 3),
        "ended_reason": call.end_reason,
        "turns": call.turns.counts.turns,
    }
    if with_turns:
        view["turns"] = [turn.to_json() for turn in _turns(call)]
        view["transcript"] = [line_view(line) for line in call.turns.transcript_lines()]
    return view


def line_view(line: Line) -> Mapping[str, Any]:
    """Return one line of a transcript as JSON."""
    return {"who": line.who, "text": line.text, "at_s": line.at_s, "cut": line.cut}


def _turns(call: Call) -> list[TurnRecord]:
    running = call.turns.snapshot()
    return [*call.turns.turns(), *([running] if running is not None else [])]
