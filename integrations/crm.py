"""What the customer records of a business are to us: what a hand-off leaves there, and the `Crm` Protocol."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class CrmUnavailableError(Exception):
    """The records did not answer in time. Writing the same again is safe: its key makes it one."""


class Speaker(StrEnum):
    """Who said something."""

    CALLER = "caller"
    AGENT = "agent"


@dataclass(frozen=True)
class Said:
    """Something that was said in a call."""

    speaker: Speaker
    text: str
    """Of the agent only what the caller heard."""


@dataclass(frozen=True)
class HandoffRecord:
    """One caller who was handed over to a person.

    `key` names it (call SID and when it began): writing it again takes the place of what was there.
    """

    key: str
    call_sid: str
    agent: str
    """Slug."""
    phone: str
    """Whom to call back: the number they gave, else the one they called from."""
    name: str
    """Empty when they did not give it."""
    reason: str
    """Why, see `bot.handoff_reasons`."""
    summary: str
    """What the person was told, in the agent's language."""
    slots: Mapping[str, str]
    """What was captured besides."""
    transcript: tuple[Said, ...]
    """In its order, up to the hand-off."""
    began_at: datetime
    """Aware."""
    outcome: str = ""
    """What became of it; empty while it is under way."""


class Crm(Protocol):
    """Where it is written down."""

    async def note_handoff(self, record: HandoffRecord) -> None:
        """Write it down, in place of an earlier one of its key; one without an outcome replaces none that has one.

        Raises:
            CrmUnavailableError: If there is no answer in time.
        """
        ...
