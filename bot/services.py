"""The vendors an agent can name in `agent.yaml`, and how each service of a call is built.

One dict of builders for each layer; adding a vendor is one entry. Pipecat swallows misspelt keyword arguments,
so options are checked here against the fields and types of the vendor's own `Settings`. Services are built
for one call and share what `VendorClients` holds; nothing here connects.
"""

import asyncio
import contextlib
import dataclasses
import enum
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from anthropic import NotGiven as AnthropicNotGiven
from openai import NotGiven as OpenAINotGiven
from openai.types import CompletionUsage
from pipecat.metrics.metrics import LLMTokenUsage
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.anthropic.llm import AnthropicLLMService
from pipecat.services.assemblyai.stt import AssemblyAISTTSettings, is_u3_pro_model
from pipecat.services.cartesia.tts import CartesiaTTSService
from pipecat.services.deepgram import stt as deepgram_stt
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTSettings
from pipecat.services.deepgram.tts import DeepgramTTSService
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
from pipecat.services.fireworks.llm import FireworksLLMService
from pipecat.services.groq.llm import GroqLLMService
from pipecat.services.llm_service import LLMService
from pipecat.services.openai.base_llm import BaseOpenAILLMService
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.settings import ServiceSettings
from pipecat.services.stt_service import STTService
from pipecat.services.together.llm import TogetherLLMService
from pipecat.services.tts_service import TextAggregationMode, TTSService
from pipecat.transcriptions.language import Language
from pipecat.utils.types import NotGiven
from pydantic import Field, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection

from bot.errors import ConfigurationError
from bot.model_errors import vendor_error
from bot.prices import model_prices
from bot.settings import Vendor
from bot.vendor_clients import VendorClients, socket_options
from bot.yaml_source import suggestion
from processors.anchored_speech import AnchoredSpeech
from processors.assemblyai_recogniser import HostedAssemblyAI
from processors.aura_voice import AuraVoice
from processors.cartesia_words import CartesiaWords
from processors.clause_aggregator import ClauseAggregator
from processors.context_words import ContextWords
from processors.hosted_recogniser import HostedDeepgram, HostedFlux, HostedRecogniser
from processors.hosted_voice import HostedVoice
from processors.llm_guard import Candidate, GuardedLLM, GuardListener
from processors.llm_model import AnswerSource, answer_is_whole
from processors.loudness import LoudnessBook
from processors.model_tiers import ROUTINE, Tier, TierChoice
from processors.speculation import SpeculativeTTS
from processors.stt_failover import FailoverSTT
from processors.tts_failover import FailoverTTS
from processors.voice_health import ProcessVoiceHealth, VoiceHealth

RECONNECT_WAIT_S = (0.2, 2.0)
"""Least and longest wait between dials after a lost socket; Pipecat's 4 s is 4 s of silence."""

ANTHROPIC_MODEL = "claude-haiku-4-5"
OPENAI_MODEL = "gpt-4.1-mini"
GROQ_MODEL = "openai/gpt-oss-120b"
FIREWORKS_MODEL = "accounts/fireworks/models/nemotron-3-ultra-nvfp4"
TOGETHER_MODEL = "zai-org/GLM-5.2"
ELEVENLABS_MODEL = "eleven_flash_v2_5"
CARTESIA_MODEL = "sonic-3.6"
DEEPGRAM_MODEL = "nova-3-general"
ASSEMBLYAI_MODEL = "universal-3-6-pro"
FLUX_MODEL = "flux-general-en"
FLUX_MULTILINGUAL_MODEL = "flux-general-multi"
"""Models when `agent.yaml` names none: the quick ones, or what Pipecat chose for that vendor."""
MAX_REPLY_TOKENS = 512
FluxLanguage = Literal["de", "en", "es", "fr", "hi", "it", "ja", "nl", "pt", "ru"]
FLUX_EOT_THRESHOLD = 0.7
"""Deepgram's own, when `agent.yaml` names none."""
CLOSE_WAIT_S = 0.3
"""For a TTS vendor's goodbye at the end of a call; Pipecat's 2 s would hold the call's slot."""

Options = Mapping[str, Any]
"""Checked options of one vendor, as they stand in `agent.yaml`."""
ServiceT = TypeVar("ServiceT", covariant=True)


class Layer(enum.Enum):
    """A key of `services:` in `agent.yaml`."""

    STT = "stt"
    LLM = "llm"
    TTS = "tts"


@dataclass(frozen=True)
class ServiceContext:
    """What a call gives to the builders of its services."""

    clients: VendorClients
    audio_in_hz: int
    """8000 on the phone, 16000 in the browser."""
    audio_out_hz: int
    language: str
    """Of `agent.yaml`, e.g. `en-US`."""
    voices: Mapping[str, str]
    """TTS vendor to voice id."""
    workers: int = 1
    """Processes that share the vendors' plans."""
    tool_timeout_s: float = 3.0
    """Limit of a tool that sets none itself."""
    speculates: bool = False
    """Whether the call wants to be told early that the caller's turn is likely over."""
    recogniser_health: VoiceHealth = field(default_factory=ProcessVoiceHealth)
    """Of the STT vendors, shared by the calls of a process."""
    voice_health: VoiceHealth = field(default_factory=ProcessVoiceHealth)
    """Of the TTS vendors, shared by the calls of a process."""
    loudness: LoudnessBook = field(default_factory=LoudnessBook)
    """Of their voices, shared too."""


@dataclass(frozen=True)
class VendorEntry(Generic[ServiceT]):
    """One vendor of one layer."""

    vendor: Vendor
    build: Callable[[Options, ServiceContext], ServiceT]
    options: Mapping[str, TypeAdapter[Any]] = field(repr=False)
    """Name of each allowed option to the check of its value."""
    conflict: Callable[[Options], tuple[str, str] | None] = lambda _: None
    """Of options that are each right: the one that does not go with another, and why."""


class HoldsSocket:
    """Give a Pipecat websocket service the process's TLS context and our deadlines.

    `WebsocketService._websocket_connect` is the one place where those services dial.
    """

    clients: VendorClients
    _dialled: ClientConnection | None = None

    async def _websocket_connect(self, uri: str, **kwargs: Any) -> Any:
        options = {**socket_options(uri, self.clients.tls), **kwargs}
        self._dialled = await super()._websocket_connect(uri, **options)  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into
        return self._dialled

    def drop_socket(self) -> None:
        """Cut the socket if it is still open: Pipecat forgets it when a goodbye is cancelled half-way."""
        if self._dialled is not None:
            self._dialled.transport.abort()


class _Anthropic(AnswerSource, AnthropicLLMService):
    """Claude."""

    def _handle_stop_reason(self, result: Any) -> None:
        if getattr(result, "stop_reason", None) is not None:  # a stream that ends without one was cut
            answer_is_whole()
        super()._handle_stop_reason(result)


class WatchedChunks:
    """A stream of Chat Completions that tells when its answer is whole, and carries one tool call in a chunk.

    Pipecat takes every end of a stream for the end of the answer, and reads only the first tool call of a chunk.
    """

    def __init__(self, stream: Any) -> None:
        """Watch an `AsyncStream` of the SDK."""
        self._stream = stream

    async def __aiter__(self) -> AsyncGenerator[Any]:
        async for chunk in self._stream:
            for choice in chunk.choices[:1]:
                if choice.finish_reason is not None:
                    answer_is_whole()
                if choice.delta and len(choice.delta.tool_calls or ()) > 1:
                    for call in choice.delta.tool_calls:
                        delta = choice.delta.model_copy(update={"tool_calls": [call]})
                        yield chunk.model_copy(
                            update={"choices": [choice.model_copy(update={"delta": delta})]}
                        )
                    break
            else:
                yield chunk

    async def close(self) -> None:
        """Let go of the connection."""
        await self._stream.close()


class SharesChatClient(AnswerSource):
    """Give a service of Pipecat's that speaks Chat Completions the process's client, and usage as Anthropic counts it.

    Mix in before a `BaseOpenAILLMService`, and set `_client` when it is made.
    """

    async def get_chat_completions(self, context: LLMContext) -> Any:
        """Return a stream that tells when its answer is whole."""
        return WatchedChunks(await super().get_chat_completions(context))  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into

    def create_client(
        self,
        api_key: Any = None,
        base_url: Any = None,
        organization: Any = None,
        project: Any = None,
        default_headers: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Make none: a client of its own would cost a TLS context for each call."""
        return None

    def _token_usage(self, usage: CompletionUsage) -> LLMTokenUsage:
        tokens: LLMTokenUsage = super()._token_usage(usage)  # pyright: ignore[reportAttributeAccessIssue] - of the service it is mixed into
        cached = (tokens.cache_read_input_tokens or 0) + (tokens.cache_creation_input_tokens or 0)
        return tokens.model_copy(update={"prompt_tokens": max(0, tokens.prompt_tokens - cached)})


class _OpenAI(SharesChatClient, OpenAILLMService):
    """A model of OpenAI's."""


class _Groq(SharesChatClient, GroqLLMService):
    """A model at Groq."""


class _Fireworks(SharesChatClient, FireworksLLMService):
    """A model at Fireworks."""


class _Together(SharesChatClient, TogetherLLMService):
    """A model at Together."""


class _ElevenLabs(HoldsSocket, SpeculativeTTS, AnchoredSpeech, ContextWords, ElevenLabsTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride] - it takes the place of what Pipecat keeps per socket
    """ElevenLabs' multi-stream socket."""

    async def _disconnect_websocket(self) -> None:
        # Pipecat asks ElevenLabs to close and waits 2 s for it; with an idle context open it never does.
        socket = self._websocket
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                await super()._disconnect_websocket()
        except TimeoutError:
            if socket is not None:
                socket.transport.abort()


class _Cartesia(HoldsSocket, SpeculativeTTS, AnchoredSpeech, CartesiaWords, CartesiaTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride] - Pipecat narrows its own base
    """Cartesia's socket."""


class _Aura(HoldsSocket, SpeculativeTTS, AnchoredSpeech, AuraVoice, DeepgramTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride] - Pipecat narrows its own base
    """Deepgram's socket for speech."""


def _deepgram(options: Options, ctx: ServiceContext) -> STTService:
    constructor, settings = _split(options, ("mip_opt_out",))
    with _no_sdk_client():
        service = HostedDeepgram(
            api_key="held by DeepgramLive",
            audio_passthrough=False,  # nobody behind the recogniser wants the caller's audio
            sample_rate=ctx.audio_in_hz,
            settings=deepgram_stt.DeepgramSTTSettings.from_mapping(
                {"model": DEEPGRAM_MODEL, "language": _language(ctx.language), **settings}
            ),
            **constructor,
        )
    service.finalizes_early = ctx.speculates
    service._client = ctx.clients.deepgram  # pyright: ignore[reportAttributeAccessIssue] - the part of it that the service uses
    return service


class _Flux(HoldsSocket, HostedFlux):  # pyright: ignore[reportIncompatibleVariableOverride] - as `HostedFlux`
    """Deepgram Flux's socket."""


def _flux(options: Options, ctx: ServiceContext) -> STTService:
    constructor, settings = _split(options, ("mip_opt_out", "eager_end_of_turn"))
    is_eager = constructor.pop("eager_end_of_turn", ctx.speculates or "eager_eot_threshold" in settings)
    if not is_eager:
        settings.pop("eager_eot_threshold", None)  # predictions nobody takes
    deepgram = ctx.clients.settings.deepgram
    language = ctx.language.partition("-")[0]  # it knows no regions
    model = settings.setdefault("model", FLUX_MODEL if language == "en" else FLUX_MULTILINGUAL_MODEL)
    is_hint = model == FLUX_MULTILINGUAL_MODEL and language in get_args(FluxLanguage)
    hints = settings.pop("language_hints", [language] if is_hint else None)
    service = _Flux(
        api_key=deepgram.api_key.get_secret_value() if deepgram.api_key else "",
        url=f"{deepgram.base_url}/v2/listen",
        audio_passthrough=False,  # nobody behind the recogniser wants the caller's audio
        sample_rate=ctx.audio_in_hz,
        enable_eager_end_of_turn=is_eager,
        reconnect_wait_s=RECONNECT_WAIT_S,
        settings=DeepgramFluxSTTSettings.from_mapping(
            {**settings, "language_hints": hints and [_language(code) for code in hints]}
        ),
        **constructor,
    )
    service.clients = ctx.clients
    return service


class _AssemblyAI(HoldsSocket, HostedAssemblyAI):
    """AssemblyAI's streaming socket."""


def _assemblyai(options: Options, ctx: ServiceContext) -> STTService:
    assemblyai = ctx.clients.settings.assemblyai
    settings = {"model": ASSEMBLYAI_MODEL, **options}
    if is_u3_pro_model(settings["model"]):  # no other can be told
        settings.setdefault("language_codes", [_language(ctx.language.partition("-")[0])])
    service = _AssemblyAI(
        api_key=ctx.clients.assemblyai_key,
        api_endpoint_base_url=f"{assemblyai.base_url}/v3/ws",
        audio_passthrough=False,  # nobody behind the recogniser wants the caller's audio
        sample_rate=ctx.audio_in_hz,
        settings=AssemblyAISTTSettings.from_mapping(settings),
    )
    service.clients = ctx.clients
    return service


def _assemblyai_conflict(options: Options) -> tuple[str, str] | None:
    """Find what AssemblyAI takes for some models only."""
    if is_u3_pro_model(options.get("model", ASSEMBLYAI_MODEL)):
        return None
    wrong = next((option for option in options if option in _U3_PRO_OPTIONS), None)
    return (wrong, f"needs a model of the {ASSEMBLYAI_MODEL} family") if wrong else None


def _flux_conflict(options: Options) -> tuple[str, str] | None:
    """Find what Deepgram would refuse the socket for."""
    eager, end = options.get("eager_eot_threshold"), options.get("eot_threshold", FLUX_EOT_THRESHOLD)
    if eager is not None and eager > end:
        return "eager_eot_threshold", f"must not be above eot_threshold ({end:g})"
    if options.get("language_hints") and options.get("model", FLUX_MULTILINGUAL_MODEL) == FLUX_MODEL:
        return "language_hints", f"needs {FLUX_MULTILINGUAL_MODEL}"
    return None


def _anthropic(options: Options, ctx: ServiceContext) -> LLMService[Any]:
    defaults = {"model": ANTHROPIC_MODEL, "max_tokens": MAX_REPLY_TOKENS, "enable_prompt_caching": True}
    return _Anthropic(
        api_key="held by VoiceAnthropic",
        client=ctx.clients.anthropic,
        settings=AnthropicLLMService.Settings.from_mapping({**defaults, **options}),
    )


def _chat(
    vendor: Vendor, service: type[BaseOpenAILLMService], defaults: Options, *, quick: Options | None = None
) -> Callable[[Options, ServiceContext], LLMService[Any]]:
    """Return the builder of a service that speaks Chat Completions.

    Args:
        vendor: Whose.
        service: The class.
        defaults: Options of every model.
        quick: More options of the default model, so that it does not think before it speaks; others may refuse them.
    """

    def build(options: Options, ctx: ServiceContext) -> LLMService[Any]:
        more = quick or {} if "model" not in options else {}
        built = service(
            api_key="held by VoiceChat",
            settings=service.Settings.from_mapping({**defaults, **more, **options}),
        )
        built._client = ctx.clients.chat[vendor]  # pyright: ignore[reportAttributeAccessIssue] - the part of it that the service uses
        return built

    return build


def _elevenlabs(options: Options, ctx: ServiceContext) -> TTSService:
    constructor, settings = _split(options, _VOICE_OPTIONS)
    service = _ElevenLabs(
        api_key=ctx.clients.elevenlabs_key,
        url=ctx.clients.settings.elevenlabs.base_url,
        settings=ElevenLabsTTSService.Settings.from_mapping(
            {
                "model": ELEVENLABS_MODEL,
                "voice": ctx.voices["elevenlabs"],
                "language": _language(ctx.language.partition("-")[0]),  # it knows no regions
                **settings,
            }
        ),
        **_tts_arguments(constructor, ctx),
    )
    service.clients = ctx.clients
    service.vendor, service.most_at_once = "elevenlabs", share_of_plan(constructor, ctx.workers)
    _cut_first_clause(service, ctx)
    return service


def _cartesia(options: Options, ctx: ServiceContext) -> TTSService:
    constructor, settings = _split(options, _VOICE_OPTIONS)
    service = _Cartesia(
        api_key=ctx.clients.cartesia_key,
        url=f"{ctx.clients.settings.cartesia.base_url}/tts/websocket",
        settings=CartesiaTTSService.Settings.from_mapping(
            {
                "model": CARTESIA_MODEL,
                "voice": ctx.voices["cartesia"],
                "language": _language(ctx.language),
                **settings,
            }
        ),
        **_tts_arguments(constructor, ctx),
    )
    service.clients = ctx.clients
    service.vendor, service.most_at_once = "cartesia", share_of_plan(constructor, ctx.workers)
    _cut_first_clause(service, ctx)
    return service


def _aura(options: Options, ctx: ServiceContext) -> TTSService:
    constructor, settings = _split(options, (*_VOICE_OPTIONS, "mip_opt_out"))
    deepgram = ctx.clients.settings.deepgram
    arguments = _tts_arguments(constructor, ctx)
    del arguments["append_trailing_space"]  # which it says to Pipecat itself
    service = _Aura(
        api_key=deepgram.api_key.get_secret_value() if deepgram.api_key else "",
        base_url=deepgram.base_url,
        mip_opt_out=constructor.get("mip_opt_out"),
        settings=DeepgramTTSService.Settings.from_mapping({"voice": ctx.voices["deepgram"], **settings}),
        **arguments,
    )
    service.clients = ctx.clients
    service.vendor, service.most_at_once = "deepgram", share_of_plan(constructor, ctx.workers)
    _cut_first_clause(service, ctx)
    return service


def _cut_first_clause(service: TTSService, ctx: ServiceContext) -> None:
    """Give the voice the first clause of a reply instead of its first sentence.

    Pipecat 1.14 has no argument for a voice's aggregator; `CartesiaTTSService` sets its own the same way.
    """
    if not service._is_streaming_tokens:
        service._text_aggregator = ClauseAggregator(language=ctx.language)


def _tts_arguments(options: Options, ctx: ServiceContext) -> dict[str, Any]:
    least_s, longest_s = RECONNECT_WAIT_S
    return {
        "sample_rate": ctx.audio_out_hz,
        "append_trailing_space": True,  # without it ElevenLabs gives a reply's last word no time of its own
        "text_aggregation_mode": TextAggregationMode(options.get("text_aggregation", "sentence")),
        "reconnect_backoff_min_wait": least_s,
        "reconnect_backoff_max_wait": longest_s,
        "ws_close_timeout": CLOSE_WAIT_S,
    }


@contextlib.contextmanager
def _no_sdk_client() -> Generator[None]:
    """Keep `DeepgramSTTService` from making an SDK client, whose unused HTTP client costs a TLS context.

    It takes no client, so its name for the class is lent a stand-in while one is constructed on this thread.
    """
    name = "AsyncDeepgramClient"
    original = getattr(deepgram_stt, name)
    setattr(deepgram_stt, name, lambda **_: None)
    try:
        yield
    finally:
        setattr(deepgram_stt, name, original)


def _language(code: str) -> Language | str:
    try:
        return Language(code)
    except ValueError:
        return code


def _split(options: Options, constructor: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the options that the constructor takes from those of the vendor's `Settings`."""
    given = {name: value for name, value in options.items() if name in constructor}
    return given, {name: value for name, value in options.items() if name not in constructor}


def _settings_options(settings: type[ServiceSettings], *, reserved: set[str]) -> dict[str, TypeAdapter[Any]]:
    """Return an option for each field of a vendor's `Settings` that an agent's owner may set."""
    # UserTurnCompletionConfig is imported there for type checkers only.
    hints = get_type_hints(settings, localns={"UserTurnCompletionConfig": Any})
    return {
        item.name: TypeAdapter(_given(hints[item.name]))
        for item in dataclasses.fields(settings)
        if item.name not in {*reserved, "extra", "language"} and not item.name.startswith("_")
    }


def _given(hint: Any) -> Any:
    """Drop the "not given" sentinels from a field's type."""
    if get_origin(hint) is None or Literal is get_origin(hint):
        return hint
    kept = tuple(part for part in get_args(hint) if part not in (NotGiven, AnthropicNotGiven, OpenAINotGiven))
    return Union[kept] if kept != get_args(hint) else hint  # noqa: UP007 - built from a tuple


_FLUX_OPTIONS: dict[str, TypeAdapter[Any]] = {
    **_settings_options(DeepgramFluxSTTSettings, reserved=set()),
    "model": TypeAdapter(Literal["flux-general-en", "flux-general-multi"]),
    "eot_threshold": TypeAdapter(Annotated[float, Field(ge=0.5, le=1.0)]),
    "eager_eot_threshold": TypeAdapter(Annotated[float, Field(ge=0.3, le=0.9)]),
    "eot_timeout_ms": TypeAdapter(Annotated[int, Field(ge=500, le=60000)]),
    "keyterm": TypeAdapter(Annotated[list[str], Field(max_length=100)]),
    "language_hints": TypeAdapter(list[FluxLanguage]),
    "mip_opt_out": TypeAdapter(bool),
    "eager_end_of_turn": TypeAdapter(bool),
}
"""What Deepgram refuses a socket for is refused when the agent is read. Source: developers.deepgram.com/docs/flux."""

_U3_PRO_OPTIONS = frozenset(
    {"continuous_partials", "interruption_delay", "previous_context_n_turns", "prompt", "mode"}
    | {"voice_focus", "voice_focus_threshold"}
)
_ASSEMBLYAI_OPTIONS: dict[str, TypeAdapter[Any]] = {
    name: check
    for name, check in _settings_options(AssemblyAISTTSettings, reserved=set()).items()
    if name in _U3_PRO_OPTIONS or name in ("model", "keyterms_prompt", "domain", "vad_threshold")
}
"""Its turns are not the owner's to tune: they end when ours pause."""
_PLAN_OPTIONS: dict[str, TypeAdapter[Any]] = {"concurrency": TypeAdapter(Annotated[int, Field(ge=1)])}
"""Of every vendor: how many streams (recogniser), answers (model) or utterances (voice) its plan allows at a time, over
all workers of this machine."""

_VOICE_OPTIONS: dict[str, TypeAdapter[Any]] = {
    "text_aggregation": TypeAdapter(Literal["sentence", "token"]),
    **_PLAN_OPTIONS,
}
"""How text reaches a voice, and its plan."""

_FLOWS_OWN = frozenset({"system_instruction", "filter_incomplete_user_turns", "user_turn_completion_config"})
"""Fields of a model's settings that are the flow's, not the owner's."""

STT: dict[str, VendorEntry[STTService]] = {
    "deepgram": VendorEntry(
        Vendor.DEEPGRAM,
        _deepgram,
        {
            **_settings_options(deepgram_stt.DeepgramSTTSettings, reserved={"interim_results"}),
            "mip_opt_out": TypeAdapter(bool),
        },
    ),
    "flux": VendorEntry(Vendor.DEEPGRAM, _flux, _FLUX_OPTIONS, _flux_conflict),
    "assemblyai": VendorEntry(Vendor.ASSEMBLYAI, _assemblyai, _ASSEMBLYAI_OPTIONS, _assemblyai_conflict),
}
LLM: dict[str, VendorEntry[LLMService[Any]]] = {
    "anthropic": VendorEntry(
        Vendor.ANTHROPIC,
        _anthropic,
        _settings_options(
            AnthropicLLMService.Settings,
            reserved={*_FLOWS_OWN, "frequency_penalty", "presence_penalty", "seed"},  # not in Anthropic's API
        ),
    ),
    "openai": VendorEntry(
        Vendor.OPENAI,
        _chat(
            Vendor.OPENAI,
            _OpenAI,
            {"model": OPENAI_MODEL, "max_completion_tokens": MAX_REPLY_TOKENS},
        ),
        _settings_options(OpenAILLMService.Settings, reserved={*_FLOWS_OWN, "top_k", "max_tokens"}),
    ),
    "groq": VendorEntry(
        Vendor.GROQ,
        _chat(
            Vendor.GROQ,
            _Groq,
            {"model": GROQ_MODEL, "max_completion_tokens": MAX_REPLY_TOKENS},
            quick={"reasoning_effort": "low"},
        ),
        _settings_options(GroqLLMService.Settings, reserved={*_FLOWS_OWN, "top_k", "max_tokens"}),
    ),
    "fireworks": VendorEntry(
        Vendor.FIREWORKS,
        _chat(Vendor.FIREWORKS, _Fireworks, {"model": FIREWORKS_MODEL, "max_tokens": MAX_REPLY_TOKENS}),
        _settings_options(
            FireworksLLMService.Settings,
            reserved={*_FLOWS_OWN, "top_k", "seed", "max_completion_tokens"},  # not in Fireworks' API
        ),
    ),
    "together": VendorEntry(
        Vendor.TOGETHER,
        _chat(
            Vendor.TOGETHER,
            _Together,
            {"model": TOGETHER_MODEL, "max_tokens": MAX_REPLY_TOKENS},
            quick={"reasoning": {"enabled": False}},
        ),
        _settings_options(
            TogetherLLMService.Settings, reserved={*_FLOWS_OWN, "top_k", "max_completion_tokens"}
        ),
    ),
}
TTS: dict[str, VendorEntry[TTSService]] = {
    "elevenlabs": VendorEntry(
        Vendor.ELEVENLABS,
        _elevenlabs,
        {
            **_settings_options(ElevenLabsTTSService.Settings, reserved={"voice"}),
            **_VOICE_OPTIONS,
        },
    ),
    "cartesia": VendorEntry(
        Vendor.CARTESIA,
        _cartesia,
        {
            **_settings_options(CartesiaTTSService.Settings, reserved={"voice"}),
            **_VOICE_OPTIONS,
        },
    ),
    "deepgram": VendorEntry(
        Vendor.DEEPGRAM,
        _aura,
        {
            "speed": TypeAdapter(Annotated[float, Field(ge=0.7, le=1.5)]),
            "mip_opt_out": TypeAdapter(bool),
            **_VOICE_OPTIONS,
        },
    ),
}
VENDORS: Mapping[Layer, Mapping[str, VendorEntry[Any]]] = {Layer.STT: STT, Layer.LLM: LLM, Layer.TTS: TTS}
"""Every vendor by layer and by its name in `agent.yaml`."""


def build_stt(name: str, options: Options, ctx: ServiceContext) -> STTService:
    """Build a speech-to-text service for one call.

    Args:
        name: Vendor as in `agent.yaml`.
        options: Its options as in `agent.yaml`.
        ctx: The call's.

    Raises:
        ConfigurationError: If the vendor or an option is unknown, or an option's value is wrong.
    """
    return _build(Layer.STT, STT, name, options, ctx)


def build_hearing(choices: Sequence[tuple[str, Options]], ctx: ServiceContext) -> FailoverSTT:
    """Build the agent's hearing for one call, of all its vendors in their order; see `build_stt`.

    Args:
        choices: Name and options of each vendor.
        ctx: The call's.
    """
    built = [build_stt(name, options, ctx) for name, options in choices]
    return FailoverSTT(
        [one for one in built if isinstance(one, HostedRecogniser)],
        health=ctx.recogniser_health,
        rate_hz=ctx.audio_in_hz,
    )


def build_llm(name: str, options: Options, ctx: ServiceContext) -> LLMService[Any]:
    """Build one model of a call: an `AnswerSource` for `build_models`; see `build_stt`."""
    return _build(Layer.LLM, LLM, name, options, ctx)


def build_models(
    chosen: Sequence[tuple[str, Options]],
    ctx: ServiceContext,
    *,
    strong: Sequence[tuple[str, Options]] | None = None,
    choose: Callable[[LLMContext], TierChoice] = lambda _: ROUTINE,
    give_up: Callable[[str], Awaitable[None]] | None = None,
    listener: GuardListener | None = None,
) -> GuardedLLM:
    """Build the models of a call as the one service of its pipeline.

    Args:
        chosen: Vendor and options of each light one, in the order in which they are asked.
        ctx: The call's.
        strong: Of each strong one; None: they are the same.
        choose: Says which of the two tiers answers a conversation.
        give_up: Called once when none of them answers.
        listener: Told of failures.

    Raises:
        ConfigurationError: As `build_stt`.
    """
    candidates: list[Candidate] = []
    built: list[tuple[str, Options]] = []
    tiers: dict[Tier, list[int]] = {}
    for tier, models in ((Tier.LIGHT, chosen), (Tier.STRONG, chosen if strong is None else strong)):
        tiers[tier] = []
        for one in models:
            if one not in built:
                built.append(one)
                candidates.append(_candidate(*one, ctx))
            tiers[tier].append(built.index(one))
    return GuardedLLM(
        candidates,
        classify=vendor_error,
        give_up=give_up,
        listener=listener,
        tool_timeout_s=ctx.tool_timeout_s,
        tiers=tiers,
        choose=choose,
    )


def _candidate(name: str, options: Options, ctx: ServiceContext) -> Candidate:
    source: Any = build_llm(name, options, ctx)
    model = str(source._settings.model)
    return Candidate(
        name, model, source, ctx.clients.model_record(name, model), prices=model_prices(name, model)
    )


def build_tts(name: str, options: Options, ctx: ServiceContext) -> TTSService:
    """Build a text-to-speech service for one call; see `build_stt`."""
    return _build(Layer.TTS, TTS, name, options, ctx)


def build_voice(choices: Sequence[tuple[str, Options]], ctx: ServiceContext) -> FailoverTTS:
    """Build the agent's voice for one call, of all its vendors in their order; see `build_stt`.

    How text reaches the voices is the first vendor's option.

    Args:
        choices: Name and options of each vendor.
        ctx: The call's.
    """
    mode = {"text_aggregation": choices[0][1].get("text_aggregation", "sentence")}
    voices = [build_tts(name, {**options, **mode}, ctx) for name, options in choices]
    hosted = [voice for voice in voices if isinstance(voice, HostedVoice)]
    aggregation = TextAggregationMode(mode["text_aggregation"])
    return FailoverTTS(
        hosted,
        health=ctx.voice_health,
        loudness=ctx.loudness,
        rate_hz=ctx.audio_out_hz,
        aggregator=None
        if aggregation is TextAggregationMode.TOKEN
        else ClauseAggregator(language=ctx.language),
        text_aggregation_mode=aggregation,
    )


def share_of_plan(options: Options, workers: int) -> int | None:
    """Return how much of a vendor's `concurrency` one of several workers may use; None if that is not known.

    All have the same share, and what is left over is nobody's: no worker knows of the others. Each has at least one,
    for with none it could not have a call; so a plan of less than that is exceeded.

    Args:
        options: The vendor's.
        workers: How many there are, > 0.
    """
    concurrency = options.get("concurrency")
    return None if concurrency is None else max(1, concurrency // workers)


def option_faults(layer: Layer, name: str, options: Options) -> list[tuple[str | None, str]]:
    """Check a vendor's name and options.

    Returns:
        Option (None when it is the vendor itself) and what is wrong with it, for each fault.
    """
    entry = VENDORS[layer].get(name)
    if entry is None:
        known = ", ".join(VENDORS[layer])
        return [
            (
                None,
                f"unknown {layer.value} vendor {name!r}{suggestion(name, VENDORS[layer])} (known: {known})",
            )
        ]
    known_options = {**_PLAN_OPTIONS, **entry.options}
    faults: list[tuple[str | None, str]] = []
    for option, value in options.items():
        check = known_options.get(option)
        if check is None:
            allowed = ", ".join(sorted(known_options))
            near = suggestion(option, known_options)
            faults.append((option, f"unknown option of {name}{near} (allowed: {allowed})"))
            continue
        try:
            check.validate_python(value, strict=True)
        except ValidationError as error:
            faults.append((option, "; ".join(dict.fromkeys(detail["msg"] for detail in error.errors()))))
    if not faults and (conflict := entry.conflict(options)):
        faults.append(conflict)
    return faults


def _build(
    layer: Layer,
    entries: Mapping[str, VendorEntry[ServiceT]],
    name: str,
    options: Options,
    ctx: ServiceContext,
) -> ServiceT:
    if faults := option_faults(layer, name, options):
        place = f"services.{layer.value}: {name}"
        raise ConfigurationError(f"{place}.{at}: {why}" if at else f"{place}: {why}" for at, why in faults)
    entry = entries[name]
    # What is left out is for admission, and no vendor's.
    own = {key: entry.options[key].validate_python(options[key]) for key in options if key in entry.options}
    return entry.build(own, ctx)
