"""What the eval harness's messages mean to a call."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from pipecat.evals.serializer import EvalConnectionFlags, eval_connect_message
from pipecat.frames.frames import InputTransportMessageFrame

from bot.eval_line import eval_flags, eval_transport

CANCEL = '{"label": "rtvi-ai", "type": "client-message", "id": "1", "data": {"t": "eval-cancel", "d": {}}}'
TEXT = '{"label": "rtvi-ai", "type": "send-text", "id": "2", "data": {"content": "Hello."}}'


@pytest.mark.parametrize("flags", [EvalConnectionFlags(), EvalConnectionFlags(skip_tts=True)])
def test_a_harness_says_so_first(flags: EvalConnectionFlags) -> None:
    assert eval_flags({"type": "websocket.receive", "text": eval_connect_message(flags)}) == flags


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.receive", "text": '{"event": "connected", "protocol": "Call"}'},
        {"type": "websocket.receive", "text": "{"},
        {"type": "websocket.receive", "text": "[1]"},
        {"type": "websocket.receive", "text": CANCEL},
        {
            "type": "websocket.receive",
            "text": eval_connect_message(EvalConnectionFlags()).replace("false", '"perhaps"', 1),
        },
        {"type": "websocket.receive", "bytes": b"\x00", "text": None},
        {"type": "websocket.disconnect", "code": 1000},
    ],
    ids=["twilio", "no JSON", "no object", "another message", "wrong flags", "bytes", "gone"],
)
def test_anything_else_is_no_harness(message: dict[str, Any]) -> None:
    assert eval_flags(message) is None


async def test_a_cancel_hangs_up_and_nothing_is_heard_before_the_call_is_ready() -> None:
    ready, ends = asyncio.Event(), list[str]()
    serializer: Any = eval_transport(
        _SocketOfATest(),  # pyright: ignore[reportArgumentType] - nothing is sent on it here
        EvalConnectionFlags(skip_tts=True),
        is_ready=ready.wait,
        on_hang_up=lambda: ends.append("hung up"),
    )._params.serializer
    typed = asyncio.create_task(serializer.deserialize(TEXT))
    await asyncio.sleep(5)
    assert not typed.done()
    ready.set()
    assert isinstance(await typed, InputTransportMessageFrame)
    assert await serializer.deserialize(CANCEL) is None, "the call ends its pipeline itself"
    assert ends == ["hung up"]


class _SocketOfATest:
    headers: Mapping[str, str] = MappingProxyType({})
