import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.agents import BACKED, NUMBERS, RECEPTION, TURNED
from bench.chaos.faults import CELLS, Stage, Target
from bench.chaos.plan import CALLERS, TALK_S, plan_of
from bench.chaos.play import scenario_named
from bench.chaos.verdict import SERVED_BY
from sims.anthropic import AnthropicSim
from sims.assemblyai import AssemblyAISim
from sims.cartesia import CartesiaSim
from sims.deepgram import DeepgramSim
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultSpec
from sims.openai import OpenAISim
from sims.twilio import TwilioSim

SEEDS = st.integers(0, 10**6)
SIMS = {
    Target.RECOGNISER: DeepgramSim,
    Target.OTHER_RECOGNISER: AssemblyAISim,
    Target.MODEL: AnthropicSim,
    Target.OTHER_MODEL: OpenAISim,
    Target.VOICE: ElevenLabsSim,
    Target.OTHER_VOICE: CartesiaSim,
    Target.CARRIER: TwilioSim,
}
FIRST_OF = {
    RECEPTION: {Target.RECOGNISER, Target.MODEL, Target.VOICE},
    BACKED: {Target.RECOGNISER, Target.MODEL, Target.VOICE},
    TURNED: {Target.OTHER_RECOGNISER, Target.OTHER_MODEL, Target.OTHER_VOICE},
}


def test_the_table_has_every_fault_that_a_sim_can_act_out() -> None:
    for target, sim in SIMS.items():
        assert {cell.kind for cell in CELLS if cell.target is target} == sim.supported_faults, target
    assert len(set(CELLS)) == len(CELLS)


@settings(max_examples=15)
@given(SEEDS)
def test_any_300_seeds_in_a_row_hold_every_fault_at_every_stage_as_the_first(start: int) -> None:
    assert {plan_of(seed).injections[0].cell for seed in range(start, start + 300)} == set(CELLS)


@given(SEEDS)
def test_a_seed_is_always_the_same_plan(seed: int) -> None:
    assert plan_of(seed) == plan_of(seed)


@given(SEEDS)
def test_a_plan_can_be_played(seed: int) -> None:
    plan = plan_of(seed)
    assert plan.called == NUMBERS[plan.agent]
    assert scenario_named(plan.caller, plan.number).caller == plan.number
    assert plan.caller in SERVED_BY
    for injection in plan.injections:
        assert injection.cell.is_ours or FaultSpec.model_validate(injection.order)
        assert injection.at_s is None or TALK_S[0] <= injection.at_s <= TALK_S[1]
        is_later = injection.cell.stage is Stage.LATER or injection.cell.is_ours
        assert (injection.at_s is not None) == is_later


@given(SEEDS)
def test_the_first_fault_hits_the_agents_first_vendor(seed: int) -> None:
    plan = plan_of(seed)
    target = plan.injections[0].cell.target
    vendors = {vendor for of_agent in FIRST_OF.values() for vendor in of_agent}
    assert target not in vendors or target in FIRST_OF[plan.agent]


@given(SEEDS)
def test_two_faults_have_two_targets_and_one_of_a_second_vendor_meets_the_first_ones(seed: int) -> None:
    targets = [injection.cell.target for injection in plan_of(seed).injections]
    assert len(targets) == len(set(targets)) <= 2


def test_a_third_of_the_calls_have_two_faults_of_the_same_layer_too() -> None:
    pairs = [plan for plan in map(plan_of, range(300)) if len(plan.injections) == 2]
    assert 75 < len(pairs) < 135
    targets = [{injection.cell.target for injection in plan.injections} for plan in pairs]
    assert {Target.VOICE, Target.OTHER_VOICE} in targets
    assert {Target.MODEL, Target.OTHER_MODEL} in targets
    assert {Target.RECOGNISER, Target.OTHER_RECOGNISER} in targets
    assert any(len(pair & {Target.MODEL, Target.VOICE}) == 2 for pair in targets)


def test_every_caller_calls() -> None:
    assert {plan_of(seed).caller for seed in range(50)} == set(CALLERS)


def test_there_is_no_plan_before_the_first() -> None:
    with pytest.raises(ValueError, match="a seed is >= 0"):
        plan_of(-1)


def test_what_is_ordered_is_what_the_plan_says() -> None:
    for seed in range(300):
        for injection in (one for one in plan_of(seed).injections if not one.cell.is_ours):
            spec = FaultSpec.model_validate(injection.order)
            assert (spec.kind, spec.count, spec.skip) == (
                injection.cell.kind,
                injection.count,
                injection.skip,
            )
            # In the middle of a stream only where it is asked for: see ModelVendorSim.
            assert injection.cell.stage is not Stage.WITHIN or "after_s" in spec.model_fields_set
