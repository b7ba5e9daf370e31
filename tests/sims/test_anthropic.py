"""What is Anthropic's own; what all models' vendors share stands in `test_model_vendor`."""

import time
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic import AsyncAnthropic
from pipecat.frames.frames import LLMContextFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.tests.utils import SleepFrame, run_test

from sims.anthropic import AnthropicSim, PromptCache
from sims.faults import FaultKind, FaultSpec
from sims.profiles import Profile
from tests.sims.model_peers import (
    ANSWER,
    CLAUDE,
    PARAMETERS,
    QUESTION,
    SYSTEM,
    WEATHER,
    AnthropicPeer,
    claude_asking,
    open_anthropic,
)

pytestmark = pytest.mark.real_time

LOOK_UP: Any = {"name": "look_up", "description": WEATHER, "input_schema": PARAMETERS}
QUICK = Profile("quick", 0.0, 0.1, 0.05, 400.0, 0.0, 0.0, 0.0)


@pytest.fixture
async def peer() -> AsyncGenerator[AnthropicPeer]:
    async with open_anthropic() as peer:
        yield peer


@pytest.fixture
def sim(peer: AnthropicPeer) -> AnthropicSim:
    return peer.sim


@pytest.fixture
def client(peer: AnthropicPeer) -> AsyncAnthropic:
    return peer.client


# The official client


async def test_stream_has_the_vendors_events_in_order(client: AsyncAnthropic) -> None:
    stream = await client.messages.create(stream=True, **claude_asking(QUESTION))
    kinds = [event.type async for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_stream_helper_gives_text_usage_and_request_id(client: AsyncAnthropic) -> None:
    async with client.messages.stream(**claude_asking(QUESTION)) as stream:
        text = "".join([text async for text in stream.text_stream])
        message = await stream.get_final_message()
        assert (stream.request_id or "").startswith("req_")
    assert text.startswith(ANSWER)
    assert message.content[0].type == "text"
    assert message.content[0].text == text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens >= len(text.split())


async def test_tool_call_and_its_result(client: AsyncAnthropic) -> None:
    request = claude_asking("What is the weather in Paris, can you look it up?", tools=[LOOK_UP])
    async with client.messages.stream(**request) as stream:
        first = await stream.get_final_message()
    call = first.content[-1]
    assert first.stop_reason == "tool_use"
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("look_up", {"city": "Paris"})
    request["messages"] += [
        {"role": "assistant", "content": [block.model_dump() for block in first.content]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": '{"say": "It rains in Paris."}'}
            ],
        },
    ]
    second = await client.messages.create(**request)
    assert second.content[0].type == "text"
    assert second.content[0].text == "It rains in Paris."


async def test_beta_endpoint_as_pipecat_calls_it(client: AsyncAnthropic, sim: AnthropicSim) -> None:
    stream: Any = await client.beta.messages.create(
        stream=True,
        betas=["interleaved-thinking-2025-05-14"],
        thinking={"type": "disabled"},
        **claude_asking("Hello"),
    )
    assert [event.type async for event in stream][-1] == "message_stop"
    assert sim.requests[-1].body["thinking"] == {"type": "disabled"}
    assert sim.requests[-1].headers["anthropic-beta"] == "interleaved-thinking-2025-05-14"


async def test_reply_stops_at_max_tokens(client: AsyncAnthropic) -> None:
    message = await client.messages.create(**claude_asking(QUESTION) | {"max_tokens": 2})
    assert message.stop_reason == "max_tokens"
    assert message.content[0].type == "text"
    assert message.content[0].text == "We're open"
    assert message.usage.output_tokens == 2


async def test_tool_choice_none_offers_no_tool(client: AsyncAnthropic) -> None:
    message = await client.messages.create(
        **claude_asking("Look up Paris", tools=[LOOK_UP], tool_choice={"type": "none"})
    )
    assert {block.type for block in message.content} == {"text"}


async def test_count_tokens_and_models(client: AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(
        model=CLAUDE, system=SYSTEM, messages=[{"role": "user", "content": "hi"}]
    )
    assert counted.input_tokens > 10
    assert CLAUDE in [model.id async for model in client.models.list()]
    assert (await client.models.retrieve(CLAUDE)).id == CLAUDE


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": "gpt-4"}, anthropic.NotFoundError, "model: gpt-4"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, anthropic.BadRequestError, "non-empty"),
        ({"messages": [{"role": "system", "content": "x"}]}, anthropic.BadRequestError, "role"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "tool_use_id": "t9", "content": "x"}],
                    }
                ]
            },
            anthropic.BadRequestError,
            "unexpected `tool_use_id`",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "t1", "name": "a", "input": {}}],
                    },
                    {"role": "user", "content": "hi"},
                ]
            },
            anthropic.BadRequestError,
            "without `tool_result` blocks",
        ),
        (
            {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}] * 5},
            anthropic.BadRequestError,
            "maximum of 4 blocks",
        ),
    ],
)
async def test_bad_requests_are_refused(
    client: AsyncAnthropic, change: dict[str, Any], error: type[anthropic.APIStatusError], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        await client.messages.create(**claude_asking("hi") | change)
    assert refused.value.request_id == refused.value.body["request_id"]  # type: ignore[index]


async def test_requests_without_key_version_or_json_are_refused(sim: AnthropicSim) -> None:
    version = {"anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(sim.base_url) as session:
        for headers, status in (({}, 401), ({"x-api-key": "k"}, 400), ({"x-api-key": "k", **version}, 400)):
            async with session.post("/v1/messages", data=b"{oops", headers=headers) as response:
                body = await response.json()
                assert response.status == status
                assert body["type"] == "error"
                assert body["request_id"] == response.headers["request-id"]


# Faults


async def test_who_asks_too_often_is_told_when_to_come_again(peer: AnthropicPeer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.RATE_LIMITED, count=1))
    with pytest.raises(anthropic.RateLimitError) as refused:
        await peer.ask()
    assert refused.value.response.headers["retry-after"] == "1"
    assert "anthropic-ratelimit-requests-reset" in refused.value.response.headers


async def test_client_retries_what_the_vendor_says_can_be_retried(sim: AnthropicSim) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1))
    async with AsyncAnthropic(api_key="k", base_url=sim.base_url, max_retries=2) as client:
        await client.messages.create(**claude_asking("hi"))
    assert [request.headers["x-stainless-retry-count"] for request in sim.requests] == ["0", "1"]


async def test_overload_in_mid_stream_is_an_error_event(peer: AnthropicPeer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1, after_s=0.2))
    heard: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as broken:
        await peer.listen(heard)
    assert broken.value.status_code == 200
    assert heard[0] == "We're"


async def test_an_empty_answer_is_a_whole_one(client: AsyncAnthropic, sim: AnthropicSim) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    message = await client.messages.create(**claude_asking("hi"))
    assert (message.content, message.stop_reason) == ([], "end_turn")


async def test_first_content_waits_for_the_first_token_time() -> None:
    async with open_anthropic(QUICK) as peer:
        await peer.client.models.list()  # connected
        started_s = time.monotonic()
        async for _ in await peer.client.messages.create(stream=True, **claude_asking(QUESTION)):
            break
        assert time.monotonic() - started_s >= QUICK.llm_first_token_s


# Prompt cache


def cached(words: int, question: str) -> dict[str, Any]:
    control = {"type": "ephemeral"}
    return {
        "system": [{"type": "text", "text": "word " * words, "cache_control": control}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": question, "cache_control": control}]}
        ],
    }


def test_a_marked_prefix_is_written_once_and_then_read() -> None:
    cache = PromptCache()
    first, second = cache.account(cached(2000, "one"), 0.0), cache.account(cached(2000, "two"), 10.0)
    assert first.cache_read == 0
    assert first.cache_creation > 2000
    assert second.cache_read > 2000
    assert 0 < second.cache_creation < 50
    assert second.input_tokens == 0


def test_what_one_model_has_cached_another_has_not() -> None:
    cache = PromptCache()
    light, strong = ({**cached(2000, "one"), "model": model} for model in ("claude-haiku", "claude-sonnet"))
    cache.account(light, 0.0)
    assert cache.account(strong, 1.0).cache_read == 0
    assert cache.account(light, 2.0).cache_read > 2000


def test_cache_expires_and_small_prompts_are_never_cached() -> None:
    cache = PromptCache()
    cache.account(cached(2000, "one"), 0.0)
    assert cache.account(cached(2000, "one"), 301.0).cache_read == 0
    small = cache.account(cached(20, "one"), 0.0)
    assert (small.cache_creation, small.cache_read) == (0, 0)
    assert small.input_tokens > 20


async def test_pipecats_service_has_its_prompt_cached(peer: AnthropicPeer) -> None:
    context = LLMContext(messages=[{"role": "user", "content": QUESTION}])
    await run_test(peer.service(), frames_to_send=[LLMContextFrame(context), SleepFrame(0.3)])
    assert "cache_control" in peer.sim.requests[-1].body["system"][0]
