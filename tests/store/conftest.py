"""What tests of several stores share."""

from collections.abc import Iterator

import pytest

from tests.fakes.redis_process import RedisProcess, redis_process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis for the tests of one module, each of which takes a link of its own."""
    with redis_process(tmp_path_factory.mktemp("redis")) as running:
        yield running
