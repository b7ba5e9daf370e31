"""Both ends' records of one call in one folder, as `make call` leaves them. Blocks: it reads and writes files."""

import dataclasses
import shutil
from pathlib import Path

from bench.figures import CallerReport
from bot.timeline import CallerEnd, read_timeline, write_timeline

CALLER_JSON, TIMELINE_JSON, CALL_WAV = "caller.json", "timeline.json", "call.wav"


def keep_call(report: CallerReport, ours: Path, target: Path) -> Path:
    """Put what the caller measured and recorded beside what First Ring wrote down.

    Args:
        report: Of the caller.
        ours: First Ring's folder of the call.
        target: Gets all of it.

    Returns:
        `target`.

    Raises:
        OSError: If First Ring left no timeline, or the disk refuses.
        ValueError: If its timeline is of another schema.
    """
    shutil.copytree(ours, target, dirs_exist_ok=True)
    keep_caller(report, target)
    timeline = read_timeline(target / TIMELINE_JSON)
    caller_end = CallerEnd.from_report(report.model_dump())
    write_timeline(target / TIMELINE_JSON, dataclasses.replace(timeline, caller_end=caller_end))
    return target


def keep_caller(report: CallerReport, target: Path) -> None:
    """Put what the caller measured and recorded into `target`.

    Raises:
        OSError: If the disk refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / CALLER_JSON).write_text(report.model_dump_json(indent=2) + "\n")
    if report.wav is not None:
        shutil.move(report.wav, target / CALL_WAV)
