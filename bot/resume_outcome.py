"""What was done about a call that was cut, and its row in the event log. Pure."""

import enum
from collections.abc import Mapping
from typing import Final

from store.events import CallEvent, EventKind, event_now, failure


class ResumeOutcome(enum.StrEnum):
    """What was done about a call that was cut, or what came of it."""

    ASKED = "asked"
    """Twilio asked, and got a new stream."""
    ASKED_AGAIN = "asked_again"
    REDIRECTED = "redirected"
    """Its process had stopped, or it had no line; Twilio was told."""
    WENT_ON = "went_on"
    """Its new line is up."""
    TOO_OFTEN = "too_often"
    """A person or voicemail takes it."""
    FAILED = "failed"
    """Twilio could not be told."""
    REFUSED = "refused"
    """Its new line came for a call that is over or another process's."""


_FAILURES: Final[Mapping[ResumeOutcome, tuple[str, str, str, str]]] = {
    ResumeOutcome.ASKED: ("twilio", "line_lost", "stream", "resume"),
    ResumeOutcome.REDIRECTED: ("process", "stopped", "beat", "redirect"),
    ResumeOutcome.TOO_OFTEN: ("twilio", "line_lost", "stream", "no_agent"),
    ResumeOutcome.FAILED: ("twilio", "unreachable", "redirect", "give_up"),
}
"""Vendor, kind, stage and action of those that are a failure."""


def event_of(outcome: ResumeOutcome, call_sid: str, waited_s: float) -> CallEvent:
    """Return the row.

    Args:
        outcome: What was done.
        call_sid: Of which call.
        waited_s: For how long the caller has had no line, as far as that is known.
    """
    told = _FAILURES.get(outcome)
    if told is None:
        fields = {"outcome": outcome.value, "waited_ms": round(1000 * waited_s, 1)}
        return event_now(call_sid, EventKind.CALL_RESUMED, fields)
    vendor, kind, stage, action = told
    return failure(call_sid, vendor=vendor, kind=kind, stage=stage, action=action, cost_ms=1000 * waited_s)
