"""Stands where Pipecat's runner does: answers Twilio's webhook, accepts WebSockets, hands each to a bot."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI, Response, WebSocket
from pipecat.runner.types import WebSocketRunnerArguments

from tests.fakes.launcher import QuietServer


@dataclass
class Runner:
    """A running runner."""

    port: int
    bots: "list[asyncio.Task[None]]" = field(default_factory=list["asyncio.Task[None]"])
    """What takes the connections, in the order they came."""

    @property
    def url(self) -> str:
        """Of the webhook."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def twiml(self) -> str:
        # The pause is what the caller would hear if nobody hung up.
        stream = f'<Connect><Stream url="{self.socket_url}"/></Connect>'
        return f'<?xml version="1.0" encoding="UTF-8"?><Response>{stream}<Pause length="40"/></Response>'


@contextlib.asynccontextmanager
async def open_runner(take: Callable[[WebSocketRunnerArguments], Awaitable[None]]) -> AsyncGenerator[Runner]:
    """Serve until the block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    runner = Runner(listening.getsockname()[1])
    app = FastAPI()

    @app.post("/")
    async def webhook() -> Response:
        return Response(runner.twiml, media_type="application/xml")

    @app.websocket("/ws")
    async def connection(websocket: WebSocket) -> None:
        await websocket.accept()
        taking = asyncio.ensure_future(take(WebSocketRunnerArguments(websocket=websocket)))
        runner.bots.append(taking)
        await asyncio.wait({taking})

    server = QuietServer(uvicorn.Config(app, log_level="warning", lifespan="off", ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield runner
    finally:
        server.should_exit = True
        await serving
