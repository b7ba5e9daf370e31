from dataclasses import replace

import pytest

from processors.hearing_losses import HearingLosses, Loss
from processors.recognisers import RecogniserFailed, RecogniserFailure
from processors.voices import FailureKind

CLOSED = RecogniserFailure(FailureKind.CLOSED, "1006")


def losses(*kept: Loss) -> HearingLosses:
    those = HearingLosses()
    for loss in kept:
        those.add(loss)
    return those


def test_a_failure_is_told_once_with_what_it_cost() -> None:
    those = losses(Loss("a", CLOSED, "speaking", 10.0))
    told = RecogniserFailed("a", FailureKind.CLOSED, "speaking", "next:b", 1.5, "1006")
    assert those.settle("none", 12.0, quiet_since_s=10.5, listening="b") == [told]
    assert those.settle("none", 13.0, quiet_since_s=10.5, listening="b") == []


def test_a_caller_who_speaks_has_not_waited_for_anything() -> None:
    [told] = losses(Loss("a", CLOSED, "speaking", 10.0)).settle(
        "none", 12.0, quiet_since_s=None, listening="a"
    )
    assert (told.action, told.cost_s) == ("again:a", 0.0)


@pytest.mark.parametrize(("kind", "cost_s"), [(FailureKind.LATE, 4.0), (FailureKind.CLOSED, 2.0)])
def test_what_is_found_out_late_costs_from_the_end_of_the_speech(kind: FailureKind, cost_s: float) -> None:
    loss = Loss("a", RecogniserFailure(kind), "speaking", 10.0)
    [told] = losses(loss).settle("none", 12.0, quiet_since_s=8.0, listening="b")
    assert told.cost_s == cost_s


def test_the_last_failure_has_all_the_cost() -> None:
    first = Loss("a", CLOSED, "speaking", 10.0)
    told = losses(first, replace(first, vendor="b", at_s=11.0)).settle(
        "none", 12.0, quiet_since_s=9.0, listening="c"
    )
    assert [(one.vendor, one.action, one.cost_s) for one in told] == [
        ("a", "next:c", 0.0),
        ("b", "next:c", 1.0),
    ]


def test_when_nobody_listens_it_is_told_what_was_done() -> None:
    [told] = losses(Loss("a", CLOSED, "connect", 10.0)).settle(
        "gave_up", 12.0, quiet_since_s=None, listening=None
    )
    assert told.action == "gave_up"


def test_a_failure_is_known_by_its_vendor_and_its_stage() -> None:
    those = losses(Loss("a", CLOSED, "connect", 10.0))
    assert those.knows("a", "connect")
    assert not those.knows("a", "speaking")
    assert not those.knows("b", "connect")
