"""What follows what in a call. Wiring only; reads like a table of contents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMAssistantAggregator,
    LLMUserAggregator,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.services.stt_service import STTService
from pipecat.services.tts_service import TTSService
from pipecat.turns.user_start import (
    BaseUserTurnStartStrategy,
    TranscriptionUserTurnStartStrategy,
    VADUserTurnStartStrategy,
)
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from bot.agent import Agent, Listening
from bot.line_recording import LineRecording
from bot.services import ServiceContext, build_llm, build_stt, build_tts
from processors.caller_audio import CallerAudioProcessor, EarlyTurnAnalyzer
from processors.end_of_turn import EndOfTurnStrategy
from processors.keypad import KeypadProcessor
from processors.playout import PlayoutProcessor
from processors.speech_models import SpeechModels
from processors.turn_record import TurnLedger
from processors.turn_taps import ReplyTap, TranscriptTap
from processors.voice_activity import VoiceActivityParams

TURN_WATCHDOG_S = 3.0
"""A turn in which nothing happens for this long is over, whatever the strategies think."""


@dataclass(frozen=True)
class ContextAggregators:
    """Both halves of the model's memory, as `FlowManager` wants them."""

    user_half: LLMUserAggregator
    assistant_half: LLMAssistantAggregator

    def user(self) -> LLMUserAggregator:
        """Return the half that writes what the caller said."""
        return self.user_half

    def assistant(self) -> LLMAssistantAggregator:
        """Return the half that writes what the caller heard."""
        return self.assistant_half


@dataclass(frozen=True)
class CallGraph:
    """The processors of one call that others talk to, and the worker that runs them."""

    caller: CallerAudioProcessor
    stt: STTService
    llm: LLMService[Any]
    tts: TTSService
    playout: PlayoutProcessor
    context: LLMContext
    aggregators: ContextAggregators
    worker: PipelineWorker


@dataclass(frozen=True)
class GraphParts:
    """What a call brings along for its graph."""

    agent: Agent
    services: ServiceContext
    models: SpeechModels
    turns: TurnLedger
    recording: LineRecording | None
    transport_in: Sequence[FrameProcessor] = ()
    """A browser's transport input; a phone's socket feeds `CallGraph.caller` directly."""
    transport_out: Sequence[FrameProcessor] = ()
    """A browser's transport output, for messages; audio leaves by the playout's wire."""
    rtvi: bool = False
    """Speak RTVI: browsers and evals, never a phone."""


def build_graph(parts: GraphParts) -> CallGraph:
    """Build the processors of one call and join them.

    Raises:
        ConfigurationError: If the agent names a service or an option that does not exist.
    """
    config, services = parts.agent.config, parts.services
    stt_choice, llm_choice, tts_choice = (
        config.services.stt[0],
        config.services.llm[0],
        config.services.tts[0],
    )
    caller = CallerAudioProcessor(
        parts.models,
        rate_hz=services.audio_in_hz,
        params=_voice_activity(config.listening),
        listener=parts.turns,
        sink=parts.recording,
    )
    stt = build_stt(stt_choice.name, stt_choice.options, services)
    llm = build_llm(llm_choice.name, llm_choice.options, services)
    tts = build_tts(tts_choice.name, tts_choice.options, services)
    playout = PlayoutProcessor(rate_hz=services.audio_out_hz, listener=parts.turns, sink=parts.recording)
    context = LLMContext()
    aggregators = ContextAggregators(
        LLMUserAggregator(context, params=_user_params(parts.agent, caller)),
        # Direct mode: a word is in the context before anything that follows it can happen.
        LLMAssistantAggregator(context, enable_direct_mode=True),
    )
    pipeline = Pipeline(
        [
            *parts.transport_in,
            caller,
            stt,  # the caller's audio ends here
            TranscriptTap(parts.turns),
            KeypadProcessor(),  # keys become words
            aggregators.user_half,
            llm,
            ReplyTap(parts.turns),
            tts,
            playout,  # the agent's audio ends here
            *parts.transport_out,
            aggregators.assistant_half,
        ]
    )
    worker = PipelineWorker(
        pipeline,
        params=PipelineParams(
            audio_in_sample_rate=services.audio_in_hz,
            audio_out_sample_rate=services.audio_out_hz,
            send_initial_empty_metrics=False,
            enable_usage_metrics=True,
        ),
        enable_rtvi=parts.rtvi,
        enable_turn_tracking=False,
        idle_timeout_secs=None,  # the call has its own watchdog
        cancel_timeout_secs=1.0,
        check_dangling_tasks=False,
    )
    return CallGraph(caller, stt, llm, tts, playout, context, aggregators, worker)


def _voice_activity(listening: Listening) -> VoiceActivityParams:
    return VoiceActivityParams(
        min_speech_s=listening.min_speech_ms / 1000,
        min_level_db=listening.noise_gate_db,
    )


def _user_params(agent: Agent, caller: CallerAudioProcessor) -> LLMUserAggregatorParams:
    listening = agent.config.listening
    stop = EndOfTurnStrategy(
        EarlyTurnAnalyzer(caller),
        max_pause_s=listening.max_pause_ms / 1000,
        utterance_end_s=listening.utterance_end_ms / 1000,
    )
    start: list[BaseUserTurnStartStrategy] = [
        VADUserTurnStartStrategy(enable_interruptions=listening.barge_in),
        TranscriptionUserTurnStartStrategy(enable_interruptions=listening.barge_in),
    ]
    return LLMUserAggregatorParams(
        user_turn_strategies=UserTurnStrategies(start=start, stop=[stop]),
        user_turn_stop_timeout=TURN_WATCHDOG_S,
        user_idle_timeout=agent.config.patience.no_speech_after_s,
    )
