"""One process's connections to Redis: few, each command with a deadline, every error one type."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, RedisError

from store.errors import StoreUnavailableError

_T = TypeVar("_T")

KEY_PREFIX: Final = "firstring:"
_MOST_CONNECTIONS: Final = 8


class RedisLink:
    """Shared by the stores on Redis; connects at the first command, and again whenever it must."""

    def __init__(self, url: str, *, deadline_s: float = 0.3, prefix: str = KEY_PREFIX) -> None:
        """Create it.

        Args:
            url: `redis://[[user]:password@]host[:port][/db]`, or `rediss://` for TLS.
            deadline_s: Longest wait for one call of `run`, > 0; connecting is part of it.
            prefix: Of every key.

        Raises:
            ValueError: If the deadline is not positive, or the URL is not Redis's.
        """
        if deadline_s <= 0:
            raise ValueError(f"deadline_s must be > 0, got {deadline_s}")
        self.prefix = prefix
        self._deadline_s = deadline_s
        # One retry, at once: a connection that Redis closed while it was idle is noticed at its next use only. No
        # more: they take their time, and the spool has a plan for what fails.
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MOST_CONNECTIONS,
            timeout=deadline_s,
            socket_timeout=deadline_s,
            socket_connect_timeout=deadline_s,
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        self.redis: Redis = Redis(connection_pool=self._pool)

    def key(self, *parts: str) -> str:
        """Return a key of ours."""
        return self.prefix + ":".join(parts)

    async def run(self, command: Callable[[], Awaitable[_T]]) -> _T:
        """Run commands within the deadline and return what they return. They may be run twice.

        Raises:
            StoreUnavailableError: If the deadline passes, Redis cannot be reached, or it refuses.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                return await command()
        except TimeoutError as error:
            raise StoreUnavailableError(f"redis gave no answer within {self._deadline_s} s") from error
        except DataError:
            raise
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(f"redis: {error}") from error

    async def close(self) -> None:
        """Close every connection, within the deadline."""
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._pool.aclose()
        except (TimeoutError, RedisError, OSError):
            pass  # the process is about to end, and the sockets with it


@dataclass(frozen=True)
class RedisProbe:
    """What was found out about a Redis."""

    version: str
    took_s: float
    """For a script that writes; connecting is not part of it."""
    eviction_policy: str
    max_memory_bytes: int
    """0 if it may grow."""

    @property
    def may_evict(self) -> bool:
        """Whether it drops keys of ours when its memory is full: all of them expire some day."""
        return self.max_memory_bytes > 0 and self.eviction_policy != "noeviction"


async def probe(link: RedisLink) -> RedisProbe:
    """Write a key by script, as the stores do, and see what kind of Redis it is.

    Raises:
        StoreUnavailableError: If it cannot be reached, or refuses.
    """
    write = link.redis.register_script("return redis.call('SET', KEYS[1], '1', 'PX', '1000')")
    key = [link.key("probe")]
    found: dict[str, Any] = await link.run(lambda: answer(link.redis.info()))
    await link.run(lambda: write(keys=key))
    began_s = time.monotonic()
    await link.run(lambda: write(keys=key))
    return RedisProbe(
        version=str(found.get("redis_version", "of unknown version")),
        took_s=time.monotonic() - began_s,
        eviction_policy=str(found.get("maxmemory_policy", "noeviction")),
        max_memory_bytes=int(found.get("maxmemory", 0)),
    )


def answer(command: Any) -> Awaitable[Any]:
    """Type what redis-py types as perhaps not awaitable: its commands serve its blocking client too."""
    return cast("Awaitable[Any]", command)


def as_text(value: Any) -> str:
    """Return what Redis sent as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
