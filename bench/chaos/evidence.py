"""What both ends of a call have recorded of it. Collects; judges nothing."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench.chaos.books import is_locked, read_written
from bench.chaos.faults import MODELS, ProcessFault, Target
from bench.chaos.plan import Plan
from bench.chaos.stage import Place
from bench.figures import CallerReport
from bench.kept_call import TIMELINE_JSON
from bot.timeline import CallTimeline, read_timeline
from processors.llm_continuation import NOTE
from processors.playout import CUT_MARK

ENDED_LIMIT_S = 8.0
"""From the caller's end of a call to the server's, files included: four times what the server gives itself."""
SETTLE_LIMIT_S = 6.0
"""For what a call held to be free again; connections that are kept for the next call close by themselves."""
SPARE_DESCRIPTORS = 24
"""What a server keeps for its next call: connections of the SDKs' pools, and of the stores, two files for each."""
SPARE_THREADS = 12
"""Threads that are started for work that there was not before: the event loop's pool, and one for each store."""
VOICEMAIL_LIMIT_S = 30.0
"""From the end of a call to a message that is kept: the last time that the server tries to fetch it is by then."""
CONNECT_LIMIT_S = 0.5
_EVERY_S = 0.1
_PROC = Path("/proc")


@dataclass(frozen=True)
class Kept:
    """What one record holds of one utterance of the agent's."""

    text: str
    is_cut: bool = False


@dataclass(frozen=True)
class Held:
    """What a server holds."""

    calls: int
    descriptors: int
    threads: int
    tasks: int

    def excess_over(self, before: "Held") -> list[str]:
        """Say what is held that was not before the first call, but for what is kept for the next one."""
        found = [
            ("calls", self.calls, 0, 0),
            ("files and sockets", self.descriptors, before.descriptors, SPARE_DESCRIPTORS),
            ("threads", self.threads, before.threads, SPARE_THREADS),
            ("tasks", self.tasks, before.tasks, 0),
        ]
        return [f"{now} {what}, {then} before" for what, now, then, spare in found if now > then + spare]


@dataclass(frozen=True)
class Rung:
    """A person whom the carrier has rung for the caller."""

    told: str
    """What they were told of the caller."""
    is_bridged: bool


@dataclass(frozen=True)
class Evidence:
    """One call from both ends."""

    plan: Plan
    report: CallerReport
    timeline: CallTimeline | None
    """None when the server left none."""
    asked: Sequence[Mapping[str, Any]]
    """What the models were asked, oldest first, each with its `messages`."""
    bookings: int
    messages: int
    end_reason: str | None
    """As the server has it; None when it does not know the call, or it goes on there."""
    excess: tuple[str, ...]
    """What was still held when it should have been released."""
    hits: int
    """How often the plan's faults hit."""
    hit: frozenset[Target] = frozenset()
    """Whom they hit."""
    callbacks: int = 0
    voicemails: int = 0
    """Of the promises to call back, those that have what the caller has left."""
    rung: tuple[Rung, ...] = ()

    @property
    def remembered(self) -> tuple[Kept, ...] | None:
        """Return what the model was last told that the agent had said; None when it was not asked."""
        return remembered_in(self.asked)

    @property
    def heard(self) -> str:
        """Return the agent's words as they came out of the caller's phone."""
        return " ".join(word for word, _, _ in self.report.agent_words)


async def read_held(place: Place) -> Held:
    """Read what a server holds now.

    Raises:
        aiohttp.ClientError: If it does not answer.
        OSError: If there is no such process.
    """
    ready = await place.get("/readyz")
    exposition = await asyncio.to_thread(place.server.exposition)
    tasks = re.search(r"^firstring_tasks (\S+)$", exposition, re.MULTILINE)
    process = _PROC / str(place.server.pid)
    descriptors, status = await asyncio.to_thread(_read_process, process)
    threads = re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
    return Held(
        calls=int(ready["calls"]),
        descriptors=descriptors,
        threads=int(threads[1]) if threads else 0,
        tasks=int(float(tasks[1])) if tasks else 0,
    )


async def settle(place: Place, before: Held) -> tuple[str, ...]:
    """Wait until a server holds no more than before; return what it holds too much when it does not."""
    deadline_s = time.monotonic() + SETTLE_LIMIT_S
    while True:
        held = await read_held(place)
        excess = held.excess_over(before)
        if not excess or time.monotonic() > deadline_s:
            return tuple(excess)
        await asyncio.sleep(_EVERY_S)


async def read_rung(place: Place, call_sid: str) -> tuple[Rung, ...]:
    """Return whom the carrier has rung for a caller."""
    legs = await place.sims.legs(call_sid)
    return tuple(Rung(" ".join(leg["told"]), leg["bridged"]) for leg in legs)


async def wait_for_voicemail(place: Place, limit_s: float) -> None:
    """Wait until a promise to call back has the caller's message, or until there is none to wait for."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        written = await asyncio.to_thread(read_written, place.server.database)
        if written.voicemails or not written.callbacks:
            return
        await asyncio.sleep(_EVERY_S)


async def read_left(lost: Place, fault: ProcessFault, before: Held | None) -> tuple[str, ...]:
    """Return what is left of a process that had the call; one that was stopped goes on first.

    Args:
        lost: It.
        fault: What was done to it.
        before: What it held when it was idle.
    """
    if fault is ProcessFault.STOP:
        os.kill(lost.server.pid, signal.SIGCONT)
        excess = () if before is None else await settle(lost, before)
        return tuple(f"{found}, in the process that was stopped" for found in excess)
    found = [f"process {pid} of the one that was killed" for pid in await asyncio.to_thread(_family, lost)]
    if await _listens(lost.server.port):
        found.append("the port of the one that was killed")
    if await asyncio.to_thread(is_locked, lost.server.database):
        found.append("a lock on the database")
    return tuple(found)


async def read_end(place: Place, call_sid: str) -> str | None:
    """Wait until a server has ended a call; return why, None if it does not know the call or does not end it."""
    deadline_s = time.monotonic() + ENDED_LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            view = await place.get(f"/api/calls/{call_sid}")
        except aiohttp.ClientResponseError:  # 404
            return None
        if view["state"] == "ended":
            return view["ended_reason"]
        await asyncio.sleep(_EVERY_S)
    return None


async def read_files(place: Place, call_sid: str) -> CallTimeline | None:
    """Wait for what a server writes of a call when it has ended; None if it never does."""
    path = place.recordings / call_sid / TIMELINE_JSON
    deadline_s = time.monotonic() + ENDED_LIMIT_S
    while not path.exists():
        if time.monotonic() > deadline_s:
            return None
        await asyncio.sleep(_EVERY_S)
    return await asyncio.to_thread(read_timeline, path)


async def read_asked(place: Place, since_s: float) -> list[Mapping[str, Any]]:
    """Return what the models were asked since a moment of `time.monotonic()`, oldest first."""
    asked = [
        {"vendor": vendor.value, **request}
        for vendor in MODELS
        for request in await place.sims.asked(vendor, since_s)
    ]
    return sorted(asked, key=lambda request: request["at_s"])


def remembered_in(asked: Iterable[Mapping[str, Any]]) -> tuple[Kept, ...] | None:
    """Return the agent's words in the last request that is no part of an answer that goes on; None without one.

    Args:
        asked: Requests with their `messages`, oldest first.
    """
    whole = [request["messages"] for request in asked if NOTE not in str(request["messages"][-1])]
    return None if not whole else tuple(_kept(whole[-1]))


def kept_in(timeline: CallTimeline) -> tuple[Kept, ...]:
    """Return what a timeline holds of the agent's words, what was said meanwhile left out."""
    return tuple(Kept(turn.agent_text, turn.cut) for turn in timeline.turns if turn.agent_text)


def _kept(messages: Sequence[Mapping[str, Any]]) -> Iterable[Kept]:
    for message in messages:
        if message.get("role") == "assistant":
            text = _text_of(message.get("content"))
            if text:
                yield Kept(text.removesuffix(CUT_MARK).rstrip(), text.endswith(CUT_MARK))


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content.strip()
    blocks = content if isinstance(content, list) else []
    texts = [
        str(block["text"]) for block in blocks if isinstance(block, dict) and block.get("type") == "text"
    ]
    return " ".join(texts).strip()


def _family(place: Place) -> list[int]:
    """Return the processes of a server that live, itself included: they have its port in their environment."""
    mark = f"\0PORT={place.server.port}\0".encode()
    found: list[int] = []
    for process in _PROC.iterdir():
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            if process.name.isdecimal() and mark in b"\0" + (process / "environ").read_bytes():
                found.append(int(process.name))
    return found


async def _listens(port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CONNECT_LIMIT_S):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()
        return True
    return False


def _read_process(process: Path) -> tuple[int, str]:
    return len(list((process / "fd").iterdir())), (process / "status").read_text()
