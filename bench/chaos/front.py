"""What stands before several servers: one address on loopback, health checks, TCP through and through.

As a plain balancer does it: a server whose `/readyz` does not answer in time gets no new connections, those that it has
stay. The first of the servers that are well gets them all, so that it is known who has a call. When none is, all are
tried.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

CHECK_EVERY_S = 0.5
CHECK_LIMIT_S = 1.0
MEDIA_LAST_S = 0.1
"""From the end of a server's other connections to that of its media sockets: the way to a carrier is as long. It asks
what comes next as soon as it hears of that, and only once: over a connection that it has kept, or over a new one, which
a process that is about to be gone still takes."""
_CHUNK_BYTES = 65536
_GET, _UPGRADE = b"GET ", b"upgrade: websocket"
_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Front:
    """Serves while its context lasts."""

    ports: Sequence[int]
    """The servers', the one that is asked first at the beginning."""
    port: int = 0
    well: set[int] = field(default_factory=set[int])
    """Whose health check was answered last."""
    _links: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end is gone."""
        task = asyncio.current_task()
        assert task is not None  # a server's callback always is one
        self._links.add(task)
        try:
            far = await self._dial()
            if far is not None and await _join((reader, writer), far):
                await asyncio.sleep(MEDIA_LAST_S)
        except asyncio.CancelledError:
            pass  # the front closes
        finally:
            self._links.discard(task)
            writer.transport.abort()

    async def _dial(self) -> _Pair | None:
        for port in [port for port in self.ports if port in self.well] or self.ports:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CHECK_LIMIT_S):
                    return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def watch(self) -> None:
        """Check every server, again and again."""
        while True:
            answers = await asyncio.gather(*map(_is_ready, self.ports))
            self.well = {port for port, is_ready in zip(self.ports, answers, strict=True) if is_ready}
            await asyncio.sleep(CHECK_EVERY_S)

    async def close(self) -> None:
        """Cut every connection."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened(ports: Sequence[int], port: int) -> AsyncGenerator[Front]:
    """Stand before servers until the block ends.

    Args:
        ports: The servers'.
        port: Where to listen.
    """
    front = Front(ports, port, set(ports))
    server = await asyncio.start_server(front.take, "127.0.0.1", port)
    watching = asyncio.create_task(front.watch(), name="front")
    try:
        yield front
    finally:
        watching.cancel()
        await asyncio.wait({watching})
        server.close()
        await front.close()


async def _is_ready(port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CHECK_LIMIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.transport.abort()
    return False


async def _join(near: _Pair, far: _Pair) -> bool:
    """Carry both ways until either end is gone; return whether it has become a web socket."""
    upgraded = asyncio.Event()
    ways = [
        asyncio.create_task(_carry(near[0], far[1], upgraded)),
        asyncio.create_task(_carry(far[0], near[1], upgraded)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        far[1].transport.abort()
    return upgraded.is_set()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upgraded: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(_CHUNK_BYTES):
            if (
                piece.startswith(_GET) and _UPGRADE in piece.lower()
            ):  # a client may do so on a connection it has kept
                upgraded.set()
            writer.write(piece)
            await writer.drain()
