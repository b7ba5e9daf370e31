"""Each thing of a hand-off is counted and is a row."""

from bot.handoff_events import HandoffEvents
from bot.metrics import Metrics
from store.events import CallEvent, EventKind


class Notes:
    def __init__(self) -> None:
        self.rows: list[CallEvent] = []

    def note(self, event: CallEvent) -> None:
        self.rows.append(event)


def test_each_thing_is_a_row_and_a_count() -> None:
    notes, metrics = Notes(), Metrics.create()
    events = HandoffEvents(notes, metrics)
    events.handoff_began("CA1", agent="a", reason="asked", people=2)
    events.handoff_rang("CA1", agent="a", person=0, outcome="busy")
    events.handoff_accepted("CA1", agent="a", waited_s=12.5)
    events.handoff_over("CA1", agent="a", reason="asked", outcome="accepted", promised=False)
    events.handoff_fault(
        "CA1", agent="a", kind="carrier", action="line_closed", cost_s=2.0, detail="no route"
    )
    kinds = [row.kind for row in notes.rows]
    assert kinds == [EventKind.HANDOFF] * 4 + [EventKind.FAILURE]
    assert [row.fields.get("step") for row in notes.rows[:4]] == ["began", "rang", "accepted", "over"]
    assert notes.rows[2].fields["cost_ms"] == 12500.0
    failed = notes.rows[4].fields
    assert (failed["vendor"], failed["stage"], failed["action"]) == ("twilio", "handoff", "line_closed")
    assert (failed["cost_ms"], failed["detail"]) == (2000.0, "no route")
    body = metrics.exposition()[0].decode()
    assert 'firstring_handoffs_total{agent="a",outcome="accepted",reason="asked"} 1.0' in body
    assert 'firstring_handoff_rings_total{agent="a",outcome="busy"} 1.0' in body
    assert 'firstring_handoff_faults_total{agent="a",kind="carrier"} 1.0' in body
    assert 'firstring_handoff_wait_seconds_count{agent="a"} 1.0' in body


def test_a_store_that_is_down_is_told_as_what_it_is() -> None:
    notes = Notes()
    HandoffEvents(notes, Metrics.create()).handoff_fault(
        "CA1", agent="a", kind="store", action="kept_here", cost_s=0.0, detail="down"
    )
    assert notes.rows[0].fields["vendor"] == "store"
