"""`EventLog` in Redis, for processes on several machines.

Keys: `events`, a stream of all events; `events:SID`, a list of one call's; `event-ids:SID`, a set, by which an event is
written once. It is as durable as that Redis is.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from store.events import CallEvent, EventPage
from store.redis_link import RedisLink, answer, as_text

EVENTS_KEPT_S: Final = 30 * 86_400.0
"""After a call's last event."""
MOST_EVENTS: Final = 200_000
"""In the stream of all calls; about 60 MB."""

# KEYS: the stream. ARGV: prefix, kept ms, most, then id, SID and body of each event.
_APPEND: Final = """
local written = 0
for i = 4, #ARGV, 3 do
  local ids, list = ARGV[1] .. 'event-ids:' .. ARGV[i + 1], ARGV[1] .. 'events:' .. ARGV[i + 1]
  if redis.call('SADD', ids, ARGV[i]) == 1 then
    redis.call('RPUSH', list, ARGV[i + 2])
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'event', ARGV[i + 2])
    redis.call('PEXPIRE', ids, ARGV[2])
    redis.call('PEXPIRE', list, ARGV[2])
    written = written + 1
  end
end
return written
"""


class RedisEventLog:
    """See the module. The link is closed by whoever made it."""

    def __init__(self, link: RedisLink) -> None:
        """Use a link to Redis."""
        self._link = link
        self._append = link.redis.register_script(_APPEND)

    async def append(self, events: Sequence[CallEvent]) -> None:
        """See `EventLog.append`."""
        values: list[Any] = [self._link.prefix, int(EVENTS_KEPT_S * 1000), MOST_EVENTS]
        for event in events:
            values += [event.event_id, event.call_sid, event.to_json()]
        if events:
            await self._link.run(lambda: self._append(keys=[self._link.key("events")], args=values))

    async def of_call(self, call_sid: str) -> list[CallEvent]:
        """See `EventLog.of_call`."""
        key = self._link.key("events", call_sid)
        bodies = await self._link.run(lambda: answer(self._link.redis.lrange(key, 0, -1)))
        return [CallEvent.from_json(body) for body in bodies]

    async def since(self, cursor: str = "", limit: int = 500) -> EventPage:
        """See `EventLog.since`."""
        if cursor and not re.fullmatch(r"\d+-\d+", cursor):
            raise ValueError(f"not a cursor of this log: {cursor!r}")
        key, start = self._link.key("events"), f"({cursor}" if cursor else "-"
        rows = await self._link.run(lambda: answer(self._link.redis.xrange(key, min=start, count=limit)))
        events = tuple(CallEvent.from_json(fields[b"event"]) for _, fields in rows)
        return EventPage(events, as_text(rows[-1][0]) if rows else cursor)

    async def close(self) -> None:
        """See `EventLog.close`."""
