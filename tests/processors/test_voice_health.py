import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.voice_health import (
    FIRST_OPEN_S,
    LASTING_OPEN_S,
    LONGEST_OPEN_S,
    PROBE_LIMIT_S,
    BreakerNotice,
    BreakerState,
    CircuitBreaker,
    ProcessVoiceHealth,
)
from processors.voices import FailureKind

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def opened(kind: FailureKind = FailureKind.CLOSED, now_s: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.failed(kind, now_s)
    return breaker


def test_one_failure_opens_it_and_a_probe_closes_it() -> None:
    breaker = CircuitBreaker()
    assert (breaker.state, breaker.is_closed, breaker.claim_probe(5.0)) == (CLOSED, True, False)
    breaker.failed(FailureKind.LATE, 10.0)
    assert (breaker.state, breaker.is_closed) == (OPEN, False)
    assert breaker.probe_in_s(11.0) == FIRST_OPEN_S - 1.0
    assert not breaker.claim_probe(10.0 + FIRST_OPEN_S - 0.01)
    assert breaker.claim_probe(10.0 + FIRST_OPEN_S)
    assert (breaker.state, breaker.is_closed) == (HALF_OPEN, False)
    breaker.succeeded()
    assert (breaker.state, breaker.probe_in_s(20.0)) == (CLOSED, 0.0)


def test_only_one_probes_and_who_says_nothing_is_followed_by_another() -> None:
    breaker = opened()
    assert breaker.claim_probe(FIRST_OPEN_S)
    assert not breaker.claim_probe(FIRST_OPEN_S)
    assert not breaker.claim_probe(FIRST_OPEN_S + PROBE_LIMIT_S - 0.1)
    assert breaker.claim_probe(FIRST_OPEN_S + PROBE_LIMIT_S)


def test_each_probe_that_fails_keeps_it_open_for_longer() -> None:
    breaker, now_s, waits = opened(), 0.0, []
    for _ in range(8):
        wait_s = breaker.probe_in_s(now_s)
        waits.append(wait_s)
        now_s += wait_s
        assert breaker.claim_probe(now_s)
        breaker.failed(FailureKind.LATE, now_s)
    assert waits[:4] == [FIRST_OPEN_S * factor for factor in (1, 2, 4, 8)]
    assert waits[-1] == LONGEST_OPEN_S


def test_a_vendor_that_only_survives_its_probe_is_kept_away_for_longer() -> None:
    breaker = opened()
    breaker.claim_probe(FIRST_OPEN_S)
    breaker.succeeded()
    breaker.failed(FailureKind.STARVING, 10.0)
    assert breaker.probe_in_s(10.0) == 2 * FIRST_OPEN_S
    breaker.claim_probe(16.0)
    breaker.succeeded()
    breaker.succeeded()  # it spoke in a call
    breaker.failed(FailureKind.STARVING, 30.0)
    assert breaker.probe_in_s(30.0) == FIRST_OPEN_S


@pytest.mark.parametrize("kind", [FailureKind.UNAUTHORIZED, FailureKind.QUOTA, FailureKind.REQUEST])
def test_what_lasts_is_not_looked_at_soon(kind: FailureKind) -> None:
    assert opened(kind).probe_in_s(0.0) == LASTING_OPEN_S


def test_what_fails_in_another_call_meanwhile_is_no_news() -> None:
    breaker = opened()
    for now_s in (0.5, 1.0, 2.0):
        breaker.failed(FailureKind.CLOSED, now_s)
    assert breaker.probe_in_s(0.0) == FIRST_OPEN_S


EVENTS = st.lists(
    st.tuples(st.sampled_from(["failed", "succeeded", "probe"]), st.floats(0.0, 200.0)), max_size=40
)


@given(EVENTS)
def test_it_is_never_shut_away_for_ever_and_never_probed_twice_at_once(
    events: list[tuple[str, float]],
) -> None:
    breaker, now_s, probe_s = CircuitBreaker(), 0.0, None
    for event, after_s in events:
        now_s += after_s
        if event == "failed":
            breaker.failed(FailureKind.LATE, now_s)
            probe_s = None
        elif event == "succeeded":
            breaker.succeeded()
            probe_s = None
            assert breaker.is_closed
        elif breaker.claim_probe(now_s):
            assert probe_s is None or now_s - probe_s >= PROBE_LIMIT_S
            probe_s = now_s
            assert breaker.state is HALF_OPEN
        assert breaker.probe_in_s(now_s) <= LONGEST_OPEN_S
        assert breaker.is_closed or breaker.state in (OPEN, HALF_OPEN)


def test_vendors_are_apart_and_their_contexts_are_counted() -> None:
    health = ProcessVoiceHealth()
    health.failed("a", FailureKind.REFUSED, 0.0)
    assert (health.is_well("a"), health.is_well("b")) == (False, True)
    assert (health.state("a"), health.probe_in_s("a", 1.0)) == (OPEN, FIRST_OPEN_S - 1.0)
    assert not health.claim_probe("b", 100.0)
    assert health.claim_probe("a", 100.0)
    health.succeeded("a")
    assert health.is_well("a")
    assert [health.begin("a", 2) for _ in range(3)] == [True, True, False]
    assert health.begin("b", 1)
    health.end("a")
    assert health.begin("a", 2)
    assert health.begin("a", None), "no limit is known"


def test_what_another_process_found_out_holds_here_too() -> None:
    breaker = CircuitBreaker()
    breaker.told(BreakerNotice("a", OPEN, 20.0), 100.0)
    assert (breaker.state, breaker.probe_in_s(100.0)) == (OPEN, 20.0)
    assert not breaker.claim_probe(119.0)
    breaker.told(BreakerNotice("a", HALF_OPEN, PROBE_LIMIT_S), 119.5)  # they look: we need not
    assert not breaker.claim_probe(121.0)
    assert breaker.probe_in_s(121.0) == 119.5 + PROBE_LIMIT_S - 121.0
    breaker.told(BreakerNotice("a", CLOSED, 0.0), 122.0)
    assert breaker.is_closed


def test_old_and_wild_news_change_nothing_for_long() -> None:
    breaker = CircuitBreaker()
    breaker.told(BreakerNotice("a", OPEN, 0.0), 0.0)
    assert breaker.is_closed
    breaker.told(BreakerNotice("a", OPEN, 1e9), 0.0)
    assert breaker.probe_in_s(0.0) == LONGEST_OPEN_S
    breaker.told(BreakerNotice("a", OPEN, 1.0), 0.0)  # an earlier failure's
    assert breaker.probe_in_s(0.0) == LONGEST_OPEN_S


def test_each_change_that_is_found_out_here_is_told_once() -> None:
    health, told = ProcessVoiceHealth(), list[BreakerNotice]()
    health.tell(told.append)
    health.failed("a", FailureKind.CLOSED, 10.0)
    health.failed("a", FailureKind.CLOSED, 10.5)
    assert not health.claim_probe("a", 11.0)
    assert health.claim_probe("a", 14.0)
    health.succeeded("a")
    health.succeeded("a")
    health.told(BreakerNotice("b", OPEN, 9.0), 15.0)
    assert not health.is_well("b")
    assert told == [
        BreakerNotice("a", OPEN, FIRST_OPEN_S),
        BreakerNotice("a", HALF_OPEN, PROBE_LIMIT_S),
        BreakerNotice("a", CLOSED, 0.0),
    ]
