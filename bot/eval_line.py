"""A call with Pipecat's eval harness: RTVI over an accepted WebSocket, typed turns or the harness's voice.

Imported only when the operator has turned evals on: whoever opens such a connection types to the agent and
sees its tools' arguments. The call behind it is a call like any other, playout included; in text mode the
model's words skip the voice.

Source: `pipecat.evals` of Pipecat 1.14 (`fastapi_transport.py`, `serializer.py`).
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import WebSocket
from pipecat.evals.fastapi_transport import EvalFastAPIWebsocketTransport
from pipecat.evals.serializer import EvalConnectionFlags, EvalSerializer, parse_eval_connect
from pipecat.evals.transport import EvalTransportParams
from pipecat.frames.frames import CancelWorkerFrame, Frame

from bot.resources import BROWSER_RATE_HZ

_PIECES_10_MS = 2
"""Audio is written 20 ms at a time (`BrowserWire`); Pipecat paces a write by this number."""


def eval_flags(message: Mapping[str, Any]) -> EvalConnectionFlags | None:
    """Read a connection's first message.

    Args:
        message: An ASGI message, `websocket.receive` or another.

    Returns:
        What the harness asks for, or None if this is no harness.
    """
    try:
        return parse_eval_connect(json.loads(message.get("text") or ""))
    except ValueError:  # no JSON, or flags that are none
        return None


def eval_transport(
    socket: WebSocket,
    flags: EvalConnectionFlags,
    *,
    is_ready: Callable[[], Awaitable[object]],
    on_hang_up: Callable[[], None],
) -> EvalFastAPIWebsocketTransport:
    """Return the transport of a harness whose first message has been read.

    Args:
        socket: Accepted.
        flags: Of its first message.
        is_ready: Returns when the agent can be spoken to; a harness begins as soon as it is answered.
        on_hang_up: The harness wants the end of the call.
    """
    return EvalFastAPIWebsocketTransport(
        socket,
        EvalTransportParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_sample_rate=BROWSER_RATE_HZ,
            audio_out_10ms_chunks=_PIECES_10_MS,
            serializer=_CallSerializer(is_ready, on_hang_up),
        ),
        flags,
    )


class _CallSerializer(EvalSerializer):
    """Keeps the harness waiting until the call is ready, and takes its "cancel the pipeline" for a hang-up."""

    def __init__(self, is_ready: Callable[[], Awaitable[object]], on_hang_up: Callable[[], None]) -> None:
        super().__init__()
        self._is_ready = is_ready
        self._on_hang_up = on_hang_up

    async def deserialize(self, data: str | bytes) -> Frame | None:
        await self._is_ready()
        frame = await super().deserialize(data)
        if isinstance(frame, CancelWorkerFrame):
            self._on_hang_up()
            return None
        return frame
