"""The spool between writers that never wait and a store that does as it likes. Real files, real threads."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from store.errors import StoreUnavailableError
from store.spool import SYNC_EVERY_S, Sink, Spool, SpoolFullError
from store.spool_file import REFUSED_NAME, SpoolFile
from store.spool_table import SpoolBounds, SpoolState
from tests.fakes.launcher import eventually

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parent.parent.parent


class Store:
    """Takes writes, or does not: `how` says."""

    def __init__(self) -> None:
        self.how: Callable[[], None] | None = None
        self.hangs = False
        self.got: list[bytes] = []
        self.tries = 0

    async def deliver(self, bodies: Sequence[bytes]) -> None:
        self.tries += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.how is not None:
            self.how()
        for body in bodies:
            if body == b'"bad"':
                raise ValueError("I do not take that")
        self.got += bodies


def refuse() -> None:
    raise StoreUnavailableError("connection refused")


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def store_down(self, spool: str, reason: str) -> None:
        self.heard.append(f"{spool} down: {reason}")

    def store_back(self, spool: str, down_s: float) -> None:
        assert down_s > 0
        self.heard.append(f"{spool} back")

    def write_lost(self, spool: str, kind: str, reason: str) -> None:
        self.heard.append(f"{spool} lost {kind}: {reason}")


def open_spool(
    folder: Path, store: Store, *, process: str = "one", bounds: SpoolBounds | None = None
) -> Spool:
    spool = Spool(folder / "spool", name="test", process=process, deadline_s=0.1, bounds=bounds)
    spool.serve("save", Sink(store.deliver))
    spool.serve("event", Sink(store.deliver, takes_several=True))
    return spool


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "spool").glob("*")) if (folder / "spool").exists() else []


@pytest.fixture
def store() -> Store:
    return Store()


@pytest_asyncio.fixture
async def spool(tmp_path: Path, store: Store) -> AsyncIterator[Spool]:
    spool = open_spool(tmp_path, store)
    yield spool
    await spool.close()


async def test_writes_get_there_in_their_order_and_leave_nothing(
    tmp_path: Path, spool: Spool, store: Store
) -> None:
    for number in range(50):
        spool.put("event", "a", b"%d" % number)
    assert await spool.settled(5)
    assert store.got == [b"%d" % number for number in range(50)]
    await spool.close()
    assert files(tmp_path) == []


async def test_a_store_that_is_gone_before_during_and_back_after(spool: Spool, store: Store) -> None:
    listener = Listener()
    spool.listen(listener)
    store.how = refuse
    for number in range(3):
        spool.put("event", "a", b"%d" % number)
    await eventually(lambda: spool.state is SpoolState.DOWN)
    spool.put("save", "a", b'"old"', supersedes=True)
    spool.put("save", "a", b'"new"', supersedes=True)
    await asyncio.sleep(0.1)
    assert store.got == []
    store.how = None
    assert await spool.settled(5)
    assert store.got == [b"0", b"1", b"2", b'"new"']
    assert listener.heard == ["test down: connection refused", "test back"]


async def test_a_store_that_hangs_keeps_nobody_waiting(spool: Spool, store: Store) -> None:
    store.hangs = True
    began_s = asyncio.get_running_loop().time()
    for number in range(100):
        spool.put("event", "a", b"%d" % number)
    assert asyncio.get_running_loop().time() - began_s < 0.5
    await eventually(lambda: spool.state is SpoolState.DOWN)
    store.hangs = False
    assert await spool.settled(5)
    assert store.got == [b"%d" % number for number in range(100)]


async def test_a_store_that_comes_and_goes_loses_and_reorders_nothing(spool: Spool, store: Store) -> None:
    tries = 0

    def flaky() -> None:
        nonlocal tries
        tries += 1
        if tries % 3 == 0:
            raise StoreUnavailableError("again")

    store.how = flaky
    for number in range(6):
        spool.put("save", "a", b"%d" % number)
    assert await spool.settled(10)
    assert store.got == [b"%d" % number for number in range(6)]


async def test_a_write_that_can_never_be_done_stops_no_other_and_is_kept(
    tmp_path: Path, spool: Spool, store: Store
) -> None:
    listener = Listener()
    spool.listen(listener)
    for body in (b"1", b'"bad"', b"2", b"3"):
        spool.put("event", "a", body)
    spool.put("nonsense", "a", b"4")
    spool.put("event", "a", b"5")
    assert await spool.settled(5)
    assert store.got == [b"1", b"2", b"3", b"5"]
    assert listener.heard == ["test lost event: refused", "test lost nonsense: refused"]
    await eventually(lambda: (tmp_path / "spool" / REFUSED_NAME).read_text().count("\n") == 2)


async def test_a_full_spool_takes_no_more_and_says_so(tmp_path: Path, store: Store) -> None:
    listener = Listener()
    spool = open_spool(tmp_path, store, bounds=SpoolBounds(writes=4))
    spool.listen(listener)
    store.how = refuse
    for _ in range(3):
        spool.put("event", "a", b"1")
    with pytest.raises(SpoolFullError):
        spool.put("event", "a", b"1")
    spool.put("save", "a", b"2", is_vital=True)
    await eventually(lambda: spool.state is SpoolState.DOWN)
    store.how = None
    assert await spool.settled(5)
    assert store.got == [b"1", b"1", b"1", b"2"]
    assert "test lost event: full" in listener.heard
    await spool.close()
    with pytest.raises(SpoolFullError, match="closed"):
        spool.put("event", "a", b"1")


async def test_what_waits_when_a_process_ends_is_done_by_the_next(tmp_path: Path, store: Store) -> None:
    first = open_spool(tmp_path, store)
    store.how = refuse
    first.put("save", "a", b"1", supersedes=True)
    first.put("event", "a", b"2")
    await eventually(lambda: first.state is SpoolState.DOWN)
    await first.close()
    assert files(tmp_path) == ["one.test.spool"]
    store.how = None
    second = open_spool(tmp_path, store, process="two")
    second.start()
    await eventually(lambda: len(store.got) == 2)
    assert store.got == [b"1", b"2"]
    await second.close()
    assert files(tmp_path) == []


async def test_what_a_killed_process_was_writing_is_done_by_another_that_runs(
    tmp_path: Path, spool: Spool, store: Store
) -> None:
    spool.start()
    script = """
import asyncio, os, pathlib, sys
from store.errors import StoreUnavailableError
from store.spool import Sink, Spool
async def refuse(bodies):
    raise StoreUnavailableError("down")
async def main():
    spool = Spool(pathlib.Path(sys.argv[1]) / "spool", name="test", process="dead")
    spool.serve("save", Sink(refuse))
    spool.put("save", "a", b'"half"', supersedes=True)
    spool.put("save", "a", b'"last"', supersedes=True)
    await asyncio.sleep(0.3)
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen(  # noqa: ASYNC220, S603 - ours, and nothing else runs here
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        await asyncio.sleep(2.2)  # we have looked meanwhile, and it lives
        assert store.got == []
        process.send_signal(signal.SIGKILL)
        await eventually(lambda: store.got == [b'"last"'])
        await eventually(lambda: files(tmp_path) in ([], ["one.test.spool"]))
    finally:
        process.kill()
        process.wait(5)
        if process.stdout is not None:
            process.stdout.close()


async def test_two_who_look_for_orphans_do_each_write_once(tmp_path: Path, store: Store) -> None:
    store.how = refuse
    for number in range(4):
        dead = open_spool(tmp_path, store, process=f"dead{number}")
        dead.put("event", "a", b"%d" % number)
        await eventually(lambda dead=dead: dead.state is SpoolState.DOWN)
        await dead.close()
    store.how = None
    heirs = [open_spool(tmp_path, store, process=f"heir{number}") for number in range(3)]
    for heir in heirs:
        heir.start()
    await eventually(lambda: len(store.got) == 4)
    for heir in heirs:
        await heir.close()
    assert sorted(store.got) == [b"0", b"1", b"2", b"3"]
    assert files(tmp_path) == []


async def test_an_orphan_for_which_there_is_no_room_stays(tmp_path: Path, store: Store) -> None:
    store.how = refuse
    dead = open_spool(tmp_path, store, process="dead")
    for _ in range(5):
        dead.put("event", "a", b"1")
    await eventually(lambda: dead.state is SpoolState.DOWN)
    await dead.close()
    heir = open_spool(tmp_path, store, process="heir", bounds=SpoolBounds(writes=4))
    heir.put("event", "a", b"own")
    await eventually(lambda: heir.state is SpoolState.DOWN)
    assert len(heir) == 1
    assert "dead.test.spool" in files(tmp_path)
    await heir.close()


async def test_who_must_be_sure_returns_when_it_is_on_disk(
    tmp_path: Path, spool: Spool, store: Store
) -> None:
    store.how = refuse
    await spool.put_durably("save", "a", b'"sure"')
    assert b'"sure"' in (tmp_path / "spool" / "one.test.spool").read_bytes()
    store.how = None
    assert await spool.settled(5)
    assert store.got == [b'"sure"']


async def test_while_a_store_is_down_the_file_is_synced_each_second_and_else_never(
    spool: Spool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced_s: list[float] = []
    loop = asyncio.get_running_loop()

    def sync(file: SpoolFile) -> None:
        synced_s.append(loop.time())

    monkeypatch.setattr(SpoolFile, "sync", sync)
    for number in range(3):
        spool.put("event", "a", b"%d" % number)
        assert await spool.settled(5)
    assert synced_s == []
    store.how = refuse
    began_s = loop.time()
    for number in range(24):
        spool.put("event", "a", b"%d" % number)
        await asyncio.sleep(0.1)
    await eventually(lambda: len(synced_s) >= 3)
    last_s = loop.time()
    assert len(synced_s) <= 1 + (last_s - began_s) / SYNC_EVERY_S
    await asyncio.sleep(1.5)
    assert len(synced_s) <= 2 + (last_s - began_s) / SYNC_EVERY_S  # nothing new, nothing to sync


async def test_without_a_disk_writes_still_get_there_and_nobody_is_told_that_they_are_sure(
    tmp_path: Path, store: Store
) -> None:
    (tmp_path / "spool").write_text("a file where the folder must be")
    spool = open_spool(tmp_path, store)
    spool.put("event", "a", b"1")
    assert await spool.settled(5)
    store.how = refuse
    spool.put("event", "a", b"2")
    await eventually(lambda: spool.state is SpoolState.DOWN)
    with pytest.raises(SpoolFullError, match="disk"):
        await spool.put_durably("save", "a", b'"sure"')
    (tmp_path / "spool").unlink()
    await eventually(
        lambda: (tmp_path / "spool" / "one.test.spool").exists()
    )  # the disk is back, the store is not
    await eventually(lambda: b"\t2\n" in (tmp_path / "spool" / "one.test.spool").read_bytes())
    store.how = None
    assert await spool.settled(10)
    assert store.got == [b"1", b"2"]
    await spool.close()


async def test_a_disk_that_hangs_keeps_no_write_from_the_store(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = os.pipe()
    monkeypatch.setattr(SpoolFile, "append", lambda *_: os.read(pipe[0], 1))
    spool = open_spool(tmp_path, store)
    for number in range(3):
        spool.put("event", "a", b"%d" % number)
        assert await spool.settled(5)
    assert store.got == [b"0", b"1", b"2"]
    os.close(pipe[1])  # it goes on
    await spool.close()
    with contextlib.suppress(OSError):
        os.close(pipe[0])


def test_a_kind_has_one_sink_and_a_deadline_is_positive(tmp_path: Path, store: Store) -> None:
    spool = open_spool(tmp_path, store)
    with pytest.raises(ValueError, match="one already"):
        spool.serve("save", Sink(store.deliver))
    with pytest.raises(ValueError, match="deadline_s"):
        Spool(tmp_path, name="x", process="y", deadline_s=0)


async def test_who_wants_to_know_waits_for_a_try_and_no_longer(spool: Spool, store: Store) -> None:
    loop = asyncio.get_running_loop()
    assert await spool.tried(spool.put("event", "a", b"1"))
    assert store.got == [b"1"]
    store.hangs = True
    began_s = loop.time()
    waits = [asyncio.create_task(spool.tried(spool.put("save", "a", b"%d" % number))) for number in range(3)]
    assert not any(await asyncio.gather(*waits))
    assert not await spool.tried(spool.put("save", "a", b"9"))  # it is known to be down
    assert loop.time() - began_s < 2.0
    store.hangs = False
    assert await spool.settled(10)
    needless = asyncio.create_task(spool.tried(spool.put("save", "b", b"old", supersedes=True)))
    spool.put("save", "b", b"new", supersedes=True)
    assert await needless
