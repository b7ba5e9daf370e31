"""A real Redis of a test's own, which may be killed, frozen and started again."""

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

from store.redis_link import RedisLink

START_LIMIT_S = 10.0


class RedisProcess:
    """`redis-server` on a free port of loopback, in memory only. Start it; stop it at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._prefixes = itertools.count()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def new_prefix(self) -> str:
        """Return a prefix of keys that no other test has."""
        return f"test{next(self._prefixes)}:"

    def link(self, *, deadline_s: float = 5.0, prefix: str = "test:") -> RedisLink:
        return RedisLink(self.url, deadline_s=deadline_s, prefix=prefix)

    def start(self, *more: str) -> None:
        """Start it and wait until it answers. What it knew is gone, as after a crash."""
        program = shutil.which("redis-server")
        assert program is not None, "these tests need redis-server (Debian's package redis-server)"
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            "daemonize": "no",
            "loglevel": "warning",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(  # noqa: S603 - ours
            [program, *arguments, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_s = time.monotonic() + START_LIMIT_S
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < give_up_s, "redis-server does not answer"
            time.sleep(0.02)

    def freeze(self) -> None:
        """It hangs: its sockets stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone in the middle of whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(5)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5) as one:
            one.settimeout(0.5)
            one.sendall(b"PING\r\n")
            return one.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
        return False


class ClosesLink:
    """Mix into a store on a link: closes the link, as its process would."""

    _link: RedisLink

    async def close(self) -> None:
        await self._link.close()


@contextlib.contextmanager
def redis_process(folder: Path) -> Generator[RedisProcess]:
    """Run one for a block."""
    server = RedisProcess(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
