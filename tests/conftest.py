"""Shared pytest configuration."""

import asyncio
import functools
import gc
import os
import ssl
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer

from sims.speech import SpeechSynthesizer
from tests.fakes import rendered_lines
from tests.places import Places
from tests.scheduling import FilesByLoad, load_of, set_nice
from tests.virtual_time import VirtualTimeLoop

gc.disable()  # until all is imported: nothing of that is garbage

# Each client of a vendor reads the machine's certificates, 15 ms; hardly anything here is TLS.
ssl.create_default_context = functools.cache(ssl.create_default_context)

# How long an example takes says how busy the machine is.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


_PLACES = "FIRST_RING_TEST_PLACES"
"""Names the file of this run's `Places`; the processes of a run inherit it."""


def pytest_configure(config: pytest.Config) -> None:
    """Make room known to all processes of the run."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="first-ring-")
        config.add_cleanup(folder.cleanup)
        os.environ[_PLACES] = str(Path(folder.name, "places"))


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


def pytest_collection_finish() -> None:
    """Spare all that was imported and collected from the garbage collector: it is there until the end."""
    gc.enable()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens: what ends a run early must not hide it."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stdout.write(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext}\n")
        sys.stdout.flush()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesByLoad:
    return FilesByLoad(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Have whole calls wait for room, and let them go ahead of the other processes then."""
    file = _file_of(item)
    if file != _playing[0]:
        _playing[0] = file
        _places().take(load_of(file).places)
    set_nice(file)
    try:
        return (yield)
    finally:
        if nextitem is None or _file_of(nextitem) != file:
            _playing[0] = ""
            _places().give_back()


_playing = [""]
"""The file whose places this process has."""


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


def _places() -> Places:
    return Places(Path(os.environ[_PLACES]))
