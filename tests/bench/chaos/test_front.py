import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

import pytest

from bench.chaos.front import MEDIA_LAST_S, Front, opened
from bench.servers import free_port

pytestmark = pytest.mark.real_time

REQUEST = b"POST /twilio/after-stream HTTP/1.1\r\n\r\n"
MEDIA = b"GET /twilio/media HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"


class OneServer:
    """Answers every health check with 503 and whatever else comes with what it got, until it is killed."""

    def __init__(self) -> None:
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        while piece := await reader.read(1024):
            writer.write(b"HTTP/1.1 503 No\r\n" if b"/readyz" in piece else piece)
        writer.close()

    def kill(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@pytest.fixture
async def server() -> AsyncGenerator[OneServer]:
    one = OneServer()
    serving = await asyncio.start_server(one.take, "127.0.0.1", 0)
    one.port = serving.sockets[0].getsockname()[1]
    yield one
    one.kill()
    serving.close()


async def ask(front: Front, port: int, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    assert await reader.read(1024) == text, front.well
    return reader, writer


async def test_when_none_is_well_all_are_tried(server: OneServer) -> None:
    port = free_port()
    async with opened((free_port(), server.port), port) as front:
        async with asyncio.timeout(3):
            while front.well:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
        _, writer = await ask(front, port, REQUEST)
        writer.close()


@pytest.mark.parametrize("before", [b"", REQUEST])
async def test_a_media_socket_is_the_last_thing_that_is_lost_of_a_server(
    server: OneServer, before: bytes
) -> None:
    """Also one that was something else before."""
    port = free_port()
    async with opened((server.port,), port) as front, asyncio.TaskGroup() as group:

        async def gone_s(text: bytes) -> float:
            reader, writer = await ask(front, port, before or text)
            if before:
                writer.write(text)
                assert await reader.read(1024) == text
            loses.release()
            with contextlib.suppress(ConnectionError):
                await reader.read(1)
            writer.close()
            return time.monotonic()

        loses = asyncio.Semaphore(0)
        media, request = (group.create_task(gone_s(text)) for text in (MEDIA, REQUEST))
        for _ in range(2):
            await loses.acquire()
        server.kill()
    assert media.result() - request.result() > MEDIA_LAST_S / 2
