"""The sims as a process beside the server: started when a vendor has no key, ended with us.

Knows the sims only by their command line and the one JSON line they print when they are ready; never imports
them.
"""

import contextlib
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import IO, Self, cast

import orjson
from loguru import logger

from bot.errors import SimProcessError
from bot.settings import Vendor, VendorSource

READY_WITHIN_S = 30.0
"""Start of Python, imports and the first ports on a busy machine."""
QUIT_AFTER_EOF_S = 2.0
"""They end by themselves when their stdin closes."""
KILL_AFTER_S = 3.0
"""After a polite terminate."""

SIM_KEY = "sim"
"""A sim takes any key that is not empty."""


class SimProcess:
    """A running `python -m sims serve`.

    One thread reads its stdout to the end, so that it can never block on a full pipe. Its stderr is ours.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        """Take over a process just started with pipes as stdin and stdout."""
        self._process = process
        self._first_line: queue.Queue[bytes] = queue.Queue(maxsize=1)
        self._reader = threading.Thread(target=self._read, name="sims-stdout", daemon=True)
        self._reader.start()
        self.environment: Mapping[str, str] = {}
        """What the sims printed: base URLs, Twilio account and token, by setting name."""

    @classmethod
    def start(
        cls,
        *,
        profile: str = "realistic",
        seed: int | None = None,
        command: Sequence[str] = (sys.executable, "-m", "sims", "serve"),
        ready_within_s: float = READY_WITHIN_S,
    ) -> Self:
        """Start the sims and wait until every vendor serves. Blocks.

        Args:
            profile: Name of their timing profile.
            seed: Seed of their random choices.
            command: Their command line without options.
            ready_within_s: Limit of the wait.

        Raises:
            SimProcessError: If they cannot be started, end, stay silent or print something else.
        """
        arguments = [*command, "--profile", profile, "--json"]
        arguments += [] if seed is None else ["--seed", str(seed)]
        try:
            # A session of their own: Ctrl-C at the terminal is for us, who still need them to drain.
            process = subprocess.Popen(  # noqa: S603 - our own command line
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise SimProcessError(f"the sims cannot be started: {error}") from error
        sims = cls(process)
        try:
            sims.environment = _parse_ready_line(sims._wait_for_line(ready_within_s))
        except BaseException:
            sims.stop()
            raise
        return sims

    @property
    def is_running(self) -> bool:
        """Whether the process still lives."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process: close its stdin, then terminate, then kill. Blocks for a few seconds at most."""
        stdin = cast(IO[bytes], self._process.stdin)
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        if not self._ended_within(QUIT_AFTER_EOF_S):
            self._process.terminate()
            if not self._ended_within(KILL_AFTER_S):
                logger.warning("the sims ignore SIGTERM; killed")
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ended_within(self, limit_s: float) -> bool:
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _wait_for_line(self, limit_s: float) -> bytes:
        deadline = time.monotonic() + limit_s
        try:
            line = self._first_line.get(timeout=limit_s)
        except queue.Empty:
            raise SimProcessError(f"the sims were not ready after {limit_s:g} s") from None
        if line:
            return line
        self._ended_within(max(0.1, deadline - time.monotonic()))
        raise SimProcessError(f"the sims ended before they were ready (exit code {self._process.poll()})")

    def _read(self) -> None:
        """Pass the first line on and throw the rest away, to the end of the stream."""
        stdout = cast(IO[bytes], self._process.stdout)
        with stdout:
            self._first_line.put(stdout.readline(1 << 16))
            while stdout.readline(1 << 16):
                pass


@contextlib.contextmanager
def sims_for(plan: Mapping[Vendor, VendorSource], *, profile: str = "realistic") -> Generator[dict[str, str]]:
    """Run the sims for as long as the block lasts, if the plan needs any.

    Yields:
        The environment that makes `load_settings` see the simulated vendors as real ones, in this process and
        in its workers; empty when there is nothing to simulate.

    Raises:
        SimProcessError: If the sims do not start.
    """
    if VendorSource.SIM not in plan.values():
        yield {}
        return
    with SimProcess.start(profile=profile) as sims:
        yield sim_environment(plan, sims.environment)


def sim_environment(plan: Mapping[Vendor, VendorSource], printed: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that point each simulated vendor, and no other, at its sim.

    Args:
        plan: Where each vendor comes from.
        printed: What the sims printed.

    Raises:
        SimProcessError: If the sims do not serve a vendor that the plan needs.
    """
    environment = {"SIMS": "auto"}
    for vendor, source in plan.items():
        if source is not VendorSource.SIM:
            continue
        prefix = f"{vendor.value.upper()}_"
        served = {name: value for name, value in printed.items() if name.startswith(prefix)}
        if f"{prefix}BASE_URL" not in served:
            raise SimProcessError(f"the sims do not serve {vendor.value}")
        if vendor is not Vendor.TWILIO:
            served.setdefault(f"{prefix}API_KEY", SIM_KEY)
        environment |= served
    return environment


def _parse_ready_line(line: bytes) -> Mapping[str, str]:
    try:
        printed = orjson.loads(line)
    except orjson.JSONDecodeError:
        printed = None
    if not isinstance(printed, dict):
        raise SimProcessError(f"the sims printed no JSON object when they were ready: {line[:80]!r}")
    return {str(name): str(value) for name, value in cast(dict[object, object], printed).items()}
