"""Writes for a store that may be down: taken at once, kept on disk, done in their order when the store lets them.

The shell of `SpoolTable` around a `SpoolFile`. Whoever writes never waits for the store; what was taken outlives this
process, and another process of the machine, or the next one, carries on with it. Stores must take a write a second time
as if it were the first: what they have got is not always known.

A disk that refuses is no reason to take nothing: writes are then kept in memory only, and that is logged.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from loguru import logger

from store.errors import StoreUnavailableError
from store.spool_file import SUFFIX, Orphan, SpoolFile, keep_refused, next_orphan
from store.spool_table import SpoolBounds, SpoolState, SpoolTable, Write

DISK_LIMIT_S: Final = 0.3
"""A disk that takes longer is left to itself."""
DISK_PAUSE_S: Final = 1.0
"""Until a disk that refused is tried again."""
SYNC_EVERY_S: Final = 1.0
"""While the store is down the file is the only copy; a machine that fails then costs at most this much."""
ADOPT_EVERY_S: Final = 2.0
CLOSE_LIMIT_S: Final = 1.0


class SpoolFullError(StoreUnavailableError):
    """The store is down, and there is no room for more, or no disk that keeps it."""


@dataclass(frozen=True)
class Sink:
    """Where the writes of one kind go."""

    deliver: Callable[[Sequence[bytes]], Awaitable[None]]
    """Does writes, given their bodies. Raises `StoreUnavailableError` if the store is down; whatever else it raises
    says that the store will never take them."""
    takes_several: bool = False
    """Whether it is given several at once: all of them are done then, or none."""


class SpoolListener(Protocol):
    """Told how the store is; must not block."""

    def store_down(self, spool: str, reason: str) -> None:
        """A write failed, after others had not."""
        ...

    def store_back(self, spool: str, down_s: float) -> None:
        """Everything that waited is done."""
        ...

    def write_lost(self, spool: str, kind: str, reason: str) -> None:
        """A write will not be done: `full`, there was no room for it, or `refused`, the store will never take it."""
        ...


class Spool:
    """The writes of this process for one store. `serve` sinks, then `put`; `close` leaves what waits on disk."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        process: str,
        store: str | None = None,
        deadline_s: float = 0.3,
        bounds: SpoolBounds | None = None,
    ) -> None:
        """Create it; nothing runs and nothing is touched before the first write or `start`.

        Args:
            folder: Where the files of all processes of this machine are, on a local disk.
            name: Processes adopt the orphans of their own name only.
            process: Of this process, see `store.calls.new_process_id`.
            store: What the store is called where it is told that it is down; `name` by default.
            deadline_s: For the store to take a write, > 0.
            bounds: How much may wait.

        Raises:
            ValueError: If the deadline is not positive.
        """
        if deadline_s <= 0:
            raise ValueError(f"deadline_s must be > 0, got {deadline_s}")
        bounds = bounds or SpoolBounds()
        self.name = store or name
        """Of the store."""
        self._folder = folder
        self._ending = f".{name}{SUFFIX}"
        self._deadline_s = deadline_s
        self._listener: SpoolListener | None = None
        self._sinks: dict[str, Sink] = {}
        self._several: set[str] = set()
        self._table = SpoolTable(bounds, several=self._several)
        path = folder / (process.replace("/", "_") + self._ending)
        self._disk = _Disk(SpoolFile(path, most_bytes=2 * bounds.size_bytes), name)
        self._unwritten: list[Write] = []
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()
        """Set when a try has ended, then replaced."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._worker: asyncio.Task[None] | None = None
        self._is_closed = False
        self._down_since_s: float | None = None
        self._lost = 0
        self._is_unsynced = False
        """Whether something is in the file that a failing machine would take along."""
        self._sync_at_s = 0.0
        self._adopt_at_s = 0.0

    @property
    def state(self) -> SpoolState:
        """How the store is."""
        return self._table.state

    def __len__(self) -> int:
        """Return how many writes wait."""
        return len(self._table)

    def serve(self, kind: str, sink: Sink) -> None:
        """Name where the writes of a kind go, before the first of them.

        Raises:
            ValueError: If the kind has a sink already.
        """
        if kind in self._sinks:
            raise ValueError(f"a kind has one sink; {kind} has one already")
        self._sinks[kind] = sink
        if sink.takes_several:
            self._several.add(kind)

    def listen(self, listener: SpoolListener) -> None:
        """Have `listener` told how the store is."""
        self._listener = listener

    def start(self) -> None:
        """Begin to work: adopt what processes that have ended left, and do it. Starting twice is starting once."""
        if self._worker is None and not self._is_closed:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name=f"spool {self.name}")

    def put(
        self, kind: str, key: str, body: bytes, *, supersedes: bool = False, is_vital: bool = False
    ) -> int:
        """Take a write and return its number at once.

        Args:
            kind: Of a sink.
            key: What it is about; writes of one kind and key are done in their order.
            body: JSON.
            supersedes: Earlier writes of its kind and key that wait are needless.
            is_vital: It may use the room that is kept for such.

        Raises:
            SpoolFullError: If there is no room.
        """
        write = self._take(kind, key, body, supersedes=supersedes, is_vital=is_vital)
        self._unwritten.append(write)
        self._wake.set()
        return write.number

    async def tried(self, number: int) -> bool:
        """Wait until a write was tried, or the store is known to be down; at most about as long as one try takes.

        Returns:
            Whether it waits no more: it is done, needless or refused.
        """
        limit_s = DISK_LIMIT_S + self._deadline_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._table.is_waiting(number) and self.state is not SpoolState.DOWN:
                    await self._moved.wait()
        return not self._table.is_waiting(number)

    async def put_durably(self, kind: str, key: str, body: bytes) -> None:
        """Take a vital write and return when it is on disk, or done.

        Raises:
            SpoolFullError: If there is no room, or the disk did not take it in time. Then nobody may rely on it.
        """
        write = self._take(kind, key, body, is_vital=True)
        done_up_to = self._table.done_up_to

        def keep(file: SpoolFile) -> None:
            file.append([write], done_up_to)
            file.sync()

        # Not in memory only: whoever waits for this tells a person that it is written down.
        if not await self._disk.run(keep) and self._table.take_back(write):
            self._note_idle()
            raise SpoolFullError(f"the spool {self.name} is on no disk that takes it")
        self._wake.set()

    def waiting(self, kind: str, key_prefix: str = "") -> list[bytes]:
        """Return the bodies of the writes of a kind that wait, in their order."""
        return [
            write.body
            for write in self._table.waiting()
            if write.kind == kind and write.key.startswith(key_prefix)
        ]

    async def settled(self, limit_s: float) -> bool:
        """Wait until nothing waits; False if that takes longer than `limit_s` seconds."""
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Let what waits be done if the store is up, leave the rest on disk, and end. Takes nothing any more."""
        self._is_closed = True
        worker, self._worker = self._worker, None
        if worker is not None:
            if self.state is not SpoolState.DOWN:
                await self.settled(CLOSE_LIMIT_S)
            worker.cancel()
            await asyncio.wait({worker})
            waiting = self._table.waiting()
            await self._disk.run(lambda file: file.close(waiting), limit_s=CLOSE_LIMIT_S)
        self._disk.close()

    # The worker

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            await self._adopt()
            await self._write_down()
            writes = self._table.due(self._now_s())
            if writes:
                await self._deliver(writes)
            else:
                await self._rest()

    async def _rest(self) -> None:
        """Wait for the next write, the next try of store or disk, or the next look at what others left."""
        due = [self._adopt_at_s]
        if (try_s := self._table.due_at_s()) is not None:
            due.append(try_s)
        if self._unwritten:
            due.append(self._disk.retry_s)
        if self._is_unsynced and self.state is not SpoolState.UP:
            due.append(max(self._sync_at_s, self._disk.retry_s))
        until_s = min(due)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until_s - self._now_s())):
                await self._wake.wait()

    async def _deliver(self, writes: Sequence[Write]) -> None:
        sink = self._sinks.get(writes[0].kind)
        try:
            async with asyncio.timeout(self._deadline_s):
                await (sink.deliver if sink is not None else _nobody)([write.body for write in writes])
        except (StoreUnavailableError, TimeoutError) as error:
            self._table.failed(self._now_s())
            self._note_down(str(error) or f"no answer within {self._deadline_s} s")
        except Exception as error:  # noqa: BLE001 - one write that cannot be done must not stop all others
            await self._give_up(self._table.refused(), f"{type(error).__name__}: {error}")
        else:
            self._table.done()
        if self.state is SpoolState.UP:
            self._note_back()
        self._note_idle()
        self._moved.set()
        self._moved = asyncio.Event()

    async def _give_up(self, writes: Sequence[Write], reason: str) -> None:
        if not writes:  # they are tried one by one first
            return
        for write in writes:
            self._note_lost(write.kind, write.key, "refused", reason)
        folder = self._folder
        await self._disk.run(lambda _: keep_refused(folder, writes, reason))

    async def _write_down(self) -> None:
        now_s = self._now_s()
        is_unsynced = self._is_unsynced or bool(self._unwritten)
        wants_sync = is_unsynced and self.state is not SpoolState.UP and now_s >= self._sync_at_s
        if not (self._unwritten or wants_sync) or now_s < self._disk.retry_s:
            return
        if wants_sync:
            self._sync_at_s = now_s + SYNC_EVERY_S
        unwritten, self._unwritten = self._unwritten, []
        waiting, done_up_to = self._table.waiting(), self._table.done_up_to

        def keep(file: SpoolFile) -> None:
            if unwritten:
                file.append(unwritten, done_up_to)
            file.tidy(waiting)
            if wants_sync:
                file.sync()

        if await self._disk.run(keep):
            self._is_unsynced = is_unsynced and not wants_sync
        else:
            self._unwritten[:0] = unwritten
        if not self._disk.is_well:  # nothing may wait for it that is done
            numbers = {write.number for write in self._table.waiting()}
            self._unwritten = [write for write in self._unwritten if write.number in numbers]

    # What others left

    async def _adopt(self) -> None:
        now_s = self._now_s()
        if now_s < self._adopt_at_s:
            return
        self._adopt_at_s = now_s + ADOPT_EVERY_S
        found: list[tuple[Orphan, list[Write]]] = []
        folder, ending = self._folder, self._ending

        def look(_: SpoolFile) -> None:
            orphan = next_orphan(folder, ending)
            if orphan is not None:
                try:
                    found.append((orphan, orphan.writes()))
                except OSError:
                    orphan.let_go()
                    raise

        while await self._disk.run(look) and found:
            orphan, writes = found.pop()
            if not await self._take_over(orphan, writes):
                return

    async def _take_over(self, orphan: Orphan, writes: Sequence[Write]) -> bool:
        """Take an orphan's writes and remove it; False, and it stays, if there is no room or the disk refuses."""
        taken: list[Write] = []
        try:
            for write in writes:
                taken.append(  # noqa: PERF401 - what was taken before the room ended is taken back
                    self._take(
                        write.kind,
                        write.key,
                        write.body,
                        supersedes=write.supersedes,
                        is_vital=write.is_vital,
                        is_adopted=True,
                    )
                )
        except SpoolFullError:
            for write in taken:
                self._table.take_back(write)
            await self._disk.run(lambda _: orphan.let_go())
            return False
        done_up_to = self._table.done_up_to

        def keep(file: SpoolFile) -> None:
            try:
                if taken:
                    file.append(taken, done_up_to)
                    file.sync()
                orphan.remove()
            finally:
                orphan.let_go()

        if taken:
            logger.info(
                "spool {}: {} writes of a process that has ended are taken over", self.name, len(taken)
            )
        return await self._disk.run(keep)

    # Pieces

    def _take(
        self,
        kind: str,
        key: str,
        body: bytes,
        *,
        supersedes: bool = False,
        is_vital: bool = False,
        is_adopted: bool = False,
    ) -> Write:
        if self._is_closed and not is_adopted:
            raise SpoolFullError(f"the spool {self.name} is closed")
        write = self._table.take(kind, key, body, supersedes=supersedes, is_vital=is_vital)
        if write is None:
            if not is_adopted:
                self._note_lost(kind, key, "full", f"{len(self._table)} writes wait")
            raise SpoolFullError(f"the spool {self.name} is full")
        self._idle.clear()
        self.start()
        return write

    def _note_idle(self) -> None:
        if not len(self._table):
            self._idle.set()

    def _note_down(self, reason: str) -> None:
        if self._down_since_s is not None:
            return
        self._down_since_s = self._now_s()
        logger.info("store down: store={} waiting={} reason={!r}", self.name, len(self), reason)
        if self._listener is not None:
            self._listener.store_down(self.name, reason)

    def _note_back(self) -> None:
        since_s, self._down_since_s = self._down_since_s, None
        if since_s is None:
            return
        down_s = self._now_s() - since_s
        logger.info("store back: store={} down_s={:.1f} lost={}", self.name, down_s, self._lost)
        if self._listener is not None:
            self._listener.store_back(self.name, down_s)

    def _note_lost(self, kind: str, key: str, reason: str, detail: str) -> None:
        self._lost += 1
        if (
            self._lost & (self._lost - 1) == 0
        ):  # the 1st, 2nd, 4th, 8th …: a flood of them would hide all else
            logger.error(
                "write lost: store={} kind={} key={} reason={} so_far={} detail={!r}",
                self.name,
                kind,
                key,
                reason,
                self._lost,
                detail,
            )
        if self._listener is not None:
            self._listener.write_lost(self.name, kind, reason)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


async def _nobody(_: Sequence[bytes]) -> None:
    raise ValueError("this release has nothing that takes writes of this kind")


class _Disk:
    """The spool's file behind a thread, one job at a time: a disk that hangs is not given a second one."""

    def __init__(self, file: SpoolFile, name: str) -> None:
        self._file = file
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"spool-{name}")
        self._jobs = 0
        self.is_well = True
        self.retry_s = 0.0
        """Until then it is not tried; the event loop's clock."""

    async def run(self, job: Callable[[SpoolFile], None], *, limit_s: float = DISK_LIMIT_S) -> bool:
        """Do a job; False if it failed or takes too long, in which case it may still be done later."""
        loop = asyncio.get_running_loop()
        if not self.is_well and self._jobs:
            return self._failed(loop, "a job hangs")
        self._jobs += 1
        future = loop.run_in_executor(self._thread, job, self._file)
        future.add_done_callback(self._job_over)
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.shield(future)
        except TimeoutError:
            return self._failed(loop, f"no answer within {limit_s} s")
        except OSError as error:
            return self._failed(loop, str(error))
        if not self.is_well:
            logger.info("spool {}: the disk is back", self._name)
        self.is_well, self.retry_s = True, 0.0
        return True

    def close(self) -> None:
        """Let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _job_over(self, future: "asyncio.Future[None]") -> None:
        self._jobs -= 1
        if not future.cancelled():
            future.exception()  # told to whoever waited, if they still do

    def _failed(self, loop: asyncio.AbstractEventLoop, reason: str) -> bool:
        if self.is_well:
            logger.error("spool {}: writes are kept in memory only: {}", self._name, reason)
        self.is_well, self.retry_s = False, loop.time() + DISK_PAUSE_S
        return False
