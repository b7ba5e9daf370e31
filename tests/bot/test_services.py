import dataclasses
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from deepgram import AsyncDeepgramClient
from openai import NotGiven as OpenAINotGiven
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import (
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.completion_usage import PromptTokensDetails
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMTextFrame,
    MetricsFrame,
    TranscriptionFrame,
)
from pipecat.metrics.metrics import LLMUsageMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.deepgram import stt as deepgram_stt
from pipecat.tests.utils import SleepFrame, run_test

from bot.errors import ConfigurationError
from bot.services import (
    VENDORS,
    Layer,
    ServiceContext,
    WatchedChunks,
    build_hearing,
    build_llm,
    build_models,
    build_stt,
    build_tts,
    build_voice,
    option_faults,
)
from bot.settings import Vendor, load_settings
from bot.vendor_clients import VendorClients
from processors.clause_aggregator import ClauseAggregator
from processors.model_tiers import Tier
from sims import mulaw
from sims.deepgram import DeepgramSim
from sims.openai import FireworksSim, GroqSim, OpenAISim, TogetherSim
from sims.profiles import PROFILES
from sims.speech import Word, encode_ulaw
from sims.spoken import SpokenIndex


@pytest.fixture(scope="module")
def context() -> ServiceContext:
    settings = load_settings(
        _env_file=None,
        deepgram={"api_key": "d", "base_url": "ws://127.0.0.1:1"},
        anthropic={"api_key": "a", "base_url": "http://127.0.0.1:2"},
        openai={"api_key": "o", "base_url": "http://127.0.0.1:5"},
        elevenlabs={"api_key": "e", "base_url": "ws://127.0.0.1:3"},
        cartesia={"api_key": "c", "base_url": "ws://127.0.0.1:4"},
    )
    voices = {"elevenlabs": "voice-1", "cartesia": "voice-2", "deepgram": "aura-2-thalia-en"}
    return ServiceContext(VendorClients(settings), 8000, 8000, "en-US", voices, tool_timeout_s=2.5)


def test_assemblyai_listens_at_the_pipelines_rate_in_the_callers_language(context: ServiceContext) -> None:
    service: Any = build_stt("assemblyai", {"keyterms_prompt": ["Northside"]}, context)
    assert service._init_sample_rate == 8000
    service._sample_rate = 8000
    url = service._build_ws_url()
    assert url.startswith("wss://streaming.assemblyai.com/v3/ws?sample_rate=8000&encoding=pcm_s16le")
    assert "speech_model=universal-3-6-pro" in url
    assert "language_codes=%5B%22en%22%5D" in url
    assert "keyterms_prompt=%5B%22Northside%22%5D" in url
    other: Any = build_stt("assemblyai", {"model": "universal-streaming-english"}, context)
    other._sample_rate = 8000
    assert "language_codes" not in other._build_ws_url()


def test_a_calls_hearing_has_all_its_vendors_in_their_order(context: ServiceContext) -> None:
    hearing = build_hearing([("flux", {}), ("assemblyai", {}), ("deepgram", {})], context)
    assert [recogniser.vendor for recogniser in hearing.recognisers] == ["flux", "assemblyai", "deepgram"]
    assert hearing.proposes_turns


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


def test_models_are_one_service_that_asks_them_in_their_order(context: ServiceContext) -> None:
    chosen = [("anthropic", {}), ("anthropic", {"model": "claude-sonnet-4-6"}), ("openai", {})]
    guard = build_models(chosen, context)
    models = [(candidate.vendor, candidate.model) for candidate in guard._candidates]
    assert models == [
        ("anthropic", "claude-haiku-4-5"),
        ("anthropic", "claude-sonnet-4-6"),
        ("openai", "gpt-4.1-mini"),
    ]
    assert guard._function_call_timeout_secs == 2.5
    again = build_models(chosen, context)
    assert [
        one.record is two.record for one, two in zip(guard._candidates, again._candidates, strict=True)
    ] == [True] * 3


def test_each_tier_asks_its_models_and_one_that_is_in_both_is_built_once(context: ServiceContext) -> None:
    light, strong = ("anthropic", {}), ("anthropic", {"model": "claude-sonnet-4-6"})
    guard = build_models([light, ("openai", {})], context, strong=[strong, ("openai", {})])
    models: list[Any] = [candidate.source for candidate in guard._candidates]
    assert [model._settings.model for model in models] == [
        "claude-haiku-4-5",
        "gpt-4.1-mini",
        "claude-sonnet-4-6",
    ]
    assert guard._tiers == {Tier.LIGHT: (0, 1), Tier.STRONG: (2, 1)}
    assert [model._settings.enable_prompt_caching for model in (models[0], models[2])] == [True, True]
    costs = [one.prices.per_output_token for one in guard._candidates if one.prices is not None]
    assert costs == pytest.approx([5e-6, 25e-6, 15e-6])


@pytest.mark.parametrize(
    ("name", "options", "sent"),
    [
        ("openai", {}, {"model": "gpt-4.1-mini", "max_completion_tokens": 512}),
        ("openai", {"model": "gpt-4.1", "temperature": 0.2}, {"model": "gpt-4.1", "temperature": 0.2}),
        ("groq", {}, {"model": "openai/gpt-oss-120b", "reasoning_effort": "low"}),
        ("groq", {"model": "llama-3.3-70b-versatile"}, {"max_completion_tokens": 512}),
        ("fireworks", {"max_tokens": 99}, {"max_tokens": 99}),
        ("together", {}, {"max_tokens": 512, "extra_body": {"reasoning": {"enabled": False}}}),
    ],
)
def test_vendors_of_chat_completions_get_their_options(
    context: ServiceContext, name: str, options: dict[str, Any], sent: dict[str, Any]
) -> None:
    service: Any = build_llm(name, options, context)
    assert service._client is context.clients.chat[Vendor(name)]
    request = service.build_chat_completion_params({"messages": []})
    given = {key: value for key, value in request.items() if not isinstance(value, OpenAINotGiven)}
    assert {key: given[key] for key in sent} == sent
    assert ("reasoning_effort" in given) == (name == "groq" and not options)


@pytest.mark.parametrize(
    ("name", "option", "says"),
    [
        ("openai", "temprature", "did you mean temperature"),
        ("openai", "max_tokens", "unknown option"),
        ("openai", "system_instruction", "unknown option"),
        ("fireworks", "seed", "unknown option"),
        ("groq", "reasoning", "did you mean reasoning_effort"),
        ("together", "max_completion_tokens", "unknown option"),
    ],
)
def test_an_option_that_a_vendor_does_not_have_is_a_fault(name: str, option: str, says: str) -> None:
    assert [(at, says in why) for at, why in option_faults(Layer.LLM, name, {option: 1})] == [(option, True)]


@pytest.mark.real_time
@pytest.mark.parametrize("vendor", [OpenAISim, GroqSim, FireworksSim, TogetherSim], ids=lambda sim: sim.name)
async def test_vendors_of_chat_completions_answer_and_count(
    context: ServiceContext, vendor: type[OpenAISim]
) -> None:
    conversation = LLMContext(messages=[{"role": "user", "content": "Hello, who is there?"}])
    async with vendor(PROFILES["instant"]) as sim:
        given: Any = {vendor.name: {"api_key": "k", "base_url": sim.base_url}}
        async with VendorClients(load_settings(_env_file=None, **given)) as clients:
            service = build_models([(vendor.name, {})], dataclasses.replace(context, clients=clients))
            down, _ = await run_test(
                service,
                frames_to_send=[LLMContextFrame(conversation), SleepFrame(0.3)],
                pipeline_params=PipelineParams(enable_usage_metrics=True),
            )
        assert len(sim.requests) == 1
    assert "".join(frame.text for frame in down if isinstance(frame, LLMTextFrame)) != ""
    reports = [data for frame in down if isinstance(frame, MetricsFrame) for data in frame.data]
    assert [type(data) for data in reports].count(LLMUsageMetricsData) == 1


async def test_every_tool_call_of_a_chunk_gets_a_chunk_of_its_own() -> None:
    def call(index: int) -> ChoiceDeltaToolCall:
        function = ChoiceDeltaToolCallFunction(name=f"tool_{index}", arguments="{}")
        return ChoiceDeltaToolCall(index=index, id=f"c{index}", type="function", function=function)

    def chunk(*calls: ChoiceDeltaToolCall) -> ChatCompletionChunk:
        choice = Choice(index=0, delta=ChoiceDelta(tool_calls=list(calls) or None))
        return ChatCompletionChunk(
            id="c", choices=[choice], created=1, model="m", object="chat.completion.chunk"
        )

    class Stream:
        async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
            for one in (chunk(), chunk(call(0)), chunk(call(1), call(2))):
                yield one

    seen = [one.choices[0].delta.tool_calls async for one in WatchedChunks(Stream())]
    assert [calls and [one.id for one in calls] for calls in seen] == [None, ["c0"], ["c1"], ["c2"]]


def test_cached_tokens_are_not_counted_twice(context: ServiceContext) -> None:
    service: Any = build_llm("openai", {}, context)
    tokens = service._token_usage(
        CompletionUsage(
            prompt_tokens=2000,
            completion_tokens=5,
            total_tokens=2005,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=1536),
        )
    )
    assert (tokens.prompt_tokens, tokens.cache_read_input_tokens, tokens.total_tokens) == (464, 1536, 2005)


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


def test_deepgram_speaks_with_the_agents_voice(context: ServiceContext) -> None:
    service: Any = build_tts("deepgram", {"speed": 1.2, "mip_opt_out": True, "concurrency": 4}, context)
    assert service._base_url == context.clients.settings.deepgram.base_url
    assert (service._settings.voice, service._settings.speed) == ("aura-2-thalia-en", 1.2)
    assert (service._mip_opt_out, service.most_at_once, service._init_sample_rate) == (True, 4, 8000)
    assert service.sound.startswith("deepgram/aura-2-thalia-en/")
    assert service._append_trailing_space is True


@pytest.mark.parametrize("vendor", ["elevenlabs", "cartesia", "deepgram"])
@pytest.mark.parametrize(("workers", "most"), [(1, 5), (2, 2), (8, 1)])
def test_a_voice_speaks_its_workers_share_of_the_plan(
    context: ServiceContext, vendor: str, workers: int, most: int
) -> None:
    shared = dataclasses.replace(context, workers=workers)
    service: Any = build_tts(vendor, {"concurrency": 5}, shared)
    assert service.most_at_once == most


def test_a_voice_is_that_of_all_its_vendors_in_their_order(context: ServiceContext) -> None:
    voice = build_voice([("cartesia", {"concurrency": 3}), ("elevenlabs", {"speed": 1.1})], context)
    assert [one.vendor for one in voice.voices] == ["cartesia", "elevenlabs"]
    assert [one.most_at_once for one in voice.voices] == [3, None]
    assert [one.sound for one in voice.voices] == [
        "cartesia/voice-2/sonic-3.6",
        "elevenlabs/voice-1/eleven_flash_v2_5",
    ]
    assert isinstance(voice._text_aggregator, ClauseAggregator)
    assert voice._health is context.voice_health
    assert voice._loudness is context.loudness


def test_how_text_reaches_a_voice_is_the_first_vendors_to_say(context: ServiceContext) -> None:
    voice = build_voice([("elevenlabs", {"text_aggregation": "token"}), ("cartesia", {})], context)
    assert not isinstance(voice._text_aggregator, ClauseAggregator)
    modes = {one._text_aggregation_mode.value for one in (voice, *voice.voices)}  # pyright: ignore[reportAttributeAccessIssue] - Pipecat's services
    assert modes == {"token"}


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
    build_tts("deepgram", {}, context)
    assert made == []
    VendorClients(context.clients.settings)
    assert made != [], "the counter counts"


@pytest.mark.parametrize(
    ("layer", "name", "options", "option", "says"),
    [
        (
            Layer.TTS,
            "elevenlab",
            {},
            None,
            "did you mean elevenlabs? (known: elevenlabs, cartesia, deepgram)",
        ),
        (Layer.TTS, "elevenlabs", {"sped": 1}, "sped", "did you mean speed? (allowed: "),
        (Layer.TTS, "elevenlabs", {"voice": "x"}, "voice", "unknown option"),
        (Layer.TTS, "elevenlabs", {"speed": "fast"}, "speed", "valid number"),
        (Layer.STT, "assemblyai", {"mode": "quick"}, "mode", "Input should be"),
        (
            Layer.STT,
            "assemblyai",
            {"model": "universal-streaming-english", "mode": "balanced"},
            "mode",
            "family",
        ),
        (Layer.TTS, "cartesia", {"generation_config": {"speed": "x"}}, "generation_config", "valid number"),
        (Layer.TTS, "deepgram", {"speed": 1.6}, "speed", "less than or equal to 1.5"),
        (Layer.TTS, "deepgram", {"model": "aura-2-thalia-en"}, "model", "unknown option"),
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
        Layer.STT: {"deepgram", "flux", "assemblyai"},
        Layer.LLM: {"anthropic", "openai", "groq", "fireworks", "together"},
        Layer.TTS: {"elevenlabs", "cartesia", "deepgram"},
    }
