import pytest

from bench.chaos.faults import Target
from bench.chaos.verdict import Outcome
from bench.faults import FAULTS, HOW, HOW_HEADING, Fault, Heard, page
from bench.figures import CallerReport
from bench.page import section
from bench.servers import Bot
from sims.anthropic import AnthropicSim
from sims.deepgram import DeepgramSim
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultKind, FaultSpec
from sims.twilio import TwilioSim

SIMS = {
    Target.RECOGNISER: DeepgramSim,
    Target.MODEL: AnthropicSim,
    Target.VOICE: ElevenLabsSim,
    Target.CARRIER: TwilioSim,
}
WANTED = {
    FaultKind.REFUSE,
    FaultKind.RATE_LIMITED,
    FaultKind.HANG_BEFORE_FIRST_BYTE,
    FaultKind.HANG_AFTER_FIRST_BYTE,
    FaultKind.CLOSE_MID_STREAM,
    FaultKind.TRICKLE,
}


def test_every_row_has_a_name_of_its_own_and_can_be_played() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        if fault.injection is not None:
            assert fault.injection.cell.kind in SIMS[fault.injection.cell.target].supported_faults
            FaultSpec.model_validate(fault.injection.order)


@pytest.mark.parametrize("target", [Target.RECOGNISER, Target.MODEL, Target.VOICE])
def test_each_vendor_fails_in_every_way(target: Target) -> None:
    kinds = {
        fault.injection.cell.kind
        for fault in FAULTS
        if fault.injection is not None and fault.injection.cell.target is target
    }
    assert kinds >= WANTED


def test_the_page_has_both_side_by_side_and_a_dash_for_what_was_not_played() -> None:
    results = {("nothing fails", Bot.OURS): Heard(1.234, 0, 0, Outcome.SERVED)}
    text = page(results, conditions=["a machine"], how="## Under faults\n\nSo.")
    assert "| nothing fails | 1.2 | 0 | 0 | served | - | - | - | - |" in text
    assert all(f"| {fault.name} |" in text for fault in FAULTS)
    assert "- a machine\n" in text
    assert text.endswith("So.\n")


def test_the_page_tells_how_it_was_made_and_nothing_of_other_pages() -> None:
    how = section(HOW.read_text(), HOW_HEADING)
    assert how.startswith(HOW_HEADING)
    assert how.count("\n## ") == 0
    assert "hangs up" in how
    with pytest.raises(ValueError, match="no section"):
        section("## One\n", "## Two")


def test_what_was_heard_is_read_from_the_callers_report() -> None:
    report = CallerReport(
        scenario="asks",
        outcome="failed",
        reasons=("step 3 (converse): the agent did not speak within 20 s",),
        ended_by="caller",
        duration_s=30.0,
        stream_started_s=0.0,
        agent_audible_s=((1.0, 4.0),),
        lost_words=2,
    )
    assert Heard.of(report) == Heard(26.0, 2, 0, Outcome.LEFT)
    assert Fault(None).name == "nothing fails"
