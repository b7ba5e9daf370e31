"""The agents that callers reach, by number: the shipped one, and copies of it that differ in one thing each."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from bot.agent import read_agent
from flows.spoken import say_hours
from integrations.calendar import OpeningHours

SHIPPED = Path(__file__).parent.parent / "flows"
RECEPTION, ANNOUNCED, FLUX, SLOW = "reception", "announced", "flux", "slow"
BACKED, TURNED = "backed", "turned"
"""One with a second vendor of models, and one with the second vendors first."""


def at_any_hour(slug: str, *, is_open: bool) -> str:
    """Return the copy of an agent that is always open, or never: a call to it is the same at any hour."""
    return f"{slug}_{'open' if is_open else 'closed'}"


ALWAYS_OPEN = {at_any_hour(slug, is_open=True): slug for slug in (RECEPTION, BACKED, TURNED)}
NEVER_OPEN = {at_any_hour(slug, is_open=False): slug for slug in (RECEPTION, BACKED, TURNED)}
"""Both by the agent that each is a copy of. They tell the shipped hours to whoever asks."""
NUMBERS: Mapping[str, str] = {
    RECEPTION: "+18506872085",
    ANNOUNCED: "+18506872086",
    FLUX: "+18506872087",
    SLOW: "+18506872088",
    BACKED: "+18506872089",
    TURNED: "+18506872090",
    **{slug: f"+185068720{number}" for number, slug in enumerate((*ALWAYS_OPEN, *NEVER_OPEN), 91)},
}
ANNOUNCEMENT = "This call may be recorded so that we can serve you better, and nobody else will listen to it."
SLOW_S = 1.5
"""How long it takes the slow one to write an appointment down: within the limit of a tool."""
_HOURS = '{mon-fri: "08:00-18:00", sat: "09:00-13:00"}'
_SLOW_TOOLS = f"""

import asyncio

_book_at_once = _book


async def _book(*arguments: Any) -> ToolResult:
    await asyncio.sleep({SLOW_S})
    return await _book_at_once(*arguments)
"""


def write_agents(folder: Path, slugs: Iterable[str] = tuple(NUMBERS), *, thinks_ahead: bool = True) -> Path:
    """Write the agents.

    Args:
        folder: Gets a folder for each; must not exist.
        slugs: Which.
        thinks_ahead: Whether they may answer before a turn is known to be over.

    Returns:
        `folder`.
    """
    for slug in slugs:
        shutil.copytree(
            SHIPPED / RECEPTION, folder / slug, ignore=shutil.ignore_patterns("__pycache__", "*.py[co]")
        )
        config, tools = folder / slug / "agent.yaml", folder / slug / "tools.py"
        config.write_text(_config(slug, config.read_text(), thinks_ahead=thinks_ahead))
        if slug == SLOW:
            tools.write_text(tools.read_text() + _SLOW_TOOLS)
        if slug in ALWAYS_OPEN or slug in NEVER_OPEN:
            flow = folder / slug / "flow.yaml"
            flow.write_text(_replaced(flow.read_text(), "{{ hours }}", _shipped_hours()))
    return folder


def _shipped_hours() -> str:
    """Return the shipped agent's hours as it says them."""
    return say_hours(OpeningHours.parse(read_agent(SHIPPED / RECEPTION).config.hours))


def _config(slug: str, text: str, *, thinks_ahead: bool) -> str:
    """Return the agent's `agent.yaml`, made from the shipped one's text."""
    lines = [_replaced(text, NUMBERS[RECEPTION], NUMBERS[slug]).rstrip()]
    if slug in ALWAYS_OPEN:
        lines = [_replaced(lines[0], _HOURS, '{mon-sun: "00:00-24:00"}')]
    if slug in NEVER_OPEN:
        lines = [_replaced(lines[0], _HOURS, "{}")]
    slug = ALWAYS_OPEN.get(slug, NEVER_OPEN.get(slug, slug))
    if slug == FLUX:
        lines = [_replaced(lines[0], "stt: [deepgram, assemblyai]", "stt: [flux, assemblyai]")]
    if slug == BACKED:
        lines = [_replaced(lines[0], "llm: [anthropic]", "llm: [anthropic, openai]")]
    if slug == TURNED:
        turned = _replaced(lines[0], "llm: [anthropic]", "llm: [openai, anthropic]")
        turned = _replaced(turned, "stt: [deepgram, assemblyai]", "stt: [assemblyai, deepgram]")
        lines = [_replaced(turned, "tts: [elevenlabs, cartesia]", "tts: [cartesia, elevenlabs]")]
    if slug == ANNOUNCED:
        lines.append(f'announcement: {{say: "{ANNOUNCEMENT}", barge_in: false}}')
    if not thinks_ahead:
        lines.append("speculation: {enabled: false}")
    return "\n".join(lines) + "\n"


def _replaced(text: str, old: str, new: str) -> str:
    """Return `text` with `old`, which must be there, replaced.

    Raises:
        ValueError: If it is not.
    """
    if old not in text:
        raise ValueError(f"the shipped agent has no {old!r}")
    return text.replace(old, new)
