"""The parent of several workers: keeps as many serving as there should be, and replaces them without losing a call.

SIGHUP renews the workers in turn, with whatever code and settings of agents are on the disk then. SIGTERM and SIGINT
end all; see `bot.serve`. What to do about which worker decides `bot.fleet`; this starts, asks, signals and kills.

Built on Uvicorn's own supervisor, whose restart waits for the old worker's last call before it looks at anything else:
for minutes here. Source: `uvicorn.supervisors.multiprocess`.
"""

import contextlib
import os
import signal
import sys
import time
from contextvars import ContextVar
from socket import socket
from typing import Final

import uvicorn
from loguru import logger
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from bot.fleet import Act, Fleet, Order, Sign

RETIRE: Final = signal.SIGUSR1
"""To a worker: take no more connections, they are others'; end when the last call has."""
LOOK_EVERY_S: Final = 0.25

_serving: "ContextVar[RetiringServer | None]" = ContextVar("serving", default=None)


class RetiringServer(uvicorn.Server):
    """A server that can leave the address it shares to others, and go on with the connections it has."""

    async def serve(self, sockets: list[socket] | None = None) -> None:
        """Serve until told to stop."""
        _serving.set(self)
        await super().serve(sockets)

    def stop_accepting(self) -> None:
        """Take no more connections; those that wait at the shared socket are taken by other processes."""
        for server in self.servers:
            server.close()


def stop_accepting() -> None:
    """Let the server that runs this task take no more connections; nothing happens when it shares no address."""
    server = _serving.get()
    if server is not None:
        server.stop_accepting()


class Worker(Process):
    """A worker process, asked without waiting for its answer."""

    @property
    def server(self) -> uvicorn.Server:
        """The server that it runs."""
        if self._server is None:
            self._server = RetiringServer(config=self.config)
        return self._server

    def sign(self) -> Sign:
        """Return what is to be seen of it, and ask again."""
        if not self.process.is_alive():
            return Sign.DEAD
        sign = Sign.SILENT
        with contextlib.suppress(OSError, EOFError):
            while self.parent_conn.poll(0):
                sign = Sign.READY if self.parent_conn.recv() else Sign.ALIVE
            self.parent_conn.send(b"ping")
        return sign


class Supervisor(Multiprocess):
    """See the module. `run` blocks until a signal has ended all workers."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket]) -> None:
        """Take the address that the workers share.

        Args:
            config: Of every worker; `workers` says how many.
            sockets: Bound; inherited by the workers.
        """
        super().__init__(config, sockets)
        self._fleet = Fleet(config.workers)
        self._workers: dict[int, Worker] = {}
        self._has_failed = False

    def run(self) -> None:
        """Keep the workers serving until told to stop, then wait until they have ended.

        Raises:
            SystemExit: With 3, if none of them could start.
        """
        self._obey(self._fleet.begin(time.monotonic()))
        while not self.should_exit.wait(LOOK_EVERY_S):
            self.handle_signals()
            self._look()
        for worker in self._workers.values():
            worker.terminate()
        for worker in self._workers.values():
            worker.join()
        if self._has_failed:
            sys.exit(STARTUP_FAILURE)

    def restart_all(self) -> None:
        """Renew the workers in turn: what Uvicorn does on SIGHUP."""
        self._fleet.renew()

    def _look(self) -> None:
        signs = {number: worker.sign() for number, worker in self._workers.items()}
        for number in [number for number, sign in signs.items() if sign is Sign.DEAD]:
            worker = self._workers.pop(number)
            worker.join()
            logger.info("worker {} ended: exit code {}", worker.pid, worker.exitcode)
            # One that was killed did not end by itself: it is replaced, later each time while it dies young.
            is_own_end = worker.exitcode is not None and worker.exitcode > 0
            if is_own_end and not self._fleet.has_served:
                logger.error("a worker could not start, and no other would")
                self._has_failed = True
                self.should_exit.set()
                return
        self._obey(self._fleet.look(signs, time.monotonic()))

    def _obey(self, orders: list[Order]) -> None:
        for order in orders:
            if order.act is Act.START:
                worker = self._workers[order.worker] = Worker(self.config, self.sockets)
                worker.start()
                logger.info("worker {} starts", worker.pid)
                continue
            worker = self._workers[order.worker]
            if order.act is Act.KILL:
                logger.error("worker {} hangs and is killed", worker.pid)
                worker.kill()
                self._workers.pop(order.worker).join()
            elif worker.pid is not None:
                logger.info("worker {} retires when its calls have ended", worker.pid)
                with contextlib.suppress(ProcessLookupError):  # it died since we looked
                    os.kill(worker.pid, RETIRE)

    def handle_ttin(self) -> None:
        """Ignore it: the number of workers is the settings'."""

    def handle_ttou(self) -> None:
        """Ignore it: the number of workers is the settings'."""
