"""Where calls are played: sims of their own and a server of its own, so that one call's faults meet no other call.

What a process learns from a failure it keeps: a breaker that is open, a model that is asked last. So a server that has
seen what lasts longer than the pause between two calls is replaced by a fresh one.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.agents import ALWAYS_OPEN, BACKED, NEVER_OPEN, RECEPTION
from bench.chaos.faults import Injection, ProcessFault, Target
from bench.chaos.redis_server import RedisServer
from bench.servers import Bot, Server, free_port, running
from bot.agent import read_agent
from bot.lines import fixed_lines, stall_lines
from bot.settings import Vendor, VendorSource
from bot.sim_process import SimProcess, sim_environment
from sims.carrier import Human

AGENTS = (*ALWAYS_OPEN, *NEVER_OPEN)
"""Whom calls of chaos go to."""
PERSON = "+15551230000"
"""Whom the shipped agent has rung."""
MAX_CALLS = 4
"""Of a server that has one call at a time: what a call has left behind must not shut the next one out."""
_CONTROL_LIMIT_S = 5.0
_LOCK_LIMIT_S = 5.0
_OURS = (Target.LINE, Target.PERSON, Target.SERVER, Target.BOOKS, Target.STORE)
_VENDORS = [target.value for target in Target if target not in _OURS]


@dataclass(frozen=True)
class Sims:
    """The sims' control surfaces, by vendor: scheme and host."""

    urls: Mapping[str, str]
    http: aiohttp.ClientSession

    @classmethod
    def of(cls, environment: Mapping[str, str], http: aiohttp.ClientSession) -> "Sims":
        """Read what the sims print when they are ready."""
        urls = {name: environment[f"{name.upper()}_BASE_URL"] for name in _VENDORS}
        return cls({name: url.replace("ws://", "http://") for name, url in urls.items()}, http)

    async def arm(self, injection: Injection) -> None:
        """Turn a fault on.

        Raises:
            aiohttp.ClientError: If the sim cannot be reached or cannot act it out.
        """
        is_line = injection.cell.target is Target.LINE
        url = self.urls[Target.CARRIER if is_line else injection.cell.target]
        path = "/sim/media-faults" if is_line else "/sim/faults"
        await self._post(url + path, injection.order)

    async def set_person(self, human: Human) -> None:
        """Say what whoever is rung does.

        Raises:
            aiohttp.ClientError: If the sim cannot be reached.
        """
        await self._post(self.urls[Target.CARRIER] + "/sim/humans", {PERSON: human.value})

    async def clear(self) -> None:
        """Turn all faults off.

        Raises:
            aiohttp.ClientError: If a sim cannot be reached.
        """
        paths = [url + "/sim/faults" for url in self.urls.values()]
        paths.append(self.urls[Target.CARRIER] + "/sim/media-faults")
        await asyncio.gather(self.set_person(Human.ANSWERS), *map(self._delete, paths))

    async def hits(self) -> dict[str, dict[str, int]]:
        """Return how often each kind of fault has hit, by vendor."""
        answers = await asyncio.gather(*(self.get(f"{url}/sim/stats") for url in self.urls.values()))
        return {name: answer["faults"] for name, answer in zip(self.urls, answers, strict=True)}

    async def asked(self, vendor: str, since_s: float) -> list[Mapping[str, Any]]:
        """Return what a vendor of models was asked since a moment of `time.monotonic()`, oldest first."""
        answer = await self.get(f"{self.urls[vendor]}/sim/requests?since_s={since_s!r}")
        return answer["requests"]

    async def legs(self, call_sid: str) -> list[Mapping[str, Any]]:
        """Return the phones that were rung for a caller, oldest first."""
        answer = await self.get(f"{self.urls[Target.CARRIER]}/sim/legs")
        return [leg for leg in answer["legs"] if leg["parent_call_sid"] == call_sid]

    async def get(self, url: str) -> Any:
        """Read JSON.

        Raises:
            aiohttp.ClientError: If it is not there.
        """
        async with self.http.get(url, timeout=_limit()) as response:
            response.raise_for_status()
            return await response.json(content_type=None)

    async def _post(self, url: str, body: object) -> None:
        async with self.http.post(url, json=body, timeout=_limit()) as response:
            response.raise_for_status()

    async def _delete(self, url: str) -> None:
        async with self.http.delete(url, timeout=_limit()) as response:
            response.raise_for_status()


@dataclass(frozen=True)
class Place:
    """One server, and the sims that it talks to."""

    sims: Sims
    server: Server
    standby: Server | None = None
    """Another one at the same address and books, that gets what comes when the first is not well."""
    redis: RedisServer | None = None
    """What keeps the state of calls, where it is not the SQLite file."""

    async def arm(self, injection: Injection) -> None:
        """Let something go wrong.

        Raises:
            aiohttp.ClientError: If the sim cannot be reached or cannot act it out.
        """
        kind = injection.cell.kind
        match injection.cell.target:
            case Target.SERVER:
                os.kill(self.server.pid, signal.SIGKILL if kind is ProcessFault.KILL else signal.SIGSTOP)
            case Target.STORE if self.redis is not None:
                lose = self.redis.kill if kind is ProcessFault.KILL else self.redis.freeze
                await asyncio.to_thread(lose)
            case Target.BOOKS:
                await asyncio.to_thread(_hold_lock, self.server.database, injection.after_s)
            case Target.PERSON if isinstance(kind, Human):
                await self.sims.set_person(kind)
            case _:
                await self.sims.arm(injection)

    async def mend(self) -> None:
        """Let the store be there again, if it is not.

        Raises:
            ServerError: If it does not start.
        """
        if self.redis is not None:
            await asyncio.to_thread(self.redis.restore)

    @property
    def survivor(self) -> "Place":
        """Return where a call is that its process may not have survived."""
        return self if self.standby is None else Place(self.sims, self.standby, redis=self.redis)

    @property
    def recordings(self) -> Path:
        """Where the server keeps its calls."""
        return self.server.database.parent / "recordings"

    async def get(self, path: str) -> Any:
        """Read JSON of the server's.

        Raises:
            aiohttp.ClientError: If it is not there.
        """
        return await self.sims.get(f"http://127.0.0.1:{self.server.port}{path}")


def passing_lines(place: Place) -> tuple[str, ...]:
    """Return what the shipped agent says while it has nothing to say."""
    config = read_agent(place.server.database.parent / "agents" / AGENTS[0]).config
    return (*stall_lines(config), fixed_lines(config.language).try_again)


class World:
    """Sims and a server as processes; the server can be replaced. Its methods block."""

    def __init__(
        self, folder: Path, *, profile: str = "realistic", agents: Sequence[str] = (RECEPTION, BACKED)
    ) -> None:
        """Prepare.

        Args:
            folder: Gets the servers' data, each in a folder of its own.
            profile: Timing of the sims.
            agents: Who answers, of `bench.agents`.
        """
        self._agents = agents
        self._folder = folder
        self._profile = profile
        self._all = contextlib.ExitStack()
        self._serving = contextlib.ExitStack()
        self._servers = 0
        self._rendered: Path | None = None
        self._sims: SimProcess | None = None

    def open(self) -> None:
        """Start the sims and the first server.

        Raises:
            SimProcessError: If the sims do not start.
            ServerError: If the server does not.
        """
        self._sims = self._all.enter_context(SimProcess.start(profile=self._profile, seed=1))
        self._all.callback(lambda: self._serving.close())

    def close(self) -> None:
        """End both."""
        self._all.close()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the sims printed."""
        if self._sims is None:
            raise RuntimeError("the world is not open")
        return self._sims.environment

    def serve(self, bot: Bot = Bot.OURS, *, redis: RedisServer | None = None) -> Server:
        """Start a server in place of all before.

        Args:
            bot: Which.
            redis: Keeps the state of its calls; None is the SQLite file.

        Raises:
            ServerError: If it does not start.
        """
        self.close_servers()
        return self._start(bot, redis=redis)

    def serve_two(self, *, redis: RedisServer | None = None) -> tuple[Server, Server]:
        """Start two of ours in place of all before, which the carrier reaches at one address: `public_port`.

        Raises:
            ServerError: If one does not start.
        """
        self.close_servers()
        port = free_port()
        first = self._start(Bot.OURS, public_port=port, redis=redis)
        return first, self._start(Bot.OURS, public_port=port, beside=first, redis=redis)

    def close_servers(self) -> None:
        """End the servers and leave the sims."""
        self._serving.close()
        self._serving = contextlib.ExitStack()

    def _start(
        self,
        bot: Bot,
        *,
        public_port: int | None = None,
        beside: Server | None = None,
        redis: RedisServer | None = None,
    ) -> Server:
        self._servers += 1
        folder = self._folder / f"server-{self._servers}"
        vendors = sim_environment(dict.fromkeys(Vendor, VendorSource.SIM), self.environment)
        store = {} if redis is None else {"REDIS_URL": redis.url}
        server = self._serving.enter_context(
            running(
                bot,
                vendors={**vendors, **store, "SIMS": "off"},
                folder=folder,
                core=None,
                max_calls=MAX_CALLS,
                agents=self._agents,
                rendered=None if beside is not None else self._rendered,
                beside=beside,
                public_port=public_port,
            )
        )
        if bot is Bot.OURS and beside is None:
            self._rendered = folder / "audio-cache"
        return server


def _hold_lock(database: Path, for_s: float) -> None:
    """Keep everybody else from writing for a while. Blocks."""
    with contextlib.closing(sqlite3.connect(database, timeout=_LOCK_LIMIT_S, isolation_level=None)) as books:
        books.execute("BEGIN EXCLUSIVE")
        time.sleep(for_s)
        books.execute("ROLLBACK")


def _limit() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=_CONTROL_LIMIT_S)
