"""Whole calls at a launcher in this process, each seen from both ends; a module plays its calls at the same time."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pipecat.processors.aggregators.llm_context import LLMContext

from bot import call as bot_call
from bot.call import Call
from bot.pipeline import CallGraph, GraphParts, build_graph
from processors.turn_record import TurnLedger
from sims.report import CallReport, Measures
from sims.scenario import Scenario
from tests.fakes.launcher import NUMBER, ROOT, Launcher, open_launcher

STAGGER_S = 0.5
"""Between two calls that begin one after the other: a burst at a launcher that has just started is another test."""
AT_ONCE = 6
"""Calls of a player: one process plays both ends of them, and must not be late for any."""


@dataclass(frozen=True)
class WholeCall:
    """One call from both ends."""

    report: CallReport
    call: Call
    context: LLMContext

    @property
    def measures(self) -> Measures:
        assert self.report.measures is not None
        return self.report.measures

    @property
    def folder(self) -> Path:
        assert self.call.setup.folder is not None
        return self.call.setup.folder

    def said(self, role: str) -> list[str]:
        """Return what the model's memory holds of one side, tool calls left out."""
        messages: list[Any] = [message for message in self.context.messages if isinstance(message, dict)]
        return [
            str(message["content"])
            for message in messages
            if message["role"] == role and isinstance(message.get("content"), str) and message["content"]
        ]


@dataclass(frozen=True)
class CallPlayer:
    """Plays scripted callers at one launcher."""

    launcher: Launcher
    folder: Path
    """Where the callers' recordings go."""
    calls: dict[str, "asyncio.Task[WholeCall]"] = field(default_factory=dict[str, "asyncio.Task[WholeCall]"])
    """Those that were begun, by name."""
    _contexts: dict[TurnLedger, LLMContext] = field(default_factory=dict[TurnLedger, LLMContext])
    _free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def begin(self, name: str, scenario: Scenario, *, called: str = NUMBER, after_s: float = 0.0) -> None:
        """Have a call played under a name, as soon as not too many are; await it in `calls`."""
        assert name not in self.calls
        playing = self._play_later(scenario, called, after_s)
        self.calls[name] = asyncio.create_task(playing, name=f"call {name}")

    async def play(self, scenario: Scenario, *, called: str = NUMBER) -> WholeCall:
        """Place one call and wait until both ends have let go of it."""
        report = await self.launcher.world.twilio.place_call(
            scenario, voice_url=self.launcher.voice_url, called=called, out_dir=self.folder
        )
        call = await self.launcher.ended(report.call_sid)
        return WholeCall(report, call, self._contexts[call.turns])

    async def stop(self) -> None:
        """Give up what is still being played."""
        for task in self.calls.values():
            task.cancel()
        await asyncio.gather(*self.calls.values(), return_exceptions=True)

    async def _play_later(self, scenario: Scenario, called: str, after_s: float) -> WholeCall:
        await asyncio.sleep(after_s)
        async with self._free:
            return await self.play(scenario, called=called)


@contextlib.asynccontextmanager
async def open_call_player(folder: Path, **settings: Any) -> AsyncGenerator[CallPlayer]:
    """Start a launcher with realistic vendors until the block ends; `settings` as for `open_launcher`."""
    contexts: dict[TurnLedger, LLMContext] = {}

    def keep_context(parts: GraphParts) -> CallGraph:
        # An ended call has let go of its pipeline, and the model's memory with it.
        graph = build_graph(parts)
        contexts[parts.turns] = graph.context
        return graph

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bot_call, "build_graph", keep_context)
        async with open_launcher(folder, profile="realistic", **settings) as launcher:
            player = CallPlayer(launcher, folder, _contexts=contexts)
            try:
                yield player
            finally:
                await player.stop()


def write_shipped_agent(folder: Path, slug: str, changes: Mapping[str, str]) -> Path:
    """Write the shipped agent under another name.

    Args:
        folder: Of the agents.
        slug: Its own folder's name.
        changes: What stands in its `agent.yaml`, and what is to stand there.

    Returns:
        Its folder.
    """
    shipped, own = ROOT / "flows" / "reception", folder / slug
    text = (shipped / "agent.yaml").read_text()
    for old, new in changes.items():
        assert old in text, f"the shipped agent has no {old!r}"
        text = text.replace(old, new)
    shutil.copytree(shipped, own, ignore=shutil.ignore_patterns("__pycache__"))
    (own / "agent.yaml").write_text(text)
    return own
