import pytest

from bench.chaos.faults import Target
from bench.fault_rows import FAULTS, SIMS, VENDOR_FAULTS, Fault, Trouble
from bench.servers import Bot
from bench.special_calls import CALLERS
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES
from sims.vendor import VendorSim
from sims.world import SimWorld


@pytest.fixture(scope="module")
def world() -> SimWorld:
    return SimWorld(profile=PROFILES["instant"])


def kinds_of(target: Target) -> set[object]:
    return {
        injection.cell.kind
        for fault in FAULTS
        for injection in fault.injections
        if len(fault.injections) == 1 and injection.cell.target is target
    }


def test_every_row_has_a_name_of_its_own_and_can_be_played() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert (CALLERS / "chaos" / f"{fault.caller}.yaml").exists()
        for injection in fault.injections:
            if not injection.cell.is_ours:
                FaultSpec.model_validate(injection.order)


@pytest.mark.parametrize("target", SIMS)
def test_each_vendor_has_a_row_for_everything_that_its_sim_can_act_out(target: Target) -> None:
    assert kinds_of(target) == SIMS[target].supported_faults


def test_no_vendor_that_could_come_first_fails_in_a_way_that_has_no_row(world: SimWorld) -> None:
    rows = {kind for target in SIMS for kind in kinds_of(target)}
    kinds = {kind for vendor in world.vendors for kind in vendor.supported_faults}
    assert kinds == rows == set(FaultKind)
    layers: tuple[tuple[Target, tuple[VendorSim, ...]], ...] = (
        (Target.RECOGNISER, (world.deepgram, world.assemblyai)),
        (Target.MODEL, (world.anthropic, world.openai, world.groq, world.fireworks, world.together)),
        (Target.VOICE, (world.elevenlabs, world.cartesia, world.aura)),
        (Target.CARRIER, (world.twilio,)),
    )
    assert {vendor for _, layer in layers for vendor in layer} == set(world.vendors)
    for target, layer in layers:
        assert all(vendor.supported_faults <= kinds_of(target) for vendor in layer)


def test_so_has_the_media_socket(world: SimWorld) -> None:
    assert kinds_of(Target.LINE) == world.twilio.media_faults.supported


def test_everything_else_that_can_go_wrong_has_a_row() -> None:
    assert [fault.trouble for fault in FAULTS if fault.trouble is not None] == list(Trouble)
    assert len(kinds_of(Target.SERVER)) == 2
    pairs = [fault.targets for fault in FAULTS if len(fault.injections) > 1]
    assert pairs
    assert all(len(targets) == 2 for targets in pairs)


def test_only_a_store_that_the_plain_bot_has_not_is_not_played_with_it() -> None:
    missing = [fault.trouble for fault in FAULTS if not fault.is_for(Bot.PLAIN)]
    assert missing == [Trouble.REDIS_GONE, Trouble.REDIS_HANGS]
    assert all(fault.is_for(Bot.OURS) for fault in FAULTS)


def test_a_second_process_stands_by_only_where_the_first_fails() -> None:
    standing_by = [fault.name for fault in FAULTS if fault.needs_standby]
    assert standing_by == ["process is killed, kill -9", "process hangs, SIGSTOP"]


def test_the_names_say_what_fails_and_how_often() -> None:
    names = [fault.name for fault in VENDOR_FAULTS]
    assert "model begins 6 s late" in names
    assert "recogniser cuts the connection in the middle, once" in names
    assert Fault("nothing fails").targets == frozenset()
