import pytest

from store.events import MAX_FIELD_CHARS, CallEvent, EventKind, failure
from tests.store.event_log_suite import NOW, event


def test_an_event_is_the_same_after_json() -> None:
    one = event(1)
    assert CallEvent.from_json(one.to_json()) == one
    assert one.event_id != event(1).event_id


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b'{"call_sid": "CA1"}'])
def test_what_is_no_event_says_so(body: bytes) -> None:
    with pytest.raises(ValueError, match="not an event"):
        CallEvent.from_json(body)


def test_a_failure_names_who_how_when_what_was_done_and_what_it_cost() -> None:
    row = failure(
        "CA1",
        vendor="deepgram",
        kind="closed",
        stage="listening",
        action="reconnect",
        cost_ms=-3.0,
        at=NOW,
        more={"detail": "1011"},
    )
    assert row.kind == EventKind.FAILURE
    assert row.fields == {
        "vendor": "deepgram",
        "kind": "closed",
        "stage": "listening",
        "action": "reconnect",
        "cost_ms": 0.0,
        "detail": "1011",
    }


def test_a_long_text_is_cut() -> None:
    row = failure("CA1", vendor="v", kind="k", stage="s", action="a", cost_ms=1, more={"detail": "x" * 9999})
    assert len(str(CallEvent.from_json(row.to_json()).fields["detail"])) == MAX_FIELD_CHARS
