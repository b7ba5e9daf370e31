from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telephony.capacity import (
    CALM_S,
    CALM_SAMPLES,
    LATE_S,
    LONGEST_BACKLOG_S,
    WINDOW_SAMPLES,
    LagLimits,
    Load,
    LoopHealth,
    Shortage,
    VendorPlan,
    shortage,
)

LATE, BETWEEN, CALM = 2 * LATE_S, (LATE_S + CALM_S) / 2, CALM_S / 2
SAMPLES = st.lists(st.sampled_from([LATE, BETWEEN, CALM]), max_size=300)
TTS = VendorPlan(frozenset({"elevenlabs", "cartesia"}), 4)


def states(samples: Sequence[float], health: LoopHealth | None = None) -> list[bool]:
    health = health or LoopHealth()
    seen: list[bool] = []
    for sample in samples:
        health.observe(sample)
        seen.append(health.is_behind)
    return seen


def room(agent: str = "a", *, max_calls: int = 10, **load: object) -> Shortage | None:
    load.setdefault("agents", {"a": 1})
    return shortage(agent, Load(**load), max_calls=max_calls, plans={"a": (TTS,), "c": (TTS,)})  # pyright: ignore[reportArgumentType]


def test_one_stall_changes_nothing() -> None:
    assert not any(states([CALM, LATE, CALM, LATE] + [CALM] * 40))


def test_a_loop_that_stays_late_is_behind_within_a_second() -> None:
    assert states([LATE] * 4).index(True) <= 3


def test_who_is_behind_recovers_after_a_calm_stretch_and_not_in_between() -> None:
    health = LoopHealth()
    assert states([LATE] * 4, health)[-1]
    assert all(states([CALM] * (CALM_SAMPLES - 1) + [BETWEEN], health))
    assert states([CALM] * CALM_SAMPLES, health) == [True] * (CALM_SAMPLES - 1) + [False]
    assert health.worst_s == 0.0


@given(SAMPLES)
def test_it_never_flaps(samples: list[float]) -> None:
    """Behind lasts for as long as it takes to be sure that it is over."""
    seen = [False, *states(samples), False]
    edges = [index for index in range(1, len(seen)) if seen[index] != seen[index - 1]]
    for began, ended in zip(edges[::2], edges[1::2], strict=False):
        assert ended - began >= CALM_SAMPLES or ended == len(seen) - 1


@given(SAMPLES)
def test_only_late_timers_close_and_only_calm_ones_open(samples: list[float]) -> None:
    was_behind = False
    for sample, is_behind in zip(samples, states(samples), strict=True):
        if is_behind != was_behind:
            assert sample == (LATE if is_behind else CALM)
        was_behind = is_behind


@given(st.lists(st.floats(0, 10), max_size=500))
def test_it_remembers_no_more_than_its_window(samples: list[float]) -> None:
    health = LoopHealth()
    states(samples, health)
    assert len(health._samples) <= WINDOW_SAMPLES
    assert health.worst_s <= max(samples[-WINDOW_SAMPLES:], default=0.0)


@pytest.mark.parametrize(
    "limits",
    [
        {"late_s": 0.05, "calm_s": 0.05},
        {"calm_s": 0.0},
        {"window": 0},
        {"calm_samples": 0},
        {"late_share": 0.0},
        {"late_share": 1.5},
    ],
)
def test_limits_that_cannot_work_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LagLimits(**limits)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ({}, None),
        ({"agents": {"b": 10}}, Shortage.FULL),
        ({"agents": {"b": 9}}, None),
        ({"is_behind": True}, Shortage.BEHIND),
        ({"backlog_s": LONGEST_BACKLOG_S + 0.1}, Shortage.BACKLOG),
        ({"backlog_s": LONGEST_BACKLOG_S}, None),
        ({"is_voice_taken": True}, Shortage.VENDOR_LIMIT),
        ({"agents": {"a": 4}}, Shortage.VENDOR_LIMIT),
        ({"agents": {"a": 1, "c": 3}}, Shortage.VENDOR_LIMIT),
        ({"agents": {"a": 3, "b": 3}}, None),
        ({"agents": {}, "is_behind": True, "backlog_s": 9.0, "is_voice_taken": True}, None),
    ],
)
def test_reasons_to_have_no_room(load: dict[str, object], expected: Shortage | None) -> None:
    assert room("a", **load) is expected  # pyright: ignore[reportArgumentType]


def test_a_plan_holds_back_only_agents_that_need_its_vendors() -> None:
    assert room("b", agents={"a": 4}) is None


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 12)),
    st.booleans(),
    st.floats(0, 20),
    st.booleans(),
    st.sampled_from("abc"),
)
def test_it_never_lets_in_beyond_a_limit_and_always_lets_in_the_first(
    agents: dict[str, int], is_behind: bool, backlog_s: float, is_voice_taken: bool, agent: str
) -> None:
    reason = room(
        agent, agents=agents, is_behind=is_behind, backlog_s=backlog_s, is_voice_taken=is_voice_taken
    )
    calls = sum(agents.values())
    if calls == 0:
        assert reason is None
    if reason is None:
        assert calls < 10
        assert agent == "b" or agents.get("a", 0) + agents.get("c", 0) < 4
