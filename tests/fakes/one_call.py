"""One call in a launcher's process whose line is the test's: its pipeline is real, its vendors are sims."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from bot.agent import Announcement
from bot.call import Call, CallSetup, Channel
from bot.call_keeper import CallKeeper
from bot.call_life import CallState, EndReason
from bot.flow_check import CheckedAgent
from bot.resumption import new_saved_call
from store.calls import CallStore, SavedCall
from tests.fakes.launcher import Launcher, eventually


class Phone:
    """Plays at real time what it is sent and returns marks when they were played; keeps a log."""

    def __init__(self, on_played: Callable[[str], None]) -> None:
        self.sent_s = 0.0
        self.clears = 0
        self._on_played = on_played
        self._free_s = 0.0

    async def send_audio(self, pcm: bytes) -> None:
        loop = asyncio.get_running_loop()
        length_s = len(pcm) / 16000
        self.sent_s += length_s
        self._free_s = max(self._free_s, loop.time()) + length_s

    async def send_mark(self, name: str) -> None:
        asyncio.get_running_loop().call_at(self._free_s, self._on_played, name)

    async def clear(self) -> None:
        self.clears += 1
        self._free_s = 0.0


class OneCall:
    """A call with its phone and its owner."""

    def __init__(
        self,
        launcher: Launcher,
        *,
        max_minutes: float = 15.0,
        folder: Path | None = None,
        announcement: str | None = None,
        resumed: SavedCall | None = None,
        store: CallStore | None = None,
        checked: CheckedAgent | None = None,
    ) -> None:
        self.hang_ups: list[float] = []
        self.hang_up_takes_s = 0.0
        checked = checked or launcher.board._resources.agents["reception"]
        limits = checked.agent.config.limits.model_copy(update={"max_call_minutes": max_minutes})
        announced = None if announcement is None else Announcement(say=announcement, barge_in=False)
        config = checked.agent.config.model_copy(update={"limits": limits, "announcement": announced})
        setup = CallSetup(
            call_sid=f"CA{uuid4().hex}",
            agent=replace(checked.agent, config=config),
            flow=checked.flow,
            events=checked.events,
            channel=Channel.PHONE,
            rate_hz=8000,
            caller_number="+15550001111",
            hang_up=self._hang_up,
            folder=folder,
            resumed=resumed,
        )
        self.call = Call(setup, launcher.board._resources)
        if store is not None:
            saved = resumed or new_saved_call(
                "CA1", agent="reception", caller="+1", called="+2", process="a", longest_call_s=900
            )
            self.call.keep(CallKeeper(store, saved, on_lost=lambda: None))
        self.phone = Phone(self.call.mark_played)
        self.running = asyncio.create_task(self.call.run())

    async def _hang_up(self) -> None:
        self.hang_ups.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.hang_up_takes_s)

    async def answer(self) -> None:
        """Put it on its line, and wait until the pipeline hears the caller."""
        await self.call.put_on(self.phone)
        await eventually(lambda: not self.call.intake.is_keeping)

    def heard(self) -> str:
        """Return what the caller has heard."""
        running = self.call.turns.snapshot()
        turns = [*self.call.turns.turns(), *([running] if running else [])]
        return " ".join(turn.agent_text for turn in turns)

    async def over(self, limit_s: float = 10.0) -> EndReason | None:
        async with asyncio.timeout(limit_s):
            await self.running
        assert self.call.state is CallState.ENDED
        assert self.call.ended.is_set()
        return self.call.end_reason
