"""How a call is put on the line it came by: a phone's media socket, or the track of a Pipecat transport.

Shared by the launcher's switchboard and by `bot()`. Never decides who gets in, and never why a call ends beyond
"its line is gone" and "its line failed".
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from loguru import logger
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

from bot.browser_wire import AudioOutput, BrowserWire
from bot.call import Call
from bot.call_life import EndReason
from bot.resources import BROWSER_RATE_HZ
from telephony import ulaw
from telephony.media import DtmfEvent, MediaEvent
from telephony.phone_line import PhoneLine


async def hold_phone_line(call: Call, line: PhoneLine) -> None:
    """Put a call on its started media socket; returns when the call has ended and the socket is closed."""
    try:
        await _hold(call, _listen(call, line), lambda: _over(line))
    finally:
        await line.close()


async def _listen(call: Call, line: PhoneLine) -> None:
    await call.put_on(line)
    async for event in line.events():
        if isinstance(event, MediaEvent):
            await call.hear(ulaw.decode(event.ulaw))
        elif isinstance(event, DtmfEvent):
            await call.press(event.digit)
        else:
            call.mark_played(event.name)


def _over(line: PhoneLine) -> EndReason:
    """Why a phone's line is over: only a caller who hangs up has Twilio say goodbye."""
    return EndReason.CALLER_HUNG_UP if line.said_goodbye else EndReason.LINE_LOST


async def _hold(
    call: Call,
    work: Coroutine[Any, Any, None],
    over_because: Callable[[], EndReason] = lambda: EndReason.CALLER_HUNG_UP,
) -> None:
    """Do a line's work until the call has ended; work that ends first, well or not, ends the call."""
    working = asyncio.ensure_future(work)
    over = asyncio.ensure_future(call.ended.wait())
    try:
        await asyncio.wait({working, over}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            call.end(_reason_of(working, over_because))
        await over
    finally:
        working.cancel()
        over.cancel()


def _reason_of(working: "asyncio.Future[None]", over_because: Callable[[], EndReason]) -> EndReason:
    if working.cancelled():
        return EndReason.FAILED
    if error := working.exception():
        logger.opt(exception=error).error("the line failed: {}", error)
        return EndReason.FAILED
    return over_because()


def browser_transport(connection: SmallWebRTCConnection) -> SmallWebRTCTransport:
    """Return the transport of a browser's peer connection, audio both ways."""
    return SmallWebRTCTransport(
        connection,
        TransportParams(audio_in_enabled=True, audio_out_enabled=True, audio_out_sample_rate=BROWSER_RATE_HZ),
    )


class TrackLine:
    """A call on a Pipecat transport with an audio track: a browser's, or that of an eval harness.

    Make it before the call's pipeline starts: a client may be there at that moment.
    """

    def __init__(self, call: Call, transport: BaseTransport, output: AudioOutput) -> None:
        """Follow the transport's client.

        Args:
            call: Has the transport's two ends in its `CallSetup`, and its rate.
            transport: Has `on_client_connected` and `on_client_disconnected`.
            output: The transport's output.
        """
        self._call = call
        self._wire = BrowserWire(output, rate_hz=call.setup.rate_hz, on_played=call.mark_played)
        transport.add_event_handler("on_client_connected", self._on_connected)
        transport.add_event_handler("on_client_disconnected", self._on_disconnected)

    async def hold(self) -> None:
        """Play what the agent says; returns when the call has ended."""
        await _hold(self._call, self._wire.run())

    async def _on_connected(self, *_: Any) -> None:
        await self._call.put_on(self._wire)

    async def _on_disconnected(self, *_: Any) -> None:
        self._call.end(EndReason.CALLER_HUNG_UP)
