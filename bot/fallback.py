"""The carrier's last resort: what answers an agent's callers when no server of ours does.

Pure. `firstring doctor --fallback` prints it for a TwiML Bin, which the carrier serves by itself.
"""

from urllib.parse import urlsplit

from bot.agent import AgentConfig
from bot.handoff_lines import handoff_lines
from telephony import twiml


def fallback_document(config: AgentConfig) -> str:
    """Return an agent's document: it rings the first person of the hand-off, then takes a message."""
    lines, language = handoff_lines(config.language), config.language
    humans = config.handoff.humans
    return twiml.carrier_fallback(
        humans[0] if humans else None,
        first=twiml.Spoken(
            lines.fallback if humans else f"{lines.nobody_can_come} {lines.leave_number}", language
        ),
        thanks=twiml.Spoken(f"{lines.thanks} {lines.goodbye}", language),
        ring_s=config.handoff.ring_s,
    )


def fallback_fault(url: str, public_url: str | None) -> str | None:
    """Return what is wrong with a number's fallback URL as the carrier has it, None if nothing is.

    Args:
        url: Empty when none is set.
        public_url: Where the carrier finds us, if that is known.
    """
    if not url:
        return "has no voice fallback URL; callers hear an error when we are down"
    host = urlsplit(url).hostname or ""
    if public_url is not None and host == urlsplit(public_url).hostname:
        return f"its voice fallback URL {url} is on the server that it is to stand in for"
    return None
