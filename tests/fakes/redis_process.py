"""A real Redis of a test's own, which may be killed, frozen and started again."""

import contextlib
import itertools
from collections.abc import Generator
from pathlib import Path

from bench.chaos.redis_server import RedisServer
from store.redis_link import RedisLink


class RedisProcess(RedisServer):
    """`redis-server` on a free port of loopback, in memory only. Start it; stop it at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._prefixes = itertools.count()

    def new_prefix(self) -> str:
        """Return a prefix of keys that no other test has."""
        return f"test{next(self._prefixes)}:"

    def link(self, *, deadline_s: float = 5.0, prefix: str = "test:") -> RedisLink:
        return RedisLink(self.url, deadline_s=deadline_s, prefix=prefix)

    def thaw(self) -> None:
        self.restore()


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
