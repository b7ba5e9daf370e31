"""A Redis of a call's own, which is killed, frozen and brought back. In memory only. Its methods block."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from bench.servers import ServerError, free_port

START_LIMIT_S = 10.0
_STOP_LIMIT_S = 5.0
_PING_S = 0.5
_PROGRAM = "redis-server"


class RedisServer:
    """`redis-server` on a port of loopback that stays the same however often it is started."""

    def __init__(self, folder: Path) -> None:
        """Prepare; `folder` is where it runs, made if need be, and it writes nothing there."""
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._is_frozen = False

    @property
    def url(self) -> str:
        """What `REDIS_URL` is to be."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str) -> None:
        """Start it, empty, and wait until it answers.

        Args:
            more: Options of the program.

        Raises:
            ServerError: If there is no such program, or it does not answer in time.
        """
        program = shutil.which(_PROGRAM)
        if program is None:
            raise ServerError(f"there is no {_PROGRAM} on this machine (Debian's package {_PROGRAM})")
        self._folder.mkdir(parents=True, exist_ok=True)
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
        self._process = subprocess.Popen(  # noqa: S603 - its own path, and our options
            [program, *arguments, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        give_up_s = time.monotonic() + START_LIMIT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                raise ServerError(f"{_PROGRAM} does not answer on port {self.port}")
            time.sleep(0.02)

    def kill(self) -> None:
        """It is gone in the middle of whatever it does, with all that it knew."""
        process, self._process = self._process, None
        self._is_frozen = False
        if process is not None:
            process.kill()
            process.wait(_STOP_LIMIT_S)

    def freeze(self) -> None:
        """It hangs: its sockets stay open, and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            self._is_frozen = True

    def restore(self) -> None:
        """Let it go on, or start it again; one that is well is left alone.

        Raises:
            ServerError: If it does not start.
        """
        if self._process is None:
            self.start()
        elif self._is_frozen:
            self._process.send_signal(signal.SIGCONT)
            self._is_frozen = False

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), _PING_S) as one:
            one.settimeout(_PING_S)
            one.sendall(b"PING\r\n")
            return one.recv(7) in (b"+PONG\r\n", b"-NOAUTH")
        return False
