"""A load balancer on loopback: forwards connections to those of several servers that are ready."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import aiohttp

CHUNK_BYTES = 65536


@dataclass
class ReadyBalancer:
    """Forwards each connection to the next backend that is ready; asks `/readyz` of each a few times a second."""

    backends: list[int]
    """Ports on 127.0.0.1; may be changed at any time."""
    check_every_s: float = 0.2
    port: int = 0
    taken: Counter[int] = field(default_factory=Counter[int])
    """Connections forwarded, by port."""
    refused: int = 0
    """Connections for which there was no backend."""
    _ready: set[int] = field(default_factory=set[int])
    _round: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ready(self) -> Sequence[int]:
        """Backends that are asked."""
        return [port for port in self.backends if port in self._ready]

    async def watch(self) -> None:
        """Ask every backend whether it is ready, again and again."""
        timeout = aiohttp.ClientTimeout(total=1.0)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
        ) as http:
            while True:
                for port in list(self.backends):
                    await self._check(http, port)
                await asyncio.sleep(self.check_every_s)

    async def _check(self, http: aiohttp.ClientSession, port: int) -> None:
        is_ready = False
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
                is_ready = answer.status == 200
        (self._ready.add if is_ready else self._ready.discard)(port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        upstream = await self._connect()
        if upstream is None:
            self.refused += 1
            writer.close()
            return
        up_reader, up_writer = upstream
        pumps = [asyncio.create_task(_pump(*pair)) for pair in ((reader, up_writer), (up_reader, writer))]
        try:
            await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in (writer, up_writer):
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        ports = self.ready or list(
            self.backends
        )  # as most balancers: with none ready, any is better than nobody
        for _ in ports:
            port = ports[next(self._round) % len(ports)]
            with contextlib.suppress(OSError):
                upstream = await asyncio.open_connection("127.0.0.1", port)
                self.taken[port] += 1
                return upstream
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


@contextlib.asynccontextmanager
async def open_ready_balancer(*, port: int = 0) -> AsyncGenerator[ReadyBalancer]:
    """Balance until the block ends; without a backend at first."""
    balancer = ReadyBalancer([])
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await balancer.serve(reader, writer)
        finally:
            connections.discard(task)

    listening = await asyncio.start_server(serve, "127.0.0.1", port)
    balancer.port = listening.sockets[0].getsockname()[1]
    watching = asyncio.create_task(balancer.watch())
    try:
        yield balancer
    finally:
        watching.cancel()
        listening.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
