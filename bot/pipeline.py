"""What follows what in a call. Wiring only; reads like a table of contents."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
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
from pipecat.processors.frameworks.rtvi.observer import RTVIObserverParams
from pipecat.services.llm_service import LLMService
from pipecat.services.stt_service import STTService
from pipecat.services.tts_service import TTSService
from pipecat.turns.user_start import BaseUserTurnStartStrategy
from pipecat.turns.user_stop import BaseUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from bot.agent import Agent, AgentConfig, Pauses
from bot.line_recording import LineRecording
from bot.lines import openers
from bot.prices import prices
from bot.services import ServiceContext, build_llm, build_stt, build_tts
from processors.audio_cache import CachedSpeech
from processors.barge_in import BargeInProcessor
from processors.caller_audio import CallerAudioProcessor
from processors.caller_silence import CallerSilenceParams, CallerSilenceProcessor
from processors.confidence import Thresholds
from processors.end_of_turn import EndOfTurnStrategy
from processors.end_of_turn_table import Patience, TurnEndTable
from processors.flux_end_of_turn import FluxEndOfTurnStrategy
from processors.flux_recogniser import FluxRecogniser
from processors.keypad import KeypadProcessor
from processors.language import Language, load_language
from processors.line_sounds import LineSound, LineSounds, LineSoundWatch
from processors.noise_gate import NoiseGate
from processors.playout import PlayoutProcessor
from processors.repair import RepairListener, RepairProcessor, UnheardTurnStopStrategy
from processors.speculation import (
    SpeculationAccount,
    SpeculationGateProcessor,
    SpeculativeLLM,
    SpeculativeTTS,
)
from processors.speech_models import SpeechModels
from processors.speech_text import SpeechTextProcessor
from processors.turn_record import TurnLedger
from processors.turn_start import CallerTurnStartStrategy
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
    silence: CallerSilenceProcessor
    account: SpeculationAccount
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
    opener: Callable[[str], CachedSpeech | None]
    """Returns the sound of an opening line if it is in memory."""
    opener_missing: Callable[[str], None]
    """Told an opening line whose sound is not."""
    on_line_sound: Callable[[LineSound], None]
    """Told when there is no person on the line."""
    flow_node: Callable[[], str | None]
    """Returns the name of the flow's present node."""
    ask: Callable[[str], Awaitable[object]]
    """Says a fixed line: the caller was not understood."""
    repair_listener: RepairListener
    """Told of turns that could not be heard."""
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
    language = load_language(config.language)
    stt, llm, tts = _vendors(parts)
    context = LLMContext()
    account = _speculation(config, llm, tts, context)
    tts.add_event_handler("on_tts_request", _voice_tap(parts.turns))
    playout = PlayoutProcessor(
        rate_hz=services.audio_out_hz,
        gate_s=config.listening.tts_gate_ms / 1000,
        caller_quiet_s=lambda: caller.quiet_s(),
        listener=parts.turns,
        sink=parts.recording,
    )
    barge_in = BargeInProcessor(playout, language, enabled=config.listening.barge_in, listener=parts.turns)
    line_sounds = LineSoundWatch(LineSounds(services.audio_in_hz), parts.on_line_sound)
    caller = CallerAudioProcessor(
        parts.models,
        rate_hz=services.audio_in_hz,
        params=VoiceActivityParams(min_speech_s=config.listening.min_speech_ms / 1000),
        gate=NoiseGate(noise_gate_db=config.listening.noise_gate_db),
        listener=parts.turns,
        sounds=barge_in,
        watch=line_sounds,
        sink=parts.recording,
    )
    silence = _silence(config, language)
    speech_text = _speech_text(parts)
    turns = _Turns(parts, caller, language, playout, account)
    aggregators = _aggregators(
        context,
        start=CallerTurnStartStrategy(lambda: barge_in.may_interrupt),
        stop=turns.by_flux() if isinstance(stt, FluxRecogniser) else turns.by_silence(),
    )
    pipeline = Pipeline(
        [
            *parts.transport_in,
            caller,
            stt,  # the caller's audio ends here
            barge_in,  # what was no more than a backchannel or an echo ends here
            silence,
            TranscriptTap(line_sounds),
            KeypadProcessor(may_interrupt=lambda: playout.is_interruptible),  # keys become words
            TranscriptTap(parts.turns),
            _repair(parts, language),
            aggregators.user_half,
            llm,
            ReplyTap(parts.turns),
            speech_text,
            tts,
            SpeculationGateProcessor(account, listener=parts.turns),
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
        # What it rewrites has been reported at the model.
        rtvi_observer_params=RTVIObserverParams(ignored_sources=[speech_text]),
        enable_turn_tracking=False,
        idle_timeout_secs=None,  # the call has its own watchdog
        cancel_timeout_secs=1.0,
        check_dangling_tasks=False,
    )
    return CallGraph(caller, stt, llm, tts, playout, silence, account, context, aggregators, worker)


def _vendors(parts: GraphParts) -> tuple[STTService, LLMService[Any], TTSService]:
    """Build the first vendor of each layer."""
    chosen = parts.agent.config.services
    stt, llm, tts = chosen.stt[0], chosen.llm[0], chosen.tts[0]
    return (
        build_stt(stt.name, stt.options, parts.services),
        build_llm(llm.name, llm.options, parts.services),
        build_tts(tts.name, tts.options, parts.services),
    )


def _speculation(
    config: AgentConfig, llm: LLMService[Any], tts: TTSService, context: LLMContext
) -> SpeculationAccount:
    """Let the model and the voice think ahead, on one account."""
    account = SpeculationAccount(
        budget_usd=config.speculation.max_waste_usd,
        prices=prices(
            llm=config.services.llm[0].name, model=str(llm._settings.model), tts=config.services.tts[0].name
        ),
        is_enabled=config.speculation.enabled,
    )
    if isinstance(llm, SpeculativeLLM):
        llm.think_ahead(account, context)
    if isinstance(tts, SpeculativeTTS):
        tts.think_ahead(account)
    return account


def _voice_tap(turns: TurnLedger) -> Callable[[TTSService, str, str], Awaitable[None]]:
    """Return what is told each piece of text before a voice gets it: the first is the first that can be spoken."""

    async def on_tts_request(_: TTSService, __: str, text: str) -> None:
        now_s = asyncio.get_running_loop().time()
        turns.first_sentence(now_s)
        turns.tts_requested(text, now_s)

    return on_tts_request


def _silence(config: AgentConfig, language: Language) -> CallerSilenceProcessor:
    patience = config.patience
    return CallerSilenceProcessor(
        CallerSilenceParams(no_speech_after_s=patience.no_speech_after_s, reprompts=patience.reprompts),
        wants_time=language.wants_time,
    )


def _speech_text(parts: GraphParts) -> SpeechTextProcessor:
    config = parts.agent.config
    return SpeechTextProcessor(
        max_reply_words=config.limits.max_reply_words,
        language=config.language,
        openers=openers(config.language),
        lookup=parts.opener,
        on_miss=parts.opener_missing,
    )


def _repair(parts: GraphParts, language: Language) -> RepairProcessor:
    listening = parts.agent.config.listening
    return RepairProcessor(
        language,
        ask=parts.ask,
        thresholds=Thresholds(clear=listening.clear_confidence, doubt=listening.doubt_confidence),
        listener=parts.repair_listener,
    )


def _aggregators(
    context: LLMContext, *, start: BaseUserTurnStartStrategy, stop: BaseUserTurnStopStrategy
) -> ContextAggregators:
    """Join the model's memory to the strategies that begin and end the caller's turns."""
    return ContextAggregators(
        LLMUserAggregator(
            context,
            params=LLMUserAggregatorParams(
                user_turn_strategies=UserTurnStrategies(
                    start=[start], stop=[stop, UnheardTurnStopStrategy()]
                ),
                user_turn_stop_timeout=TURN_WATCHDOG_S,
                user_idle_timeout=0,  # caller silence has its own timer
                empty_user_turn=None,  # repair asks again
            ),
        ),
        # Direct mode: a word is in the context before anything that follows it can happen.
        LLMAssistantAggregator(context, enable_direct_mode=True),
    )


@dataclass(frozen=True)
class _Turns:
    """How the end of the caller's turn is found."""

    parts: GraphParts
    caller: CallerAudioProcessor
    language: Language
    playout: PlayoutProcessor
    account: SpeculationAccount

    def by_silence(self) -> EndOfTurnStrategy:
        """The recogniser gives words only: silence, the words and the turn model decide."""
        return EndOfTurnStrategy(
            self.caller,
            self.language,
            patience=self._patience,
            agent_text=self.playout.current_text,
            account=self.account,
            heard=self.playout,
        )

    def by_flux(self) -> FluxEndOfTurnStrategy:
        """The recogniser says when a turn is over."""
        return FluxEndOfTurnStrategy(hold_s=self._hold_s, account=self.account, heard=self.playout)

    def _hold_s(self, text: str) -> float:
        """Return how much longer than Flux to wait behind words that are half a number."""
        table = TurnEndTable(self.language, self._patience())
        table.asked(self.playout.current_text())
        dictation_s = table.dictation_s(text)
        return max(0.0, (dictation_s or 0.0) - table.patience.max_pause_s)

    def _patience(self) -> Patience:
        """Return the pauses of the flow's present node."""
        config = self.parts.agent.config
        listening = config.listening
        pause_ms, end_ms = listening.pauses_ms(listening.states.get(self.parts.flow_node() or "", Pauses()))
        pause_s, end_s = pause_ms / 1000, end_ms / 1000
        base = Patience()
        return Patience(
            pause_s=min(base.pause_s, pause_s),
            sure_s=min(base.sure_s, pause_s),
            max_pause_s=pause_s,
            utterance_end_s=end_s,
            open_s=max(base.open_s, end_s),
            dictation_s=max(base.dictation_s, end_s),
            number_digits=config.phone_digits,
        )
