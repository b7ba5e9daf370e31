"""Draws `docs/interruption.svg`: a backchannel that the agent takes for one, and an interruption, to the sample.

`make picture` places a call for it and draws that; given a folder with a call's `call.wav`, `caller.json` and
`timeline.json`, it draws that one. Waveforms and words are the caller's end, decisions and pauses the agent's. Not part
of the product.
"""

import argparse
import asyncio
import math
import sys
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.sax.saxutils import escape

import aiohttp
import numpy as np
import numpy.typing as npt

from bench.figures import CallerOver, CallerReport
from bench.kept_call import CALL_WAV, CALLER_JSON, TIMELINE_JSON, keep_call
from bench.load import SimPhone
from bench.servers import Bot, running
from bot.settings import Vendor, VendorSource
from bot.sim_process import SimProcess, sim_environment
from bot.timeline import CallTimeline, read_timeline
from processors.turn_record import BargeInDecision, PlaybackPause
from sims.scenario import Scenario

PICTURE = Path(__file__).with_suffix(".svg")
SCRIPT: dict[str, Any] = {
    "name": "interruption",
    "voice": "caller-2",
    "caller": "+15550100099",
    "ended_by": "either",
    "steps": [
        {"expect": {"agent": "finishes"}},
        {"say": "What's your address?"},
        {"over": {"once_heard": "412", "after_ms": 150, "backchannel": "Uh-huh."}},
        {"say": "Sorry, where are you?"},
        {"over": {"once_heard": "Harrison", "after_ms": 150, "say": "Wait, is there any parking?"}},
        {"say": "No, that's all, thanks. Goodbye."},
    ],
}
"""The same answer twice, so that it is known which words an interruption kept from being heard."""
FILES_LIMIT_S = 10.0

BEFORE_S, AFTER_S = 1.3, 2.9
"""How much is drawn around the caller's first sample."""
WIDTH, MARGIN, PANEL_HEIGHT, TOP = 1000, 70, 268, 46
LANE, CALLER_Y, AGENT_Y, WORDS_Y, AXIS_Y = 30, 92, 178, 226, 254
"""Half of a waveform's height, and where things are in a panel."""
COLUMN_PX = 2
LETTER_PX = 6.6
"""A letter of the words and labels, about."""
FULL_SCALE = 12_000
"""Sample value at the edge of a lane; louder is cut off."""
GROUND, INK, FAINT, CALLER, AGENT, PAUSE, UNHEARD = (
    "#fcfcfa",
    "#282a2e",
    "#a0a2a5",
    "#285fbe",
    "#1e7d3c",
    "#fbeecb",
    "#b9bbbe",
)
STYLE = f"""\
text {{ font: 12px ui-sans-serif, system-ui, "Helvetica Neue", "DejaVu Sans", sans-serif; fill: {INK}; }}
.title {{ font-size: 15px; font-weight: 600; }}
.who {{ font-weight: 600; text-anchor: end; }}
.faint {{ fill: {FAINT}; }}
.unheard {{ fill: {UNHEARD}; text-decoration: line-through; }}
.middle {{ text-anchor: middle; }}
"""

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class SpokenWord:
    """A word of the agent's; seconds of the call. One that was not heard stands where it would have been."""

    text: str
    start_s: float
    end_s: float
    is_heard: bool = True


@dataclass(frozen=True)
class Panel:
    """A few seconds of a call around one sound of the caller's. Times are seconds of the call, at the caller's end."""

    title: str
    said: str
    onset_s: float
    end_s: float
    caller: Samples
    agent: Samples
    """8 kHz, from `BEFORE_S` before the onset on."""
    words: tuple[SpokenWord, ...]
    pauses: tuple[PlaybackPause, ...]
    decisions: tuple[BargeInDecision, ...]


def draw(panels: Sequence[Panel]) -> str:
    """Return the picture as SVG, on light ground and with nothing in it that is fetched."""
    height = TOP + PANEL_HEIGHT * len(panels)
    lines = [
        f'<svg viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg" role="img">',
        f"<style>\n{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{GROUND}"/>',
        *_legend(),
    ]
    for number, panel in enumerate(panels):
        lines += [f'<g transform="translate(0, {TOP + number * PANEL_HEIGHT})">', *_panel(panel), "</g>"]
    return "\n".join([*lines, "</svg>"]) + "\n"


def read_panels(folder: Path) -> list[Panel]:
    """Read a call: its first backchannel that was taken for one, and its first interruption that was heeded.

    Args:
        folder: Has `call.wav`, `caller.json` and `timeline.json`.

    Raises:
        OSError: If a file is missing.
        ValueError: If the call has no such sounds, or a file is not what it should be.
    """
    report = CallerReport.model_validate_json((folder / CALLER_JSON).read_text())
    timeline, sides = read_timeline(folder / TIMELINE_JSON), _read_wav(folder / CALL_WAV)
    kept = next((o for o in report.overs if o.kind == "backchannel" and o.resumed_s is not None), None)
    cut = next((o for o in report.overs if o.kind == "interruption" and o.stopped), None)
    if kept is None or cut is None:
        raise ValueError("the call has no backchannel that was taken for one, or no interruption")
    heard = _heard_words(report)
    return [
        _cut_out(kept, "A backchannel: the agent falls silent, and goes on", heard, timeline, sides),
        _cut_out(
            cut,
            "An interruption: the agent falls silent, and stays so",
            sorted([*heard, *unheard_words(report, cut)], key=lambda word: word.start_s),
            timeline,
            sides,
        ),
    ]


def unheard_words(report: CallerReport, cut: CallerOver) -> list[SpokenWord]:
    """Return the words that an interruption kept from being heard, known from the same answer given earlier.

    Args:
        report: Of the call.
        cut: The interruption; nothing is known when the agent had not said the same before.
    """
    turns = [turn for turn in report.turns if turn.start_s < cut.start_s]
    if len(turns) < 2:
        return []
    whole = [w for w in _heard_words(report) if turns[-2].end_s < w.start_s < turns[-1].start_s]
    once = [w for n, w in enumerate(whole) if not n or w.text != whole[n - 1].text]  # a pause repeats a word
    said = [w for w in _heard_words(report) if turns[-1].end_s < w.start_s < cut.start_s]
    # An answer may open with another word each time.
    known = next((n for n in range(len(once), 1, -1) if _ends_alike(once[:n], said)), None)
    if known is None:
        return []
    words: list[SpokenWord] = []
    at_s = said[-1].end_s
    next_s = min((w.start_s for w in _heard_words(report) if w.start_s > at_s), default=math.inf)
    for word in once[known:]:
        if at_s + word.end_s - word.start_s > next_s:
            break
        words.append(SpokenWord(word.text, at_s, at_s + word.end_s - word.start_s, is_heard=False))
        at_s = words[-1].end_s
    return words


def _ends_alike(one: Sequence[SpokenWord], other: Sequence[SpokenWord]) -> bool:
    last, last_other = [w.text for w in one[-2:]], [w.text for w in other[-2:]]
    return len(last) == 2 and last == last_other


def _heard_words(report: CallerReport) -> list[SpokenWord]:
    return [SpokenWord(*word) for word in report.agent_words]


def _read_wav(path: Path) -> tuple[Samples, Samples]:
    """Return both sides of a recording, the caller first."""
    with wave.open(str(path), "rb") as recording:
        if (recording.getnchannels(), recording.getsampwidth(), recording.getframerate()) != (2, 2, 8000):
            raise ValueError(f"{path.name} is not 8 kHz, 16 bits, stereo")
        frames = np.frombuffer(recording.readframes(recording.getnframes()), dtype="<i2").reshape(-1, 2)
    return frames[:, 0], frames[:, 1]


def _cut_out(
    over: CallerOver,
    title: str,
    words: Sequence[SpokenWord],
    timeline: CallTimeline,
    sides: tuple[Samples, Samples],
) -> Panel:
    zero_s = _agents_zero_s(timeline)
    from_s, to_s = over.start_s - BEFORE_S, over.start_s + AFTER_S
    first, count = round(from_s * 8000), round((BEFORE_S + AFTER_S) * 8000)
    caller, agent = (np.pad(side, (max(-first, 0), count))[max(first, 0) :][:count] for side in sides)
    pauses = [
        PlaybackPause(pause.start + zero_s, None if pause.end is None else pause.end + zero_s)
        for turn in timeline.turns
        for pause in turn.pauses
    ]
    decisions = [
        BargeInDecision(one.kind, one.reason, one.at + zero_s)
        for turn in timeline.turns
        for one in turn.barge_in
    ]
    return Panel(
        title,
        over.text,
        over.start_s,
        over.end_s,
        caller,
        agent,
        tuple(word for word in words if from_s <= word.start_s and word.end_s <= to_s),
        tuple(pause for pause in pauses if from_s <= pause.start < to_s),
        tuple(one for one in decisions if from_s <= one.at < to_s),
    )


def _agents_zero_s(timeline: CallTimeline) -> float:
    """Return when the agent's clock was at zero on the caller's: both know when the greeting was first heard."""
    ear = timeline.caller_end
    if ear is None or ear.greeting_s is None or not timeline.turns:
        return 0.0
    return (ear.stream_started_s or 0.0) + ear.greeting_s - (timeline.turns[0].heard or 0.0)


def _legend() -> Iterator[str]:
    yield f'<text class="title" x="{MARGIN}" y="28">What a sound of the caller&#39;s does</text>'
    items = (
        (f'<rect x="0" y="-10" width="16" height="12" fill="{PAUSE}"/>', "the agent is paused"),
        (f'<line x1="8" y1="-12" x2="8" y2="4" stroke="{INK}" stroke-dasharray="2 2"/>', "decided"),
        ('<text class="unheard">word</text>', "never heard"),
    )
    x = 560
    for mark, label in items:
        yield f'<g transform="translate({x}, 28)">{mark}<text x="{36 if "word" in mark else 22}">{label}</text></g>'
        x += round(60 + LETTER_PX * len(label))


def _panel(panel: Panel) -> Iterator[str]:
    yield f'<text class="title" x="{MARGIN}" y="22">{escape(panel.title)}</text>'
    for pause in panel.pauses:
        dropped = (one.at for one in panel.decisions if one.kind == "interrupt" and one.at > pause.start)
        end_s = pause.end if pause.end is not None else next(dropped, panel.end_s)
        left, right = _x(panel, pause.start), min(_x(panel, end_s), _right())
        y, height = AGENT_Y - LANE - 4, 2 * LANE + 8
        yield f'<rect x="{left}" y="{y}" width="{round(right - left, 1)}" height="{height}" fill="{PAUSE}"/>'
    for who, y, samples, colour in (
        ("caller", CALLER_Y, panel.caller, CALLER),
        ("agent", AGENT_Y, panel.agent, AGENT),
    ):
        yield f'<text class="who" x="{MARGIN - 12}" y="{y + 4}">{who}</text>'
        yield f'<path d="{_wave(samples, y)}" fill="{colour}"/>'
    said_x = (_x(panel, panel.onset_s) + _x(panel, panel.end_s)) / 2
    yield f'<text class="middle" x="{said_x:.1f}" y="{CALLER_Y + LANE + 12}">{escape(panel.said)}</text>'
    yield from _words(panel)
    yield from _decisions(panel)
    yield from _axis(panel)


def _wave(samples: Samples, y: int) -> str:
    """Return a path around the loudest and lowest samples of each column."""
    columns = (WIDTH - 2 * MARGIN) // COLUMN_PX
    chunks = np.array_split(np.clip(samples.astype(np.float64) / FULL_SCALE, -1.0, 1.0), columns)
    high = [y - 0.4 - LANE * float(chunk.max(initial=0.0)) for chunk in chunks]
    low = [y + 0.4 - LANE * float(chunk.min(initial=0.0)) for chunk in chunks]
    there = [f"{MARGIN + n * COLUMN_PX} {edge:.1f}" for n, edge in enumerate(high)]
    back = [f"{MARGIN + n * COLUMN_PX} {edge:.1f}" for n, edge in reversed(list(enumerate(low)))]
    return f"M{'L'.join([*there, *back])}Z"


def _words(panel: Panel) -> Iterator[str]:
    """Yield the agent's words below its sound, each where it begins, pushed on by the one before."""
    free_x = 0.0
    for word in panel.words:
        x = max(_x(panel, word.start_s), free_x)
        free_x = x + LETTER_PX * (len(word.text) + 1)
        if free_x > _right() + MARGIN / 2:
            return
        kind = "heard" if word.is_heard else "unheard"
        yield f'<text class="{kind}" x="{x:.1f}" y="{WORDS_Y}">{escape(word.text)}</text>'


def _decisions(panel: Panel) -> Iterator[str]:
    """Yield a tick for each decision, its label in the higher row where the lower one is taken."""
    free_x = 0.0
    for one in panel.decisions:
        x, label = _x(panel, one.at), f"{one.kind}: {one.reason}"
        is_free = x >= free_x
        y = CALLER_Y - LANE - 6 if is_free else CALLER_Y - LANE - 20
        if is_free:
            free_x = x + LETTER_PX * (len(label) + 2)
        yield f'<line x1="{x}" y1="{y + 2}" x2="{x}" y2="{AGENT_Y + LANE + 4}" stroke="{INK}" stroke-dasharray="2 2"/>'
        yield f'<text x="{x + 4:.1f}" y="{y}">{escape(label)}, {one.at - panel.onset_s:.2f} s</text>'


def _axis(panel: Panel) -> Iterator[str]:
    yield f'<line x1="{MARGIN}" y1="{AXIS_Y - 16}" x2="{_right()}" y2="{AXIS_Y - 16}" stroke="{FAINT}"/>'
    for half in range(int(-2 * BEFORE_S), int(2 * AFTER_S) + 1):
        x = _x(panel, panel.onset_s + half / 2)
        yield f'<line x1="{x}" y1="{AXIS_Y - 16}" x2="{x}" y2="{AXIS_Y - 12}" stroke="{FAINT}"/>'
        label = "first sound" if half == 0 else f"{half / 2:g} s"
        yield f'<text class="faint middle" x="{x}" y="{AXIS_Y}">{label}</text>'


def _x(panel: Panel, at_s: float) -> float:
    share = (at_s - panel.onset_s + BEFORE_S) / (BEFORE_S + AFTER_S)
    return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)


def _right() -> float:
    return WIDTH - MARGIN


def main() -> int:
    """Draw the picture; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.interruption", description="Draw docs/interruption.svg."
    )
    parser.add_argument("folder", nargs="?", type=Path, help="of a call; default: a new one")
    folder = parser.parse_args().folder
    try:
        if folder is not None:
            PICTURE.write_text(draw(read_panels(folder)))
        else:
            with TemporaryDirectory(prefix="firstring-picture-") as place:
                PICTURE.write_text(draw(read_panels(asyncio.run(_place_call(Path(place))))))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the picture could not be drawn: {error}\n")
        return 1
    return 0


async def _place_call(folder: Path) -> Path:
    """Place a call to First Ring through the sims; return the folder of what both ends recorded."""
    script = Scenario.model_validate(SCRIPT)
    with SimProcess.start(seed=1) as sims:
        vendors = sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), sims.environment)
        vendors["SIMS"] = "off"
        with running(Bot.OURS, vendors=vendors, folder=folder / "server", core=None, max_calls=2) as server:
            async with aiohttp.ClientSession(sims.environment["TWILIO_BASE_URL"]) as session:
                phone = SimPhone(session)
                report = await phone.call(script, server.voice_url, seed=1, out_dir=folder)
            ours = folder / "server" / "recordings" / report.call_sid
            async with asyncio.timeout(FILES_LIMIT_S):
                while not (ours / TIMELINE_JSON).exists():  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.1)
    return await asyncio.to_thread(keep_call, report, ours, folder / "kept")


if __name__ == "__main__":
    sys.exit(main())
