"""`HandoffStore` in Redis, for processes on several machines. Key: `handoff:SID`, a hash of version and body."""

from typing import Any, Final

from store.handoffs import HANDOFF_KEPT_S
from store.redis_link import RedisLink, as_text

# KEYS: the hand-off. ARGV: version, body, kept ms.
_SAVE: Final = """
local version = redis.call('HGET', KEYS[1], 'version')
if version and tonumber(version) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class RedisHandoffStore:
    """See the module."""

    def __init__(self, link: RedisLink) -> None:
        """Use `link`, which somebody else closes."""
        self._link = link

    async def save(self, call_sid: str, version: int, body: str) -> None:
        """See `HandoffStore.save`."""
        redis: Any = self._link.redis
        key, kept_ms = self._link.key("handoff", call_sid), round(1000 * HANDOFF_KEPT_S)
        await self._link.run(lambda: redis.eval(_SAVE, 1, key, version, body, kept_ms))

    async def load(self, call_sid: str) -> str | None:
        """See `HandoffStore.load`."""
        redis: Any = self._link.redis
        body = await self._link.run(lambda: redis.hget(self._link.key("handoff", call_sid), "body"))
        return None if body is None else as_text(body)

    async def close(self) -> None:
        """Nothing to let go of: the link is its process's."""
