"""Where processes tell each other how the vendors are: a board in Redis, with one notice for each subject.

Only the latest notice of a subject stands. Times are Redis's own, so that processes need not agree on one.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson

from store.redis_link import RedisLink

BOARD_KEPT_S: Final = 3600.0
"""Without a new notice."""

# KEYS: the board. ARGV: subject, state, who, ms left, kept ms.
_PIN: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = math.max(now, (tonumber(redis.call('HGET', KEYS[1], '#')) or 0) + 1)
redis.call('HSET', KEYS[1], '#', number)
local notice = cjson.encode({state = ARGV[2], by = ARGV[3], until_ms = now + ARGV[4], number = number})
redis.call('HSET', KEYS[1], ARGV[1], notice)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return number
"""

# KEYS: the board. Returns now in ms, then subject and notice in turn.
_READ: Final = """
local time = redis.call('TIME')
local found = redis.call('HGETALL', KEYS[1])
table.insert(found, 1, tostring(time[1] * 1000 + math.floor(time[2] / 1000)))
return found
"""
_COUNTER: Final = b"#"


@dataclass(frozen=True)
class VendorNotice:
    """How a vendor is, as a process found out."""

    subject: str
    """Who, and as what: `voice:cartesia`."""
    state: str
    left_s: float
    """Seconds for which it holds; 0 if it holds until the next."""
    by: str
    """The process."""
    number: int = 0
    """Grows with every notice on the board, also when the board was lost meanwhile: it is made of Redis's time."""


class VendorBoard(Protocol):
    """Where notices are pinned and read."""

    async def pin(self, notice: VendorNotice) -> None:
        """Put a notice in place of its subject's earlier one.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def read(self) -> list[VendorNotice]:
        """Return all notices, the oldest first; `left_s` counts from now.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...


class RedisVendorBoard:
    """See the module. The link is closed by whoever made it."""

    def __init__(self, link: RedisLink) -> None:
        """Use a link to Redis."""
        self._link = link
        self._pin = link.redis.register_script(_PIN)
        self._read = link.redis.register_script(_READ)

    async def pin(self, notice: VendorNotice) -> None:
        """See `VendorBoard.pin`."""
        left_ms, kept_ms = int(notice.left_s * 1000), int(BOARD_KEPT_S * 1000)
        values: list[Any] = [notice.subject, notice.state, notice.by, left_ms, kept_ms]
        await self._link.run(lambda: self._pin(keys=[self._link.key("vendors")], args=values))

    async def read(self) -> list[VendorNotice]:
        """See `VendorBoard.read`."""
        now_ms, *rows = await self._link.run(lambda: self._read(keys=[self._link.key("vendors")]))
        notices = [
            self._notice(subject.decode(), orjson.loads(body), float(now_ms))
            for subject, body in zip(rows[::2], rows[1::2], strict=True)
            if subject != _COUNTER
        ]
        return sorted(notices, key=lambda notice: notice.number)

    def _notice(self, subject: str, row: dict[str, Any], now_ms: float) -> VendorNotice:
        left_s = max(0.0, (row["until_ms"] - now_ms) / 1000)
        return VendorNotice(subject, row["state"], left_s, row["by"], row["number"])
