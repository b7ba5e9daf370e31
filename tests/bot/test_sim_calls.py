import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bot.sim_calls import SimCallError, is_sim, list_scenarios, place_sim_call, wait_for_report

pytestmark = pytest.mark.real_time

VOICE_URL = "http://127.0.0.1:1/twilio/voice"


@asynccontextmanager
async def sim(answer: Any, status: int = 200) -> AsyncGenerator[tuple[str, list[Any]]]:
    """A telephone sim with one answer to everything; yields its URL and what it was asked."""
    asked: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(
            (request.method, str(request.rel_url), await request.json() if request.can_read_body else None)
        )
        if isinstance(answer, str):
            return web.Response(text=answer, status=status)
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("twilio_url", "expected"),
    [
        ("http://127.0.0.1:9001", True),
        ("http://localhost:9001", True),
        ("http://[::1]:9001", True),
        ("https://api.twilio.com", False),
        ("https://127.0.0.1.example.com", False),
    ],
)
def test_a_telephone_on_loopback_is_a_sim(twilio_url: str, expected: bool) -> None:
    assert is_sim(twilio_url) is expected


async def test_a_call_is_ordered_with_what_is_known() -> None:
    async with sim({"call_sid": "CA1"}) as (url, asked):
        assert await place_sim_call(url, scenario="booking", voice_url=VOICE_URL) == "CA1"
        await place_sim_call(
            url, scenario="hours", voice_url=VOICE_URL, called="+1850", out_dir=Path("recordings")
        )
    assert asked == [
        ("POST", "/sim/calls", {"scenario": "booking", "voice_url": VOICE_URL}),
        (
            "POST",
            "/sim/calls",
            {"scenario": "hours", "voice_url": VOICE_URL, "to": "+1850", "out_dir": "recordings"},
        ),
    ]


async def test_a_report_is_waited_for() -> None:
    async with sim({"outcome": "ok"}) as (url, asked):
        assert await wait_for_report(url, "CA1", limit_s=30.0) == {"outcome": "ok"}
    assert asked == [("GET", "/sim/calls/CA1?wait_s=30.0", None)]


async def test_scenarios_are_named() -> None:
    async with sim({"scenarios": ["booking", "hours"]}) as (url, _):
        assert await list_scenarios(url) == ["booking", "hours"]


async def test_a_refusal_is_told_in_the_sims_words() -> None:
    async with sim({"error": "no such scenario"}, 422) as (url, _):
        with pytest.raises(SimCallError, match="no such scenario"):
            await place_sim_call(url, scenario="none", voice_url=VOICE_URL)


@pytest.mark.parametrize(("answer", "status"), [("<html>", 200), ("", 500), ({}, 500)])
async def test_an_answer_that_is_none_is_an_error(answer: Any, status: int) -> None:
    async with sim(answer, status) as (url, _):
        with pytest.raises(SimCallError):
            await wait_for_report(url, "CA1", limit_s=1.0)


async def test_a_sim_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SimCallError, match="did not answer"):
        await place_sim_call("http://127.0.0.1:1", scenario="booking", voice_url=VOICE_URL)


async def test_a_sim_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.sim_calls._ORDER_LIMIT_S", 0.2)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SimCallError, match="did not answer"):
            await place_sim_call(f"http://127.0.0.1:{port}", scenario="booking", voice_url=VOICE_URL)
        await asyncio.sleep(0.05)  # until the other end has noticed
