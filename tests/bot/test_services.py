import dataclasses
import ssl
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from deepgram import AsyncDeepgramClient
from pipecat.frames.frames import EagerTranscriptionFrame, Frame, InputAudioRawFrame, TranscriptionFrame
from pipecat.services.deepgram import stt as deepgram_stt
from pipecat.tests.utils import SleepFrame, run_test

from bot.errors import ConfigurationError
from bot.services import VENDORS, Layer, ServiceContext, build_llm, build_stt, build_tts, option_faults
from bot.settings import load_settings
from bot.vendor_clients import VendorClients
from sims import mulaw
from sims.deepgram import DeepgramSim
from sims.profiles import PROFILES
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex


@pytest.fixture(scope="module")
def context() -> ServiceContext:
    settings = load_settings(
        _env_file=None,
        deepgram={"api_key": "d", "base_url": "ws://127.0.0.1:1"},
        anthropic={"api_key": "a", "base_url": "http://127.0.0.1:2"},
        elevenlabs={"api_key": "e", "base_url": "ws://127.0.0.1:3"},
        cartesia={"api_key": "c", "base_url": "ws://127.0.0.1:4"},
    )
    voices = {"elevenlabs": "voice-1", "cartesia": "voice-2"}
    return ServiceContext(VendorClients(settings), 8000, 8000, "en-US", voices, tool_timeout_s=2.5)


def test_deepgram_listens_at_the_pipelines_rate_with_its_options(context: ServiceContext) -> None:
    service: Any = build_stt("deepgram", {"keyterm": ["Northside"], "mip_opt_out": True}, context)
    assert service._client is context.clients.deepgram
    assert service._init_sample_rate == 8000
    query = service._build_connect_kwargs()
    assert (query["model"], query["language"]) == ("nova-3-general", "en-US")
    assert (query["keyterm"], query["mip_opt_out"], query["interim_results"]) == (
        ["Northside"],
        "true",
        "true",
    )


def test_flux_listens_at_the_pipelines_rate_with_its_options(context: ServiceContext) -> None:
    options = {"eot_threshold": 0.8, "keyterm": ["Northside"], "mip_opt_out": True}
    service: Any = build_stt("flux", options, context)
    assert service._url == "ws://127.0.0.1:1/v2/listen"
    assert service._api_key == "d"
    assert (service._init_sample_rate, service._encoding) == (8000, "linear16")
    assert service._audio_passthrough is False
    assert service._reconnect_backoff_min_wait == 0.2
    service._sample_rate = 8000
    assert service._build_query_string() == (
        "model=flux-general-en&sample_rate=8000&encoding=linear16&eot_threshold=0.8&mip_opt_out=true"
        "&keyterm=Northside"
    )


@pytest.mark.parametrize(
    ("options", "speculates", "threshold"),
    [
        ({}, False, None),
        ({}, True, 0.5),
        ({"eager_eot_threshold": 0.4}, False, 0.4),
        ({"eager_eot_threshold": 0.4, "eager_end_of_turn": False}, True, None),
        ({"eager_end_of_turn": True}, False, 0.5),
    ],
)
def test_flux_predicts_ends_of_turns_for_whoever_wants_them(
    context: ServiceContext, options: dict[str, Any], speculates: bool, threshold: float | None
) -> None:
    service: Any = build_stt("flux", options, dataclasses.replace(context, speculates=speculates))
    assert service.eager_end_of_turn_enabled is (threshold is not None)
    assert service._settings.eager_eot_threshold == threshold


@pytest.mark.parametrize(
    ("language", "options", "model", "hints"),
    [
        ("en-US", {}, "flux-general-en", None),
        ("de-DE", {}, "flux-general-multi", ["de"]),
        ("sv-SE", {}, "flux-general-multi", None),
        ("de-DE", {"language_hints": ["de", "en"]}, "flux-general-multi", ["de", "en"]),
        ("en-US", {"model": "flux-general-multi"}, "flux-general-multi", ["en"]),
    ],
)
def test_flux_knows_the_agents_language(
    context: ServiceContext, language: str, options: dict[str, Any], model: str, hints: list[str] | None
) -> None:
    service: Any = build_stt("flux", options, dataclasses.replace(context, language=language))
    assert service._settings.model == model
    assert service._settings.language_hints == hints


@pytest.mark.real_time
async def test_flux_hears_a_turn_over_our_socket(context: ServiceContext) -> None:
    ulaw = encode_ulaw(np.random.default_rng(1).normal(0, 4000, 3200).astype("<i2").tobytes())
    index = SpokenIndex()
    index.add(ulaw, [Word("A", 0.0, 0.2), Word("cleaning.", 0.2, 0.4)])
    ulaw += mulaw.SILENT_FRAME * 30
    frames: list[Frame] = []
    for at in range(0, len(ulaw), 320):
        frames += [InputAudioRawFrame(mulaw.decode(ulaw[at : at + 320]), 8000, 1), SleepFrame(0.04)]
    async with DeepgramSim(PROFILES["instant"], spoken_index=index, api_key="d") as sim:
        settings = load_settings(_env_file=None, deepgram={"api_key": "d", "base_url": sim.base_url})
        async with VendorClients(settings) as clients:
            ctx = dataclasses.replace(context, clients=clients, speculates=True)
            down, _ = await run_test(build_stt("flux", {}, ctx), frames_to_send=frames)
    texts = [(type(f), f.text) for f in down if isinstance(f, (EagerTranscriptionFrame, TranscriptionFrame))]
    assert texts == [(EagerTranscriptionFrame, "A cleaning."), (TranscriptionFrame, "A cleaning.")]


def test_the_sdk_client_is_only_lent_away(context: ServiceContext) -> None:
    build_stt("deepgram", {}, context)
    assert deepgram_stt.__dict__["AsyncDeepgramClient"] is AsyncDeepgramClient


def test_anthropic_caches_prompts_and_bounds_tools(context: ServiceContext) -> None:
    service: Any = build_llm("anthropic", {"max_tokens": 99, "thinking": {"type": "disabled"}}, context)
    assert service._client is context.clients.anthropic
    assert service._settings.enable_prompt_caching is True
    assert service._settings.max_tokens == 99
    assert service._settings.thinking.type == "disabled"
    assert service._function_call_timeout_secs == 2.5


def test_elevenlabs_speaks_with_the_agents_voice(context: ServiceContext) -> None:
    service: Any = build_tts("elevenlabs", {"speed": 1.1, "text_aggregation": "token"}, context)
    service._output_format = "pcm_8000"
    url = service._build_websocket_url()
    assert url.startswith("ws://127.0.0.1:3/v1/text-to-speech/voice-1/multi-stream-input?")
    assert "auto_mode=false" in url
    assert service._settings.speed == 1.1
    assert service._reconnect_backoff_min_wait == 0.2


def test_cartesia_speaks_with_the_agents_voice(context: ServiceContext) -> None:
    service: Any = build_tts("cartesia", {"generation_config": {"speed": 1.2}}, context)
    assert service._url == "ws://127.0.0.1:4/tts/websocket"
    assert (service._settings.voice, service._settings.model) == ("voice-2", "sonic-3.6")
    assert service._settings.generation_config.speed == 1.2
    assert service._init_sample_rate == 8000


def test_building_a_calls_services_makes_no_tls_context(
    context: ServiceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    original: Callable[..., ssl.SSLContext] = ssl.create_default_context

    def counting(*args: Any, **kwargs: Any) -> ssl.SSLContext:
        made.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(ssl, "create_default_context", counting)
    build_stt("deepgram", {}, context)
    build_stt("flux", {}, context)
    build_llm("anthropic", {}, context)
    build_tts("elevenlabs", {}, context)
    build_tts("cartesia", {}, context)
    assert made == []
    VendorClients(context.clients.settings)
    assert made != [], "the counter counts"


@pytest.mark.parametrize(
    ("layer", "name", "options", "option", "says"),
    [
        (Layer.TTS, "elevenlab", {}, None, "did you mean elevenlabs? (known: elevenlabs, cartesia)"),
        (Layer.TTS, "elevenlabs", {"sped": 1}, "sped", "did you mean speed? (allowed: "),
        (Layer.TTS, "elevenlabs", {"voice": "x"}, "voice", "unknown option"),
        (Layer.TTS, "elevenlabs", {"speed": "fast"}, "speed", "valid number"),
        (Layer.TTS, "cartesia", {"generation_config": {"speed": "x"}}, "generation_config", "valid number"),
        (Layer.STT, "deepgram", {"punctuate": "yes"}, "punctuate", "valid boolean"),
        (Layer.STT, "deepgram", {"interim_results": False}, "interim_results", "unknown option"),
        (Layer.STT, "flux", {"eot_threshold": 0.4}, "eot_threshold", "greater than or equal to 0.5"),
        (Layer.STT, "flux", {"eager_eot_threshold": 1}, "eager_eot_threshold", "less than or equal to 0.9"),
        (Layer.STT, "flux", {"eot_timeout_ms": 100}, "eot_timeout_ms", "greater than or equal to 500"),
        (Layer.STT, "flux", {"keyterm": ["x"] * 101}, "keyterm", "at most 100"),
        (Layer.STT, "flux", {"model": "nova-3"}, "model", "flux-general-en"),
        (Layer.STT, "flux", {"language": "en"}, "language", "unknown option"),
        (Layer.STT, "flux", {"eager_eot_threshold": 0.8}, "eager_eot_threshold", "above eot_threshold (0.7)"),
        (
            Layer.STT,
            "flux",
            {"language_hints": ["de"], "model": "flux-general-en"},
            "language_hints",
            "needs flux-general-multi",
        ),
        (Layer.LLM, "anthropic", {"extra": {}}, "extra", "unknown option"),
        (Layer.LLM, "anthropic", {"seed": 1}, "seed", "unknown option"),
        (Layer.LLM, "anthropic", {"max_tokens": "many"}, "max_tokens", "valid integer"),
    ],
)
def test_unknown_names_and_wrong_values_are_explained(
    layer: Layer, name: str, options: dict[str, Any], option: str | None, says: str
) -> None:
    [(found, message)] = option_faults(layer, name, options)
    assert found == option
    assert says in message


def test_every_fault_of_the_options_is_told() -> None:
    faults = option_faults(Layer.TTS, "elevenlabs", {"sped": 1, "style": "x", "stability": 0.5})
    assert [option for option, _ in faults] == ["sped", "style"]


@pytest.mark.parametrize("build", [build_stt, build_llm, build_tts])
def test_builders_refuse_what_they_do_not_know(build: Callable[..., object], context: ServiceContext) -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        build("nobody", {}, context)


def test_builders_refuse_wrong_options(context: ServiceContext) -> None:
    with pytest.raises(ConfigurationError, match=r"services\.tts: cartesia\.sped: unknown option"):
        build_tts("cartesia", {"sped": 1}, context)


def test_each_layer_has_its_vendors() -> None:
    assert {layer: set(entries) for layer, entries in VENDORS.items()} == {
        Layer.STT: {"deepgram", "flux"},
        Layer.LLM: {"anthropic"},
        Layer.TTS: {"elevenlabs", "cartesia"},
    }
