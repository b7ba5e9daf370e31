"""`firstring call`: one scripted call through the sims, from ring to report.

Starts what it needs beside us (sims, then the launcher, each a process of its own), has a scripted person call,
and puts what the caller's end measured beside what the agent's end recorded.
"""

import asyncio
import contextlib
import dataclasses
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from loguru import logger
from rich.console import Console

from bot.agent import load_agents
from bot.settings import Settings, child_environment
from bot.sim_calls import SimCallError, is_sim, place_sim_call, wait_for_report
from bot.timeline import (
    CallerEnd,
    CallTimeline,
    print_timeline,
    read_timeline,
    write_timeline,
    write_transcript,
)

READY_LIMIT_S = 60.0
CALL_LIMIT_S = 180.0
FILES_LIMIT_S = 10.0
_STOP_LIMIT_S = 5.0


def run_trial_call(
    settings: Settings,
    *,
    environment: Mapping[str, str],
    scenario: str,
    as_json: bool,
    runs_dir: Path = Path("runs"),
) -> int:
    """Play one call and print its timeline, or its report as JSON.

    Args:
        settings: Checked, those of the sims included.
        environment: Settings that the sims brought along, for the launcher's process.
        scenario: What the caller does.
        as_json: Print JSON instead.
        runs_dir: Gets a folder named after the call.

    Returns:
        The exit code: 0 if the call went as its scenario expects.
    """
    console = Console(stderr=True)
    if not is_sim(settings.twilio.base_url):
        console.print(
            "A test call needs the sims, and the telephone in the settings is a real one. Try: SIMS=on make call",
            soft_wrap=True,
        )
        return 1
    port = _free_port()
    data = runs_dir / f".server-{port}"
    extra = {"PORT": str(port), "RECORDINGS_URL": str(data), "WORKERS": "1", "LOG_LEVEL": "WARNING"}
    try:
        with _launcher({**environment, **extra}):
            report, folder = asyncio.run(_call(settings, port, scenario, data, runs_dir))
    except SimCallError as error:
        console.print(f"the call could not be made: {error}")
        return 1
    finally:
        shutil.rmtree(data, ignore_errors=True)
    timeline = read_timeline(folder / "timeline.json")
    if as_json:
        sys.stdout.write(json.dumps({"folder": str(folder), **report}, indent=2) + "\n")
    else:
        print_timeline(timeline)
        Console().print(f"audio, timeline and transcript: {folder}/", highlight=False)
    return 0 if report.get("outcome") == "ok" else 1


async def _call(
    settings: Settings, port: int, scenario: str, data: Path, runs_dir: Path
) -> tuple[Mapping[str, Any], Path]:
    await _wait_until_ready(port)
    called = await _first_number(settings)
    recording = runs_dir / f".caller-{port}"
    try:
        call_sid = await place_sim_call(
            settings.twilio.base_url,
            scenario=scenario,
            voice_url=f"http://127.0.0.1:{port}/twilio/voice",
            called=called,
            out_dir=recording.resolve(),
        )
        report = await wait_for_report(settings.twilio.base_url, call_sid, limit_s=CALL_LIMIT_S)
        folder = runs_dir / call_sid
        timeline = await _agents_timeline(data / call_sid / "timeline.json", report)
        report = await asyncio.to_thread(_keep, folder, report, timeline)
    finally:
        shutil.rmtree(recording, ignore_errors=True)
    return report, folder


def _keep(folder: Path, report: Mapping[str, Any], timeline: CallTimeline) -> Mapping[str, Any]:
    """Put the caller's recording and both ends' records into one folder; return the report, which names it."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = dataclasses.replace(timeline, caller_end=CallerEnd.from_report(report))
    write_timeline(folder / "timeline.json", whole)
    write_transcript(folder / "transcript.txt", whole)
    if wav := report.get("wav"):
        shutil.move(str(wav), folder / "call.wav")
        report = {**report, "wav": str(folder / "call.wav")}
    (folder / "caller.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


async def _agents_timeline(path: Path, report: Mapping[str, Any]) -> CallTimeline:
    """Read what the launcher writes when it has let go of the call."""
    try:
        async with asyncio.timeout(FILES_LIMIT_S):
            while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.1)
    except TimeoutError:
        reasons = "; ".join(map(str, report.get("reasons", ()))) or "the caller saw nothing wrong"
        raise SimCallError(f"the agent's end left no record of it; {reasons}") from None
    return await asyncio.to_thread(read_timeline, path)


async def _first_number(settings: Settings) -> str | None:
    agents = await asyncio.to_thread(load_agents, settings.agents_dir)
    return next((number for agent in agents.values() for number in agent.config.numbers), None)


async def _wait_until_ready(port: int) -> None:
    try:
        async with asyncio.timeout(READY_LIMIT_S), aiohttp.ClientSession() as session:
            while not await _is_ready(session, port):  # noqa: ASYNC110 - another process starts
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise SimCallError(f"the launcher was not ready after {READY_LIMIT_S:g} s") from None


async def _is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:  # nothing listens yet
        return False


@contextlib.contextmanager
def _launcher(environment: Mapping[str, str]) -> Generator[None]:
    """Run `firstring serve` on settings that are complete, and end it with us."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bot.cli", "serve"],
        env=child_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None,  # warnings of the agent's end belong to the person who tries it
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            logger.warning("the launcher did not stop in {} s and is killed", _STOP_LIMIT_S)
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
