"""One phone call's media socket: the caller's audio and keys in, the agent's audio and marks out.

The shell around `telephony.media`. It is a `PlayoutWire` by shape. Never decides what the call does; every
write has a deadline, so that a peer that stops reading ends the line instead of holding the call.

    OPEN --write fails--> MUTE: nothing more is sent; the peer has a moment to say goodbye
    OPEN | MUTE --peer is gone | closed by us--> CLOSED
"""

import asyncio
import enum
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
"""For a peer that does not answer a close, and for the goodbye of one that takes no writes."""
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
    """The socket is gone, cannot be written, or said nothing that makes it a call in time."""


class _State(enum.Enum):
    OPEN = "open"
    MUTE = "mute"
    CLOSED = "closed"


class PhoneLine:
    """A media socket that has been accepted."""

    def __init__(self, socket: Socket) -> None:
        """Wrap an accepted socket."""
        self._socket = socket
        self.stream = MediaStream()
        """The protocol's state, with its counters of faults."""
        self._state = _State.OPEN
        self.said_goodbye = False
        """Whether the stream was stopped: the caller hung up, or the call runs another document."""
        self._read_until_s: float | None = None
        """Set once the line is mute."""
        self._reading: asyncio.Timeout | None = None

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return self._state is _State.OPEN

    async def start(self, timeout_s: float) -> StartEvent:
        """Wait for the stream to start.

        Raises:
            LineClosedError: If the socket closed, cannot be written, or no `start` came within `timeout_s` seconds.
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
        """Yield what the caller's side sends, until it stops or the socket closes.

        Raises:
            LineClosedError: If a write failed and the peer did not leave.
        """
        async for event in self._events():
            if isinstance(event, StopEvent):
                self.said_goodbye = True
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
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        closing = asyncio.ensure_future(self._socket.close(code))
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_LIMIT_S)
        if not done:
            closing.cancel()
        elif error := closing.exception():
            logger.debug("media socket was already closed: {}", error)

    async def _events(self) -> AsyncIterator[MediaStreamEvent]:
        now_s = asyncio.get_running_loop().time
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._state = _State.CLOSED
                if message.get("code") == _TOO_BIG:  # the server would not read it, and closed
                    self.stream.count(MediaFault.OVERSIZED)
                return
            text = message.get("text")
            event = self.stream.receive(text if text is not None else message.get("bytes") or b"", now_s())
            if event is not None:
                yield event

    async def _receive(self) -> Mapping[str, Any]:
        """Return the peer's next message.

        Raises:
            LineClosedError: If the line is mute and the peer's time to leave is over.
        """
        until_s = self._read_until_s
        # The timeout below ends a wait and nothing else: what a talkative peer has sent already is there without one.
        if until_s is None or asyncio.get_running_loop().time() < until_s:
            try:
                async with asyncio.timeout_at(until_s) as self._reading:
                    return await self._socket.receive()
            except TimeoutError:
                pass
            except RuntimeError:  # Starlette's word for a receive after the disconnect
                return {"type": "websocket.disconnect"}
            finally:
                self._reading = None
        raise LineClosedError("a write failed")

    async def _send(self, message: str) -> None:
        if self._state is not _State.OPEN:
            return
        try:
            async with asyncio.timeout(WRITE_LIMIT_S):
                await self._socket.send_text(message)
        except TimeoutError:
            logger.warning("media socket took no data for {} s", WRITE_LIMIT_S)
            self._fall_mute()
        except Exception as error:  # noqa: BLE001 - the kinds differ between servers; each means the peer is gone
            logger.debug("media socket is gone: {}", error)
            self._fall_mute()

    def _fall_mute(self) -> None:
        if self._state is not _State.OPEN:  # the peer left, or we closed, while it was being written
            return
        self._state = _State.MUTE
        self._read_until_s = asyncio.get_running_loop().time() + CLOSE_LIMIT_S
        if self._reading is not None:
            self._reading.reschedule(self._read_until_s)
