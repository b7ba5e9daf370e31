"""The vendors an agent can name in `agent.yaml`, and how each service of a call is built.

One dict of builders for each layer; adding a vendor is one entry. Pipecat swallows misspelt keyword arguments,
so options are checked here against the fields and types of the vendor's own `Settings`. Services are built
for one call and share what `VendorClients` holds; nothing here connects.
"""

import asyncio
import contextlib
import dataclasses
import enum
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from anthropic import NotGiven as AnthropicNotGiven
from pipecat.services.anthropic.llm import AnthropicLLMService
from pipecat.services.cartesia.tts import CartesiaTTSService
from pipecat.services.deepgram import stt as deepgram_stt
from pipecat.services.deepgram.flux.stt import DeepgramFluxSTTSettings
from pipecat.services.elevenlabs.tts import ElevenLabsTTSService
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import ServiceSettings
from pipecat.services.stt_service import STTService
from pipecat.services.tts_service import TextAggregationMode, TTSService
from pipecat.transcriptions.language import Language
from pipecat.utils.types import NotGiven
from pydantic import Field, TypeAdapter, ValidationError
from websockets.asyncio.client import ClientConnection

from bot.errors import ConfigurationError
from bot.settings import Vendor
from bot.vendor_clients import VendorClients, socket_options
from bot.yaml_source import suggestion
from processors.anchored_speech import AnchoredSpeech
from processors.clause_aggregator import ClauseAggregator
from processors.context_words import ContextWords
from processors.flushing_deepgram import FlushingDeepgramSTTService
from processors.flux_recogniser import FluxRecogniser
from processors.speculation import SpeculativeLLM, SpeculativeTTS

RECONNECT_WAIT_S = (0.2, 2.0)
"""Least and longest wait between dials after a lost socket; Pipecat's 4 s is 4 s of silence."""

ANTHROPIC_MODEL = "claude-haiku-4-5"
ELEVENLABS_MODEL = "eleven_flash_v2_5"
CARTESIA_MODEL = "sonic-3.6"
DEEPGRAM_MODEL = "nova-3-general"
FLUX_MODEL = "flux-general-en"
FLUX_MULTILINGUAL_MODEL = "flux-general-multi"
"""Models when `agent.yaml` names none: the quick ones."""
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
    tool_timeout_s: float = 3.0
    """Limit of a tool that sets none itself."""
    speculates: bool = False
    """Whether the call wants to be told early that the caller's turn is likely over."""


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


class _Anthropic(SpeculativeLLM, AnthropicLLMService):
    """Claude, whose answer may go on to the voice before the caller's turn is known to be over."""


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


class _Cartesia(HoldsSocket, SpeculativeTTS, AnchoredSpeech, CartesiaTTSService):  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride] - Pipecat narrows its own base
    """Cartesia's socket."""


def _deepgram(options: Options, ctx: ServiceContext) -> STTService:
    constructor, settings = _split(options, ("mip_opt_out",))
    with _no_sdk_client():
        service = FlushingDeepgramSTTService(
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


class _Flux(HoldsSocket, FluxRecogniser):
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


def _flux_conflict(options: Options) -> tuple[str, str] | None:
    """Find what Deepgram would refuse the socket for."""
    eager, end = options.get("eager_eot_threshold"), options.get("eot_threshold", FLUX_EOT_THRESHOLD)
    if eager is not None and eager > end:
        return "eager_eot_threshold", f"must not be above eot_threshold ({end:g})"
    if options.get("language_hints") and options.get("model", FLUX_MULTILINGUAL_MODEL) == FLUX_MODEL:
        return "language_hints", f"needs {FLUX_MULTILINGUAL_MODEL}"
    return None


def _anthropic(options: Options, ctx: ServiceContext) -> LLMService[Any]:
    defaults = {"model": ANTHROPIC_MODEL, "max_tokens": 512, "enable_prompt_caching": True}
    return _Anthropic(
        api_key="held by VoiceAnthropic",
        client=ctx.clients.anthropic,
        settings=AnthropicLLMService.Settings.from_mapping({**defaults, **options}),
        function_call_timeout_secs=ctx.tool_timeout_s,
    )


def _elevenlabs(options: Options, ctx: ServiceContext) -> TTSService:
    constructor, settings = _split(options, ("text_aggregation",))
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
    _cut_first_clause(service, ctx)
    return service


def _cartesia(options: Options, ctx: ServiceContext) -> TTSService:
    constructor, settings = _split(options, ("text_aggregation",))
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


def _split(options: Options, constructor: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
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
    kept = tuple(part for part in get_args(hint) if part not in (NotGiven, AnthropicNotGiven))
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

_TEXT_AGGREGATION: TypeAdapter[Any] = TypeAdapter(Literal["sentence", "token"])

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
}
LLM: dict[str, VendorEntry[LLMService[Any]]] = {
    "anthropic": VendorEntry(
        Vendor.ANTHROPIC,
        _anthropic,
        _settings_options(
            AnthropicLLMService.Settings,
            reserved={
                "system_instruction",  # the flow's
                "filter_incomplete_user_turns",
                "user_turn_completion_config",
                "frequency_penalty",  # not in Anthropic's API
                "presence_penalty",
                "seed",
            },
        ),
    ),
}
TTS: dict[str, VendorEntry[TTSService]] = {
    "elevenlabs": VendorEntry(
        Vendor.ELEVENLABS,
        _elevenlabs,
        {
            **_settings_options(ElevenLabsTTSService.Settings, reserved={"voice"}),
            "text_aggregation": _TEXT_AGGREGATION,
        },
    ),
    "cartesia": VendorEntry(
        Vendor.CARTESIA,
        _cartesia,
        {
            **_settings_options(CartesiaTTSService.Settings, reserved={"voice"}),
            "text_aggregation": _TEXT_AGGREGATION,
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


def build_llm(name: str, options: Options, ctx: ServiceContext) -> LLMService[Any]:
    """Build a language-model service for one call; see `build_stt`."""
    return _build(Layer.LLM, LLM, name, options, ctx)


def build_tts(name: str, options: Options, ctx: ServiceContext) -> TTSService:
    """Build a text-to-speech service for one call; see `build_stt`."""
    return _build(Layer.TTS, TTS, name, options, ctx)


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
    faults: list[tuple[str | None, str]] = []
    for option, value in options.items():
        check = entry.options.get(option)
        if check is None:
            allowed = ", ".join(sorted(entry.options))
            near = suggestion(option, entry.options)
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
    return entry.build({key: entry.options[key].validate_python(options[key]) for key in options}, ctx)
