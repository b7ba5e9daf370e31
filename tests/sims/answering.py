"""A tiny business line for tests of the Twilio sim: answers webhooks with TwiML and speaks on the media socket."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import orjson
from aiohttp import web

from sims.carrier import Human
from sims.mulaw import RATE_HZ, encode
from sims.profiles import PROFILES
from sims.report import CallReport
from sims.scenario import Scenario
from sims.speech import Speech, Word
from sims.spoken import SpokenIndex
from sims.twilio import TwilioSim

Agent = Callable[["Media"], Awaitable[None]]


def voiced(seconds: float, seed: int = 1) -> bytes:
    """Return s16le noise at 8 kHz, about -20 dBFS, audible from the first to the last sample."""
    samples = np.random.default_rng(seed).normal(0.0, 3000.0, int(seconds * RATE_HZ))
    samples[[0, -1]] = 6000
    return np.clip(samples, -32000, 32000).astype("<i2").tobytes()


WORD_S = 0.1


class NoiseSynthesizer:
    """Speaks every word as 0.1 s of its own noise: quick, and known to the sample."""

    async def speak(self, text: str, *, voice: str, rate_hz: int) -> Speech:
        words = text.split()
        pcm = b"".join(voiced(WORD_S, seed=sum(map(ord, voice + text)) + n) for n in range(len(words)))
        times = tuple(Word(word, n * WORD_S, (n + 1) * WORD_S) for n, word in enumerate(words))
        return Speech(text, voice, rate_hz, pcm, times)


@dataclass
class Media:
    """The server's end of one media socket."""

    socket: web.WebSocketResponse
    start: dict[str, object]
    stream_sid: str
    seen: list[dict[str, object]] = field(default_factory=list)
    """Messages that `until` passed over, media left out."""
    frames: list[bytes] = field(default_factory=list)
    """Caller audio."""

    async def play(self, ulaw: bytes) -> None:
        payload = base64.b64encode(ulaw).decode()
        await self.send({"event": "media", "streamSid": self.stream_sid, "media": {"payload": payload}})

    async def mark(self, name: str) -> None:
        await self.send({"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}})

    async def clear(self) -> None:
        await self.send({"event": "clear", "streamSid": self.stream_sid})

    async def send(self, message: Mapping[str, object]) -> None:
        await self.socket.send_str(orjson.dumps(message).decode())

    async def until(self, event: str) -> dict[str, object]:
        """Return the next message of this kind; raises ConnectionError when the socket ends first."""
        async for message in self.socket:
            content = orjson.loads(message.data)
            if content["event"] == "media":
                self.frames.append(base64.b64decode(content["media"]["payload"]))
            else:
                self.seen.append(content)
            if content["event"] == event:
                return content
        raise ConnectionError(f"socket closed before {event!r}")

    async def hear(self, seconds: float) -> None:
        """Read for a while."""
        for _ in range(round(seconds * 50)):
            await self.until("media")

    async def drain(self) -> None:
        """Read until the socket ends."""
        try:
            await self.until("never")
        except ConnectionError:
            return


@dataclass
class Received:
    """One webhook as it came."""

    path: str
    url: str
    form: dict[str, str]
    signature: str


class Answering:
    """Serves `documents` by path, and `agent` on /media; MEDIA and BASE in a document become its URLs."""

    def __init__(self, agent: Agent | None = None, **documents: str) -> None:
        self.documents = {f"/{name}": text for name, text in documents.items()}
        self.agent = agent
        self.received: list[Received] = []
        self.upgrades: list[Received] = []
        self.media: list[Media] = []
        self.delays: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self.base_url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/media", self._serve_media)
        app.router.add_route("*", "/{name:.*}", self._serve_document)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner:
            await self._runner.cleanup()

    @property
    def media_url(self) -> str:
        return self.base_url.replace("http", "ws") + "/media"

    def stream(self, *, connect: str = "", stream: str = "", inner: str = "", after: str = "") -> str:
        return (
            f'<Response><Connect {connect}><Stream url="{self.media_url}" {stream}>{inner}</Stream></Connect>'
            f"{after}</Response>"
        )

    def forms(self, path: str) -> list[dict[str, str]]:
        return [received.form for received in self.received if received.path == path]

    async def _serve_document(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        signature = request.headers.get("X-Twilio-Signature", "")
        self.received.append(Received(request.path, f"{self.base_url}{request.path_qs}", form, signature))
        await asyncio.sleep(self.delays.get(request.path, 0.0))
        text = self.documents.get(request.path)
        if text is None:
            return web.Response(status=404)
        return web.Response(
            text=text.replace("MEDIA", self.media_url).replace("BASE", self.base_url), content_type="text/xml"
        )

    async def _serve_media(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        self.upgrades.append(
            Received(request.path, self.media_url, dict(headers), headers["X-Twilio-Signature"])
        )
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        connected = orjson.loads((await socket.receive()).data)
        start = orjson.loads((await socket.receive()).data)
        assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        media = Media(socket, start, start["streamSid"])
        self.media.append(media)
        if self.agent:
            await self.agent(media)
        await socket.close()
        return socket


def scenario(*steps: Mapping[str, object], **options: object) -> Scenario:
    """Build a scenario in a line."""
    return Scenario.model_validate({"name": "test", "steps": steps, "max_s": 12.0} | options)


HEARS = {"expect": {"quiet_s": 0.15}}
"""An impatient step: wait until the agent has spoken."""
LEAVES = {"hang_up": True}
CALLER_LEAVES = scenario({"wait_s": 0.3}, LEAVES, ended_by="caller")


def says(text: str) -> dict[str, object]:
    """Return a step: answer quickly."""
    return {"say": {"text": text, "quiet_s": 0.15}}


def make_sim(profile: str = "instant", **options: object) -> TwilioSim:
    """Build a sim whose voices are noise."""
    return TwilioSim(
        PROFILES[profile],
        synthesizer=NoiseSynthesizer(),
        spoken_index=SpokenIndex(),
        **options,  # pyright: ignore[reportArgumentType] - passed on as given
    )


def agent_sound(seconds: float, seed: int = 7) -> bytes:
    """Return audible mu-law, different for each seed."""
    return encode(voiced(seconds, seed))


async def speak_and_listen(media: Media) -> None:
    await media.play(agent_sound(0.3))
    await media.drain()


async def eventually(is_met: Callable[[], bool]) -> None:
    """Wait until something is true, 5 s at most."""
    async with asyncio.timeout(5.0):
        while not is_met():  # noqa: ASYNC110 - watches what others do, without a hook
            await asyncio.sleep(0.01)


async def run_call(
    first: str, script: Scenario = CALLER_LEAVES, *, agent: Agent | None = None,
    humans: dict[str, Human] | None = None, fallback: str | None = None, **documents: str,
) -> tuple[CallReport, Answering]:  # fmt: skip
    """Run one inbound call whose first document is `first`."""
    async with make_sim() as sim, Answering(agent, voice=first, **documents) as line:
        sim.humans |= humans or {}
        report = await sim.place_call(
            script, voice_url=f"{line.base_url}/voice",  # pyright: ignore[reportArgumentType] - a scenario
            fallback_url=f"{line.base_url}/{fallback}" if fallback else None,
        )  # fmt: skip
        await asyncio.sleep(0.05)  # callbacks that follow the end
    return report, line
