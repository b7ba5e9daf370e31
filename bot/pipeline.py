"""What follows what in a call. Wiring only; reads like a table of contents."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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
from pipecat.turns.user_start import BaseUserTurnStartStrategy
from pipecat.turns.user_stop import BaseUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

from bot.agent import Agent, AgentConfig, Pauses
from bot.line_recording import LineRecording
from bot.lines import fixed_lines, stall_lines
from bot.prices import prices
from bot.services import ServiceContext, build_hearing, build_models, build_voice
from processors.audio_cache import CachedSpeech
from processors.barge_in import BargeInProcessor
from processors.caller_audio import CallerAudioProcessor
from processors.caller_silence import CallerSilenceParams, CallerSilenceProcessor
from processors.confidence import Thresholds
from processors.end_of_turn import EndOfTurnStrategy
from processors.end_of_turn_table import Patience, TurnEndTable
from processors.flux_end_of_turn import FluxEndOfTurnStrategy
from processors.keypad import KeypadProcessor
from processors.language import Language, load_language
from processors.line_sounds import LineSound, LineSounds, LineSoundWatch
from processors.llm_guard import GuardedLLM, GuardListener
from processors.model_tiers import FlowTiers, Tier, TierRule
from processors.noise_gate import NoiseGate
from processors.playout import PlayoutProcessor
from processors.repair import RepairListener, RepairProcessor, UnheardTurnStopStrategy
from processors.repair_lines import repair_lines
from processors.silence_watchdog import Apology, SilenceWatchdogProcessor, WatchedLine
from processors.silence_watchdog_table import SilenceWatchParams, Step
from processors.speculation import SpeculationAccount, SpeculationGateProcessor
from processors.speech_models import SpeechModels
from processors.speech_text import SpeechTextProcessor
from processors.stall_filler import Fillers
from processors.stt_failover import FailoverSTT
from processors.tts_failover import FailoverTTS
from processors.turn_record import TurnLedger
from processors.turn_start import CallerTurnStartStrategy
from processors.turn_taps import ReplyTap, SpokenTextTap, TranscriptTap
from processors.unsaid import UnsaidLedger, UnsaidTap
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
    stt: FailoverSTT
    llm: LLMService[Any]
    tts: FailoverTTS
    playout: PlayoutProcessor
    silence: CallerSilenceProcessor
    watchdog: SilenceWatchdogProcessor
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
    playout: PlayoutProcessor
    """Made before the rest, by `build_playout`: a greeting does not wait for a pipeline."""
    recording: LineRecording | None
    opener: Callable[[str], CachedSpeech | None]
    """Returns the sound of a fixed line if it is in memory."""
    opener_missing: Callable[[str], None]
    """Told a fixed line whose sound is not."""
    openers: Callable[[], Sequence[str]]
    """Returns the lines that replies may begin with."""
    on_sentence: Callable[[str], None]
    """Told every whole sentence of a reply."""
    on_line_sound: Callable[[LineSound], None]
    """Told when there is no person on the line."""
    flow_node: Callable[[], str | None]
    """Returns the name of the flow's present node."""
    ask: Callable[[str], Awaitable[object]]
    """Says a fixed line: the caller was not understood."""
    give_up: Callable[[str], Awaitable[None]]
    """Called when the caller waits and nothing helps; with what they wait for."""
    repair_listener: RepairListener
    """Told of turns that could not be heard."""
    tiers: FlowTiers = field(default_factory=FlowTiers)
    """Which parts of the flow want the strong models."""
    unsaid: UnsaidLedger = field(default_factory=UnsaidLedger)
    """Keeps what the agent has to say, for the case that its line is cut."""
    on_step: Callable[[], None] = lambda: None
    """Called when what the agent has to say has changed."""
    model_listener: GuardListener | None = None
    """Told of models that failed."""
    on_silence: Callable[[Step], None] | None = None
    """Told of what is done about a silence of ours."""
    transport_in: Sequence[FrameProcessor] = ()
    """A browser's transport input; a phone's socket feeds `CallGraph.caller` directly."""
    transport_out: Sequence[FrameProcessor] = ()
    """A browser's transport output, for messages; audio leaves by the playout's wire."""
    rtvi: bool = False
    """Speak RTVI: browsers and evals, never a phone."""


def build_playout(
    config: AgentConfig, *, rate_hz: int, turns: TurnLedger, recording: LineRecording | None
) -> PlayoutProcessor:
    """Build what plays the agent's audio.

    Args:
        config: The agent's.
        rate_hz: Of the agent's audio.
        turns: Told what the caller hears.
        recording: Gets it.
    """
    return PlayoutProcessor(
        rate_hz=rate_hz,
        gate_s=config.listening.tts_gate_ms / 1000,
        listener=turns,
        sink=recording,
    )


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
    playout = parts.playout
    gate = SpeculationGateProcessor(account, listener=parts.turns)
    tts.follow_playout(
        lambda: None if gate.is_holding or playout.is_paused else playout.remaining_s,
        unsent_s=lambda: playout.unsent_s,
    )
    watchdog = _watchdog(parts, WatchedLine(playout, caller_quiet_s=lambda: caller.quiet_s()))
    playout.tell_replies(watchdog)
    barge_in = BargeInProcessor(
        playout,
        language,
        enabled=config.listening.barge_in,
        waiting=watchdog,
        listener=parts.turns,
    )
    line_sounds = LineSoundWatch(LineSounds(services.audio_in_hz), parts.on_line_sound)
    caller = _caller(parts, barge_in, line_sounds)
    playout.follow_caller(caller.quiet_s)
    silence = _silence(config, language, is_owed=lambda: watchdog.owes)
    speech_text = _speech_text(parts)
    turns = _Turns(parts, caller, language, playout, account)
    aggregators = _aggregators(
        context,
        start=CallerTurnStartStrategy(lambda: barge_in.may_interrupt),
        stop=turns.by_flux() if stt.proposes_turns else turns.by_silence(),
    )
    chain = [
        *parts.transport_in,
        caller,
        stt,  # the caller's audio ends here
        barge_in,  # what was no more than a backchannel or an echo ends here
        silence,
        TranscriptTap(line_sounds),
        KeypadProcessor(may_interrupt=lambda: playout.is_interruptible),  # keys become words
        TranscriptTap(parts.turns),
        _repair(parts, language),
        watchdog,  # what comes so far is a turn that is answered
        aggregators.user_half,
        llm,
        ReplyTap(parts.turns),
        speech_text,
        UnsaidTap(parts.unsaid, on_step=parts.on_step),
        SpokenTextTap(watchdog),
        tts,
        gate,
        playout,  # the agent's audio ends here
        *parts.transport_out,
        aggregators.assistant_half,
    ]
    worker = _worker(parts, chain, rewrites=speech_text)
    return CallGraph(caller, stt, llm, tts, playout, silence, watchdog, account, context, aggregators, worker)


def _caller(
    parts: GraphParts, barge_in: BargeInProcessor, line_sounds: LineSoundWatch
) -> CallerAudioProcessor:
    listening = parts.agent.config.listening
    return CallerAudioProcessor(
        parts.models,
        rate_hz=parts.services.audio_in_hz,
        params=VoiceActivityParams(min_speech_s=listening.min_speech_ms / 1000),
        gate=NoiseGate(noise_gate_db=listening.noise_gate_db),
        listener=parts.turns,
        sounds=barge_in,
        watch=line_sounds,
        sink=parts.recording,
    )


def _worker(
    parts: GraphParts, chain: Sequence[FrameProcessor], *, rewrites: SpeechTextProcessor
) -> PipelineWorker:
    return PipelineWorker(
        Pipeline(list(chain)),
        params=PipelineParams(
            audio_in_sample_rate=parts.services.audio_in_hz,
            audio_out_sample_rate=parts.services.audio_out_hz,
            send_initial_empty_metrics=False,
            enable_usage_metrics=True,
        ),
        enable_rtvi=parts.rtvi,
        # What it rewrites has been reported at the model.
        rtvi_observer_params=RTVIObserverParams(ignored_sources=[rewrites]),
        enable_turn_tracking=False,
        idle_timeout_secs=None,  # the call has its own watchdog
        cancel_timeout_secs=1.0,
        check_dangling_tasks=False,
    )


def _vendors(parts: GraphParts) -> tuple[FailoverSTT, GuardedLLM, FailoverTTS]:
    """Build all recognisers, all models and all voices."""
    config = parts.agent.config
    chosen = config.services
    rule = TierRule(parts.tiers, repair_lines=repair_lines(config.language))
    return (
        build_hearing([(stt.name, stt.options) for stt in chosen.stt], parts.services),
        build_models(
            config.models_of(Tier.LIGHT),
            parts.services,
            strong=config.models_of(Tier.STRONG),
            choose=lambda context: rule.choose(context.messages, parts.flow_node()),
            give_up=parts.give_up,
            listener=parts.model_listener,
        ),
        build_voice([(tts.name, tts.options) for tts in chosen.tts], parts.services),
    )


def _speculation(
    config: AgentConfig, llm: GuardedLLM, tts: FailoverTTS, context: LLMContext
) -> SpeculationAccount:
    """Let the model and the voice think ahead, on one account."""
    account = SpeculationAccount(
        budget_usd=config.speculation.max_waste_usd,
        prices=prices(
            llm=config.services.llm[0].name, model=str(llm._settings.model), tts=config.services.tts[0].name
        ),
        is_enabled=config.speculation.enabled,
    )
    llm.think_ahead(account, context)
    tts.think_ahead(account)
    return account


def _voice_tap(turns: TurnLedger) -> Callable[[FailoverTTS, str, str], Awaitable[None]]:
    """Return what is told each piece of text before a voice gets it: the first is the first that can be spoken."""

    async def on_tts_request(_: FailoverTTS, __: str, text: str) -> None:
        now_s = asyncio.get_running_loop().time()
        turns.first_sentence(now_s)
        turns.tts_requested(text, now_s)

    return on_tts_request


def _watchdog(parts: GraphParts, line: WatchedLine) -> SilenceWatchdogProcessor:
    config = parts.agent.config
    return SilenceWatchdogProcessor(
        line,
        Fillers(stall_lines(config), lookup=parts.opener, on_miss=parts.opener_missing),
        Apology(fixed_lines(config.language).try_again, lookup=parts.opener),
        give_up=parts.give_up,
        listener=parts.turns,
        on_step=parts.on_silence,
        params=SilenceWatchParams(stall_after_s=config.patience.stall_after_s),
    )


def _silence(
    config: AgentConfig, language: Language, *, is_owed: Callable[[], bool]
) -> CallerSilenceProcessor:
    patience = config.patience
    return CallerSilenceProcessor(
        CallerSilenceParams(no_speech_after_s=patience.no_speech_after_s, reprompts=patience.reprompts),
        wants_time=language.wants_time,
        is_owed=is_owed,
    )


def _speech_text(parts: GraphParts) -> SpeechTextProcessor:
    config = parts.agent.config
    return SpeechTextProcessor(
        max_reply_words=config.limits.max_reply_words,
        language=config.language,
        openers=parts.openers,
        lookup=parts.opener,
        on_miss=parts.opener_missing,
        on_sentence=parts.on_sentence,
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
