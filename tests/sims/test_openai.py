"""What is OpenAI's and its three followers' own; what all models' vendors share stands in `test_model_vendor`."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from sims.faults import FaultKind, FaultSpec
from sims.openai import AutomaticCache, FireworksSim, GroqSim, OpenAISim
from tests.sims.model_peers import (
    ANSWER,
    PARAMETERS,
    QUESTION,
    SERVICES,
    WEATHER,
    ChatPeer,
    chat_asking,
    open_chat,
)

pytestmark = pytest.mark.real_time

MODEL = "gpt-4.1-mini"
LOOK_UP: Any = {
    "type": "function",
    "function": {"name": "look_up", "description": WEATHER, "parameters": PARAMETERS},
}
every_vendor = pytest.mark.parametrize("vendor", list(SERVICES), ids=lambda vendor: vendor.name)


@pytest.fixture
async def peer() -> AsyncGenerator[ChatPeer]:
    async with open_chat() as peer:
        yield peer


@pytest.fixture
def client(peer: ChatPeer) -> AsyncOpenAI:
    return peer.client


def asking(text: str, model: str = MODEL, **extra: Any) -> Any:
    return chat_asking(text, model, **extra)


# The official client


async def test_stream_has_the_vendors_chunks_in_order(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **asking(QUESTION)
    )
    chunks = [chunk async for chunk in stream]
    first, last = chunks[0], chunks[-1]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [len(chunk.choices) for chunk in chunks[:-1]] == [1] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.id for chunk in chunks} == {first.id}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text.startswith(ANSWER)


async def test_nobody_gets_usage_unasked(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(stream=True, **asking(QUESTION))
    chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@every_vendor
async def test_tool_call_and_its_result(vendor: type[OpenAISim]) -> None:
    async with open_chat(vendor) as peer:
        request = asking("Look up the weather in Paris.", peer.sim.models[0], tools=[LOOK_UP])
        async with peer.client.chat.completions.stream(**request) as stream:
            first = (await stream.get_final_completion()).choices[0]
        assert first.finish_reason == "tool_calls"
        assert first.message.tool_calls is not None
        call = first.message.tool_calls[0]
        assert (call.function.name, json.loads(call.function.arguments)) == ("look_up", {"city": "Paris"})
        request["messages"] += [
            {
                "role": "assistant",
                "content": first.message.content,
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": "look_up", "arguments": call.function.arguments},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": call.id, "content": '{"say": "It rains in Paris."}'},
        ]
        second = await peer.client.chat.completions.create(**request)
        assert second.choices[0].message.content == "It rains in Paris."


async def test_groq_sends_a_tool_call_whole_and_its_usage_twice() -> None:
    async with open_chat(GroqSim) as peer:
        request = asking("Look up the weather in Paris.", peer.sim.models[0], tools=[LOOK_UP])
        stream = await peer.client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **request
        )
        chunks: list[Any] = [chunk async for chunk in stream]
    calls = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.tool_calls]
    assert len(calls) == 1
    assert json.loads(calls[0].choices[0].delta.tool_calls[0].function.arguments) == {"city": "Paris"}
    assert chunks[0].x_groq["id"].startswith("req_")
    assert chunks[-2].x_groq["usage"]["total_tokens"] == chunks[-1].usage.total_tokens


async def test_a_reply_that_broke_off_goes_on_with_the_next_word(client: AsyncOpenAI) -> None:
    request = asking(QUESTION)
    whole = (await client.chat.completions.create(**request)).choices[0].message.content or ""
    request["messages"] += [
        {"role": "assistant", "content": "We're open"},
        {"role": "developer", "content": "<note>Go on.</note>"},
    ]
    rest = (await client.chat.completions.create(**request)).choices[0].message.content
    assert f"We're open {rest}" == whole


async def test_reply_stops_at_max_tokens(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**asking(QUESTION, max_completion_tokens=2))
    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("length", "We're open")


async def test_tool_choice_none_offers_no_tool_and_models_are_listed(client: AsyncOpenAI) -> None:
    request = asking("Look up Paris", tools=[LOOK_UP], tool_choice="none")
    assert (await client.chat.completions.create(**request)).choices[0].message.tool_calls is None
    assert MODEL in [model.id async for model in client.models.list()]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": "claude-haiku-4-5"}, openai.NotFoundError, "does not exist"),
        ({"messages": []}, openai.BadRequestError, "empty array"),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.BadRequestError, "Invalid value: 'robot'"),
        ({"messages": [{"role": "assistant", "content": None}]}, openai.BadRequestError, "got null"),
        ({"max_tokens": 0}, openai.BadRequestError, "below minimum"),
        ({"parallel_tool_calls": False}, openai.BadRequestError, "only allowed when 'tools'"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "t9", "content": "x"}]},
            openai.BadRequestError,
            "must be a response",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "t1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
                        ],
                    },
                    {"role": "user", "content": "hi"},
                ]
            },
            openai.BadRequestError,
            "did not have response messages: t1",
        ),
    ],
)
async def test_bad_requests_are_refused(
    client: AsyncOpenAI, change: dict[str, Any], error: type[openai.APIStatusError], says: str
) -> None:
    with pytest.raises(error, match=says) as refused:
        await client.chat.completions.create(**asking("hi") | change)
    assert (refused.value.request_id or "").startswith("req_")


async def test_fireworks_refuses_fields_it_does_not_know() -> None:
    async with open_chat(FireworksSim) as peer:
        with pytest.raises(openai.BadRequestError, match="seed"):
            await peer.client.chat.completions.create(**asking("hi", peer.sim.models[0], seed=1))


async def test_requests_without_key_or_json_are_refused(peer: ChatPeer) -> None:
    async with aiohttp.ClientSession(peer.sim.base_url) as session:
        for headers, status in (({}, 401), ({"Authorization": "Bearer k"}, 400)):
            async with session.post("/v1/chat/completions", data=b"{oops", headers=headers) as response:
                assert response.status == status
                assert (await response.json())["error"]["type"] == "invalid_request_error"


# Faults


async def test_who_asks_too_often_is_told_when_to_come_again(peer: ChatPeer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.RATE_LIMITED, count=1))
    with pytest.raises(openai.RateLimitError) as refused:
        await peer.ask()
    assert refused.value.response.headers["retry-after"] == "1"
    assert refused.value.code == "rate_limit_exceeded"
    assert "x-ratelimit-reset-tokens" in refused.value.response.headers


async def test_an_error_in_mid_stream_comes_as_an_event(peer: ChatPeer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.SERVER_ERROR, count=1, after_s=0.2))
    heard: list[str] = []
    with pytest.raises(openai.APIError, match="had an error") as broken:
        await peer.listen(heard)
    assert not isinstance(broken.value, openai.APIStatusError)
    assert heard[0] == "We're"


async def test_an_empty_answer_is_a_whole_one(peer: ChatPeer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    answer = await peer.client.chat.completions.create(**asking("hi"))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (None, "stop")


# Prompt cache


def test_a_prompt_that_was_seen_is_cached_in_steps_until_it_expires() -> None:
    cache = AutomaticCache()
    system = {"role": "system", "content": "word " * 2000}
    total, cached = cache.account({"messages": [system, {"role": "user", "content": "one"}]}, 0.0)
    assert (total > 2000, cached) == (True, 0)
    _, cached = cache.account({"messages": [system, {"role": "user", "content": "two"}]}, 1.0)
    assert 2000 < cached < total
    assert cached % 128 == 0
    assert cache.account({"messages": [system]}, 400.0)[1] == 0
