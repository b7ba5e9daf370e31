"""What every store of hand-offs does, on each of them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from store.handoffs import HANDOFF_KEPT_S, HandoffStore
from store.handoffs_redis import RedisHandoffStore
from store.handoffs_sqlite import SqliteHandoffStore
from tests.fakes.redis_process import RedisProcess

pytestmark = pytest.mark.real_time


@pytest_asyncio.fixture(params=["sqlite", "redis"])
async def open_store(
    request: pytest.FixtureRequest, server: RedisProcess, tmp_path: Path
) -> AsyncIterator[Callable[[], HandoffStore]]:
    """Opens the store as another process would."""
    if request.param == "sqlite":
        opened: list[HandoffStore] = []

        def open_sqlite() -> HandoffStore:
            opened.append(SqliteHandoffStore(tmp_path / "one.db", deadline_s=5.0))
            return opened[-1]

        yield open_sqlite
        await asyncio.gather(*(store.close() for store in opened))
        return
    links = [server.link(prefix=server.new_prefix())]
    yield lambda: RedisHandoffStore(links[0])
    await links[0].close()


async def test_another_process_reads_what_one_has_written(open_store: Callable[[], HandoffStore]) -> None:
    one, other = open_store(), open_store()
    assert await other.load("CA1") is None
    await one.save("CA1", 1, "first …")
    assert await other.load("CA1") == "first …"
    assert await other.load("CA2") is None


async def test_the_higher_version_stands_however_late_the_other_comes(
    open_store: Callable[[], HandoffStore],
) -> None:
    store = open_store()
    versions = [3, 1, 5, 4, 2, 5]
    await asyncio.gather(*(store.save("CA1", version, f"body {version}") for version in versions))
    assert await store.load("CA1") == "body 5"


def test_it_outlives_the_longest_call_of_the_carrier() -> None:
    assert HANDOFF_KEPT_S > 4 * 3600
