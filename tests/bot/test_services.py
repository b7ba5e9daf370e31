import ssl
from collections.abc import Callable
from typing import Any

import pytest
from deepgram import AsyncDeepgramClient
from pipecat.services.deepgram import stt as deepgram_stt

from bot.errors import ConfigurationError
from bot.services import VENDORS, Layer, ServiceContext, build_llm, build_stt, build_tts, option_faults
from bot.settings import load_settings
from bot.vendor_clients import VendorClients


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
        Layer.STT: {"deepgram"},
        Layer.LLM: {"anthropic"},
        Layer.TTS: {"elevenlabs", "cartesia"},
    }
