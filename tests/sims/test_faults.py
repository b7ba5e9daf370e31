import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sims.faults import FaultBoard, FaultKind, FaultSpec


def test_a_fault_hits_as_often_as_it_was_armed_for() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.RATE_LIMITED, count=2))
    assert [board.take() is not None for _ in range(4)] == [True, True, False, False]
    assert board.hits == {FaultKind.RATE_LIMITED: 2}


def test_without_a_count_it_hits_until_it_is_cleared() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.EMPTY))
    assert all(board.take() is not None for _ in range(50))
    board.clear()
    assert board.take() is None


def test_requests_can_be_let_through_first() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.REFUSE, count=1, skip=2))
    assert [board.take() is not None for _ in range(4)] == [False, False, True, False]


def test_a_fault_may_be_one_voices_alone() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.EMPTY, voice="alto", count=1))
    board.arm(FaultSpec(kind=FaultKind.REFUSE, voice="bass", skip=1))
    assert (board.first("alto"), board.first("bass"), board.first()) == (
        FaultKind.EMPTY,
        FaultKind.REFUSE,
        None,
    )
    hits = [
        spec.kind if (spec := board.take(voice)) else None for voice in ("bass", None, "alto", "alto", "bass")
    ]
    assert hits == [None, None, FaultKind.EMPTY, None, FaultKind.REFUSE]


def test_a_fault_of_the_carrier_may_be_about_one_callers_calls_alone() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.EMPTY, caller="+1555"))
    assert [board.take(caller=caller) is not None for caller in (None, "+1666", "+1555")] == [
        False,
        False,
        True,
    ]


def test_what_a_vendor_cannot_act_out_is_refused_with_what_it_can() -> None:
    board = FaultBoard([FaultKind.EMPTY])
    with pytest.raises(ValueError, match="empty"):
        board.arm(FaultSpec(kind=FaultKind.REFUSE))


def test_a_bad_day_draws_faults_the_vendor_supports_and_the_same_ones_for_a_seed() -> None:
    def drawn(seed: int) -> list[FaultKind | None]:
        board = FaultBoard([FaultKind.EMPTY, FaultKind.TRICKLE], error_rate=0.3, seed=seed)
        return [spec.kind if (spec := board.take()) else None for _ in range(200)]

    assert drawn(1) == drawn(1)
    assert set(drawn(1)) == {None, FaultKind.EMPTY, FaultKind.TRICKLE}
    assert 30 < sum(kind is not None for kind in drawn(1)) < 90


@pytest.mark.parametrize(
    "shape", [{"kind": "nonsense"}, {"kind": "429", "count": 0}, {"kind": "429", "when": 1}]
)
def test_a_fault_that_makes_no_sense_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FaultSpec.model_validate(shape)


@given(st.lists(st.tuples(st.sampled_from(FaultKind), st.integers(1, 3), st.integers(0, 3)), max_size=6))
def test_every_armed_fault_hits_exactly_its_count(armed: list[tuple[FaultKind, int, int]]) -> None:
    board = FaultBoard(FaultKind)
    for kind, count, skip in armed:
        board.arm(FaultSpec(kind=kind, count=count, skip=skip))
    for _ in range(60):
        board.take()
    assert sum(board.hits.values()) == sum(count for _, count, _ in armed)


def test_a_fault_may_be_one_recognisers_alone() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.REFUSE, keyterm="Northside"))
    assert board.take() is None
    assert board.take(keyterms=["Southside"]) is None
    hit = board.take(keyterms=["Southside", "Northside"])
    assert hit is not None
    assert hit.kind is FaultKind.REFUSE


def test_a_fault_may_be_one_models_alone() -> None:
    board = FaultBoard(FaultKind)
    board.arm(FaultSpec(kind=FaultKind.OVERLOADED, model="strong", count=1))
    hits = [board.take(model=model) is not None for model in ("light", None, "strong", "strong")]
    assert hits == [False, False, True, False]
