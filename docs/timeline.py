"""Draws `docs/timeline.svg`, the README's picture of a call, as `make call` prints it.

`make picture` places a test call and draws it; given a saved `timeline.json`, it draws that one. Not part of the
product: it runs the `firstring` command and reads the files that it leaves.
"""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

from rich.color import Color
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from bot.timeline import CallTimeline, read_timeline, render_timeline

PICTURE = Path(__file__).with_suffix(".svg")
WIDTH_CELLS = 100
GROUND, TEXT = "#fcfcfa", "#282a2e"
# Black, red, green, yellow, blue, magenta, cyan, white; then the same, bright.
DARK = "#282a2e #be3228 #1e7d3c #cd9100 #285fbe #9646a5 #008796 #e1e1dc"
BRIGHT = "#a0a2a5 #d74b3c #2d964b #dca51e #5f96eb #af64be #1ea0af #fafaf8"


def _colours(names: str) -> list[tuple[int, int, int]]:
    """Return colours as (red, green, blue)."""
    colours = [Color.parse(name).get_truecolor() for name in names.split()]
    return [(colour.red, colour.green, colour.blue) for colour in colours]


THEME = TerminalTheme(_colours(GROUND)[0], _colours(TEXT)[0], _colours(DARK), _colours(BRIGHT))
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {terminal_width} {terminal_height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px;
line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect fill="#fcfcfa" width="{terminal_width}" height="{terminal_height}" rx="8"/>
<g transform="translate(9, 9)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own frame loads a font from another host."""


def draw(call: CallTimeline) -> str:
    """Return a call as SVG, on light ground and with nothing in it that is fetched."""
    console = Console(
        record=True, width=WIDTH_CELLS, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(render_timeline(call, width=WIDTH_CELLS, coloured=True))
    svg = console.export_svg(theme=THEME, code_format=FRAME, unique_id="timeline")
    return "".join(f"{line.rstrip()}\n" for line in svg.splitlines() if line.strip())


def main() -> int:
    """Draw the picture; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.timeline", description="Draw docs/timeline.svg.")
    parser.add_argument("timeline", nargs="?", type=Path, help="a timeline.json; default: of a new test call")
    path = parser.parse_args().timeline or _place_call()
    if path is None:
        return 1
    PICTURE.write_text(draw(read_timeline(path)))
    return 0


def _place_call() -> Path | None:
    """Place the default test call; return its timeline, None if the call failed."""
    command = [sys.executable, "-m", "bot.cli", "call", "--json"]
    called = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own command line
    if called.returncode != 0:
        return None
    return Path(json.loads(called.stdout)["folder"]) / "timeline.json"


if __name__ == "__main__":
    sys.exit(main())
