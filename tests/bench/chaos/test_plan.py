import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.agents import ALWAYS_OPEN, BACKED, NEVER_OPEN, NUMBERS, RECEPTION, TURNED
from bench.chaos.faults import CELLS, ProcessFault, Stage, Target
from bench.chaos.plan import CALLERS, CLOSED_SHARE, PERSON, TALK_S, Plan, plan_of
from bench.chaos.play import scenario_named
from bench.chaos.stage import AGENTS
from bench.chaos.stage import PERSON as RUNG
from bench.chaos.verdict import AGREES, SERVED_BY
from sims.anthropic import AnthropicSim
from sims.assemblyai import AssemblyAISim
from sims.carrier import Human
from sims.cartesia import CartesiaSim
from sims.deepgram import DeepgramSim
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultKind, FaultSpec
from sims.openai import OpenAISim
from sims.twilio import TwilioSim

SEEDS = st.integers(0, 10**6)
K = FaultKind
FAULTS_OF_SIMS = {
    K.REFUSE,
    K.UNAUTHORIZED,
    K.RATE_LIMITED,
    K.SERVER_ERROR,
    K.OVERLOADED,
    K.HANG_BEFORE_FIRST_BYTE,
    K.HANG_AFTER_FIRST_BYTE,
    K.CLOSE_MID_STREAM,
    K.TRICKLE,
    K.GARBAGE,
    K.EMPTY,
}
"""As the design lists them: refuse, 401, 429, 500, 529, hang before or after the first byte, close mid-stream, slow
trickle, garbage, empty."""
ALL_KINDS = FAULTS_OF_SIMS | {K.SLOW_FIRST_BYTE}
REFUSES = {K.REFUSE, K.UNAUTHORIZED, K.RATE_LIMITED, K.SERVER_ERROR, K.OVERLOADED}
NO_SOCKET = {K.REFUSE, K.UNAUTHORIZED, K.RATE_LIMITED, K.SERVER_ERROR, K.HANG_BEFORE_FIRST_BYTE}
IN_A_STREAM = {K.HANG_AFTER_FIRST_BYTE, K.CLOSE_MID_STREAM, K.TRICKLE, K.GARBAGE, K.EMPTY}
NO_STREAM = {*NO_SOCKET, K.GARBAGE, K.EMPTY}
RECOGNISER_STAGES = {Stage.DIAL: NO_SOCKET, Stage.REDIAL: NO_SOCKET, Stage.LISTENING: IN_A_STREAM}
MODEL_STAGES = {
    Stage.FIRST: ALL_KINDS,
    Stage.LATER: ALL_KINDS,
    Stage.WITHIN: {K.SERVER_ERROR, K.OVERLOADED},
}
VOICE_STAGES = {Stage.DIAL: REFUSES, Stage.FIRST: ALL_KINDS - REFUSES, Stage.LATER: ALL_KINDS}
TABLE = {
    Target.RECOGNISER: RECOGNISER_STAGES,
    Target.OTHER_RECOGNISER: RECOGNISER_STAGES,
    Target.MODEL: MODEL_STAGES,
    Target.OTHER_MODEL: MODEL_STAGES,
    Target.VOICE: VOICE_STAGES,
    Target.OTHER_VOICE: VOICE_STAGES,
    Target.CARRIER: dict.fromkeys((Stage.HANG_UP, Stage.REDIRECT, Stage.RECORDING), NO_STREAM),
    Target.PERSON: {Stage.RING: {Human.NO_ANSWER, Human.FAILED, Human.MACHINE}},
    Target.LINE: {Stage.TALK: {K.GARBAGE, K.CLOSE_MID_STREAM}},
    Target.SERVER: {Stage.TALK: {ProcessFault.KILL, ProcessFault.STOP}},
    Target.STORE: dict.fromkeys((Stage.DIAL, Stage.TALK), frozenset({ProcessFault.KILL, ProcessFault.STOP})),
    Target.BOOKS: {Stage.TALK: {ProcessFault.LOCK}},
}
"""Who can fail, at which stages and how: what is meant, beside what `bench.chaos.faults` has."""
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
COPIES = {**ALWAYS_OPEN, **NEVER_OPEN}


def test_the_table_has_every_fault_at_every_stage() -> None:
    assert len(set(CELLS)) == len(CELLS)
    meant = {
        (target, kind, stage)
        for target, stages in TABLE.items()
        for stage, kinds in stages.items()
        for kind in kinds
    }
    assert {(cell.target, cell.kind, cell.stage) for cell in CELLS} == meant
    assert set(TABLE) == set(Target)
    assert {stage for stages in TABLE.values() for stage in stages} == set(Stage)


@pytest.mark.parametrize("target", SIMS)
def test_a_vendor_fails_in_every_way_that_its_sim_can_act_out(target: Target) -> None:
    kinds = {cell.kind for cell in CELLS if cell.target is target}
    assert kinds == SIMS[target].supported_faults
    cannot = {
        Target.RECOGNISER: {K.OVERLOADED},
        Target.OTHER_RECOGNISER: {K.OVERLOADED},
        Target.CARRIER: {K.OVERLOADED, K.HANG_AFTER_FIRST_BYTE, K.CLOSE_MID_STREAM, K.TRICKLE},
    }
    assert kinds >= FAULTS_OF_SIMS - cannot.get(target, set())


@settings(max_examples=15)
@given(SEEDS)
def test_as_many_seeds_in_a_row_as_the_table_has_rows_hold_each_once_as_the_first(start: int) -> None:
    played = [plan_of(seed).injections[0].cell for seed in range(start, start + len(CELLS))]
    assert set(played) == set(CELLS)


def test_a_whole_run_holds_the_table() -> None:
    assert len(CELLS) <= 300


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
        is_asked_of_sim = isinstance(injection.cell.kind, FaultKind)
        assert not is_asked_of_sim or FaultSpec.model_validate(injection.order)
        assert injection.at_s is None or TALK_S[0] <= injection.at_s <= TALK_S[1]
        is_later = injection.cell.stage in (Stage.LATER, Stage.REDIAL, Stage.TALK)
        is_of_us = injection.cell.is_ours and injection.cell.stage is not Stage.DIAL
        is_of_line = injection.cell.target is Target.LINE
        assert (injection.at_s is not None) == ((is_later and not is_of_line) or is_of_us)


@given(SEEDS)
def test_the_first_fault_hits_the_agents_first_vendor(seed: int) -> None:
    plan = plan_of(seed)
    target, agent = plan.injections[0].cell.target, COPIES[plan.agent]
    vendors = {vendor for of_agent in FIRST_OF.values() for vendor in of_agent}
    assert target not in vendors or target in FIRST_OF[agent]


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


def plans_with(*stages: Stage) -> list[Plan]:
    return [
        plan for plan in map(plan_of, range(600)) if any(one.cell.stage in stages for one in plan.injections)
    ]


def test_what_fails_on_the_way_to_a_person_meets_a_caller_who_asks_for_one() -> None:
    plans = plans_with(Stage.REDIRECT, Stage.RING, Stage.RECORDING)
    assert {plan.caller for plan in plans} == {PERSON}
    on_the_way = {Stage.REDIRECT, Stage.RING, Stage.RECORDING}
    others = [*plans_with(Stage.HANG_UP), *plans_with(Stage.LATER), *plans_with(Stage.WITHIN)]
    alone = [p for p in others if on_the_way.isdisjoint(one.cell.stage for one in p.injections)]
    assert PERSON not in {plan.caller for plan in alone}
    assert PERSON in {plan_of(seed).caller for seed in range(100) if len(plan_of(seed).injections) == 1}
    assert all(plan.agent in ALWAYS_OPEN for plan in plans_with(Stage.RING))
    alone = [plan for plan in plans_with(Stage.RECORDING) if len(plan.injections) == 1]
    assert all(plan.agent in NEVER_OPEN for plan in alone)
    assert all(one.skip == 1 for plan in alone for one in plan.injections)


def test_no_call_depends_on_the_hour() -> None:
    plans = [plan_of(seed) for seed in range(600)]
    assert {plan.agent for plan in plans} == set(AGENTS)
    assert all(plan.agent in ALWAYS_OPEN for plan in plans if plan.caller == "booking")
    closed = sum(plan.agent in NEVER_OPEN for plan in plans)
    assert 0.6 * CLOSED_SHARE < closed / len(plans) < 1.4 * CLOSED_SHARE


def test_who_dials_again_was_cut_off_once_that_would_fail() -> None:
    plans = [one for plan in plans_with(Stage.REDIAL) for one in plan.injections]
    for injection in (one for one in plans if one.cell.stage is Stage.REDIAL):
        cut = injection.before
        assert cut is not None
        assert injection.at_s is not None
        assert (cut.cell.target, cut.at_s, cut.count) == (injection.cell.target, None, 1)
        assert cut.after_s > injection.at_s
        assert cut.order["after_s"] == pytest.approx(cut.after_s, abs=0.001)


def test_redis_is_lost_where_there_is_one_and_never_with_the_process() -> None:
    plans = [plan_of(seed) for seed in range(2000)]
    for plan in plans:
        assert plan.is_on_redis or not plan.loses_store
        assert not (plan.loses_store and plan.needs_standby)
    assert {plan.is_on_redis for plan in plans if plan.needs_standby} == {True, False}
    lost = [one for plan in plans for one in plan.injections if one.cell.target is Target.STORE]
    assert {one.is_mended for one in lost} == {True, False}
    assert not any(one.is_mended for plan in plans if not plan.loses_store for one in plan.injections)


@pytest.mark.parametrize("caller", AGREES)
def test_callers_agree_in_the_words_that_are_looked_for(caller: str) -> None:
    assert AGREES[caller] in list(scenario_named(caller, "+18505550100").lines())


def test_the_person_who_is_rung_is_the_shipped_agents() -> None:
    config = (Path("flows") / RECEPTION / "agent.yaml").read_text()
    assert re.findall(r'humans: \["(.*?)"\]', config) == [RUNG]


def test_there_is_no_plan_before_the_first() -> None:
    with pytest.raises(ValueError, match="a seed is >= 0"):
        plan_of(-1)


def test_what_is_ordered_is_what_the_plan_says() -> None:
    for seed in range(300):
        for injection in plan_of(seed).injections:
            if not isinstance(injection.cell.kind, FaultKind):
                continue
            spec = FaultSpec.model_validate(injection.order)
            assert (spec.kind, spec.count, spec.skip) == (
                injection.cell.kind,
                injection.count,
                injection.skip,
            )
            # In the middle of a stream only where it is asked for: see ModelVendorSim.
            assert injection.cell.stage is not Stage.WITHIN or "after_s" in spec.model_fields_set
