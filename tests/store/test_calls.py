from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.calls import (
    CallPhase,
    SavedCall,
    SaveVerdict,
    expiry,
    judge,
    new_process_id,
    newest,
)
from tests.store.call_store_suite import NOW, saved


def test_a_call_is_the_same_after_json() -> None:
    call = saved(resumes=(NOW,), handover={"human": 1, "tried": ["+15551230000"]})
    assert SavedCall.from_json(call.to_json()) == call


def test_another_release_may_know_more_or_less() -> None:
    fields = orjson.loads(saved().to_json())
    newer = orjson.dumps(fields | {"mood": "good"})
    assert SavedCall.from_json(newer) == saved()
    older = orjson.dumps(
        {name: value for name, value in fields.items() if name not in ("about_to_say", "claim")}
    )
    assert SavedCall.from_json(older) == saved(about_to_say="", claim=1)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"call_sid": "CA1"}', b"null", b'"x"'])
def test_what_is_no_call_says_so(body: bytes) -> None:
    with pytest.raises(ValueError, match="not the state of a call"):
        SavedCall.from_json(body)


def test_an_unknown_phase_says_so() -> None:
    with pytest.raises(ValueError, match="not the state of a call"):
        SavedCall.from_json(orjson.dumps(orjson.loads(saved().to_json()) | {"phase": "dreaming"}))


def test_a_taken_call_counts_its_lines() -> None:
    taken = saved(revision=9).taken_over("two", NOW, is_resumed=True)
    assert (taken.process, taken.claim, taken.revision, taken.resumes) == ("two", 2, 0, (NOW,))
    assert taken.taken_over("three", NOW, is_resumed=False).resumes == (NOW,)


def test_the_state_outlives_the_longest_call_by_five_minutes() -> None:
    assert expiry(NOW, 900.0) == NOW + timedelta(minutes=20)
    assert saved(expires_at=expiry(NOW, 900.0)).kept_s == 1200.0
    assert saved(expires_at=NOW - timedelta(seconds=1)).kept_s > 0


def test_the_newest_write_is_that_of_the_latest_claim() -> None:
    first, later = saved(revision=7), saved(claim=2, revision=0)
    assert newest([first, None, later]) is later
    assert newest([None]) is None


def test_no_two_processes_have_one_name() -> None:
    assert len({new_process_id() for _ in range(100)}) == 100


def test_nobody_writes_over_a_finished_call() -> None:
    done = saved().finished(NOW)
    assert done.phase is CallPhase.FINISHED
    assert judge(done, replace(saved(), claim=2)) is SaveVerdict.LOST
    assert judge(done, saved(revision=99)) is SaveVerdict.LOST
    assert judge(done, done) is SaveVerdict.STALE


writes = st.builds(
    lambda claim, revision: saved(claim=claim, revision=revision, process=f"p{claim}"),
    st.integers(1, 4),
    st.integers(0, 5),
)


@given(st.lists(writes, min_size=1, max_size=12))
def test_whatever_the_order_in_which_writes_come_the_latest_of_the_latest_owner_stands(
    calls: list[SavedCall],
) -> None:
    stored: SavedCall | None = None
    for call in calls:
        before = stored
        verdict = judge(stored, call)
        if verdict is SaveVerdict.WRITTEN:
            stored = call
        if before is not None and call.claim < before.claim:
            assert verdict is SaveVerdict.LOST
    assert stored is not None
    assert stored.order == max(call.order for call in calls)


def test_two_owners_of_one_claim_cannot_be() -> None:
    # Only a store that lost its memory could make them; the one that is written down stays.
    assert judge(saved(process="one"), saved(process="two", revision=9)) is SaveVerdict.LOST


def test_times_keep_their_zone() -> None:
    local = datetime.fromisoformat("2026-11-27T03:30:00-06:00")
    assert SavedCall.from_json(saved(started_at=local).to_json()).started_at == local
    assert expiry(local, 0).utcoffset() == local.utcoffset()
    assert local.astimezone(UTC) == NOW
