"""The picture of an interrupted turn: the same call gives the same picture, and it shows what happened."""

import wave
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.figures import CallerOver, CallerReport, CallerTurn
from bench.kept_call import CALL_WAV, CALLER_JSON, TIMELINE_JSON
from bot.timeline import CallerEnd, CallTimeline, write_timeline
from docs.interruption import draw, read_panels, unheard_words
from processors.turn_record import BargeInDecision, PlaybackPause, TurnRecord

SAID = ("We're", "at", "the", "old", "mill")


def words(from_s: float, texts: tuple[str, ...]) -> list[tuple[str, float, float]]:
    return [(text, from_s + 0.4 * n, from_s + 0.4 * (n + 1)) for n, text in enumerate(texts)]


REPORT = CallerReport(
    scenario="interruption",
    outcome="ok",
    turns=(
        CallerTurn(text="Where?", answer_s=0.5, pause_s=None, stop_s=None, start_s=3.0, end_s=3.5),
        CallerTurn(text="Where?", answer_s=0.5, pause_s=None, stop_s=None, start_s=8.0, end_s=8.5),
        CallerTurn(text="Wait & see", answer_s=0.5, pause_s=0.1, stop_s=0.1, start_s=9.9, end_s=10.7),
    ),
    overs=(
        CallerOver(
            kind="backchannel", over_agent=True, text="Uh-huh.", start_s=4.6, end_s=5.0, resumed_s=0.6
        ),
        CallerOver(
            kind="interruption", over_agent=True, text="Wait & see", start_s=9.9, end_s=10.7, stopped=True
        ),
    ),
    agent_words=(
        *words(4.0, SAID[:2]),
        *words(5.3, SAID[1:]),
        *words(9.0, SAID[:2]),
        *words(11.4, ("Sure.",)),
    ),
)
TIMELINE = CallTimeline(
    call_sid="CA1",
    agent="reception",
    channel="phone",
    started_at="2026-01-01T00:00:00Z",
    duration_s=13.0,
    ended_reason="agent_ended",
    turns=(
        TurnRecord(index=0, kind="greeting", heard=0.0),
        TurnRecord(
            index=1,
            kind="answer",
            pauses=(PlaybackPause(4.55, 5.15),),
            barge_in=(
                BargeInDecision("pause", "sound", 4.55),
                BargeInDecision("resume", "nothing said", 5.15),
            ),
        ),
        TurnRecord(
            index=2,
            kind="answer",
            pauses=(PlaybackPause(9.85),),
            barge_in=(BargeInDecision("pause", "sound", 9.85), BargeInDecision("interrupt", "words", 10.2)),
        ),
    ),
    caller_end=CallerEnd(greeting_s=0.1, stream_started_s=0.0),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CALLER_JSON).write_text(REPORT.model_dump_json())
    write_timeline(tmp_path / TIMELINE_JSON, TIMELINE)
    sides = np.random.default_rng(1).normal(0.0, 3000.0, (13 * 8000, 2)).astype("<i2")
    with wave.open(str(tmp_path / CALL_WAV), "wb") as recording:
        recording.setnchannels(2)
        recording.setsampwidth(2)
        recording.setframerate(8000)
        recording.writeframes(sides.tobytes())
    return tmp_path


def test_the_same_call_gives_the_same_picture(folder: Path) -> None:
    assert draw(read_panels(folder)) == draw(read_panels(folder))


def test_it_shows_the_words_the_pauses_and_the_decisions(folder: Path) -> None:
    svg = draw(read_panels(folder))
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for said in ("Uh-huh.", "Wait & see", "pause: sound, 0.05 s", "resume: nothing said, 0.65 s", "Sure."):
        assert said in texts
    assert "interrupt: words, 0.40 s" in texts
    assert svg.count('class="unheard"') == 1 + 3  # the legend's, and what was kept from being heard
    assert svg.count('fill="#fbeecb"') == 1 + 2
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_unheard_words_are_those_that_the_same_answer_had_before() -> None:
    cut = REPORT.overs[1]
    assert [word.text for word in unheard_words(REPORT, cut)] == ["the", "old", "mill"]
    asked_once = REPORT.model_copy(update={"turns": REPORT.turns[1:]})
    assert unheard_words(asked_once, cut) == []
    another = REPORT.model_copy(update={"agent_words": (*words(4.0, ("Come", "by")), *words(9.0, SAID[:2]))})
    assert unheard_words(another, cut) == []


def test_a_call_without_such_sounds_is_refused(folder: Path) -> None:
    (folder / CALLER_JSON).write_text(REPORT.model_copy(update={"overs": ()}).model_dump_json())
    with pytest.raises(ValueError, match="no backchannel"):
        read_panels(folder)
