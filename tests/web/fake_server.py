"""First Ring's HTTP surface as the page sees it, scripted by a test.

Serves the real `web/` folder and speaks the page's contract: calls as JSON, a recording as WAV, and a real aiortc
peer that sends a tone and RTVI messages and listens to the browser's microphone. Never imports the product.
"""

import asyncio
import fractions
import math
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
import orjson
from aiohttp import web
from aiortc import (
    AudioStreamTrack,
    MediaStreamTrack,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp

WEB_DIR = Path(__file__).resolve().parents[2] / "web"
PATIENCE_S = 10.0
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_RATE_HZ = 48000
_FRAME_SAMPLES = 960  # 20 ms


class ToneTrack(AudioStreamTrack):
    """A steady 440 Hz tone at about -10 dBFS: s16 mono, 48 kHz, 20 ms frames."""

    def __init__(self) -> None:
        super().__init__()
        self._position_samples = 0
        self._started_at_s: float | None = None

    async def recv(self) -> av.AudioFrame:
        """Give the next frame at its time."""
        loop = asyncio.get_running_loop()
        if self._started_at_s is None:
            self._started_at_s = loop.time()
        due_s = self._started_at_s + self._position_samples / _RATE_HZ
        await asyncio.sleep(max(0.0, due_s - loop.time()))
        times = np.arange(self._position_samples, self._position_samples + _FRAME_SAMPLES) / _RATE_HZ
        samples = (10000 * np.sin(2 * np.pi * 440 * times)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = _RATE_HZ
        frame.pts = self._position_samples
        frame.time_base = fractions.Fraction(1, _RATE_HZ)
        self._position_samples += _FRAME_SAMPLES
        return frame


class FakePeer:
    """The agent's end of one browser call."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection()
        self.pc_id = f"peer-{id(self):x}"
        self.received: list[dict[str, Any]] = []
        self.late_candidates: list[str] = []
        self.ready = asyncio.Event()
        self.closed = asyncio.Event()
        self.level_dbfs = -99.0
        """Loudness of the microphone's last 20 ms."""
        self._channel: RTCDataChannel | None = None
        self._listening: asyncio.Task[None] | None = None
        self.pc.on("datachannel", self._on_datachannel)
        self.pc.on("track", self._on_track)
        self.pc.on("connectionstatechange", self._on_state)

    async def answer(self, offer: Mapping[str, Any]) -> dict[str, str]:
        """Take the browser's offer; gives the answer of the contract."""
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp=offer["sdp"], type=offer["type"]))
        if not any(sender.track for sender in self.pc.getSenders()):
            self.pc.addTrack(ToneTrack())
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        description = self.pc.localDescription
        return {"sdp": description.sdp, "type": description.type, "pc_id": self.pc_id}

    async def add_candidate(self, line: str, mid: str, index: int) -> None:
        """Take a candidate that came after the offer."""
        self.late_candidates.append(line)
        if line:
            candidate = candidate_from_sdp(line.removeprefix("candidate:"))
            candidate.sdpMid, candidate.sdpMLineIndex = mid, index
            await self.pc.addIceCandidate(candidate)

    def tell(self, kind: str, **data: object) -> None:
        """Send one RTVI message."""
        message: dict[str, Any] = {"label": "rtvi-ai", "type": kind}
        if data:
            message["data"] = data
        self.send_text(orjson.dumps(message).decode())

    def say(self, text: str) -> None:
        """Report words as heard, one message each, as Pipecat does."""
        for word in text.split():
            self.tell("bot-tts-text", text=word)

    def hear(self, text: str, *, final: bool) -> None:
        """Report what the caller said, on both channels, as Pipecat 1.14 does."""
        words = {"text": text, "final": final, "timestamp": "2026-01-01T00:00:00Z", "user_id": "u"}
        self.tell("user-input", input_type="transcription", **words)
        self.tell("user-transcription", **words)

    def send_text(self, text: str) -> None:
        """Send anything over the data channel."""
        assert self._channel is not None
        self._channel.send(text)

    async def leave(self) -> None:
        """Hang up as Pipecat does: say so, then close."""
        self.send_text('{"type":"signalling","message":{"type":"peerLeft"}}')
        await asyncio.sleep(0.05)
        await self.close()

    async def close(self) -> None:
        """Release the peer and its listener."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening], timeout=1)
        await self.pc.close()
        self.closed.set()

    def _on_datachannel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._on_message)

    def _on_message(self, text: str) -> None:
        message = orjson.loads(text)
        self.received.append(message)
        if message.get("type") == "client-ready":
            self.ready.set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._listening = asyncio.create_task(self._listen(track))

    async def _listen(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.AudioFrame):
                samples = frame.to_ndarray().astype(np.float64)
                self.level_dbfs = 20 * math.log10(math.sqrt(float(np.mean(samples**2))) / 32768 + 1e-6)

    def _on_state(self) -> None:
        if self.pc.connectionState in ("closed", "failed"):
            self.closed.set()


def write_silence(path: Path, duration_s: float) -> Path:
    """Write a stereo recording, s16le, 8 kHz; gives the path back."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(4 * int(duration_s * 8000)))
    return path


class FakeServer:
    """The page's server on a free loopback port; use as an async context manager."""

    def __init__(self) -> None:
        self.url = ""
        self.sims = True
        self.calls: dict[str, dict[str, Any]] = {}
        self.recordings: dict[str, Path] = {}
        self.test_calls: list[dict[str, Any]] = []
        self.refusal: tuple[int, dict[str, str]] | None = None
        """Answer every POST with this status and body instead."""
        self.peers: asyncio.Queue[FakePeer] = asyncio.Queue(maxsize=100)
        self._peers_by_id: dict[str, FakePeer] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        """Serve."""
        app = web.Application(middlewares=[_secure])
        app.router.add_get("/", self._index)
        app.router.add_get("/client", self._index)
        app.router.add_static("/static", WEB_DIR)
        app.router.add_post("/webrtc/offer", self._offer)
        app.router.add_patch("/webrtc/offer", self._candidates)
        app.router.add_post("/api/test-call", self._test_call)
        app.router.add_get("/api/calls", self._list)
        app.router.add_get("/api/calls/{sid}", self._detail)
        app.router.add_get("/api/calls/{sid}/audio.wav", self._audio)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every peer and the port."""
        await asyncio.gather(*(peer.close() for peer in self._peers_by_id.values()))
        if self._runner is not None:
            await self._runner.cleanup()

    async def peer(self) -> FakePeer:
        """The next browser that connected and said it is ready."""
        async with asyncio.timeout(PATIENCE_S):
            peer = await self.peers.get()
            await peer.ready.wait()
        return peer

    async def _index(self, _: web.Request) -> web.FileResponse:
        return web.FileResponse(WEB_DIR / "index.html")

    async def _offer(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            return _json(self.refusal[1], status=self.refusal[0])
        offer = orjson.loads(await request.read())
        known = self._peers_by_id.get(offer.get("pc_id", ""))
        peer = known or FakePeer()
        answer = await peer.answer(offer)
        self._peers_by_id[peer.pc_id] = peer
        if known is None:
            self.peers.put_nowait(peer)
        return _json(answer)

    async def _candidates(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        peer = self._peers_by_id[body["pc_id"]]
        for one in body["candidates"]:
            await peer.add_candidate(one["candidate"], one["sdp_mid"], one["sdp_mline_index"])
        return _json({"status": "success"})

    async def _test_call(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            return _json(self.refusal[1], status=self.refusal[0])
        self.test_calls.append(orjson.loads(await request.read()))
        return _json({"call_sid": next(iter(self.calls))}, status=202)

    async def _list(self, _: web.Request) -> web.Response:
        rows = [
            {**call, "turns": len(call["turns"]), "transcript": None}
            for call in reversed(self.calls.values())
        ]
        return _json({"calls": rows, "sims": self.sims})

    async def _detail(self, request: web.Request) -> web.Response:
        call = self.calls.get(request.match_info["sid"])
        return _json({"error": "There is no such call."}, status=404) if call is None else _json(call)

    async def _audio(self, request: web.Request) -> web.StreamResponse:
        path = self.recordings.get(request.match_info["sid"])
        if path is None:
            return _json({"error": "Not recorded yet."}, status=404)
        return web.FileResponse(path)  # answers ranges: a browser cannot seek without


@web.middleware
async def _secure(request: web.Request, handler: Any) -> web.StreamResponse:
    response: web.StreamResponse = await handler(request)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


def _json(body: object, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
