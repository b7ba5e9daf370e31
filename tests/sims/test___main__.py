"""The command line, as the product starts it: a process of its own."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.sims.answering import Answering, Media, agent_sound

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def served(folder: Path) -> AsyncGenerator[tuple[Process, dict[str, str]]]:
    """Run `python -m sims serve` until the block is left."""
    command = [sys.executable, "-m", "sims", "serve", "--profile", "instant", "--cache-dir", str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, cwd=ROOT)
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(40):
            yield process, orjson.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        if process.returncode is None:
            async with asyncio.timeout(20):
                await process.wait()


async def run_call(env: dict[str, str], *arguments: str) -> tuple[int | None, dict[str, object]]:
    command = [sys.executable, "-m", "sims", "call", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, cwd=ROOT, env=os.environ | env)
    output, _ = await process.communicate()
    return process.returncode, orjson.loads(output or b"{}")


async def test_serves_places_calls_and_ends_when_its_owner_is_gone(tmp_path: Path) -> None:
    async def agent(media: Media) -> None:
        await media.play(agent_sound(2.0))
        await media.drain()

    async with served(tmp_path) as (process, env), Answering(agent) as line:
        async with (
            aiohttp.ClientSession(env["TWILIO_BASE_URL"]) as session,
            session.get("/sim/stats") as response,
        ):
            assert response.status == 200
        line.documents["/voice"] = line.stream()
        voice_url = f"{line.base_url}/voice"
        (well, report), (badly, refused) = await asyncio.gather(
            run_call(env, "--scenario", "hangup_early", "--voice-url", voice_url),
            run_call(env, "--scenario", "unheard_of", "--voice-url", voice_url),
        )
        assert process.stdin
        process.stdin.close()
        async with asyncio.timeout(20):
            assert await process.wait() == 0

    assert (well, report["outcome"], report["ended_by"]) == (0, "ok", "caller")
    assert badly == 1
    assert "unheard_of" in str(refused["error"])


async def test_ends_on_sigterm_and_a_sim_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with served(tmp_path) as (process, env):
        assert len(env) == 12
        process.send_signal(signal.SIGTERM)
        nowhere = {"TWILIO_BASE_URL": "http://127.0.0.1:1"}
        status, _ = await run_call(nowhere, "--voice-url", "http://127.0.0.1:1/v")
        async with asyncio.timeout(20):
            assert await process.wait() == 0
    assert status == 2
