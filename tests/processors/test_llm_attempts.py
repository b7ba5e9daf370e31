import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.llm_attempts import (
    LEAST_HEDGE_S,
    LEAST_SAMPLES,
    MOST_HEDGE_S,
    REST_S,
    USUAL_HEDGE_S,
    Action,
    AttemptPolicy,
    Cancel,
    Failed,
    Failure,
    Finish,
    GiveUp,
    Late,
    ModelRecord,
    Response,
    Stage,
    Start,
    TurnAttempts,
)

POLICY = AttemptPolicy()
HEDGE_S = 1.0
PAUSE_S = POLICY.retry_pause_s


def table(models: int = 2, policy: AttemptPolicy = POLICY) -> TurnAttempts:
    return TurnAttempts(range(models), [HEDGE_S] * models, policy=policy)


def begun(models: int = 2) -> TurnAttempts:
    attempts = table(models)
    assert attempts.begin(0.0) == [Start(0, 0, continues=False)]
    return attempts


def test_a_quick_answer_is_one_attempt() -> None:
    attempts = begun()
    attempts.sign(0, 0.2)
    assert attempts.words(0, 5, 0.3) == []
    assert attempts.winner == 0
    for number in range(50):
        assert attempts.words(0, 5, 0.3 + number * 0.01) == ()
    assert attempts.done(0, 0.9) == [Finish(0)]
    assert (attempts.is_over, attempts.count, attempts.next_s()) == (True, 1, float("inf"))


def test_a_late_first_token_is_hedged_at_no_model_of_the_reserve() -> None:
    attempts = TurnAttempts([0, 1, 2], [HEDGE_S] * 3, reserve=[1], policy=POLICY)
    attempts.begin(0.0)
    assert attempts.tick(HEDGE_S) == [Start(1, 2, continues=False, is_hedge=True)]
    alone = TurnAttempts([0, 1], [HEDGE_S] * 2, reserve=[1], policy=POLICY)
    alone.begin(0.0)
    assert alone.tick(HEDGE_S) == [Start(1, 0, continues=False, is_hedge=True)]


def test_the_reserve_is_asked_when_the_others_have_failed() -> None:
    attempts = TurnAttempts([0, 1], [HEDGE_S] * 2, reserve=[1], policy=POLICY)
    attempts.begin(0.0)
    attempts.failed(0, Failure.OVERLOADED, 0.1)
    assert attempts.tick(0.1 + 2 * PAUSE_S) == [Start(1, 0, continues=False)]
    assert attempts.failed(1, Failure.OVERLOADED, 0.5)[1:] == [Start(2, 1, continues=False)]


def test_a_late_first_token_is_hedged_at_the_next_model_and_the_loser_cancelled() -> None:
    attempts = begun()
    assert attempts.next_s() == HEDGE_S
    assert attempts.tick(HEDGE_S) == [Start(1, 1, continues=False, is_hedge=True)]
    assert attempts.words(1, 4, 1.3) == [Cancel(0)]
    assert attempts.winner == 1
    assert attempts.words(0, 4, 1.4) == ()
    assert attempts.winner == 1
    assert attempts.done(1, 2.0) == [Finish(1)]


def test_one_model_alone_is_hedged_with_itself_and_only_once() -> None:
    attempts = begun(1)
    assert attempts.tick(HEDGE_S) == [Start(1, 0, continues=False, is_hedge=True)]
    assert attempts.tick(HEDGE_S + 0.1) == []
    assert attempts.next_s() == POLICY.first_token_s


@pytest.mark.parametrize(
    "failure", [Failure.REFUSED, Failure.OVERLOADED, Failure.SERVER_ERROR, Failure.GARBAGE, Failure.CLOSED]
)
def test_an_error_is_tried_again_after_a_pause_and_then_at_the_next_model(failure: Failure) -> None:
    attempts = begun()
    assert attempts.failed(0, failure, 0.1) == [Failed(0, failure, Stage.FIRST_TOKEN, Response.RETRY)]
    assert attempts.next_s() == pytest.approx(0.1 + PAUSE_S)
    assert attempts.tick(0.1 + PAUSE_S) == [Start(1, 0, continues=False)]
    assert attempts.failed(1, failure, 0.3) == [
        Failed(1, failure, Stage.FIRST_TOKEN, Response.NEXT),
        Start(2, 1, continues=False),
    ]
    assert attempts.failed(2, failure, 0.4) == [
        Failed(2, failure, Stage.FIRST_TOKEN, Response.GIVE_UP),
        GiveUp(),
    ]


def test_one_model_alone_is_asked_three_times() -> None:
    attempts = begun(1)
    for number in range(2):
        attempts.failed(number, Failure.OVERLOADED, 0.1)
        assert attempts.tick(1.0) == [Start(number + 1, 0, continues=False)]
    assert attempts.failed(2, Failure.OVERLOADED, 1.1)[-1] == GiveUp()


@pytest.mark.parametrize("failure", [Failure.UNAUTHORIZED, Failure.REJECTED])
def test_a_vendor_that_refuses_us_is_not_asked_again(failure: Failure) -> None:
    attempts = begun()
    assert attempts.failed(0, failure, 0.1)[-1] == Start(1, 1, continues=False)
    assert attempts.failed(1, failure, 0.2)[-1] == GiveUp()
    assert begun(1).failed(0, failure, 0.1)[-1] == GiveUp()


@pytest.mark.parametrize(
    ("models", "retry_after_s", "response"),
    [
        (2, 0.2, Response.RETRY),
        (2, 0.8, Response.NEXT),
        (2, 30.0, Response.NEXT),
        (1, 0.8, Response.RETRY),
        (1, 30.0, Response.GIVE_UP),
    ],
)
def test_a_vendors_wish_for_a_pause_is_honoured_when_it_is_short(
    models: int, retry_after_s: float, response: Response
) -> None:
    attempts = begun(models)
    actions = attempts.failed(0, Failure.RATE_LIMITED, 0.1, retry_after_s=retry_after_s)
    assert actions[0] == Failed(0, Failure.RATE_LIMITED, Stage.FIRST_TOKEN, response)
    if response is Response.RETRY:
        assert attempts.next_s() == pytest.approx(0.1 + retry_after_s)


def test_who_is_late_is_not_relied_upon_and_may_answer_after_all() -> None:
    attempts = begun(1)
    assert attempts.tick(1.0) == [Start(1, 0, continues=False, is_hedge=True)]
    assert attempts.tick(2.5) == [Late(0, Response.OTHER)]
    assert attempts.tick(3.5) == [Late(1, Response.RETRY), Start(2, 0, continues=False)]
    assert attempts.tick(6.0) == [Late(2, Response.OTHER)]
    assert attempts.next_s() == POLICY.turn_limit_s
    assert attempts.words(1, 5, 9.0) == [Cancel(0), Cancel(2)]
    assert attempts.winner == 1


def test_a_failure_costs_what_passes_until_another_is_asked() -> None:
    attempts = begun(1)
    attempts.tick(1.0)
    attempts.tick(2.5)
    assert attempts.cost_s(0, 2.5) == 1.0  # the hedge was asked then
    attempts.tick(3.5)
    assert attempts.cost_s(1, 3.5) == 2.5
    attempts.tick(6.0)
    assert attempts.cost_s(2, 6.0) == 2.5  # nobody else is


def test_a_failure_that_is_tried_again_costs_the_pause_too() -> None:
    attempts = begun(1)
    attempts.failed(0, Failure.OVERLOADED, 0.4)
    assert attempts.cost_s(0, 0.4) == pytest.approx(0.4 + PAUSE_S)


def test_an_answer_that_breaks_off_costs_from_when_its_words_are_spoken() -> None:
    attempts = begun()
    attempts.words(0, 14, 0.5)  # a second of speech
    attempts.sign(0, 0.7)
    attempts.failed(0, Failure.CLOSED, 0.9)
    assert attempts.cost_s(0, 0.9) == 0.0
    attempts = begun()
    attempts.words(0, 14, 0.5)
    attempts.failed(0, Failure.CLOSED, 2.2)
    assert attempts.cost_s(0, 2.2) == pytest.approx(0.7)


def test_all_that_hang_are_given_up_together_and_in_time() -> None:
    attempts = begun(1)
    for at_s in (1.0, 2.5, 3.5, 6.0):
        attempts.tick(at_s)
    assert attempts.tick(POLICY.turn_limit_s) == [
        *(
            action
            for number in range(3)
            for action in (
                Cancel(number),
                Failed(number, Failure.HANG, Stage.FIRST_TOKEN, Response.GIVE_UP),
            )
        ),
        GiveUp(),
    ]


def test_a_failure_beside_one_that_is_late_is_answered_like_one_alone() -> None:
    attempts = begun()
    assert attempts.tick(1.0) == [Start(1, 1, continues=False, is_hedge=True)]
    assert attempts.tick(2.5) == [Late(0, Response.OTHER)]
    assert attempts.failed(1, Failure.OVERLOADED, 2.6)[0].response is Response.RETRY  # pyright: ignore[reportAttributeAccessIssue]
    assert attempts.tick(3.0) == [Start(2, 1, continues=False)]
    assert attempts.failed(2, Failure.OVERLOADED, 3.1) == [
        Failed(2, Failure.OVERLOADED, Stage.FIRST_TOKEN, Response.OTHER)
    ]
    assert not attempts.is_over


def test_an_answer_that_breaks_off_goes_on_at_the_next_model_at_once() -> None:
    attempts = begun()
    attempts.words(0, 20, 0.3)
    assert attempts.failed(0, Failure.CLOSED, 0.5) == [
        Failed(0, Failure.CLOSED, Stage.ANSWER, Response.NEXT),
        Start(1, 1, continues=True),
    ]
    assert attempts.words(0, 5, 0.6) == ()
    assert attempts.winner is None
    assert attempts.words(1, 5, 0.8) == []
    assert attempts.winner == 1


def test_a_tool_call_that_breaks_off_is_asked_for_afresh() -> None:
    attempts = begun()
    attempts.tool(0, 0.3)
    assert attempts.winner == 0
    assert attempts.failed(0, Failure.CLOSED, 0.5)[-1] == Start(1, 1, continues=False)


def test_a_gap_is_a_hang_but_the_arguments_of_a_tool_are_signs() -> None:
    attempts = begun()
    attempts.words(0, 200, 0.3)
    attempts.tool(0, 0.4)
    for at_s in (2.0, 3.5, 5.0):
        attempts.sign(0, at_s)
        assert attempts.tick(at_s + 1.0) == []
    assert attempts.tick(5.0 + POLICY.gap_s)[:2] == [
        Cancel(0),
        Failed(0, Failure.HANG, Stage.ANSWER, Response.NEXT),
    ]


def test_words_slower_than_speech_are_a_failure() -> None:
    attempts = begun()
    now_s = 0.3
    while not attempts.tick(now_s):
        attempts.words(0, 6, now_s)
        now_s += 1.4
    assert now_s < 6
    assert attempts.count == 2


def test_an_empty_answer_is_a_failure_unless_all_was_said() -> None:
    assert begun().done(0, 0.3)[0] == Failed(0, Failure.EMPTY, Stage.FIRST_TOKEN, Response.RETRY)
    attempts = begun()
    attempts.words(0, 9, 0.3)
    attempts.failed(0, Failure.CLOSED, 0.4)
    assert attempts.done(1, 0.5, may_be_empty=True) == [Finish(1)]


def test_words_behind_a_tool_are_gone_on_from_too() -> None:
    attempts = begun()
    attempts.tool(0, 0.3)
    attempts.words(0, 9, 0.4)
    assert Start(1, 1, continues=True) in attempts.failed(0, Failure.CLOSED, 0.5)


def test_words_from_before_are_gone_on_from() -> None:
    assert table().begin(0.0, has_said=True) == [Start(0, 0, continues=True)]


def test_somebody_must_be_there_to_ask() -> None:
    with pytest.raises(ValueError, match="a model to ask"):
        TurnAttempts([], [])


EVENTS = st.tuples(
    st.sampled_from(["words", "sign", "tool", "done", "failed", "tick", "wait"]),
    st.integers(0, 2),
    st.sampled_from(Failure),
    st.floats(0.0, 1.5),
    st.sampled_from([None, 0.3, 20.0]),
)


@given(models=st.integers(1, 3), events=st.lists(EVENTS, max_size=60), seed=st.integers(0, 9))
def test_whatever_comes_it_ends_once_within_its_bounds(
    models: int, events: list[tuple[str, int, Failure, float, float | None]], seed: int
) -> None:
    rng = random.Random(seed)
    attempts = TurnAttempts(range(models), [HEDGE_S] * models, policy=POLICY, jitter=rng.random)
    taken: list[Action] = []
    running: set[int] = set()
    speaker: int | None = None
    now_s = 0.0

    def take(actions: Sequence[Action]) -> None:
        taken.extend(actions)
        for action in actions:
            if isinstance(action, Start):
                assert action.continues == (speaker is not None)
                running.add(action.attempt)
                assert len(running) <= POLICY.max_attempts
            elif isinstance(action, Cancel | Failed | Finish):
                running.discard(action.attempt)

    def step(kind: str, attempt: int, failure: Failure, retry_after_s: float | None) -> None:
        nonlocal speaker
        if kind == "tick":
            take(attempts.tick(now_s))
        elif attempt >= attempts.count:
            return
        elif kind == "words":
            was_running = attempt in running
            take(attempts.words(attempt, 6, now_s))
            if attempts.winner == attempt and not attempts.is_over:
                assert was_running
                assert speaker in (None, attempt) or speaker not in running
                speaker = attempt
                assert running == {attempt}, "the others are cancelled"
        elif kind == "sign":
            attempts.sign(attempt, now_s)
        elif kind == "tool":
            take(attempts.tool(attempt, now_s))
        elif kind == "done":
            take(attempts.done(attempt, now_s))
        elif kind == "failed":
            take(attempts.failed(attempt, failure, now_s, retry_after_s=retry_after_s))

    take(attempts.begin(0.0))
    for kind, attempt, failure, wait_s, retry_after_s in events:
        now_s += wait_s if kind == "wait" else 0.0
        step(kind, attempt, failure, retry_after_s)
    for _ in range(50):  # from here on nothing comes any more
        if attempts.is_over:
            break
        now_s = max(now_s, attempts.next_s())
        take(attempts.tick(now_s))
    assert attempts.is_over
    assert running == set()
    assert attempts.count <= POLICY.max_attempts
    assert sum(isinstance(action, Finish | GiveUp) for action in taken) == 1
    assert isinstance(taken[-1], Finish | GiveUp)


# What is known of a model


def test_the_hedge_learns_when_late_is_within_bounds() -> None:
    record = ModelRecord()
    assert record.hedge_after_s == USUAL_HEDGE_S
    for _ in range(LEAST_SAMPLES - 1):
        record.first_token(0.1)
    assert record.hedge_after_s == USUAL_HEDGE_S
    record.first_token(0.1)
    assert record.hedge_after_s == LEAST_HEDGE_S
    for number in range(64):
        record.first_token(0.5 + number / 64)
    assert 1.3 < record.hedge_after_s < 1.5
    for _ in range(64):
        record.first_token(9.0)
    assert record.hedge_after_s == MOST_HEDGE_S


def test_a_model_that_fails_twice_rests_and_is_tried_again() -> None:
    record = ModelRecord()
    record.failed(0.0)
    assert not record.is_resting(0.0)
    record.failed(1.0)
    assert record.is_resting(1.0)
    assert not record.is_resting(1.0 + REST_S)
    record.failed(2.0)
    assert record.is_resting(2.0 + REST_S - 0.1)
    record.answered()
    assert not record.is_resting(2.0)


# Dropped for a caller who waited too long


def test_a_trickle_is_at_fault_for_a_dropped_answer_and_is_told_of() -> None:
    attempts = begun()
    attempts.words(0, 14, 0.3)
    assert attempts.dropped(1.2) == []
    assert attempts.dropped(2.0) == [Failed(0, Failure.TRICKLE, Stage.ANSWER, Response.NEXT)]
    assert attempts.at_fault == {0}


def test_who_has_only_just_taken_over_is_not_at_fault() -> None:
    attempts = begun()
    attempts.words(0, 5, 0.3)
    assert attempts.tick(0.3 + 5 / POLICY.chars_per_s + POLICY.starved_s)[-1] == Start(1, 1, continues=True)
    assert attempts.dropped(2.9) == []
    assert attempts.at_fault == {0}


def test_without_a_word_a_model_is_at_fault_once_it_is_later_than_usual() -> None:
    attempts = begun()
    attempts.tick(HEDGE_S)
    assert attempts.dropped(HEDGE_S + 0.5) == [Failed(0, Failure.HANG, Stage.FIRST_TOKEN, Response.NEXT)]
    attempts.tick(POLICY.first_token_s)
    assert attempts.dropped(POLICY.first_token_s) == [
        Failed(1, Failure.HANG, Stage.FIRST_TOKEN, Response.NEXT)
    ]
    assert attempts.at_fault == {0, 1}


def test_a_whole_answer_that_nobody_heard_is_no_models_fault() -> None:
    attempts = begun()
    attempts.words(0, 5, 0.3)
    attempts.done(0, 0.5)
    assert (attempts.dropped(5.0), attempts.at_fault) == ([], frozenset())
