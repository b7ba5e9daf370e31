"""The flow's evals hold against the Anthropic sim, through Pipecat's own eval harness."""

import asyncio
import socket
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.workers.runner import WorkerRunner

from flows.reception import tools
from tests.fakes.typed_call import Office, build_flow_graph, open_office

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Pipecat's own, while it is imported
    from pipecat.evals.scenario import EvalScenarioFile
    from pipecat.evals.script import EvalScriptScenario
    from pipecat.evals.script_session import EvalScriptSession
    from pipecat.evals.transport import EvalTransportParams

pytestmark = pytest.mark.real_time

EVALS = sorted(Path(tools.__file__).with_name("evals").glob("*.yaml"))


@asynccontextmanager
async def bot_server(office: Office, ended: asyncio.Event) -> AsyncGenerator[str]:
    app = FastAPI()

    @app.websocket("/ws")
    async def _(websocket: WebSocket) -> None:
        await websocket.accept()
        arguments = WebSocketRunnerArguments(websocket=websocket)
        transport = await create_transport(
            arguments, {"eval": lambda: EvalTransportParams(audio_in_enabled=True)}
        )
        graph = build_flow_graph(
            office, ended.set, ahead=(transport.input(),), behind=(transport.output(),), rtvi=True
        )

        async def on_connected(*_: object) -> None:
            await graph.manager.initialize(graph.flow.initial_node)

        async def on_disconnected(*_: object) -> None:
            await graph.worker.cancel()

        transport.add_event_handler("on_client_connected", on_connected)
        transport.add_event_handler("on_client_disconnected", on_disconnected)
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(graph.worker)
        await runner.run()

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="websockets-sansio"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
    finally:
        server.should_exit = True
        await serving
        listener.close()


@pytest.mark.parametrize("path", EVALS, ids=[path.stem for path in EVALS])
async def test_evals(path: Path, tmp_path: Path) -> None:
    ended = asyncio.Event()
    for scenario in EvalScenarioFile.load(path):
        assert isinstance(scenario, EvalScriptScenario)
        async with open_office(tmp_path) as office, bot_server(office, ended) as url:
            result = await EvalScriptSession.from_scenario(scenario, url).run()
            assert result.passed, result.failures
            assert len(await office.calendar.bookings()) == (path.stem == "booking")
    assert ended.is_set()
