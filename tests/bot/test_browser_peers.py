import asyncio
import os
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.browser_peers import BadOfferError, BrowserPeers, Candidate, UnknownPeerError, close_peer
from tests.fakes.browser_client import BrowserClient

pytestmark = pytest.mark.real_time


@pytest_asyncio.fixture
async def client() -> AsyncGenerator[BrowserClient]:
    client = BrowserClient()
    yield client
    await client.close()


async def closed(peers: BrowserPeers, peer: SmallWebRTCConnection) -> None:
    await close_peer(peer)
    async with asyncio.timeout(2):
        while len(peers):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


async def test_a_closed_peer_is_forgotten_and_leaves_no_socket(client: BrowserClient) -> None:
    peers = BrowserPeers()
    sdp = await client.offer()
    before = len(os.listdir("/proc/self/fd"))
    peer = await peers.open(sdp)
    assert len(peers) == 1
    assert len(os.listdir("/proc/self/fd")) > before
    await closed(peers, peer)
    await close_peer(peer)  # twice does no harm
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(UnknownPeerError):
        await peers.renegotiate(peer.pc_id, sdp)


async def test_a_refused_offer_leaves_no_socket(client: BrowserClient) -> None:
    peers = BrowserPeers()
    sdp = await client.offer()
    before = len(os.listdir("/proc/self/fd"))
    for bad in ("v=0\r\n", sdp.replace("m=audio", "m=video")):
        with pytest.raises(BadOfferError):
            await peers.open(bad)
    assert len(peers) == 0
    assert len(os.listdir("/proc/self/fd")) == before


async def test_nonsense_about_an_open_peer_is_refused_and_the_peer_stays(client: BrowserClient) -> None:
    peers = BrowserPeers()
    peer = await peers.open(await client.offer())
    with pytest.raises(BadOfferError):
        await peers.renegotiate(peer.pc_id, "nonsense")
    with pytest.raises(BadOfferError, match="candidate"):
        await peers.add_candidates(peer.pc_id, [Candidate("candidate:1 1 udp", "0", 0)])
    await peers.add_candidates(
        peer.pc_id,
        [
            Candidate("candidate:1 1 udp 2113937151 127.0.0.1 40000 typ host", "0", 0),
            Candidate("", "0", 0),
        ],
    )
    assert len(peers) == 1
    await closed(peers, peer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sdp=st.text(max_size=200)
    | st.lists(st.sampled_from(["v=0", "m=audio", "m=", "a=", "a=mid:", "c=IN", "t=0"])).map("\r\n".join)
)
def test_whatever_is_offered_is_answered_with_one_error(sdp: str) -> None:
    async def offered() -> None:
        with pytest.raises(BadOfferError):
            await BrowserPeers().open(sdp)

    asyncio.run(offered())
