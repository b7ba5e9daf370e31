import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bot.timeline import (
    CallerEnd,
    CallTimeline,
    match_caller_turns,
    percentile,
    print_timeline,
    read_timeline,
    write_timeline,
    write_transcript,
)
from processors.turn_record import FillerRun, LedgerCounts, Nudge, ToolRun, TurnRecord

TURNS = (
    TurnRecord(
        0, "greeting", agent_text="Northside Dental, how can I help?", tts_first_audio=0.01, heard=0.062
    ),
    TurnRecord(
        index=1,
        kind="answer",
        caller_text="I'd like to book a cleaning, please.",
        agent_text="Sure. Which day would",
        cut=True,
        caller_start=2.1,
        speech_end=4.0,
        vad_stop=4.2,
        transcript_final=4.15,
        turn_decided=4.22,
        llm_request=4.24,
        llm_first_token=4.55,
        first_sentence=4.6,
        tts_first_audio=4.76,
        heard=4.82,
        agent_end=6.0,
        interrupted_at=5.85,
        tools=(
            ToolRun("find_slots", 4.3, 4.44, True),
            ToolRun("notify", 4.3, 4.4, False),
            ToolRun("crm", 4.3),
        ),
        answer_s=0.82,
    ),
    TurnRecord(
        2, "answer", "Actually Wednesday.", "Wednesday it is.", speech_end=6.6, heard=7.92, answer_s=1.32
    ),
    TurnRecord(3, "reprompt", agent_text="Are you there?", heard=61.96),
    TurnRecord(4, "answer", "Yes.", speech_end=66.0, interrupted_at=67.0),
)
REPORT = {
    "greeting_s": 0.071,
    "outcome": "failed",
    "reasons": ["expected the agent to end the call"],
    "stream_started_s": 0.12,
    "turns": [
        {"index": 1, "text": "I'd like", "end_s": 4.1, "answer_s": 0.84, "stop_s": None},
        {"index": 2, "text": "Actually", "end_s": 6.7, "answer_s": 1.35, "stop_s": 0.21},
    ],
    "gaps": [
        {"at_s": 3.0, "length_s": 0.05, "inside": True},
        {"at_s": 8.0, "length_s": 0.4, "inside": False},
    ],
    "measures": {"longest_wait_s": 1.36, "longest_silence_s": 7.1, "lost_words": 2, "repeated_words": 0},
}
CALL = CallTimeline(
    call_sid="CA0123",
    agent="reception",
    channel="phone",
    started_at="2026-01-01T10:00:00+00:00",
    duration_s=70.5,
    ended_reason="goodbye",
    turns=TURNS,
    counts=LedgerCounts(turns=5, interruptions=2, tools=3, longest_silence_s=1.32),
    caller_end=CallerEnd.from_report(REPORT),
)


def drawn(call: CallTimeline = CALL, *, width: int = 80, coloured: bool = False) -> str:
    out = io.StringIO()
    system = "truecolor" if coloured else None
    console = Console(file=out, width=width, force_terminal=coloured, color_system=system, highlight=False)
    print_timeline(call, console)
    return out.getvalue()


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("call", [CALL, replace(CALL, caller_end=None, turns=())])
def test_fits_the_terminal(call: CallTimeline, width: int) -> None:
    lines = drawn(call, width=width).splitlines()
    assert len(lines) > 4
    assert max(map(len, lines)) <= width


def test_ear_stands_before_the_server() -> None:
    text = drawn()
    ear, server = (line for line in text.splitlines() if line.startswith(("at the caller", "in the server")))
    assert ear.split()[4:] == ["71", "ms", "840", "ms", "1.35", "s", "210", "ms", "1.36", "s"]
    assert server.split()[3:] == ["62", "ms", "820", "ms", "1.32", "s", "150", "ms", "1.32", "s"]
    assert text.index("at the caller's ear") < text.index("in the server")
    assert "1 gap (longest 50 ms)" in text
    assert "words lost 2" in text
    assert "expected the agent to end the call" in text
    assert "5 turns · 2 interruptions · 3 tool runs\n" in text


def test_turns_are_told_as_heard() -> None:
    lines = [" ".join(line.split()) for line in drawn(width=120).splitlines()]
    assert "0:02.1 caller I'd like to book a cleaning, please." in lines
    assert "0:04.8 agent Sure. Which day would —" in lines
    assert "0:05.8 cut in the caller interrupted, silent 150 ms later" in lines
    assert "pause 200, decision 40, model 310, sentence 50, voice 160, ear 60" in lines
    assert "tool find_slots 140 ms" in lines
    assert "tool notify 100 ms failed" in lines
    assert "tool crm did not finish" in lines
    assert "reprompt the caller said nothing" in lines
    assert "1:02.0 agent Are you there?" in lines
    assert "wait no answer was heard" in lines
    assert "1:07.0 cut in the caller spoke on before the answer" in lines


def test_bars_share_one_scale_and_are_letters_without_colour() -> None:
    plain = [
        line.split() for line in drawn(width=120).splitlines() if " ms, at the ear" in line or "s, at" in line
    ]
    (short, long) = (line[1] for line in plain)
    assert len(short) / len(long) == pytest.approx(0.82 / 1.32, abs=0.02)
    assert short == "".join(sorted(short, key="ptdmsve".index))
    assert set(short) == set("pdmsve")
    coloured = drawn(width=120, coloured=True)
    assert "█" in coloured
    assert "\x1b[" in coloured
    assert "\x1b" not in drawn(width=120)


def test_what_was_said_cannot_command_the_terminal() -> None:
    said = "\x1b[2J\x07[red]gone\r\n"
    turn = TurnRecord(1, "answer", caller_text=said, agent_text=said, speech_end=1.0, heard=2.0, answer_s=1.0)
    text = drawn(replace(CALL, turns=(turn,), ended_reason=said))
    assert not set(text) & set("\x1b\x07\r")
    assert text.count("[red]gone") == 3


def test_caller_turns_are_matched_by_the_end_of_speech() -> None:
    ears = match_caller_turns(CALL)
    assert {index: turn.text for index, turn in ears.items()} == {1: "I'd like", 2: "Actually"}
    assert match_caller_turns(replace(CALL, caller_end=None)) == {}


def test_report_without_measures_is_read() -> None:
    assert CallerEnd.from_report({"measures": None, "turns": [{}], "new_field": 1}).turns[0].answer_s is None


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), ([1.0, 2.0, 3.0], 0.95, 3.0)],
)
def test_percentile(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


def test_timeline_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    write_timeline(path, CALL)
    assert read_timeline(path) == CALL
    shape = json.loads(path.read_text())
    assert shape["schema"] == 1
    call = {"call_sid", "agent", "channel", "started_at", "duration_s", "ended_reason"}
    assert set(shape) == {"schema", *call, "turns", "transcript", "counts", "caller_end"}
    assert shape["turns"][1]["answer_s"] == 0.82
    assert shape["transcript"][0] == {
        "who": "agent",
        "text": "Northside Dental, how can I help?",
        "at_s": 0.062,
        "cut": False,
    }


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "turns": 3}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "timeline.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"schema|validation|unexpected|zero-length|empty"):
        read_timeline(path)


def test_transcript_file(tmp_path: Path) -> None:
    path = tmp_path / "transcript.txt"
    write_transcript(path, replace(CALL, turns=TURNS[:2]))
    assert path.read_text().splitlines() == [
        "CA0123  reception  phone  2026-01-01T10:00:00+00:00",
        "",
        "[0:00.1] agent: Northside Dental, how can I help?",
        "[0:02.1] caller: I'd like to book a cleaning, please.",
        "[0:04.8] agent: Sure. Which day would —",
    ]


def test_what_bridged_a_wait_is_told_before_it() -> None:
    turn = TurnRecord(
        index=1,
        kind="answer",
        caller_text="When?",
        agent_text="Friday.",
        speech_end=3.0,
        heard=9.0,
        answer_s=6.0,
        fillers=(FillerRun("One moment.", 5.0, 6.0),),
        nudges=(Nudge("Hello?", 7.0),),
        retries=1,
    )
    text = drawn(replace(CALL, turns=(turn,), caller_end=None))
    order = [
        text.index(words)
        for words in ("When?", "0:05.0", "One moment.", "0:07.0", "Hello?", "asked again", "Friday.")
    ]
    assert order == sorted(order)
    assert "6.00 s" in text
