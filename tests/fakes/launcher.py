"""The whole product on loopback in one event loop: every vendor a sim, the launcher under a real uvicorn."""

import asyncio
import contextlib
import functools
import gc
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

import server as server_module
from bot import resources as resources_module
from bot.call import Call
from bot.serve import MAX_MESSAGE_BYTES
from bot.settings import Settings
from bot.switchboard import Switchboard
from processors.speech_models import SpeechModels
from server import create_app
from sims.profiles import PROFILES
from sims.webhook import sign
from sims.world import SimWorld
from telephony import capacity
from telephony.capacity import LagLimits, LoopHealth
from tests.fakes import rendered_lines

ROOT = Path(__file__).parent.parent.parent
NUMBER = "+18506872085"
WAIT_S = 10.0
NOBODY_ELSE = {
    'handoff: {humans: ["+15551230000"], after_failed_turns: 2, voicemail: true}': "handoff: {voicemail: false}"
}
"""What to change in the shipped `agent.yaml` for calls that go to nobody, and end when they are given up."""


class Garbage:
    """The module `gc` as servers here see it: what was set apart stays so, for all of it is the tests', too."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def collect(self) -> None:
        self.asked.append("collect")
        gc.collect()

    def freeze(self) -> None:
        self.asked.append("freeze")
        gc.freeze()

    def unfreeze(self) -> None:
        self.asked.append("unfreeze")


class SharedModels(SpeechModels):
    """Loaded once for all servers of this process, which follow each other."""

    def close(self) -> None:
        """Leave them to the next one."""


@functools.cache
def shared_models() -> SharedModels:
    return SharedModels()


class QuietServer(uvicorn.Server):
    """Leaves the signals of the test run alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass(frozen=True)
class Served:
    """A running server as Twilio and an operator see it, in this process or in another."""

    world: SimWorld
    port: int
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def voice_url(self) -> str:
        return f"{self.url}/twilio/voice"

    @property
    def media_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/twilio/media"

    def signature(self, url: str, fields: Mapping[str, str] | None = None) -> str:
        return sign(self.world.twilio.auth_token, url, fields or {})

    def webhook(self, path: str, fields: Mapping[str, str]) -> Any:
        """Post as Twilio does: an aiohttp request context, signed."""
        url = f"{self.url}{path}"
        headers = {"X-Twilio-Signature": self.signature(url, fields)}
        return self.http.post(url, data=fields, headers=headers)

    async def ring(self, call_sid: str, *, called: str = NUMBER, moves: int = 0) -> str:
        """Post the voice webhook of a call, sent back `moves` times before; returns the TwiML."""
        fields = {"CallSid": call_sid, "From": "+15550100001", "To": called, "Direction": "inbound"}
        path = f"/twilio/voice?moves={moves}" if moves else "/twilio/voice"
        async with self.webhook(path, fields) as answer:
            assert answer.status == 200
            return await answer.text()

    async def metrics(self) -> Counter[str]:
        """Every sample as `name{label=value}`, without the prefix; labels sorted."""
        async with self.http.get(f"{self.url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        return Counter(
            {
                _sample_name(sample.name, sample.labels): int(sample.value)
                for family in families
                for sample in family.samples
                if not sample.name.endswith(("_bucket", "_sum", "_created"))
            }
        )


@dataclass(frozen=True)
class Launcher(Served):
    """One in this process, and what a test needs of its inside."""

    app: FastAPI
    settings: Settings
    garbage: Garbage

    @property
    def board(self) -> Switchboard:
        return self.app.state.board

    async def ended(self, call_sid: str) -> Call:
        """Wait until a call has ended and left its files, if its line ever came."""
        await eventually(lambda: self.board.find(call_sid) is not None)
        call = self.board.find(call_sid)
        assert call is not None
        async with asyncio.timeout(WAIT_S):
            await call.ended.wait()
        folder = call.setup.folder
        if folder is not None and call.times.line_s is not None:
            await eventually((folder / "transcript.txt").exists)
        return call


async def eventually(is_met: Callable[[], bool], limit_s: float = WAIT_S) -> None:
    """Wait until something holds that tells nobody.

    Raises:
        TimeoutError: If it does not come true in time.
    """
    async with asyncio.timeout(limit_s):
        while not is_met():  # noqa: ASYNC110 - that it has no event to wait for is the point
            await asyncio.sleep(0.01)


def _sample_name(name: str, labels: Mapping[str, str]) -> str:
    name = name.removeprefix("firstring_").removesuffix("_total")
    shown = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return f"{name}{{{shown}}}" if shown else name


@contextlib.asynccontextmanager
async def open_launcher(
    folder: Path, *, profile: str = "instant", port: int = 0, measures_room: bool = False, **settings: Any
) -> AsyncGenerator[Launcher]:
    """Serve until the block ends; ready for calls when it begins.

    Args:
        folder: Gets the database, recordings and caches.
        profile: Timing of the vendors.
        port: Where to listen; 0 picks a free one.
        measures_room: Whether it refuses calls for how late it is. In a process that is all vendors and callers, too,
            beside other tests, that says nothing.
        settings: More fields of `Settings`.
    """
    garbage = Garbage()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "gc", garbage)
        patch.setattr(resources_module, "SpeechModels", shared_models)
        if not measures_room:
            patch.setattr(server_module, "LoopHealth", functools.partial(LoopHealth, LagLimits(late_s=60.0)))
            patch.setattr(capacity, "LONGEST_BACKLOG_S", 60.0)
        async with _serve(folder, profile, port, settings, garbage) as launcher:
            yield launcher


@contextlib.asynccontextmanager
async def _serve(
    folder: Path, profile: str, port: int, settings: Mapping[str, Any], garbage: Garbage
) -> AsyncGenerator[Launcher]:
    async with SimWorld(profile=PROFILES["instant"], seed=1) as world:
        listening = socket.create_server(("127.0.0.1", port))
        await rendered_lines.lend(folder, world)
        complete = _settings(folder, world, listening.getsockname()[1], settings)
        app = create_app(complete)
        server = QuietServer(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="on",
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=5,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            # At once: rendering the fixed lines is not the test.
            await _wait_until_ready(app, server, serving)
            rendered_lines.keep(folder)
            for vendor in world.vendors:
                vendor.profile = PROFILES[profile]
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
                yield Launcher(world, complete.port, http, app, complete, garbage)
        finally:
            rendered_lines.release()
            server.should_exit = True
            await serving


def _settings(folder: Path, world: SimWorld, port: int, more: Mapping[str, Any]) -> Settings:
    env = world.env()
    vendors: dict[str, Any] = {
        name: {"api_key": "sim", "base_url": env[f"{name.upper()}_BASE_URL"]}
        for name in (
            "deepgram",
            "assemblyai",
            "anthropic",
            "openai",
            "groq",
            "fireworks",
            "elevenlabs",
            "cartesia",
        )
    }
    vendors["twilio"] = {
        "account_sid": env["TWILIO_ACCOUNT_SID"],
        "auth_token": env["TWILIO_AUTH_TOKEN"],
        "base_url": env["TWILIO_BASE_URL"],
    }
    own: dict[str, Any] = {
        "port": port,
        "agents_dir": ROOT / "flows",
        "database_url": f"sqlite:///{folder / 'first-ring.db'}",
        "recordings_url": folder / "recordings",
    }
    return Settings(_env_file=None, **{**own, **vendors, **more})  # pyright: ignore[reportCallIssue]


async def _wait_until_ready(app: FastAPI, server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(45):
        while not (server.started and app.state.is_warm):
            assert not serving.done(), "the launcher did not start"
            await asyncio.sleep(0.01)
