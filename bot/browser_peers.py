"""The WebRTC ends of browser calls: made from an offer, found again by their id, forgotten when closed.

Between the page's two requests and Pipecat's connection. Knows nothing of HTTP and nothing of calls: the
switchboard ends a call and closes its peer.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from aiortc import RTCInboundRtpStreamStats
from aiortc.sdp import SessionDescription, candidate_from_sdp
from loguru import logger
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

OFFER_LIMIT_S = 5.0
CLOSE_LIMIT_S = 2.0
VANISHED_AFTER_S = 8.0
"""A browser that has sent nothing for this long is gone; a muted one sends silence."""
_LOOK_EVERY_S = 1.0


class BadOfferError(Exception):
    """The browser's offer or candidate cannot be answered."""


class UnknownPeerError(Exception):
    """No open peer has this id."""


@dataclass(frozen=True)
class Candidate:
    """Where a browser may be reached."""

    line: str
    """As in SDP, with or without `candidate:`; empty at the end of the list (RFC 8840)."""
    mid: str | None
    line_index: int | None


class BrowserPeers:
    """The open peers of one process, by id."""

    def __init__(self) -> None:
        """Begin without any."""
        self._peers: dict[str, SmallWebRTCConnection] = {}

    def __len__(self) -> int:
        return len(self._peers)

    async def open(self, sdp: str) -> SmallWebRTCConnection:
        """Answer a first offer; whoever gets the peer has to close it.

        Raises:
            BadOfferError: If it is not an offer of audio that can be answered; nothing is left open then.
        """
        peer = SmallWebRTCConnection()
        try:
            async with _answering(sdp):
                await peer.initialize(sdp, "offer")
        except BaseException:
            await close_peer(peer)
            raise
        self._peers[peer.pc_id] = peer
        peer.add_event_handler("closed", self._forget)
        return peer

    async def renegotiate(self, pc_id: str, sdp: str) -> SmallWebRTCConnection:
        """Answer a later offer of an open peer.

        Raises:
            UnknownPeerError: If it is not open.
            BadOfferError: If the offer cannot be answered; the peer stays as it was.
        """
        peer = self._find(pc_id)
        async with _answering(sdp):
            await peer.renegotiate(sdp, "offer")
        return peer

    async def add_candidates(self, pc_id: str, candidates: Sequence[Candidate]) -> None:
        """Tell an open peer where its browser may be reached.

        Raises:
            UnknownPeerError: If it is not open.
            BadOfferError: If a candidate is none; those before it count.
        """
        peer = self._find(pc_id)
        for candidate in candidates:
            try:
                await peer.add_ice_candidate(_parsed(candidate))
            except Exception as error:  # whatever the parser stumbles over
                raise BadOfferError("A candidate could not be read.") from error

    def _find(self, pc_id: str) -> SmallWebRTCConnection:
        peer = self._peers.get(pc_id)
        if peer is None:
            raise UnknownPeerError("This call has ended, or was never here.")
        return peer

    async def _forget(self, peer: SmallWebRTCConnection) -> None:
        self._peers.pop(peer.pc_id, None)


async def close_peer(peer: SmallWebRTCConnection) -> None:
    """Close a peer and its sockets; once is enough, twice does no harm. Never raises."""
    try:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await peer.disconnect()
    except Exception as error:  # noqa: BLE001 - the far end may be gone in any way
        logger.warning("a browser's peer did not close: {}", error or type(error).__name__)


async def until_vanished(peer: SmallWebRTCConnection) -> None:
    """Return when a browser that had sent audio has stopped sending; ICE takes half a minute to notice."""
    packets, quiet_s = 0, 0.0
    while quiet_s < VANISHED_AFTER_S:
        await asyncio.sleep(_LOOK_EVERY_S)
        received = await _packets_received(peer)
        quiet_s = quiet_s + _LOOK_EVERY_S if 0 < received == packets else 0.0
        packets = received
    logger.warning("no packet from the browser for {} s: it is gone", VANISHED_AFTER_S)


async def _packets_received(peer: SmallWebRTCConnection) -> int:
    stats = await peer.pc.getStats()
    return sum(one.packetsReceived for one in stats.values() if isinstance(one, RTCInboundRtpStreamStats))


@contextlib.asynccontextmanager
async def _answering(sdp: str) -> AsyncGenerator[None]:
    """Bound the making of an answer, and make one error of all that a strange offer can cause."""
    try:
        _check_microphone(sdp)
        async with asyncio.timeout(OFFER_LIMIT_S):
            yield
    except Exception as error:
        logger.debug("offer refused: {}", type(error).__name__)  # its text would repeat what the browser sent
        raise BadOfferError("The offer could not be read: it is not WebRTC as browsers speak it.") from error


def _check_microphone(sdp: str) -> None:
    media = SessionDescription.parse(sdp).media
    if not media or media[0].kind != "audio":
        raise ValueError(
            "no audio first"
        )  # Pipecat takes the first line for the microphone; aiortc takes none


def _parsed(candidate: Candidate) -> Any:
    if not candidate.line:
        return None  # the end of the list, as aiortc wants it
    parsed = candidate_from_sdp(candidate.line.removeprefix("candidate:"))
    parsed.sdpMid = candidate.mid
    parsed.sdpMLineIndex = candidate.line_index
    return parsed
