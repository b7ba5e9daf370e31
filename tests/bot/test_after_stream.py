from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.after_stream import (
    HANDOVER_LIMIT_S,
    MAX_RESUMES,
    REPEATED_WITHIN_S,
    RESUMES_WITHIN_S,
    AfterStream,
    after_stream,
)
from store.calls import CallPhase, SavedCall

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def saved(
    phase: CallPhase = CallPhase.LIVE, *, resumes: tuple[float, ...] = (), updated_s: float = 1.0
) -> SavedCall:
    return SavedCall(
        call_sid="CA1",
        agent="reception",
        caller="+15550001111",
        process="a",
        phase=phase,
        started_at=ago(100),
        updated_at=ago(updated_s),
        expires_at=NOW + timedelta(seconds=900),
        resumes=tuple(ago(seconds) for seconds in resumes),
    )


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (None, AfterStream.HANG_UP),
        (saved(CallPhase.FINISHED), AfterStream.HANG_UP),
        (saved(), AfterStream.RESUME),
        (saved(CallPhase.RINGING), AfterStream.RESUME),
        (saved(resumes=(1.0,)), AfterStream.REPEAT),
        (saved(resumes=(30.0,)), AfterStream.RESUME),
        (saved(resumes=(50.0, 30.0)), AfterStream.NO_AGENT),
        (saved(resumes=(70.0, 30.0)), AfterStream.RESUME),
        (saved(resumes=(50.0, 1.0)), AfterStream.REPEAT),
        (saved(CallPhase.HANDING_OVER), AfterStream.WAIT),
        (saved(CallPhase.HANDING_OVER, updated_s=HANDOVER_LIMIT_S + 1), AfterStream.RESUME),
    ],
)
def test_what_comes_behind_a_stream(call: SavedCall | None, answer: AfterStream) -> None:
    assert after_stream(call, NOW) is answer


@given(asks=st.lists(st.floats(0.01, 30.0), max_size=80))
def test_a_line_that_always_breaks_is_given_up_within_bounds(asks: list[float]) -> None:
    """However often Twilio asks, no more than so many resumes are counted in any minute, and repeats end."""
    now, call = NOW, saved()
    resumed: list[datetime] = []
    for pause_s in asks:
        now += timedelta(seconds=pause_s)
        answer = after_stream(call, now)
        if answer is AfterStream.RESUME:
            call = call.taken_over("b", now, is_resumed=True)
            resumed.append(now)
        elif answer is AfterStream.REPEAT:
            assert now - resumed[-1] < timedelta(seconds=REPEATED_WITHIN_S)
    for first in resumed:
        within = [at for at in resumed if timedelta() <= at - first < timedelta(seconds=RESUMES_WITHIN_S)]
        assert len(within) <= MAX_RESUMES
