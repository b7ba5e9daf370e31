"""Stands where Pipecat's runner does: accepts WebSockets at `/ws` and hands each to a bot."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.runner.types import WebSocketRunnerArguments


class _QuietServer(uvicorn.Server):
    """Leaves the signals of the test run alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def open_runner(take: Callable[[WebSocketRunnerArguments], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve until the block ends; yields the URL of the WebSocket."""
    app = FastAPI()

    @app.websocket("/ws")
    async def _(websocket: WebSocket) -> None:
        await websocket.accept()
        await take(WebSocketRunnerArguments(websocket=websocket))

    listening = socket.create_server(("127.0.0.1", 0))
    server = _QuietServer(uvicorn.Config(app, log_level="warning", lifespan="off", ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}/ws"
    finally:
        server.should_exit = True
        await serving
