"""A TCP balancer on loopback: one address, several server processes behind it.

As plain as one can be: a connection goes to the first port that accepts it, and breaks off when either end does. A test
says who gets new connections; clients that keep theirs for the next request lose them then.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

CONNECT_S = 1.0
IDLE_S = 0.3
"""Without a byte for so long, a connection carries no request."""


@dataclass
class Balancer:
    """Running while its context lasts."""

    port: int
    _ports: tuple[int, ...] = ()
    _open: dict["asyncio.Task[None]", "_Link"] = field(default_factory=dict["asyncio.Task[None]", "_Link"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send_to(self, *ports: int) -> None:
        """Give new connections, and the requests of those that are idle now, to the first of `ports` that answers."""
        self._ports = ports
        for task, link in self._open.items():
            if not link.is_call and asyncio.get_running_loop().time() - link.used_s > IDLE_S:
                task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = self._open[task] = _Link(asyncio.get_running_loop().time())
        try:
            far = await self._dial()
            if far is not None:
                await link.join((reader, writer), far)
        except asyncio.CancelledError:
            pass  # asked for, by `send_to` or by the end
        finally:
            del self._open[task]
            writer.close()  # what was carried is still sent

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._ports:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection("127.0.0.1", port)
            except (OSError, TimeoutError):
                continue
        return None

    async def close(self) -> None:
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@contextlib.asynccontextmanager
async def open_balancer() -> AsyncGenerator[Balancer]:
    """Listen until the block ends; nobody is behind it yet."""
    balancer = Balancer(0)
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", 0)
    balancer.port = server.sockets[0].getsockname()[1]
    try:
        yield balancer
    finally:
        server.close()
        await balancer.close()


_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class _Link:
    used_s: float
    is_call: bool = False
    """Whether it has become a WebSocket, which is never between two requests, however late this loop is."""

    async def join(self, near: _Pair, far: _Pair) -> None:
        """Carry bytes both ways until one end is gone."""
        ways = [
            asyncio.create_task(self._carry(near[0], far[1])),
            asyncio.create_task(self._carry(far[0], near[1])),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            far[1].transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.is_call = self.is_call or b"upgrade: websocket" in data[:4096].lower()
                self.used_s = asyncio.get_running_loop().time()
                writer.write(data)
                await writer.drain()
