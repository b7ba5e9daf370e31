"""A hand-driven media socket: what a test does as Twilio, right or wrong."""

import asyncio
import base64
import contextlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType

from tests.fakes.launcher import Served

STREAM = "MZ" + "0" * 32
SILENCE = b"\xff" * 160
FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
_numbers = itertools.count(1)


def new_call_sid() -> str:
    return f"CA{next(_numbers):032x}"


def token_in(twiml: str) -> str:
    """Return the media token that an answer carries."""
    found = re.search(r'name="token" value="([^"]+)"', twiml)
    assert found, twiml
    return found[1]


class MediaSocket:
    """Sends Twilio's messages; collects what the agent sends."""

    def __init__(self, wire: ClientWebSocketResponse, call_sid: str) -> None:
        self.wire = wire
        self.call_sid = call_sid
        self.received: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._sequence = itertools.count(1)

    async def send(self, event: str, body: Mapping[str, Any] | None = None, **more: Any) -> None:
        content = {} if body is None else {event: body}
        await self.raw(
            json.dumps(
                {
                    "event": event,
                    "sequenceNumber": str(next(self._sequence)),
                    "streamSid": STREAM,
                    **content,
                    **more,
                }
            )
        )

    async def raw(self, text: str) -> None:
        await self.wire.send_str(text)

    async def connected(self) -> None:
        await self.raw('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')

    async def start(self, token: str | None, **parameters: str) -> None:
        await self.send(
            "start",
            {
                "streamSid": STREAM,
                "accountSid": "AC" + "0" * 32,
                "callSid": self.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": FORMAT,
                "customParameters": parameters if token is None else {"token": token, **parameters},
            },
        )

    async def media(self, ulaw: bytes = SILENCE, **more: Any) -> None:
        payload = base64.b64encode(ulaw).decode()
        await self.send(
            "media", {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload} | more
        )

    async def mark(self, name: str) -> None:
        await self.send("mark", {"name": name})

    async def stop(self) -> None:
        await self.send("stop", {"accountSid": "AC" + "0" * 32, "callSid": self.call_sid})

    async def read(self, *, until: str | None = None, limit_s: float = 5.0) -> str:
        """Collect messages until one has the event `until`, or the socket closes.

        Returns:
            The event, or "closed".
        """
        async with asyncio.timeout(limit_s):
            async for message in self.wire:
                if message.type is not WSMsgType.TEXT:
                    continue
                self.received.append(json.loads(message.data))
                if self.received[-1]["event"] == until:
                    return until or ""
        self.close_code = self.wire.close_code
        return "closed"

    def audio(self) -> bytes:
        """Return the mu-law audio that came."""
        return b"".join(
            base64.b64decode(message["media"]["payload"])
            for message in self.received
            if message["event"] == "media"
        )


@contextlib.asynccontextmanager
async def dial(
    server: Served, call_sid: str | None = None, *, signature: str | None = None
) -> AsyncGenerator[MediaSocket]:
    """Open a media socket, signed unless `signature` says otherwise; nothing is sent yet."""
    signed = server.signature(server.media_url) if signature is None else signature
    async with server.http.ws_connect(
        server.media_url, headers={"X-Twilio-Signature": signed}, compress=0
    ) as wire:
        yield MediaSocket(wire, call_sid or new_call_sid())


@contextlib.asynccontextmanager
async def live_call(server: Served) -> AsyncGenerator[MediaSocket]:
    """Ring, connect and start: the agent is greeting."""
    call_sid = new_call_sid()
    token = token_in(await server.ring(call_sid))
    async with dial(server, call_sid) as line:
        await line.connected()
        await line.start(token)
        yield line
