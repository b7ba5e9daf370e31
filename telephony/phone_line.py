"""One phone call's media socket: the caller's audio and keys in, the agent's audio and marks out.

The shell around `telephony.media`. It is a `PlayoutWire` by shape. Never decides what the call does; every
write has a deadline, so that a peer that stops reading ends the line instead of holding the call.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol

from loguru import logger

from telephony import ulaw
from telephony.media import (
    DtmfEvent,
    MarkEvent,
    MediaEvent,
    MediaFault,
    MediaStream,
    MediaStreamEvent,
    StartEvent,
    StopEvent,
)

WRITE_LIMIT_S: Final = 5.0
"""A write that takes longer means that nobody reads at the other end."""
CLOSE_LIMIT_S: Final = 0.5
_TOO_BIG: Final = 1009


class Socket(Protocol):
    """The part of an ASGI WebSocket that is used here; Starlette's has this shape."""

    async def receive(self) -> Mapping[str, Any]:
        """Return the next ASGI message: `websocket.receive` with `text` or `bytes`, or `websocket.disconnect`."""
        ...

    async def send_text(self, data: str) -> None:
        """Send one text frame."""
        ...

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Close with a code."""
        ...


class LineClosedError(Exception):
    """The socket is gone, or said nothing that makes it a call in time."""


class PhoneLine:
    """A media socket that has been accepted."""

    def __init__(self, socket: Socket) -> None:
        """Wrap an accepted socket."""
        self._socket = socket
        self.stream = MediaStream()
        """The protocol's state, with its counters of faults."""
        self._is_open = True

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return self._is_open

    async def start(self, timeout_s: float) -> StartEvent:
        """Wait for the stream to start.

        Raises:
            LineClosedError: If the socket closed, or no `start` came within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                async for event in self._events():
                    if isinstance(event, StartEvent):
                        return event
        except TimeoutError:
            raise LineClosedError(f"no start within {timeout_s} s") from None
        raise LineClosedError("the socket closed before start")

    async def events(self) -> AsyncIterator[MediaEvent | DtmfEvent | MarkEvent]:
        """Yield what the caller's side sends, until it stops or the socket closes."""
        async for event in self._events():
            if isinstance(event, StopEvent):
                return
            if isinstance(event, MediaEvent | DtmfEvent | MarkEvent):
                yield event

    async def send_audio(self, pcm: bytes) -> None:
        """Play audio behind all audio sent before. s16le mono 8 kHz."""
        await self._send(self.stream.media(ulaw.encode(pcm)))

    async def send_mark(self, name: str) -> None:
        """Ask for `name` back when everything before it was played."""
        await self._send(self.stream.mark(name))

    async def clear(self) -> None:
        """Throw away what was not played; its marks come back at once."""
        await self._send(self.stream.clear())

    async def close(self, code: int = 1000) -> None:
        """Close the socket, within half a second whatever the peer does."""
        if not self._is_open:
            return
        self._is_open = False
        closing = asyncio.ensure_future(self._socket.close(code))
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_LIMIT_S)
        if not done:
            closing.cancel()
        elif error := closing.exception():
            logger.debug("media socket was already closed: {}", error)

    async def _events(self) -> AsyncIterator[MediaStreamEvent]:
        now_s = asyncio.get_running_loop().time
        while True:
            try:
                message = await self._socket.receive()
            except RuntimeError:  # Starlette's word for a receive after the disconnect
                self._is_open = False
                return
            if message["type"] == "websocket.disconnect":
                self._is_open = False
                if message.get("code") == _TOO_BIG:  # the server would not read it, and closed
                    self.stream.count(MediaFault.OVERSIZED)
                return
            text = message.get("text")
            event = self.stream.receive(text if text is not None else message.get("bytes") or b"", now_s())
            if event is not None:
                yield event

    async def _send(self, message: str) -> None:
        if not self._is_open:
            return
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                await self._socket.send_text(message)
        except TimeoutError:
            logger.warning("media socket took no data for {} s", WRITE_LIMIT_S)
            self._is_open = False
        except Exception as error:  # noqa: BLE001 - the kinds differ between servers; each means the peer is gone
            logger.debug("media socket is gone: {}", error)
            self._is_open = False
