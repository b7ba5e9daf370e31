"""The servers under measurement, each a process on the measured core, and its data in a folder of its own."""

import contextlib
import enum
import http.client
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.agents import RECEPTION, write_agents
from bench.machine import Memory, bucket_percentile, on_core, parse_buckets, read_tree
from bot.settings import child_environment

READY_LIMIT_S = 180.0
"""On a machine that does much else; idle it takes six."""
STOP_LIMIT_S = 8.0
_LAG = "firstring_loop_lag_seconds"
_HTTP_LIMIT_S = 5.0
_LOG_LINES = 20


class Bot(enum.Enum):
    """Who answers the telephone."""

    OURS = "First Ring"
    PLAIN = "plain Pipecat"
    CAUTIOUS = "First Ring without speculation"


BOTH = (Bot.OURS, Bot.PLAIN)
"""Those that are compared in everything."""

COMMANDS: Mapping[Bot, tuple[str, ...]] = {
    Bot.OURS: ("-m", "bot.cli", "serve"),
    Bot.PLAIN: ("-m", "bench.plain_bot"),
    Bot.CAUTIOUS: ("-m", "bot.cli", "serve"),
}


class ServerError(Exception):
    """A server did not start, or ended by itself."""


@dataclass(frozen=True)
class Reading:
    """What a server has used until now."""

    cpu_s: float
    memory: Memory
    lag: Mapping[float, float]
    """Lateness of its event loop: upper edge in seconds to cumulative count."""

    def lag_since(self, before: "Reading", share: float) -> float | None:
        """Return the percentile of the loop's lateness between two readings, in seconds, rounded up to an edge."""
        return bucket_percentile(before.lag, self.lag, share)


@dataclass(frozen=True)
class Server:
    """A running server."""

    bot: Bot
    port: int
    pid: int
    database: Path
    log: Path
    public_port: int | None = None
    """Where the carrier reaches it, if not at its own."""

    @property
    def voice_url(self) -> str:
        """Its voice webhook."""
        return f"http://127.0.0.1:{self.public_port or self.port}/twilio/voice"

    def read(self) -> Reading:
        """Read what it has used. Blocks for some milliseconds; the request costs the server about one."""
        exposition = self.exposition()
        cpu_s, memory = read_tree(self.pid)
        return Reading(cpu_s, memory, parse_buckets(exposition, _LAG))

    def exposition(self) -> str:
        """Read its metrics, in Prometheus' text format. Blocks for some milliseconds."""
        return _get(self.port, "/metrics")[1]

    def memory(self) -> Memory:
        """Read what it occupies now."""
        return read_tree(self.pid)[1]

    def booked(self, phone: str) -> int:
        """Return how many appointments there are for a number."""
        return self._count("SELECT count(*) FROM bookings WHERE phone = ?", (phone,))

    def bookings(self) -> int:
        """Return how many appointments there are."""
        return self._count("SELECT count(*) FROM bookings")

    def messages(self) -> int:
        """Return how many messages there are."""
        return self._count("SELECT count(*) FROM messages")

    def _count(self, query: str, values: Sequence[str] = ()) -> int:
        with contextlib.closing(sqlite3.connect(self.database, timeout=2.0)) as connection:
            try:
                return connection.execute(query, values).fetchone()[0]
            except sqlite3.OperationalError:  # nobody has written to it yet
                return 0

    def empty_books(self) -> None:
        """Take all appointments and messages out of its books, so that each row finds the same free times."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=2.0)) as connection:
            for table in ("bookings", "messages"):
                with contextlib.suppress(sqlite3.OperationalError):  # nobody has written to it yet
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own two names
            connection.commit()


@contextlib.contextmanager
def running(
    bot: Bot,
    *,
    vendors: Mapping[str, str],
    folder: Path,
    core: int | None,
    max_calls: int,
    agents: Sequence[str] = (RECEPTION,),
    rendered: Path | None = None,
    beside: "Server | None" = None,
    public_port: int | None = None,
) -> Generator[Server]:
    """Run one server for as long as the block lasts.

    Args:
        bot: Which.
        vendors: Settings that point it at the sims.
        folder: Gets its data and log, and is emptied first.
        core: Where it runs; None is anywhere.
        max_calls: Calls at once that it has to admit.
        agents: Who answers its numbers, of `bench.agents`.
        rendered: Lines that another server has rendered; it begins with a copy.
        beside: Another one whose books, lines and recordings it shares.
        public_port: Where the carrier reaches it, if not at its own.

    Raises:
        ServerError: If it is not ready in time.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if rendered is not None:
        shutil.copytree(rendered, folder / rendered.name)
    port = free_port()
    log, database = folder / "server.log", folder / "books.db" if beside is None else beside.database
    data = database.parent
    written = data / "agents"
    if beside is None:
        write_agents(written, agents, thinks_ahead=bot is not Bot.CAUTIOUS)
    environment = child_environment(
        {
            **vendors,
            "PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{public_port or port}",
            "DATABASE_URL": f"sqlite:///{database.resolve()}",
            "RECORDINGS_URL": str(data / "recordings"),
            "MAX_CALLS": str(max_calls),
            "WORKERS": "1",
            "LOG_LEVEL": "INFO",
            "AGENTS_DIR": str(written),
        }
    )
    with log.open("wb") as output, on_core(core):
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, *COMMANDS[bot]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(process, port, log)
        yield Server(bot, port, process.pid, database, log, public_port)
    finally:
        process.send_signal(signal.SIGCONT)  # one that was stopped would not notice
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _get(port, "/readyz")[0] == 200:
                return
        time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
    raise ServerError(f"the server was not ready in {READY_LIMIT_S:g} s; it said last:\n{last}")


def _get(port: int, path: str) -> tuple[int, str]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=_HTTP_LIMIT_S)
    ) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
