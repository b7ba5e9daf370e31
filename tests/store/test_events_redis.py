from collections.abc import Callable

import pytest

from store.errors import StoreUnavailableError
from store.events import EventLog
from store.events_redis import RedisEventLog
from tests.fakes.redis_process import ClosesLink, RedisProcess
from tests.store.event_log_suite import EventLogSuite, event

pytestmark = pytest.mark.real_time


class LinkedLog(ClosesLink, RedisEventLog):
    """Closes its link."""


class TestRedisEventLog(EventLogSuite):
    @pytest.fixture
    def open_log(self, server: RedisProcess) -> Callable[[], EventLog]:
        prefix = server.new_prefix()
        return lambda: LinkedLog(server.link(prefix=prefix))


async def test_a_redis_that_hangs_is_a_typed_failure_in_time(server: RedisProcess) -> None:
    log = LinkedLog(server.link(deadline_s=0.2, prefix="hang:"))
    await log.append([event(1)])
    server.freeze()
    try:
        with pytest.raises(StoreUnavailableError):
            await log.append([event(2)])
        with pytest.raises(StoreUnavailableError):
            await log.since()
    finally:
        server.thaw()
    assert (await log.of_call("CA1"))[0].fields == {"number": 1}
    await log.close()
