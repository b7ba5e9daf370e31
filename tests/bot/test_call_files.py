import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger

from bot.call import Channel
from bot.call_files import call_timeline, write_call_files
from bot.call_life import CallTimes, EndReason
from bot.line_files import LineFiles
from bot.timeline import read_timeline
from processors.turn_record import TurnLedger


@pytest.fixture
def errors() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR", format="{message}")
    yield lines
    logger.remove(sink)


def ended_call(folder: Path | None) -> Any:
    """What the files need of a call that said its greeting."""
    turns = TurnLedger(started_s=10.0)
    turns.line_up(10.0)
    turns.heard_started(10.1)
    turns.heard_word("Hello.", 10.4)
    turns.agent_stopped(cut=False, now_s=10.5)
    turns.ended(12.0)
    return SimpleNamespace(
        setup=SimpleNamespace(
            call_sid="CA1", agent=SimpleNamespace(slug="reception"), channel=Channel.PHONE, folder=folder
        ),
        times=CallTimes(10.0, line_s=10.0),
        duration_s=2.0,
        turns=turns,
        end_reason=EndReason.CALLER_HUNG_UP,
        files=LineFiles(folder, part=1, rate_hz=8000),
    )


def test_a_call_leaves_its_timeline_and_transcript(tmp_path: Path) -> None:
    call = ended_call(tmp_path / "CA1")
    write_call_files(call)
    kept = read_timeline(tmp_path / "CA1" / "timeline.json")
    assert kept.counts == call_timeline(call).counts
    assert [(turn.kind, turn.agent_text) for turn in kept.turns] == [("greeting", "Hello.")]
    shape = json.loads((tmp_path / "CA1" / "timeline.json").read_text())
    assert (shape["call_sid"], shape["ended_reason"], shape["channel"]) == ("CA1", "caller_hung_up", "phone")
    assert "Hello." in (tmp_path / "CA1" / "transcript.txt").read_text()


def test_a_call_that_records_nothing_leaves_nothing(tmp_path: Path) -> None:
    write_call_files(ended_call(None))
    assert list(tmp_path.iterdir()) == []


def test_a_call_whose_line_never_came_leaves_nothing(tmp_path: Path) -> None:
    call = ended_call(tmp_path / "CA1")
    call.times.line_s = None
    write_call_files(call)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_told(tmp_path: Path, errors: list[str]) -> None:
    (tmp_path / "CA1").write_text("a file where the folder should be")
    write_call_files(ended_call(tmp_path / "CA1"))
    assert "CA1 left no timeline" in errors[0]
