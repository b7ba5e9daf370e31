"""A browser without a page: an aiortc peer that calls the launcher, for tests of how such calls begin and end."""

import asyncio
import fractions
from typing import Any

import aiohttp
from aiortc import AudioStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame

_RATE_HZ = 48000
_FRAME_SAMPLES = 960  # 20 ms


class StoppableSilence(AudioStreamTrack):
    """Digital silence in real time, until it stops coming, as from a machine that was switched off."""

    def __init__(self) -> None:
        super().__init__()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._sent_samples = 0

    async def recv(self) -> AudioFrame:
        await self.flowing.wait()
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(_FRAME_SAMPLES / _RATE_HZ)
        frame = AudioFrame(format="s16", layout="mono", samples=_FRAME_SAMPLES)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = _RATE_HZ
        frame.pts = self._sent_samples
        frame.time_base = fractions.Fraction(1, _RATE_HZ)
        self._sent_samples += _FRAME_SAMPLES
        return frame


class BrowserClient:
    """One browser call."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection()
        self.microphone = StoppableSilence()
        self.pc.addTrack(self.microphone)
        self.pc.createDataChannel("rtvi")

    async def offer(self) -> str:
        """Return the SDP of an offer with everything in it."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def call(self, http: aiohttp.ClientSession, url: str, **request_data: Any) -> str:
        """Connect to the launcher at `url`; gives the call's SID."""
        body = {"sdp": await self.offer(), "type": "offer", "request_data": request_data}
        async with http.post(f"{url}/webrtc/offer", json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        return str(answer["call_sid"])

    async def close(self) -> None:
        """Hang up."""
        await self.pc.close()
