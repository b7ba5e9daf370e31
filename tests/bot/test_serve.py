import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bot import serve as bot_serve
from bot.serve import MAX_MESSAGE_BYTES, draining, serve
from bot.settings import Settings

pytestmark = pytest.mark.real_time


@pytest.fixture
def servers_own() -> Iterator[Counter[str]]:
    """Counts the signals that reach the server's own handler."""
    seen: Counter[str] = Counter()
    before = {
        number: signal.signal(number, lambda number, _: seen.update([signal.Signals(number).name]))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def test_an_interrupt_ends_the_calls_before_the_server_closes_their_sockets(
    servers_own: Counter[str],
) -> None:
    limits: list[float] = []
    all_ended = asyncio.Event()

    async def drain(limit_s: float) -> bool:
        limits.append(limit_s)
        await all_ended.wait()
        return False

    async with draining(drain):
        terminate()
        await asyncio.sleep(0.05)
        interrupt()
        await asyncio.sleep(0.05)
        assert limits == [bot_serve.DRAIN_LIMIT_S, 0.0]
        assert not servers_own
        all_ended.set()
        await asyncio.sleep(0.05)
        assert servers_own == {"SIGINT": 1}


async def test_who_interrupts_twice_does_not_wait(servers_own: Counter[str]) -> None:
    async def drain(_: float) -> bool:
        await asyncio.Event().wait()
        return False

    async with draining(drain):
        interrupt()
        await asyncio.sleep(0.05)
        interrupt()
        await asyncio.sleep(0.05)
        assert servers_own == {"SIGINT": 1}


async def test_who_interrupts_twice_is_not_taken_for_three_when_the_calls_have_ended(
    servers_own: Counter[str],
) -> None:
    all_ended = asyncio.Event()

    async def drain(_: float) -> bool:
        await all_ended.wait()
        return False

    async with draining(drain):
        interrupt()
        await asyncio.sleep(0.05)
        interrupt()
        await asyncio.sleep(0.05)
        all_ended.set()
        await asyncio.sleep(0.05)
        assert servers_own == {"SIGINT": 1}, "uvicorn skips its shutdown when it gets another"


async def test_the_server_stops_when_the_calls_have_ended(servers_own: Counter[str]) -> None:
    last_call_ended = asyncio.Event()
    limits: list[float] = []

    async def drain(limit_s: float) -> bool:
        limits.append(limit_s)
        await last_call_ended.wait()
        return True

    async with draining(drain):
        terminate()
        await asyncio.sleep(0.05)
        terminate()  # of the process group: it must not cut the calls
        await asyncio.sleep(0.05)
        assert limits == [bot_serve.DRAIN_LIMIT_S]
        assert not servers_own
        last_call_ended.set()
        await asyncio.sleep(0.05)
        assert servers_own["SIGTERM"] == 1


async def test_calls_that_do_not_end_are_not_waited_for_for_ever(servers_own: Counter[str]) -> None:
    async def drain(limit_s: float) -> bool:
        return False

    async with draining(drain):
        terminate()
        await asyncio.sleep(0.05)
        assert servers_own["SIGTERM"] == 1


async def test_a_server_that_stops_by_itself_gets_its_handler_back(servers_own: Counter[str]) -> None:
    async def drain(limit_s: float) -> bool:
        raise AssertionError("nobody asked")

    async with draining(drain):
        pass
    terminate()
    await asyncio.sleep(0.05)
    assert servers_own["SIGTERM"] == 1


async def test_a_drain_in_progress_ends_with_the_server(servers_own: Counter[str]) -> None:
    was_cancelled = asyncio.Event()

    async def drain(limit_s: float) -> bool:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            was_cancelled.set()
            raise
        return True

    async with draining(drain):
        terminate()
        await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await was_cancelled.wait()
    assert not servers_own


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What uvicorn was asked to run, with the environment of that moment."""
    seen: list[tuple[Any, dict[str, Any]]] = []

    def run(app: Any, **options: Any) -> None:
        seen.append((app, {**options, "environment": dict(os.environ)}))

    class Supervised:
        def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
            self._config, self._port = config, sockets[0].getsockname()[1]

        def run(self) -> None:
            options = {"factory": self._config.factory, "workers": self._config.workers, "port": self._port}
            run(self._config.app, **options)

    monkeypatch.setattr(bot_serve.uvicorn, "run", run)
    monkeypatch.setattr(bot_serve, "Supervisor", Supervised)
    monkeypatch.setattr(os, "environ", {**os.environ})
    return seen


def settings(**fields: Any) -> Settings:
    vendors = {name: {"api_key": "k"} for name in ("deepgram", "anthropic", "elevenlabs", "cartesia")}
    twilio = {"account_sid": "AC" + "0" * 32, "auth_token": "t"}
    return Settings(_env_file=None, **{**vendors, "twilio": twilio, **fields})  # pyright: ignore[reportCallIssue]


def test_one_worker_serves_in_this_process(runs: list[tuple[Any, dict[str, Any]]]) -> None:
    serve(settings(port=1234))
    [(app, options)] = runs
    assert app.title == "First Ring"
    assert (options["host"], options["port"], options["loop"]) == ("127.0.0.1", 1234, "uvloop")
    assert options["ws_max_size"] == MAX_MESSAGE_BYTES
    assert "workers" not in options


def test_several_workers_get_the_sims_settings_and_a_folder_for_metrics(
    runs: list[tuple[Any, dict[str, Any]]],
) -> None:
    serve(settings(workers=2, port=0), {"TWILIO_BASE_URL": "http://127.0.0.1:1"})
    [(app, options)] = runs
    assert (app, options["factory"], options["workers"]) == ("bot.serve:make_app", True, 2)
    assert options["port"] != 0
    environment = options["environment"]
    assert environment["TWILIO_BASE_URL"] == "http://127.0.0.1:1"
    folder = Path(environment["PROMETHEUS_MULTIPROC_DIR"])
    assert not folder.exists(), "removed when the workers have ended"
