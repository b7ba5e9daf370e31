"""What all models' vendors share: how a reply is cut into what is sent, and what goes wrong on its way to a client."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import LLMContextFrame, LLMFullResponseEndFrame, LLMTextFrame, MetricsFrame
from pipecat.metrics.metrics import LLMUsageMetricsData
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.tests.utils import SleepFrame, run_test

from sims.brain import TextBlock, ToolUse
from sims.faults import FaultKind, FaultSpec
from sims.model_vendor import Piece, _break_index, count_tokens, limited, split, text_of
from sims.profiles import Profile
from tests.sims.model_peers import (
    ANSWER,
    PARAMETERS,
    PROTOCOLS,
    QUESTION,
    VENDORS,
    WEATHER,
    AnthropicPeer,
    Peer,
    open_peer,
)

SLOW = Profile("slow", 0.0, 0.1, 0.0, 20.0, 0.0, 0.0, 0.0)
every_vendor = pytest.mark.parametrize("name", VENDORS)
each_protocol = pytest.mark.parametrize("name", PROTOCOLS)


@given(st.text(alphabet="ab .\n", max_size=60))
def test_pieces_are_the_text_again(text: str) -> None:
    assert "".join(split(text)) == (text if text.strip() else "")


@pytest.mark.parametrize(
    ("piece", "tokens"), [("a", 1), (" abcdef", 1), (" abcdefg", 2), ("abcdefghijklm", 3)]
)
def test_a_token_is_six_characters_begun(piece: str, tokens: int) -> None:
    assert count_tokens(piece) == tokens


def test_a_text_is_cut_at_a_word_and_a_tool_call_not_at_all() -> None:
    blocks = [TextBlock("One two three."), ToolUse("look_up", {"city": "Paris"})]
    whole = sum(count_tokens(piece) for block in blocks for piece in split(text_of(block)))
    assert limited(blocks, whole) == (blocks, whole, False)
    assert limited(blocks, 2) == ([TextBlock("One two")], 2, True)
    kept, _, is_cut = limited(blocks, whole - 1)
    assert (kept, is_cut) == ([TextBlock("One two three.")], True)


@pytest.mark.parametrize(
    ("kind", "after_s", "rate", "at"),
    [
        (FaultKind.CLOSE_MID_STREAM, 0.1, 10.0, 2),
        (FaultKind.HANG_AFTER_FIRST_BYTE, 0.0, 10.0, 2),
        (FaultKind.OVERLOADED, 0.3, 10.0, 4),
        (FaultKind.CLOSE_MID_STREAM, 9.0, 10.0, 3),
        (FaultKind.CLOSE_MID_STREAM, 0.5, 0.0, 3),
        (FaultKind.TRICKLE, 0.0, 10.0, 6),
    ],
)
def test_a_fault_strikes_inside_the_reply(kind: FaultKind, after_s: float, rate: float, at: int) -> None:
    pieces = [Piece(b"start"), *[Piece(b"x", 1)] * 4, Piece(b"stop")]
    assert _break_index(pieces, FaultSpec(kind=kind, after_s=after_s), rate) == at
    assert (
        _break_index([Piece(b"start"), Piece(b"stop")], FaultSpec(kind=FaultKind.CLOSE_MID_STREAM), 1.0) == 1
    )


# On the wire, to the official clients


@pytest.fixture(params=PROTOCOLS)
async def peer(request: pytest.FixtureRequest) -> AsyncGenerator[Peer]:
    async with open_peer(request.param) as peer:
        yield peer


@pytest.mark.real_time
@pytest.mark.parametrize("kind", list(AnthropicPeer.errors))
async def test_faults_before_the_answer(peer: Peer, kind: FaultKind) -> None:
    peer.sim.faults.arm(FaultSpec(kind=kind, count=1))
    with pytest.raises(peer.errors[kind]):
        await peer.ask()
    assert await peer.ask() != "", "it fails one time only"


@pytest.mark.real_time
async def test_a_stream_that_is_cut_is_no_whole_answer(peer: Peer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.CLOSE_MID_STREAM, count=1))
    heard: list[str] = []
    with pytest.raises(peer.cut):
        await peer.listen(heard)
    assert heard[0] == "We're"
    whole: list[str] = []
    await peer.listen(whole)
    assert heard == whole[: len(heard)]
    assert len(heard) < len(whole)


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("kind", "hears"),
    [
        (FaultKind.HANG_BEFORE_FIRST_BYTE, False),
        (FaultKind.HANG_AFTER_FIRST_BYTE, True),
        (FaultKind.TRICKLE, True),
    ],
)
async def test_faults_that_keep_the_client_waiting(peer: Peer, kind: FaultKind, hears: bool) -> None:
    peer.sim.faults.arm(FaultSpec(kind=kind, count=1))
    heard: list[str] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await peer.listen(heard)
    assert bool(heard) is hears


@pytest.mark.real_time
async def test_garbage_is_not_json_and_an_empty_answer_says_nothing(peer: Peer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.GARBAGE, count=1))
    with pytest.raises(json.JSONDecodeError):
        await peer.listen([])
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.EMPTY, count=1))
    assert await peer.ask() == ""


@pytest.mark.real_time
async def test_the_control_surface_tells_what_was_asked(peer: Peer) -> None:
    await peer.ask()
    since_s = time.monotonic()
    await peer.listen([])
    async with aiohttp.ClientSession(peer.sim.control_url) as http:
        async with http.get(f"/sim/requests?since_s={since_s!r}") as answer:
            [asked] = (await answer.json())["requests"]
        async with http.get("/sim/requests") as answer:
            assert len((await answer.json())["requests"]) == 2
        async with http.get("/sim/requests?since_s=soon") as answer:
            assert answer.status == 422
    assert asked["model"] == peer.sim.requests[-1].body["model"]
    assert QUESTION in str(asked["messages"][-1])
    assert asked["at_s"] >= since_s


@pytest.mark.real_time
async def test_a_late_first_token(peer: Peer) -> None:
    peer.sim.faults.arm(FaultSpec(kind=FaultKind.SLOW_FIRST_BYTE, count=1, after_s=0.6))
    waits_s: list[float] = []
    for _ in range(2):
        began_s = time.monotonic()
        await peer.leave()
        waits_s.append(time.monotonic() - began_s)
    assert waits_s[0] >= 0.6
    assert waits_s[1] < 0.6


@pytest.mark.real_time
@each_protocol
async def test_generation_stops_when_the_peer_has_gone(name: str) -> None:
    async with open_peer(name, SLOW) as peer:
        await peer.leave()
        async with asyncio.timeout(3):
            while not peer.sim.stats["abandoned"]:  # noqa: ASYNC110 - the sim only counts
                await asyncio.sleep(0.02)
        assert peer.sim.stats["tokens"] < 6


@pytest.mark.real_time
async def test_a_request_that_is_cancelled_half_way_is_no_error(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(peer.sim.base_url.rpartition(":")[2])
    path = "/v1/messages" if isinstance(peer, AnthropicPeer) else "/v1/chat/completions"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    heard: list[str] = []
    await peer.listen(heard)
    assert "nine to five" in "".join(heard)
    assert caplog.records == []


# To Pipecat's services


@pytest.mark.real_time
@every_vendor
async def test_pipecats_service_streams_a_reply_and_reports_usage(name: str) -> None:
    async with open_peer(name) as peer:
        context = LLMContext(messages=[{"role": "user", "content": QUESTION}])
        down, _ = await run_test(
            peer.service(),
            frames_to_send=[LLMContextFrame(context), SleepFrame(0.3)],
            pipeline_params=PipelineParams(enable_usage_metrics=True),
        )
    text = "".join(frame.text for frame in down if isinstance(frame, LLMTextFrame))
    assert text.startswith(ANSWER)
    assert any(isinstance(frame, LLMFullResponseEndFrame) for frame in down)
    reports = [data for frame in down if isinstance(frame, MetricsFrame) for data in frame.data]
    used = [data.value for data in reports if isinstance(data, LLMUsageMetricsData)]
    assert len(used) == 1
    assert used[0].completion_tokens >= len(text.split())


@pytest.mark.real_time
@every_vendor
async def test_pipecats_service_runs_a_tool(name: str) -> None:
    called: list[Mapping[str, Any]] = []

    async def look_up(params: Any) -> None:
        called.append(params.arguments)
        await params.result_callback({"say": "It rains."})

    schema = FunctionSchema(
        name="look_up",
        description=WEATHER,
        properties=PARAMETERS["properties"],
        required=PARAMETERS["required"],
        handler=look_up,
    )
    context = LLMContext(
        messages=[{"role": "user", "content": "Look up the weather in Paris."}],
        tools=ToolsSchema(standard_tools=[schema]),
    )
    async with open_peer(name) as peer:
        await run_test(peer.service(), frames_to_send=[LLMContextFrame(context), SleepFrame(0.4)])
    assert called == [{"city": "Paris"}]
