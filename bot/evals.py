"""`firstring evals`: every agent's eval scenarios, played to the bot by Pipecat's own harness.

Serves `bot/bot.py`'s calls on a free loopback port, as a runner would, and lets `pipecat.evals` talk to them.
What the calls write goes into a folder of the run; the business's own books are never touched.
"""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.evals.results import EvalScriptResult, EvalSimulationResult
from pipecat.evals.scenario import EvalScenarioFile
from pipecat.evals.session import EvalSession, EvalSessionParams
from pipecat.runner.types import WebSocketRunnerArguments
from rich.console import Console
from rich.markup import escape

from bot.bot import CallTaker
from bot.flow_check import load_checked_agents
from bot.resources import Resources
from bot.settings import Settings

Result = EvalScriptResult | EvalSimulationResult

FOLDER = "evals"
"""Below an agent's folder: its scenario files."""
ANSWER_LIMIT_MS = 15_000
"""Longest time for what a scenario expects, where it says nothing."""
READY_LIMIT_S = 20.0
"""Longest time until the agent has greeted; vendors that cannot be reached show here."""


@dataclass(frozen=True)
class EvalCase:
    """One scenario and the agent it talks to."""

    agent: str
    name: str
    """`<file>/<scenario>`."""
    scenario: Any
    """Scripted or simulated, as Pipecat loaded it."""


def eval_cases(agents_dir: Path) -> list[EvalCase]:
    """Read the scenarios of every agent below a folder, in order of their files.

    Raises:
        ValueError: If a scenario file is wrong.
    """
    files = [
        (path.parent.parent.name, EvalScenarioFile.load(path))
        for path in sorted(agents_dir.glob(f"*/{FOLDER}/*.yaml"))
    ]
    return [EvalCase(agent, scenario.name, scenario) for agent, file in files for scenario in file.scenarios]


async def run_evals(settings: Settings, *, only: str = "", console: Console | None = None) -> int:
    """Run scenarios one after the other and print how each went.

    Args:
        settings: Checked; vendors played by sims have their URLs and keys by now.
        only: Part of the names of those to run; empty runs all.
        console: Where to print.

    Returns:
        The exit code: 0 if there were any and all passed.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    try:
        cases = [case for case in eval_cases(settings.agents_dir) if only in f"{case.agent}/{case.name}"]
    except ValueError as error:
        console.print(escape(str(error)))
        return 1
    if not cases:
        console.print("there is no such eval")
        return 1
    with tempfile.TemporaryDirectory(prefix="firstring-evals-") as folder:
        results = await _run_all(settings_of_run(settings, Path(folder)), cases, console)
    passed = sum(result.passed for result in results)
    console.print(f"{passed} of {len(cases)} passed")
    return 0 if passed == len(cases) else 1


def settings_of_run(settings: Settings, folder: Path) -> Settings:
    """Return settings with evals on and everything that calls write below `folder`."""
    return settings.model_copy(
        update={
            "evals": True,
            "database_url": f"sqlite:///{folder / 'first-ring.db'}",
            "redis_url": None,
            "recordings_url": folder / "recordings",
        }
    )


async def _run_all(settings: Settings, cases: list[EvalCase], console: Console) -> list[Result]:
    params = EvalSessionParams(default_timeout_ms=ANSWER_LIMIT_MS, bot_ready_timeout_s=READY_LIMIT_S)
    results: list[Result] = []
    async with serving_evals(settings) as url:
        for case in cases:
            session = EvalSession.from_scenario(case.scenario, f"{url}/{case.agent}", params=params)
            results.append(await session.run())
            _print_result(case, results[-1], console)
    return results


def _print_result(case: EvalCase, result: Result, console: Console) -> None:
    verdict = "[green]passed[/]" if result.passed else "[red]failed[/]"
    console.print(f"{verdict}  {case.agent}/{case.name}  {result.duration_ms / 1000:.1f} s")
    if result.passed:
        return
    for reason in _reasons(result):
        console.print(f"        {escape(reason)}")
    for line in result.debug_log:
        console.print(f"        [dim]{escape(line)}[/]")


def _reasons(result: Result) -> list[str]:
    if isinstance(result, EvalSimulationResult):
        return [result.failure or "no reason given"]
    skipped = [f"skipped: {result.skipped}"] if result.skipped else []
    return [*skipped, *(str(failure) for failure in result.failures)]


@contextlib.asynccontextmanager
async def serving_evals(settings: Settings) -> AsyncGenerator[str]:
    """Serve calls to harnesses until the block ends.

    Args:
        settings: With evals on.

    Yields:
        The base URL; below it, each agent has its slug.
    """
    resources = Resources.open(settings, load_checked_agents(settings.agents_dir))
    taker = CallTaker(resources, rest=None)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.websocket("/{agent}")
    async def call(websocket: WebSocket, agent: str) -> None:
        await websocket.accept()
        await taker.take(WebSocketRunnerArguments(websocket=websocket, body={"agent": agent}))

    listening = socket.create_server(("127.0.0.1", 0))
    server = _Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="websockets-sansio")
    )
    try:
        async with asyncio.TaskGroup() as tasks:  # a server that fails ends the run
            tasks.create_task(server.serve(sockets=[listening]))
            try:
                yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True
    finally:
        listening.close()
        await resources.close()


class _Server(uvicorn.Server):
    """Leaves the signals alone: Ctrl-C ends the run, not its server first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
