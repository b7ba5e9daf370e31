"""The sim against the official client and Pipecat's service; its requests and faults at the wire."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import LLMContextFrame, LLMFullResponseEndFrame, LLMTextFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.anthropic.llm import AnthropicLLMService
from pipecat.tests.utils import SleepFrame, run_test

from sims.anthropic import AnthropicSim, PromptCache
from sims.faults import FaultKind, FaultSpec
from sims.profiles import PROFILES, Profile

pytestmark = pytest.mark.real_time

MODEL = "claude-haiku-4-5"
SYSTEM = "You answer the phone.\n- Hours: We're open nine to five.\n"
LOOK_UP: Any = {
    "name": "look_up",
    "description": "Look up the weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "One of: Paris, London. Ask: In which city?"}
        },
        "required": ["city"],
    },
}
QUICK = Profile("quick", 0.0, 0.1, 0.05, 400.0, 0.0, 0.0, 0.0)


@pytest.fixture
async def sim() -> AsyncIterator[AnthropicSim]:
    async with AnthropicSim(PROFILES["instant"], seed=1) as sim:
        yield sim


@pytest.fixture
async def client(sim: AnthropicSim) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key="k", base_url=sim.base_url, max_retries=0, timeout=5.0) as client:
        yield client


def asking(text: str, **extra: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 100, "system": SYSTEM, "messages": messages} | extra


async def listen(client: AsyncAnthropic, heard: list[str]) -> None:
    """Collect the text of a streamed reply, word by word."""
    async with client.messages.stream(**asking("When are you open?")) as stream:
        async for text in stream.text_stream:
            heard.append(text)  # noqa: PERF401 - keeps what came before an error


async def collect(client: AsyncAnthropic, seen: list[str], *, limit_s: float) -> None:
    """Collect the event names of a streamed reply."""
    async with asyncio.timeout(limit_s):
        stream: Any = await client.messages.create(stream=True, **asking("When are you open?"))
        async for event in stream:
            seen.append(event.type)  # noqa: PERF401 - keeps what came before an error


# The official client


async def test_stream_has_the_vendors_events_in_order(client: AsyncAnthropic) -> None:
    stream = await client.messages.create(stream=True, **asking("When are you open?"))
    events = [event async for event in stream]
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


async def test_stream_helper_gives_text_usage_and_request_id(client: AsyncAnthropic) -> None:
    async with client.messages.stream(**asking("When are you open?")) as stream:
        text = "".join([text async for text in stream.text_stream])
        message = await stream.get_final_message()
        assert (stream.request_id or "").startswith("req_")
    assert text.startswith("We're open nine to five.")
    assert message.content[0].type == "text"
    assert message.content[0].text == text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens >= len(text.split())


async def test_tool_call_and_its_result(client: AsyncAnthropic) -> None:
    request = asking("What is the weather in Paris, can you look it up?", tools=[LOOK_UP])
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
        **asking("Hello"),
    )
    assert [event.type async for event in stream][-1] == "message_stop"
    assert sim.requests[-1].body["thinking"] == {"type": "disabled"}
    assert sim.requests[-1].headers["anthropic-beta"] == "interleaved-thinking-2025-05-14"


async def test_reply_stops_at_max_tokens(client: AsyncAnthropic) -> None:
    message = await client.messages.create(**asking("When are you open?") | {"max_tokens": 2})
    assert message.stop_reason == "max_tokens"
    assert message.content[0].type == "text"
    assert message.content[0].text == "We're open"
    assert message.usage.output_tokens == 2


async def test_tool_choice_none_offers_no_tool(client: AsyncAnthropic) -> None:
    message = await client.messages.create(
        **asking("Look up Paris", tools=[LOOK_UP], tool_choice={"type": "none"})
    )
    assert {block.type for block in message.content} == {"text"}


async def test_count_tokens_and_models(client: AsyncAnthropic) -> None:
    counted = await client.messages.count_tokens(
        model=MODEL, system=SYSTEM, messages=[{"role": "user", "content": "hi"}]
    )
    assert counted.input_tokens > 10
    assert MODEL in [model.id async for model in client.models.list()]
    assert (await client.models.retrieve(MODEL)).id == MODEL


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
        await client.messages.create(**asking("hi") | change)
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


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.UNAUTHORIZED, anthropic.AuthenticationError),
        (FaultKind.RATE_LIMITED, anthropic.RateLimitError),
        (FaultKind.SERVER_ERROR, anthropic.InternalServerError),
        (FaultKind.OVERLOADED, anthropic.APIStatusError),
        (FaultKind.REFUSE, anthropic.APIConnectionError),
    ],
)
async def test_faults_before_the_answer(
    client: AsyncAnthropic, sim: AnthropicSim, kind: FaultKind, error: type[Exception]
) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1))
    with pytest.raises(error) as refused:
        await client.messages.create(**asking("hi"))
    if isinstance(refused.value, anthropic.RateLimitError):
        assert refused.value.response.headers["retry-after"] == "1"
        assert "anthropic-ratelimit-requests-reset" in refused.value.response.headers
    await client.messages.create(**asking("hi"))  # one time only


async def test_client_retries_what_the_vendor_says_can_be_retried(sim: AnthropicSim) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1))
    async with AsyncAnthropic(api_key="k", base_url=sim.base_url, max_retries=2) as client:
        await client.messages.create(**asking("hi"))
    assert [request.headers["x-stainless-retry-count"] for request in sim.requests] == ["0", "1"]


async def test_overload_in_mid_stream_is_an_error_event(client: AsyncAnthropic, sim: AnthropicSim) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.OVERLOADED, count=1, after_s=0.2))
    heard: list[str] = []
    with pytest.raises(anthropic.APIStatusError) as broken:
        await listen(client, heard)
    assert broken.value.status_code == 200
    assert heard[0] == "We're"


async def test_cut_in_mid_stream(client: AsyncAnthropic, sim: AnthropicSim) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1))
    heard: list[str] = []
    with pytest.raises(httpx2.RemoteProtocolError):  # the client passes it on as it is
        await listen(client, heard)
    assert heard[0] == "We're"


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        (FaultKind.HANG_BEFORE_FIRST_BYTE, False),
        (FaultKind.HANG_AFTER_FIRST_BYTE, True),
        (FaultKind.TRICKLE, True),
    ],
)
async def test_faults_that_keep_the_client_waiting(
    client: AsyncAnthropic, sim: AnthropicSim, kind: FaultKind, events: bool
) -> None:
    sim.faults.arm(FaultSpec(kind=kind, count=1))
    seen: list[str] = []
    with pytest.raises(TimeoutError):
        await collect(client, seen, limit_s=0.4)
    assert ("content_block_delta" in seen) is events
    assert "message_stop" not in seen


async def test_garbage_and_empty(client: AsyncAnthropic, sim: AnthropicSim) -> None:
    sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1))
    with pytest.raises(json.JSONDecodeError):
        await collect(client, [], limit_s=5.0)
    sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    message = await client.messages.create(**asking("hi"))
    assert (message.content, message.stop_reason) == ([], "end_turn")


async def test_generation_stops_when_the_peer_has_gone() -> None:
    slow = Profile("slow", 0.0, 0.1, 0.0, 20.0, 0.0, 0.0, 0.0)
    async with AnthropicSim(slow) as sim, AsyncAnthropic(api_key="k", base_url=sim.base_url) as client:
        stream: Any = await client.messages.create(stream=True, **asking("When are you open?"))
        async for event in stream:
            if event.type == "content_block_delta":
                break
        await stream.close()
        async with asyncio.timeout(3):
            while not sim.stats["abandoned"]:  # noqa: ASYNC110 - the sim only counts
                await asyncio.sleep(0.02)
        assert sim.stats["tokens"] < 6


async def test_first_content_waits_for_the_first_token_time() -> None:
    async with AnthropicSim(QUICK) as sim, AsyncAnthropic(api_key="k", base_url=sim.base_url) as client:
        await client.models.list()  # connected
        started_s = time.monotonic()
        async for _ in await client.messages.create(stream=True, **asking("When are you open?")):
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


def test_cache_expires_and_small_prompts_are_never_cached() -> None:
    cache = PromptCache()
    cache.account(cached(2000, "one"), 0.0)
    assert cache.account(cached(2000, "one"), 301.0).cache_read == 0
    small = cache.account(cached(20, "one"), 0.0)
    assert (small.cache_creation, small.cache_read) == (0, 0)
    assert small.input_tokens > 20


# Pipecat's service


def service(client: AsyncAnthropic) -> AnthropicLLMService:
    return AnthropicLLMService(
        api_key="k",
        client=client,
        settings=AnthropicLLMService.Settings(
            model=MODEL,
            system_instruction=SYSTEM,
            enable_prompt_caching=True,
            extra={"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
    )


async def test_pipecats_service_streams_a_reply(client: AsyncAnthropic) -> None:
    context = LLMContext(messages=[{"role": "user", "content": "When are you open?"}])
    down, _ = await run_test(service(client), frames_to_send=[LLMContextFrame(context), SleepFrame(0.3)])
    text = "".join(frame.text for frame in down if isinstance(frame, LLMTextFrame))
    assert text.startswith("We're open nine to five.")
    assert any(isinstance(frame, LLMFullResponseEndFrame) for frame in down)


async def test_pipecats_service_runs_a_tool(client: AsyncAnthropic, sim: AnthropicSim) -> None:
    called: list[Mapping[str, Any]] = []

    async def look_up(params: Any) -> None:
        called.append(params.arguments)
        await params.result_callback({"say": "It rains."})

    schema = FunctionSchema(
        name="look_up",
        description=LOOK_UP["description"],
        properties=LOOK_UP["input_schema"]["properties"],
        required=["city"],
        handler=look_up,
    )
    context = LLMContext(
        messages=[{"role": "user", "content": "Look up the weather in Paris."}],
        tools=ToolsSchema(standard_tools=[schema]),
    )
    await run_test(service(client), frames_to_send=[LLMContextFrame(context), SleepFrame(0.4)])
    assert called == [{"city": "Paris"}]
    assert "cache_control" in sim.requests[-1].body["system"][0]


async def test_a_request_that_is_cancelled_half_way_is_no_error(
    sim: AnthropicSim, client: AsyncAnthropic, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(sim.base_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    heard: list[str] = []
    await listen(client, heard)
    assert "nine to five" in "".join(heard)
    assert caplog.records == []
