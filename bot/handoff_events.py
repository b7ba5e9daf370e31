"""What becomes of hand-offs, told to the metrics and to the event log: a row for each thing."""

from typing import Protocol

from bot.call_events import EventNotes
from store.events import EventKind, event_now, failure


class HandoffCounts(Protocol):
    """Where hand-offs are counted; `bot.metrics.Metrics` is one."""

    def handoff_rang(self, *, agent: str, outcome: str) -> None:
        """Count a person who was rung."""
        ...

    def handoff_accepted(self, *, agent: str, waited_s: float) -> None:
        """Count a person who took a call."""
        ...

    def handoff_over(self, *, agent: str, reason: str, outcome: str) -> None:
        """Count a hand-off that has ended."""
        ...

    def handoff_fault(self, *, agent: str, kind: str) -> None:
        """Count something that went wrong, and that a hand-off got over."""
        ...


class HandoffEvents:
    """A `bot.handoff.HandoffListener`."""

    def __init__(self, notes: EventNotes, counts: HandoffCounts) -> None:
        """Tell both.

        Args:
            notes: Takes the rows.
            counts: Counts.
        """
        self._notes = notes
        self._counts = counts

    def handoff_began(self, call_sid: str, *, agent: str, reason: str, people: int) -> None:
        """A caller goes to a person: why, and how many can be rung."""
        self._note(call_sid, agent, "began", reason=reason, people=people)

    def handoff_rang(self, call_sid: str, *, agent: str, person: int, outcome: str) -> None:
        """A person was rung."""
        self._counts.handoff_rang(agent=agent, outcome=outcome)
        self._note(call_sid, agent, "rang", person=person, outcome=outcome)

    def handoff_accepted(self, call_sid: str, *, agent: str, waited_s: float) -> None:
        """A person took a call, so long after it was to be handed over."""
        self._counts.handoff_accepted(agent=agent, waited_s=waited_s)
        self._note(call_sid, agent, "accepted", cost_ms=round(1000 * waited_s, 1))

    def handoff_over(self, call_sid: str, *, agent: str, reason: str, outcome: str, promised: bool) -> None:
        """A hand-off has ended."""
        self._counts.handoff_over(agent=agent, reason=reason, outcome=outcome)
        self._note(call_sid, agent, "over", reason=reason, outcome=outcome, promised=promised)

    def handoff_fault(
        self, call_sid: str, *, agent: str, kind: str, action: str, cost_s: float, detail: str
    ) -> None:
        """See `HandoffListener`."""
        self._counts.handoff_fault(agent=agent, kind=kind)
        vendor = "twilio" if kind == "carrier" else kind
        row = failure(
            call_sid,
            vendor=vendor,
            kind="unavailable",
            stage="handoff",
            action=action,
            cost_ms=1000 * cost_s,
            more={"agent": agent, "layer": "handoff", "detail": detail},
        )
        self._notes.note(row)

    def _note(self, call_sid: str, agent: str, step: str, **fields: str | float | bool) -> None:
        self._notes.note(event_now(call_sid, EventKind.HANDOFF, {"agent": agent, "step": step, **fields}))
