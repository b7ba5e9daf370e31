"""`bot(runner_args)` takes what a runner hands over: a phone's socket, a browser's peer, nothing else."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from pipecat.evals.serializer import EvalConnectionFlags, eval_connect_message
from pipecat.evals.session import EvalSession
from pipecat.runner.types import (
    DailyRunnerArguments,
    RunnerArguments,
    SmallWebRTCRunnerArguments,
    WebSocketRunnerArguments,
)
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

import bot.bot as module
from bot.bot import bot, close_process
from bot.errors import ConfigurationError, SettingsError
from bot.evals import eval_cases
from bot.settings import setting_names
from sims.profiles import PROFILES
from sims.scenario import Scenario
from sims.world import SimWorld
from tests.bot.agent_files import AGENT, write_agent
from tests.fakes.launcher import ROOT, eventually
from tests.fakes.media_socket import FORMAT, STREAM
from tests.fakes.runner import open_runner
from tests.scheduling import starting

pytestmark = pytest.mark.real_time

NO_THANKS = Scenario.model_validate(
    {
        "name": "no_thanks",
        "ended_by": "agent",  # by REST: behind the stream the runner's TwiML has a long pause
        "steps": [
            {"expect": {"agent": "finishes", "within_s": 8}},
            {"say": "No thank you goodbye."},
        ],
    }
)
CALL_SID = "CA" + "1" * 32


@pytest.fixture(autouse=True)
async def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncGenerator[None]:
    """The settings of nobody, files of this test, and no process-wide rest of it."""
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # no .env
    monkeypatch.setenv("AGENTS_DIR", str(ROOT / "flows"))
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'first-ring.db'}")
    monkeypatch.setenv("RECORDINGS_URL", str(tmp_path / "recordings"))
    yield
    await close_process()


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[SimWorld]:
    """Every vendor a sim, and the environment that says so."""
    async with SimWorld(profile=PROFILES["instant"], seed=1) as world:
        for name, value in world.env().items():
            monkeypatch.setenv(name, value)
        for vendor in ("DEEPGRAM", "ASSEMBLYAI", "ANTHROPIC", "ELEVENLABS", "CARTESIA"):
            monkeypatch.setenv(f"{vendor}_API_KEY", "sim")
        yield world


async def test_a_phone_call_from_ring_to_goodbye(world: SimWorld, tmp_path: Path) -> None:
    async with open_runner(bot) as runner:
        report = await world.twilio.place_call(NO_THANKS, voice_url=runner.url)
        await asyncio.gather(*runner.bots)
    assert report.outcome == "ok", report.reasons
    [folder] = (tmp_path / "recordings").iterdir()
    assert {file.name for file in folder.iterdir()} == {"audio.wav", "timeline.json", "transcript.txt"}
    transcript = (folder / "transcript.txt").read_text()
    assert "Northside Dental" in transcript
    assert "no thank you" in transcript.lower()


async def test_a_browser_hears_the_greeting_and_may_go(world: SimWorld) -> None:
    browser = RTCPeerConnection()
    tracks: asyncio.Queue[Any] = asyncio.Queue()
    browser.on("track", tracks.put_nowait)
    browser.addTrack(AudioStreamTrack())
    browser.createDataChannel("rtvi")
    await browser.setLocalDescription(await browser.createOffer())
    connection = SmallWebRTCConnection()
    await connection.initialize(sdp=browser.localDescription.sdp, type=browser.localDescription.type)
    taking = asyncio.create_task(bot(SmallWebRTCRunnerArguments(webrtc_connection=connection)))
    answer: Any = connection.get_answer()
    await browser.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    await connection.connect()
    async with asyncio.timeout(10):
        track = await tracks.get()
        while np.abs((await track.recv()).to_ndarray()).max() < 1000:
            pass
        await browser.close()
        await taking


@pytest.mark.parametrize("evals", ["off", "on"])  # on: its first message was looked at and must not be lost
async def test_a_runner_that_cancels_a_call_ends_it_whole(
    evals: str, world: SimWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALS", evals)
    before, threads = asyncio.all_tasks(), threading.enumerate()
    async with open_runner(bot) as runner, aiohttp.ClientSession() as http:
        async with http.ws_connect(runner.socket_url) as line:
            await line.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
            await line.send_json(_start())
            assert (await line.receive_json(timeout=10))[
                "event"
            ] == "mark"  # the round trip is measured first
            assert (await line.receive_json(timeout=10))["event"] == "media"
            runner.bots[0].cancel()
            async with asyncio.timeout(5):
                async for _ in line:
                    pass
                await asyncio.wait({runner.bots[0]})
        assert runner.bots[0].cancelled()
    await close_process()
    async with asyncio.timeout(2):  # a socket's last messages
        while left := [task for task in asyncio.all_tasks() - before if not task.done()]:
            await asyncio.wait(left, timeout=0.1)
    assert [
        thread.name
        for thread in threading.enumerate()
        if thread.name in ("voice-model", "recordings") and thread not in threads
    ] == []


@pytest.mark.parametrize("evals", ["off", "on"])
async def test_who_does_not_say_what_it_is_is_closed(
    evals: str, world: SimWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALS", evals)
    monkeypatch.setattr(module, "START_LIMIT_S", 0.2)
    async with open_runner(bot) as runner, aiohttp.ClientSession() as http:
        async with http.ws_connect(runner.socket_url) as line:
            assert (await line.receive(timeout=10)).data == 1008
        await asyncio.gather(*runner.bots)


async def test_a_harness_is_nobody_unless_evals_are_on(
    world: SimWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "START_LIMIT_S", 0.2)
    async with (
        open_runner(bot) as runner,
        aiohttp.ClientSession() as http,
        http.ws_connect(runner.socket_url) as line,
    ):
        await line.send_str(eval_connect_message(EvalConnectionFlags(skip_tts=True)))
        assert (await line.receive(timeout=10)).data == 1008


@pytest.mark.parametrize(
    "arguments", [RunnerArguments(), DailyRunnerArguments(room_url="https://rooms.example", token="t")]
)
async def test_another_transport_is_refused_by_name(arguments: RunnerArguments) -> None:
    with pytest.raises(TypeError, match=f"media socket.* got {type(arguments).__name__}$"):
        await bot(arguments)


async def test_every_missing_key_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMS", "off")
    with pytest.raises(SettingsError) as refused:
        await bot(_socket_arguments())
    assert [fault.partition(":")[0] for fault in refused.value.faults] == [
        f"{vendor}_API_KEY" for vendor in ("DEEPGRAM", "ASSEMBLYAI", "ANTHROPIC", "ELEVENLABS", "CARTESIA")
    ], "the telephone is the runner's"


async def test_the_body_names_the_agent(world: SimWorld) -> None:
    with pytest.raises(ConfigurationError, match="no agent 'nobody'; there is: reception"):
        await bot(_socket_arguments(body={"agent": "nobody"}))


async def test_of_several_agents_one_must_be_named(
    world: SimWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for slug, number in (("east", "+18506872086"), ("west", "+18506872087")):
        write_agent(tmp_path / "two" / slug, agent=AGENT.replace("+18506872085", number))
    monkeypatch.setenv("AGENTS_DIR", str(tmp_path / "two"))
    with pytest.raises(ConfigurationError, match='name one as "agent" in the body; there is: east, west'):
        await bot(_socket_arguments())


async def test_calls_that_come_at_once_share_one_set_of_models(world: SimWorld) -> None:
    first, second = await asyncio.gather(module._process.taker(), module._process.taker())
    assert first is second
    await close_process()
    assert await module._process.taker() is not first


async def test_pipecats_development_runner_finds_it_and_takes_a_phone_and_a_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a developer starts it: another process, no key, so the vendors are sims that it starts itself."""
    monkeypatch.setenv("EVALS", "on")
    [hours] = [case for case in eval_cases(ROOT / "flows") if case.name.startswith("hours/")]
    async with _development_runner() as port, aiohttp.ClientSession() as http:
        async with http.ws_connect(f"ws://127.0.0.1:{port}/ws") as line:
            await line.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
            await line.send_json(_start())
            while (await line.receive_json(timeout=10))["event"] != "media":
                pass
        await eventually((tmp_path / "recordings" / CALL_SID / "timeline.json").exists)
        question = replace(hours.scenario, turns=hours.scenario.turns[:1])
        result = await EvalSession.from_scenario(question, f"ws://127.0.0.1:{port}/ws").run()
    assert result.passed, "\n".join(result.debug_log)


def test_what_sims_print_becomes_fields_of_the_settings() -> None:
    printed = {"SIMS": "auto", "DEEPGRAM_BASE_URL": "ws://127.0.0.1:1", "DEEPGRAM_API_KEY": "sim"}
    assert module._overrides(printed) == {
        "sims": "auto",
        "deepgram": {"base_url": "ws://127.0.0.1:1", "api_key": "sim"},
    }


@contextlib.asynccontextmanager
async def _development_runner() -> AsyncGenerator[int]:
    """Run `python -m pipecat.runner.run` in this test's folder until the block ends; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON_DOTENV_DISABLED": "1"}
    with starting():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "pipecat.runner.run", "--host", "127.0.0.1", "--port", str(port)),
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as http:
            while not await _is_serving(http, port):
                assert process.returncode is None, "the runner did not start"
                await asyncio.sleep(0.05)
        yield port
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 5) in (0, -signal.SIGTERM)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _is_serving(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/status") as answer:
            return answer.status == 200
    except aiohttp.ClientError:  # nothing listens yet
        return False


def _socket_arguments(body: Any = None) -> RunnerArguments:
    socket: Any = None  # refused before anything is read
    return WebSocketRunnerArguments(websocket=socket, body=body)


def _start() -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": STREAM,
        "start": {
            "streamSid": STREAM,
            "accountSid": "AC" + "0" * 32,
            "callSid": CALL_SID,
            "tracks": ["inbound"],
            "mediaFormat": FORMAT,
            "customParameters": {},
        },
    }
