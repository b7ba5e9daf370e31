from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pipecat.frames.frames import InputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from bot.agent import Agent, Listening, Pauses, ServiceChoice, Speculation
from bot.errors import ConfigurationError
from bot.flow_check import load_checked_agents
from bot.pipeline import CallGraph, GraphParts, build_graph, build_playout
from bot.services import ServiceContext
from bot.settings import load_settings
from bot.vendor_clients import VendorClients
from processors.barge_in import BargeInProcessor
from processors.confidence import Trust
from processors.end_of_turn import EndOfTurnStrategy
from processors.end_of_turn_table import Patience
from processors.flux_end_of_turn import FluxEndOfTurnStrategy
from processors.noise_gate import NoiseGate
from processors.repair import UnheardTurnStopStrategy
from processors.speculation import SpeculationGateProcessor
from processors.speech_models import SpeechModels
from processors.turn_record import TurnLedger
from processors.turn_start import CallerTurnStartStrategy

pytestmark = pytest.mark.real_time

FLOWS = Path(__file__).parent.parent.parent / "flows"


@pytest.fixture(scope="module")
def models() -> Iterator[SpeechModels]:
    models = SpeechModels()
    yield models
    models.close()


@pytest_asyncio.fixture
async def parts(models: SpeechModels) -> AsyncGenerator[GraphParts]:
    vendors: dict[str, Any] = {
        name: {"api_key": "k"} for name in ("deepgram", "anthropic", "elevenlabs", "cartesia")
    }
    agent = load_checked_agents(FLOWS)["reception"].agent
    async with VendorClients(load_settings(_env_file=None, **vendors)) as clients:
        services = ServiceContext(clients, 8000, 8000, "en-US", agent.config.voices)
        turns = TurnLedger(started_s=0.0)
        yield GraphParts(
            agent,
            services,
            models,
            turns,
            build_playout(agent.config, rate_hz=8000, turns=turns, recording=None),
            recording=None,
            opener=lambda _: None,
            opener_missing=lambda _: None,
            openers=tuple,
            on_sentence=lambda _: None,
            on_line_sound=lambda _: None,
            flow_node=lambda: "front_desk",
            ask=Ear().say,
            give_up=Ear().say,
            repair_listener=Ear(),
        )


class Ear:
    async def say(self, text: str) -> None:
        pass

    def failed_turn(self, count: int) -> bool:
        return True

    def heard(self, trust: Trust) -> None:
        pass


def with_config(parts: GraphParts, **changes: Any) -> GraphParts:
    agent: Agent = parts.agent
    return replace(parts, agent=replace(agent, config=agent.config.model_copy(update=changes)))


def chain(graph: CallGraph) -> list[str]:
    """The processors' kinds from the caller's audio on, in their order."""
    kinds: list[str] = []
    processor: FrameProcessor | None = graph.caller
    while processor is not None and "Sink" not in processor.name:
        kinds.append(type(processor).__name__.lstrip("_"))
        processor = processor.next
    return kinds


def turn_strategies(graph: CallGraph) -> UserTurnStrategies:
    strategies = graph.aggregators.user_half._params.user_turn_strategies
    assert strategies is not None
    return strategies


async def test_what_follows_what_on_a_phone(parts: GraphParts) -> None:
    graph = build_graph(parts)
    assert chain(graph) == [
        "CallerAudioProcessor",
        "FailoverSTT",
        "BargeInProcessor",
        "CallerSilenceProcessor",
        "TranscriptTap",
        "KeypadProcessor",
        "TranscriptTap",
        "RepairProcessor",
        "SilenceWatchdogProcessor",
        "LLMUserAggregator",
        "GuardedLLM",
        "ReplyTap",
        "SpeechTextProcessor",
        "UnsaidTap",
        "SpokenTextTap",
        "FailoverTTS",
        "SpeculationGateProcessor",
        "PlayoutProcessor",
        "LLMAssistantAggregator",
    ]
    assert graph.worker._rtvi is None


async def test_a_browser_brings_its_transports_two_ends(parts: GraphParts) -> None:
    first, last = FrameProcessor(name="in"), FrameProcessor(name="out")
    graph = build_graph(replace(parts, transport_in=(first,), transport_out=(last,), rtvi=True))
    assert first.next is graph.caller
    assert graph.playout.next is last
    assert last.next is graph.aggregators.assistant_half
    assert graph.worker._rtvi is not None


async def test_the_callers_audio_ends_at_the_recogniser(
    parts: GraphParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build_graph(parts)
    passed: list[Any] = []

    async def keep(frame: Any, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        passed.append(frame)

    monkeypatch.setattr(graph.stt, "push_frame", keep)
    audio = InputAudioRawFrame(audio=bytes(640), sample_rate=8000, num_channels=1)
    await graph.stt.process_frame(audio, FrameDirection.DOWNSTREAM)
    assert passed == []


async def test_the_recognisers_are_built_in_the_agents_order(parts: GraphParts) -> None:
    names = ("flux", "assemblyai", "deepgram")
    services = parts.agent.config.services
    chosen = services.model_copy(update={"stt": tuple(ServiceChoice(name=name) for name in names)})
    graph = build_graph(with_config(parts, services=chosen))
    assert [recogniser.vendor for recogniser in graph.stt.recognisers] == list(names)
    assert graph.stt.proposes_turns


async def test_the_voices_are_built_in_the_agents_order(parts: GraphParts) -> None:
    services = parts.agent.config.services
    other = services.model_copy(update={"tts": tuple(reversed(services.tts))})
    graph = build_graph(with_config(parts, services=other))
    assert [voice.vendor for voice in graph.tts.voices] == ["cartesia", "elevenlabs"]


async def test_a_voice_knows_what_waits_to_be_heard_while_somebody_listens(
    parts: GraphParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = build_graph(parts)
    graph.playout.speak(bytes(16000), [])
    assert graph.tts._buffered_s() == pytest.approx(1.0)
    graph.playout.pause()
    assert graph.tts._buffered_s() is None
    graph.playout.resume()
    monkeypatch.setattr(SpeculationGateProcessor, "is_holding", True)
    assert graph.tts._buffered_s() is None


async def test_an_option_that_does_not_exist_is_refused(parts: GraphParts) -> None:
    services = parts.agent.config.services
    wrong = services.llm[0].model_copy(update={"options": {"temprature": 0.5}})
    broken = services.model_copy(update={"llm": (wrong,)})
    with pytest.raises(ConfigurationError, match="temprature"):
        build_graph(with_config(parts, services=broken))


@pytest.mark.parametrize("barge_in", [True, False])
async def test_listening_is_the_agents(parts: GraphParts, barge_in: bool) -> None:
    listening = parts.agent.config.listening.model_copy(
        update={
            "barge_in": barge_in,
            "max_pause_ms": 400,
            "utterance_end_ms": 900,
            "noise_gate_db": -30.0,
            "min_speech_ms": 320,
        }
    )
    graph = build_graph(with_config(parts, listening=listening))
    strategies = turn_strategies(graph)
    assert [type(one) for one in strategies.start or ()] == [CallerTurnStartStrategy]
    stop, unheard = strategies.stop or [None, None]
    assert isinstance(stop, EndOfTurnStrategy)
    assert isinstance(unheard, UnheardTurnStopStrategy)
    assert (stop._patience().max_pause_s, stop._patience().utterance_end_s) == (0.4, 0.9)
    sounds = graph.caller._sounds
    assert isinstance(sounds, BargeInProcessor)
    assert sounds.may_interrupt is barge_in
    assert graph.caller._activity.params.min_speech_s == 0.32
    assert isinstance(graph.caller._gate, NoiseGate)
    assert graph.caller._gate._least_db == -30.0


async def test_a_node_of_the_flow_has_its_own_pauses(parts: GraphParts) -> None:
    listening = Listening(states={"number": Pauses(max_pause_ms=900, utterance_end_ms=1500)})
    node = "front_desk"
    graph = build_graph(with_config(replace(parts, flow_node=lambda: node), listening=listening))
    assert isinstance(stop := (turn_strategies(graph).stop or [None])[0], EndOfTurnStrategy)
    assert stop._patience().max_pause_s == 0.5
    node = "number"
    assert stop._patience() == replace(
        Patience(), max_pause_s=0.9, utterance_end_s=1.5, open_s=1.5, dictation_s=1.5
    )


async def test_flux_decides_turns_by_itself(parts: GraphParts) -> None:
    services = parts.agent.config.services
    flux = services.model_copy(update={"stt": (ServiceChoice(name="flux"),)})
    graph = build_graph(with_config(parts, services=flux))
    assert isinstance(stop := (turn_strategies(graph).stop or [None])[0], FluxEndOfTurnStrategy)
    assert stop._table._hold_s("It's eight five oh, five five") == pytest.approx(1.0)
    assert stop._table._hold_s("I'd like a cleaning.") == 0.0


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_off_switch_of_thinking_ahead(parts: GraphParts, enabled: bool) -> None:
    graph = build_graph(with_config(parts, speculation=Speculation(enabled=enabled)))
    assert graph.account.may_start() is enabled
