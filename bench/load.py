"""One row: a number of people on the telephone at once for a while, and what the server used meanwhile.

The callers are the sims' scripted people; the same seed has the same people call either server in the same order.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from bench.figures import CallerReport
from bench.machine import CoreTime, Memory, calibrate, read_core_time
from bench.servers import Bot, Server
from sims.scenario import Scenario

EXPECTED_S: Mapping[str, float] = {"hours": 26.0, "message": 48.0, "booking": 75.0, "hangup_early": 5.0}
"""About how long a scenario takes; a second call begins only when it would end within the row."""
STAGGER_S = 0.37
"""Between two people who begin to call: a burst is another measurement."""
REPORT_LIMIT_S = 300.0
_SAMPLE_EVERY_S = 2.0
_QUIET_STEAL = 0.02
_QUIET_OTHERS = 0.10
_QUIET_CALIBRATION = 1.25
_QUIET_SIMS_S = 0.02
ReportT = TypeVar("ReportT", bound=CallerReport)


@dataclass(frozen=True)
class Plan:
    """What is played in one row."""

    calls: int
    """People on the telephone at once."""
    window_s: float
    """How long they begin new calls for, their expected length included."""
    mix: tuple[str, ...]
    """Scenarios; everyone begins with another one and goes round."""
    seed: int


@dataclass(frozen=True)
class Noise:
    """What disturbed a row from outside."""

    steal_share: float
    """Of the measured core's time, kept by the host."""
    others_share: float
    """Of the measured core's time, used by other processes and the kernel's own work."""
    calibration: float
    """How long a fixed piece of Python took on it just before, against the best of the run."""
    sims_late_s: float
    """How late the callers' own schedule was at worst."""

    def reasons(self) -> list[str]:
        """Say why the row is not to be trusted; empty when it was quiet."""
        found = [
            (self.steal_share > _QUIET_STEAL, f"{self.steal_share:.0%} of the core stolen by the host"),
            (self.others_share > _QUIET_OTHERS, f"{self.others_share:.0%} of the core used by others"),
            (self.calibration > _QUIET_CALIBRATION, f"core {self.calibration:.2f} times slower than at best"),
            (self.sims_late_s > _QUIET_SIMS_S, f"callers up to {self.sims_late_s * 1000:.0f} ms late"),
        ]
        return [reason for is_noisy, reason in found if is_noisy]


@dataclass(frozen=True)
class Row:
    """One server under one load."""

    bot: Bot
    calls: int
    reports: tuple[CallerReport, ...]
    cpu_s: float
    resident_mb: float
    private_mb: float
    """Both at their peak."""
    lag_p99_s: float | None
    noise: Noise
    took_s: float


class SimPhone:
    """Orders calls from the telephone sim."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        """Use a session whose base URL is the sim's."""
        self._session = session

    async def call(
        self,
        scenario: str | Scenario,
        voice_url: str,
        *,
        seed: int,
        called: str | None = None,
        out_dir: Path | None = None,
        kind: type[ReportT] = CallerReport,
    ) -> ReportT:
        """Play one call to its end.

        Args:
            scenario: Name of one that the sim knows, or all of one.
            voice_url: The server's voice webhook.
            seed: Of everything the caller does.
            called: The number; None is the shipped agent's.
            out_dir: Gets a recording of what the caller said and heard; absolute.
            kind: How much of the sim's report is read.

        Raises:
            aiohttp.ClientError: If the sim refuses or cannot be reached.
        """
        if isinstance(scenario, Scenario):
            shape = scenario.model_dump(mode="json", by_alias=True, exclude_unset=True)
        else:
            shape = scenario
        order: dict[str, Any] = {"scenario": shape, "voice_url": voice_url, "seed": seed}
        if called is not None:
            order["to"] = called
        if out_dir is not None:
            order["out_dir"] = str(out_dir)
        async with self._session.post("/sim/calls", json=order) as response:
            response.raise_for_status()
            call_sid = (await response.json())["call_sid"]
        async with self._session.get(f"/sim/calls/{call_sid}?wait_s={REPORT_LIMIT_S:g}") as response:
            response.raise_for_status()
            return kind.model_validate_json(await response.read())


class Bench:
    """Plays rows and remembers how quick the machine was at its best."""

    def __init__(self, phone: SimPhone, core: int | None) -> None:
        """Measure on one core, or on all when it is None."""
        self._phone = phone
        self._core = core
        self._best_s = calibrate(core)

    async def play(self, server: Server, plan: Plan) -> Row:
        """Play one row on a server that does nothing else meanwhile."""
        return await self.observe(server, plan.calls, lambda: self._play_all(server, plan))

    async def observe(
        self, server: Server, calls: int, play: Callable[[], Awaitable[list[CallerReport]]]
    ) -> Row:
        """Watch a server that does nothing else while `play` has people call it.

        Args:
            server: Its books are emptied first.
            calls: How many are on the telephone at once.
            play: Returns when the last of them has hung up.
        """
        await asyncio.to_thread(server.empty_books)
        spin_s = await asyncio.to_thread(calibrate, self._core)
        self._best_s = min(self._best_s, spin_s)
        core_before = read_core_time(self._core)
        before = await asyncio.to_thread(server.read)
        began_s = time.monotonic()
        peaks = [before.memory]
        sampler = asyncio.create_task(_sample_memory(server, peaks), name="memory")
        try:
            reports = await play()
        finally:
            sampler.cancel()
        after = await asyncio.to_thread(server.read)
        took_s = time.monotonic() - began_s
        cpu_s = after.cpu_s - before.cpu_s
        return Row(
            bot=server.bot,
            calls=calls,
            reports=tuple(reports),
            cpu_s=cpu_s,
            resident_mb=max(memory.resident_mb for memory in peaks),
            private_mb=max(memory.private_mb for memory in peaks),
            lag_p99_s=after.lag_since(before, 0.99),
            noise=self._noise(core_before, cpu_s, took_s, spin_s, reports),
            took_s=took_s,
        )

    async def _play_all(self, server: Server, plan: Plan) -> list[CallerReport]:
        async with asyncio.TaskGroup() as people:
            tasks = [
                people.create_task(self._play_person(server, plan, number)) for number in range(plan.calls)
            ]
        return [report for task in tasks for report in task.result()]

    async def _play_person(self, server: Server, plan: Plan, number: int) -> list[CallerReport]:
        """Call once, and again until the next call would not end within the row or one went wrong.

        Who was not served does not call again: a server that is overloaded is not loaded further by its own failure.
        """
        loop = asyncio.get_running_loop()
        await asyncio.sleep(number * STAGGER_S)
        ends_s = loop.time() + plan.window_s
        reports: list[CallerReport] = []
        for scenario, seed in person(plan, number):
            # The first call of each is what it is: a short row has its bookings too.
            chosen = fit(scenario, plan.mix, ends_s - loop.time()) if reports else scenario
            if chosen is None:
                break
            reports.append(await self._phone.call(chosen, server.voice_url, seed=seed))
            if reports[-1].outcome != "ok":
                break
        return reports

    def _noise(
        self, before: CoreTime, cpu_s: float, took_s: float, spin_s: float, reports: Sequence[CallerReport]
    ) -> Noise:
        now = read_core_time(self._core)
        return Noise(
            steal_share=(now.steal_s - before.steal_s) / took_s,
            # On all cores together the callers themselves would be the others.
            others_share=0.0
            if self._core is None
            else max(0.0, (now.busy_s - before.busy_s - cpu_s) / took_s),
            calibration=spin_s / self._best_s,
            sims_late_s=max((report.sim_lateness_s for report in reports), default=0.0),
        )


def person(plan: Plan, number: int) -> Iterator[tuple[str, int]]:
    """Yield what one person does, call after call: scenario and seed. Without an end."""
    dice = random.Random(f"{plan.seed}/{plan.calls}/{number}")
    turn = number
    while True:
        yield plan.mix[turn % len(plan.mix)], dice.randrange(1 << 31)
        turn += 1


def fit(scenario: str, mix: Sequence[str], left_s: float) -> str | None:
    """Return `scenario` if it ends in `left_s` seconds, else the longest of the mix that does, else None."""
    fitting = [name for name in mix if EXPECTED_S[name] <= left_s]
    return scenario if scenario in fitting else max(fitting, key=EXPECTED_S.__getitem__, default=None)


async def _sample_memory(server: Server, peaks: list[Memory]) -> None:
    while True:
        await asyncio.sleep(_SAMPLE_EVERY_S)
        peaks.append(await asyncio.to_thread(server.memory))
