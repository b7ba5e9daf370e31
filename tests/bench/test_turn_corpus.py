import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.turn_corpus import FULL, HARMLESS, PAUSES_S, QUICK, CorpusCall, Form, Size, build, shares
from sims.scenario import Scenario, Step

SEEDS = st.integers(0, 1 << 31)


def shapes(calls: list[CorpusCall]) -> list[object]:
    return [call.scenario.model_dump(mode="json", by_alias=True, exclude_unset=True) for call in calls]


@settings(max_examples=5, deadline=None)
@given(SEEDS)
def test_the_same_seed_gives_the_same_calls_and_another_one_others(seed: int) -> None:
    assert build(seed) == build(seed)
    assert shapes(build(seed)) != shapes(build(seed + 1))


@settings(max_examples=5, deadline=None)
@given(SEEDS)
def test_a_whole_corpus_is_large_enough_for_its_goals(seed: int) -> None:
    made = dict(shares(build(seed)))
    assert made["caller turns"] >= 200
    assert len([cut for call in build(seed) for cut in call.cuts]) >= 102  # some fall into a silence
    assert sum(made[kind] for kind in HARMLESS) >= 102
    assert all(made[what] > 0 for what in made)
    assert FULL.calls / 4 < made["calls with packet loss and jitter"] <= FULL.calls / 2


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([FULL, QUICK]))
def test_every_call_is_a_scenario_that_can_be_sent(seed: int, size: Size) -> None:
    for call, shape in zip(calls := build(seed, size), shapes(calls), strict=True):
        assert Scenario.model_validate(shape) == call.scenario
        spoken = [step for step in call.scenario.steps if is_spoken(step)]
        assert len(spoken) == len(call.forms) == size.turns
        assert len({call.name for call in calls}) == size.calls


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_pauses_are_as_long_as_their_form_says(seed: int) -> None:
    for call in build(seed):
        spoken = [step for step in call.scenario.steps if is_spoken(step)]
        for form, step in zip(call.forms, spoken, strict=True):
            lines = (step.say.text if step.say else step.over.say if step.over else None) or ()
            assert len(lines) == 1
            line = lines[0]
            pauses = [] if isinstance(line, str) else [part for part in line.parts if isinstance(part, float)]
            assert bool(pauses) == (form in PAUSES_S)
            low, high = PAUSES_S.get(form, (0.0, 0.0))
            assert all(low <= pause <= high for pause in pauses)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_sounds_over_one_answer_follow_each_other(seed: int) -> None:
    for call in build(seed):
        for before, after in itertools.pairwise(call.scenario.steps):
            is_second = after.over is not None and after.over.since.value == "last"
            assert not is_second or (before.over is not None and before.over.say is None)
        harmless = [step for step in call.scenario.steps if step.over and step.over.say is None]
        assert len(harmless) == len(call.sounds)


def test_numbers_are_dictated_only_where_they_were_asked_for() -> None:
    with_numbers = [call for call in build(1) if Form.DICTATED in call.forms]
    assert 4 <= len(with_numbers) < FULL.calls
    for call in with_numbers:
        assert call.forms.index(Form.DICTATED) == 3


@pytest.mark.parametrize("size", [QUICK, Size(calls=3, turns=12, order="M")])
def test_a_corpus_has_the_size_that_was_asked_for(size: Size) -> None:
    made = dict(shares(build(1, size)))
    assert (made["calls"], made["caller turns"]) == (size.calls, size.calls * size.turns)


def is_spoken(step: Step) -> bool:
    return step.say is not None or (step.over is not None and step.over.say is not None)
