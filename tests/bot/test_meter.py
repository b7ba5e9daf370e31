from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agent import Agent, read_agent
from bot.errors import AgentFilesError
from bot.meter import ProcessMeter, vendor_plans
from bot.services import Layer, ServiceContext, build_llm, build_stt, share_of_plan
from bot.settings import load_settings
from bot.vendor_clients import VendorClients
from processors.voice_health import ProcessVoiceHealth
from telephony.admission import Admission, Admitted, Refused, derive_secret
from telephony.capacity import LATE_S, LoopHealth, VendorPlan
from tests.bot.agent_files import AGENT, write_agent

LIMITED = (
    AGENT.replace("stt: [deepgram]", "stt: [{name: deepgram, concurrency: 2}]")
    .replace("llm: [anthropic]", "llm: [{name: anthropic, concurrency: 4}]")
    .replace("- elevenlabs\n", "- {name: elevenlabs, concurrency: 1}\n")
)


def agent(folder: Path, text: str = LIMITED) -> Agent:
    return read_agent(write_agent(folder / "agent", agent=text))


def test_places_of_vendors_that_stand_in_for_each_other_add_up(tmp_path: Path) -> None:
    assert vendor_plans([agent(tmp_path)]) == {
        "agent": (
            VendorPlan(frozenset({"stt:deepgram"}), 2),
            VendorPlan(frozenset({"llm:anthropic"}), 12),
            VendorPlan(frozenset({"tts:elevenlabs", "tts:cartesia"}), 18),
        )
    }


def test_of_a_voice_whose_plan_counts_connections_each_call_takes_a_place(tmp_path: Path) -> None:
    text = LIMITED.replace("- {name: elevenlabs, concurrency: 1}\n", "- {name: deepgram, concurrency: 7}\n")
    text = text.replace("elevenlabs: voice-1", "deepgram: aura-2-thalia-en")
    *_, voices = vendor_plans([agent(tmp_path, text)])["agent"]
    assert voices == VendorPlan(frozenset({"tts:deepgram", "tts:cartesia"}), 7 + 15)


def test_several_workers_have_a_part_of_each_plan(tmp_path: Path) -> None:
    one = agent(tmp_path)
    assert [plan.calls for plan in vendor_plans([one], workers=2)["agent"]] == [1, 6, 9]
    assert [plan.calls for plan in vendor_plans([one], workers=3)["agent"]] == [1, 3, 6]
    voices = ProcessVoiceHealth()
    meter = ProcessMeter([one], loop=LoopHealth(), backlog_s=lambda: 0.0, voice_health=voices, workers=2)
    assert meter.plans == vendor_plans([one], workers=2)
    for vendor, most in (("elevenlabs", 1), ("cartesia", 2)):
        assert not meter.load("agent", {}).is_voice_taken
        for _ in range(most):
            assert voices.begin(vendor, most)
    assert meter.load("agent", {}).is_voice_taken


@given(st.integers(1, 100), st.integers(1, 16))
def test_together_workers_use_no_more_than_a_plan_that_has_enough_for_each(
    concurrency: int, workers: int
) -> None:
    share = share_of_plan({"concurrency": concurrency}, workers)
    assert share is not None
    assert share >= 1
    assert workers * share <= max(concurrency, workers)
    assert concurrency - workers * share < workers, "no more is left over than cannot be shared"
    assert share_of_plan({}, workers) is None


def test_a_layer_with_a_vendor_of_unknown_plan_has_no_limit(tmp_path: Path) -> None:
    assert vendor_plans([agent(tmp_path, AGENT)]) == {"agent": ()}


def test_a_plan_that_is_no_number_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(AgentFilesError, match="concurrency"):
        agent(tmp_path, AGENT.replace("[deepgram]", "[{name: deepgram, concurrency: 0}]"))


@pytest.mark.real_time
async def test_no_vendor_is_told_of_its_plan() -> None:
    settings = load_settings(
        _env_file=None, **{name: {"api_key": "k"} for name in ("deepgram", "anthropic", "openai")}
    )
    async with VendorClients(settings) as clients:
        services = ServiceContext(clients, 8000, 8000, "en-US", {})
        for layer, name in ((Layer.STT, "deepgram"), (Layer.STT, "flux"), (Layer.LLM, "anthropic")):
            build = build_stt if layer is Layer.STT else build_llm
            service = build(name, {"concurrency": 3}, services)
            assert "concurrency" not in str(service._settings)


def test_a_meter_says_what_is_measured(tmp_path: Path) -> None:
    one, loop, voices = agent(tmp_path), LoopHealth(), ProcessVoiceHealth()
    meter = ProcessMeter([one], loop=loop, backlog_s=lambda: 0.5, voice_health=voices)
    quiet = meter.load("agent", {"agent": 1})
    assert (quiet.is_behind, quiet.backlog_s, quiet.is_voice_taken) == (False, 0.5, False)
    assert voices.begin("elevenlabs", 1)
    assert not meter.load("agent", {}).is_voice_taken, "the other voice has room"
    for _ in range(5):
        assert voices.begin("cartesia", 5)
    assert meter.load("agent", {}).is_voice_taken
    assert not meter.load("nobody", {}).is_voice_taken
    for _ in range(4):
        loop.observe(2 * LATE_S)
    assert meter.load("agent", {}).is_behind


def test_admission_asks_it(tmp_path: Path) -> None:
    meter = ProcessMeter(
        [agent(tmp_path)], loop=LoopHealth(), backlog_s=lambda: 0.0, voice_health=ProcessVoiceHealth()
    )
    admission = Admission(max_calls=10, secret=derive_secret("token"), meter=meter)
    answers = [admission.reserve(f"CA{number}", "agent", 1000.0) for number in range(3)]
    assert [type(answer) for answer in answers] == [Admitted, Admitted, Refused]
    assert isinstance(answers[2], Refused)
    assert answers[2].reason == "vendor_limit"
