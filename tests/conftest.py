"""Shared pytest configuration."""

import asyncio
import contextlib
import fcntl
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

from sims.speech import SpeechSynthesizer
from tests.fakes import rendered_lines
from tests.virtual_time import VirtualTimeLoop

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

SLOTS = tuple(Path(__file__).with_name(name) for name in ("__init__.py", "conftest.py", "virtual_time.py"))
"""Files that stand for the places of modules marked `whole_calls`; locking them leaves nothing behind."""
FILES_FIRST, FILES_BETWEEN = 40, 12
"""So many other files are tested, by those who have no place, until the first of them is free again, and the next."""
WHOLE_CALLS_NICE = -10
_POLL_S = 0.2


@pytest.fixture(scope="session", autouse=True)
def _rendered_lines(tmp_path_factory: pytest.TempPathFactory) -> None:
    own = tmp_path_factory.getbasetemp()
    rendered_lines.share_in((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "lines")


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[SpeechSynthesizer]:
    made = SpeechSynthesizer()
    yield made
    made.close()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run async tests on virtual time, unless marked `real_time` (sockets, threads)."""
    if item.get_closest_marker("real_time"):
        return {"real": asyncio.new_event_loop}
    return {"virtual": VirtualTimeLoop}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens: what ends a run early must not hide it."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stdout.write(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext}\n")
        sys.stdout.flush()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    return _FilesOnce(config, log)


class _FilesOnce(LoadFileScheduling):
    """A file's tests in one process; of a process that died, only what it left goes to another.

    The scheduler it extends hands on finished files as well, as empty lots. A process that is given one with a
    single test before it waits for more, and the run never ends.
    """

    def remove_node(self, node: WorkerController) -> str | None:
        files = self.assigned_work.pop(node)
        crashed = next((test for file in files.values() for test, done in file.items() if not done), None)
        if crashed is None:
            return None
        for file in files.values():
            if crashed in file:
                file[crashed] = True  # it is reported as failed; once is enough
        left = [(name, file) for name, file in files.items() if not all(file.values())]
        self.workqueue = OrderedDict([*left, *self.workqueue.items()])
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole calls, which mostly wait, longest first, and spread the rest of them among what computes."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    calls = sorted((one for one in files.values() if _about_s(one) > 0), key=_about_s, reverse=True)
    others = [one for one in files.values() if _about_s(one) == 0]
    order, done = calls[: len(SLOTS)], 0
    for more in calls[len(SLOTS) :]:
        ahead = others[done : done + (FILES_BETWEEN if done else FILES_FIRST)]
        order, done = [*order, *ahead, more], done + len(ahead)
    order += others[done:]
    items[:] = [item for one in order for item in one]


def _about_s(file: list[pytest.Item]) -> float:
    """Return about how many seconds a file's calls take; 0 when it plays none."""
    marker = file[0].get_closest_marker("whole_calls")
    return 0 if marker is None else float(marker.kwargs["about_s"])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Give whole calls a core: in so many processes as there are places, and ahead of the others."""
    if item.get_closest_marker("whole_calls") is None:
        return (yield)
    _place.enter()
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            _place.leave()


class _Place:
    """This process's place among those that play whole calls; held for a module, as its calls are."""

    def __init__(self) -> None:
        self._held: int | None = None

    def enter(self) -> None:
        """Wait for a place, in front of all time limits."""
        while self._held is None:
            for slot in SLOTS:
                file = os.open(slot, os.O_RDONLY)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(file)
                else:
                    self._held = file
                    _set_nice(WHOLE_CALLS_NICE)
                    return
            time.sleep(_POLL_S)

    def leave(self) -> None:
        if self._held is not None:
            _set_nice(0)
            os.close(self._held)
            self._held = None


def _set_nice(nice: int) -> None:
    with contextlib.suppress(PermissionError):  # only root may; without it the calls share alike
        os.setpriority(os.PRIO_PROCESS, 0, nice)


_place = _Place()
