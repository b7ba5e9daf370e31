import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from store.calls import CallStore, SaveVerdict
from store.calls_redis import RedisCallStore
from store.errors import StoreUnavailableError
from tests.fakes.redis_process import ClosesLink, RedisProcess, redis_process
from tests.store.call_store_suite import NOW, CallStoreSuite, saved

pytestmark = pytest.mark.real_time


class LinkedStore(ClosesLink, RedisCallStore):
    """Closes its link."""


class TestRedisCallStore(CallStoreSuite):
    @pytest.fixture
    def open_store(self, server: RedisProcess) -> Callable[[], CallStore]:
        prefix = server.new_prefix()
        return lambda: LinkedStore(server.link(prefix=prefix))


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    with redis_process(tmp_path) as running:
        yield running


async def test_a_redis_that_hangs_is_a_typed_failure_in_time_and_is_used_again(
    own_server: RedisProcess,
) -> None:
    store = LinkedStore(own_server.link(deadline_s=0.2))
    await store.save(saved())
    own_server.freeze()
    began_s = asyncio.get_running_loop().time()
    for ask in (
        store.save(saved(revision=2)),
        store.load("CA1"),
        store.claim(saved(), "two", NOW),
        store.beats(),
    ):
        with pytest.raises(StoreUnavailableError):
            await ask
    assert asyncio.get_running_loop().time() - began_s < 4.0
    own_server.thaw()
    assert await store.save(saved(revision=3)) in (SaveVerdict.WRITTEN, SaveVerdict.LOST)
    await store.close()


async def test_a_redis_that_is_gone_is_a_typed_failure_and_found_again(own_server: RedisProcess) -> None:
    store = LinkedStore(own_server.link(deadline_s=1.0))
    await store.save(saved())
    own_server.kill()
    with pytest.raises(StoreUnavailableError):
        await store.save(saved(revision=2))
    own_server.start()
    assert await store.load("CA1") is None  # it has lost its memory
    assert await store.save(saved(revision=2)) is SaveVerdict.WRITTEN
    await store.close()


async def test_a_full_redis_is_a_typed_failure(own_server: RedisProcess) -> None:
    store = LinkedStore(own_server.link(deadline_s=1.0))
    await store.save(saved())
    await store._link.redis.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailableError, match="redis"):
        await store.save(saved(revision=2, about_to_say="x" * 10_000))
    await store.close()


async def test_everything_expires(own_server: RedisProcess) -> None:
    store = LinkedStore(own_server.link(prefix="all:"))
    await store.save(saved())
    await store.claim(saved(), "two", NOW)
    for key in await store._link.redis.keys("all:*"):
        assert await store._link.redis.pttl(key) > 0, key
    await store.close()
