"""A Redis that is gone; what every store does is in `test_handoffs`."""

import pytest

from store.errors import StoreUnavailableError
from store.handoffs_redis import RedisHandoffStore
from store.redis_link import RedisLink

pytestmark = pytest.mark.real_time


async def test_a_redis_that_is_gone_is_a_typed_failure_in_time() -> None:
    gone = RedisLink("redis://127.0.0.1:1", deadline_s=0.2)
    for ask in (RedisHandoffStore(gone).save("CA1", 1, "x"), RedisHandoffStore(gone).load("CA1")):
        with pytest.raises(StoreUnavailableError):
            await ask
    await gone.close()
