import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import StoreUnavailableError
from store.redis_link import RedisLink, RedisProbe, answer, probe
from tests.fakes.redis_process import RedisProcess, redis_process

pytestmark = pytest.mark.real_time


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    with redis_process(tmp_path) as running:
        yield running


async def test_more_users_than_connections_wait_for_each_other(server: RedisProcess) -> None:
    link = server.link()
    counts = await asyncio.gather(
        *(link.run(lambda: answer(link.redis.incr(link.key("n")))) for _ in range(40))
    )
    assert sorted(counts) == list(range(1, 41))
    await link.close()


async def test_an_answer_that_came_too_late_is_not_taken_for_that_of_the_next_question(
    server: RedisProcess,
) -> None:
    link = server.link(deadline_s=0.3)
    await link.run(lambda: answer(link.redis.set(link.key("a"), "a")))
    await link.run(lambda: answer(link.redis.set(link.key("b"), "b")))
    server.freeze()
    late = [link.run(lambda: answer(link.redis.get(link.key("a")))) for _ in range(8)]
    assert all(
        isinstance(one, StoreUnavailableError) for one in await asyncio.gather(*late, return_exceptions=True)
    )
    server.thaw()
    found = await asyncio.gather(
        *(link.run(lambda: answer(link.redis.get(link.key("b")))) for _ in range(20))
    )
    assert set(found) == {b"b"}
    await link.close()


async def test_nobody_listening_is_a_typed_failure(server: RedisProcess) -> None:
    server.kill()
    link = server.link()
    with pytest.raises(StoreUnavailableError, match="redis"):
        await link.run(lambda: answer(link.redis.ping()))
    await link.close()


async def test_somebody_else_who_listens_is_a_typed_failure() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    other = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    link = RedisLink(f"redis://127.0.0.1:{port}", deadline_s=1.0)
    with pytest.raises(StoreUnavailableError):
        await link.run(lambda: answer(link.redis.ping()))
    await link.close()
    other.close()


async def test_a_probe_tells_what_kind_of_redis_it_is(server: RedisProcess) -> None:
    link = server.link()
    found = await probe(link)
    assert found.version[0].isdigit()
    assert not found.may_evict
    await link.redis.config_set("maxmemory", "100mb")
    await link.redis.config_set("maxmemory-policy", "allkeys-lru")
    assert (await probe(link)).may_evict
    await link.close()


def test_only_a_redis_with_a_limit_forgets() -> None:
    assert not RedisProbe("7", 0.0, "allkeys-lru", 0).may_evict
    assert not RedisProbe("7", 0.0, "noeviction", 1).may_evict
    assert RedisProbe("7", 0.0, "volatile-ttl", 1).may_evict


def test_a_deadline_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        RedisLink("redis://127.0.0.1", deadline_s=0)
