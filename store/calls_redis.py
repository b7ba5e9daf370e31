"""`CallStore` in Redis, for processes on several machines.

Keys: `call:SID`, a hash of the call's JSON beside what its order is told by; `calls:PROCESS`, a set of SIDs; `beats`, a
sorted set by time, and `beat-bodies`, a hash. Times are Redis's own. What must be atomic is a script. One Redis, not a
cluster: a script touches keys that only it knows.
"""

from datetime import datetime
from typing import Any, Final

import orjson

from store.calls import BEAT_KEPT_S, Beat, SavedCall, SaveVerdict, SeenBeat, is_same_claim
from store.errors import StoreUnavailableError
from store.redis_link import RedisLink, answer, as_text

_CLAIM_TRIES: Final = 5

# KEYS: the call, the calls of its process. ARGV: claim, revision, process, phase, body, kept ms, sid, prefix of sets.
# The same decisions as `store.calls.judge`.
_SAVE: Final = """
local stored = redis.call('HMGET', KEYS[1], 'claim', 'revision', 'process', 'phase')
if stored[1] then
  local claim, revision = tonumber(stored[1]), tonumber(stored[2])
  local new_claim, new_revision = tonumber(ARGV[1]), tonumber(ARGV[2])
  if claim > new_claim or (claim == new_claim and stored[3] ~= ARGV[3]) then return 'lost' end
  if claim == new_claim and revision >= new_revision then return 'stale' end
  if stored[4] == 'finished' then return 'lost' end
  if stored[3] ~= ARGV[3] then redis.call('SREM', ARGV[8] .. stored[3], ARGV[7]) end
end
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'revision', ARGV[2], 'process', ARGV[3], 'phase', ARGV[4],
  'body', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
if ARGV[4] == 'finished' then
  redis.call('SREM', KEYS[2], ARGV[7])
else
  redis.call('SADD', KEYS[2], ARGV[7])
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
end
return 'written'
"""

# KEYS and ARGV as above, and ARGV 9 and 10: the claim and the revision that the new body was made from.
_CLAIM: Final = """
local stored = redis.call('HMGET', KEYS[1], 'claim', 'revision', 'process', 'phase')
if not stored[1] or stored[4] == 'finished' then return 'changed' end
if stored[1] ~= ARGV[9] or stored[2] ~= ARGV[10] then return 'changed' end
redis.call('SREM', ARGV[8] .. stored[3], ARGV[7])
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'revision', ARGV[2], 'process', ARGV[3], 'phase', ARGV[4],
  'body', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('SADD', KEYS[2], ARGV[7])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
return 'written'
"""

# KEYS: beats, bodies. ARGV: process, body, kept ms.
_BEAT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[3]))
for _, process in ipairs(old) do
  redis.call('ZREM', KEYS[1], process)
  redis.call('HDEL', KEYS[2], process)
end
return now
"""

# KEYS: beats, bodies. ARGV: kept ms. Returns age and body of each in turn.
_BEATS: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local seen = redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf', 'WITHSCORES')
for i = 1, #seen, 2 do
  local body = redis.call('HGET', KEYS[2], seen[i])
  if body then
    found[#found + 1] = tostring(now - seen[i + 1])
    found[#found + 1] = body
  end
end
return found
"""


class RedisCallStore:
    """See the module. The link is closed by whoever made it."""

    def __init__(self, link: RedisLink) -> None:
        """Use a link to Redis."""
        self._link = link
        self._save = link.redis.register_script(_SAVE)
        self._claim = link.redis.register_script(_CLAIM)
        self._beat = link.redis.register_script(_BEAT)
        self._beats = link.redis.register_script(_BEATS)

    async def save(self, call: SavedCall) -> SaveVerdict:
        """See `CallStore.save`."""
        keys, values = self._arguments(call)
        return SaveVerdict(as_text(await self._link.run(lambda: self._save(keys=keys, args=values))))

    async def load(self, call_sid: str) -> SavedCall | None:
        """See `CallStore.load`."""
        key = self._link.key("call", call_sid)
        body = await self._link.run(lambda: answer(self._link.redis.hget(key, "body")))
        return None if body is None else SavedCall.from_json(body)

    async def claim(
        self, known: SavedCall, process: str, at: datetime, *, is_resumed: bool = True
    ) -> SavedCall | None:
        """See `CallStore.claim`."""

        async def take() -> SavedCall | None:
            for _ in range(_CLAIM_TRIES):
                stored = await self.load(known.call_sid)
                if stored is not None and is_same_claim(stored, known, process, at):
                    return stored
                if stored is None or stored.is_finished or stored.claim != known.claim:
                    return None
                taken = stored.taken_over(process, at, is_resumed=is_resumed)
                keys, values = self._arguments(taken)
                outcome = as_text(await self._claim(keys=keys, args=[*values, stored.claim, stored.revision]))
                if outcome == "written":
                    return taken
                # Its owner has written meanwhile, or another was quicker, or our own first try was done.
            raise StoreUnavailableError(f"call {known.call_sid} is written faster than it can be claimed")

        return await self._link.run(take)

    async def finish(self, call: SavedCall, at: datetime) -> SaveVerdict:
        """See `CallStore.finish`."""
        return await self.save(call.finished(at))

    async def calls_of(self, process: str) -> list[SavedCall]:
        """See `CallStore.calls_of`."""

        async def find() -> list[Any]:
            sids = await answer(self._link.redis.smembers(self._link.key("calls", process)))
            async with self._link.redis.pipeline(transaction=False) as pipe:
                for sid in sids:
                    pipe.hget(self._link.key("call", as_text(sid)), "body")
                return await pipe.execute()

        found = [SavedCall.from_json(body) for body in await self._link.run(find) if body is not None]
        calls = [call for call in found if call.process == process and not call.is_finished]
        return sorted(calls, key=lambda call: call.started_at)

    async def beat(self, beat: Beat) -> None:
        """See `CallStore.beat`."""
        values = [beat.process, orjson.dumps(beat), int(BEAT_KEPT_S * 1000)]
        await self._link.run(lambda: self._beat(keys=self._beat_keys(), args=values))

    async def beats(self) -> list[SeenBeat]:
        """See `CallStore.beats`."""
        kept_ms = int(BEAT_KEPT_S * 1000)
        found: list[bytes] = await self._link.run(lambda: self._beats(keys=self._beat_keys(), args=[kept_ms]))
        return [
            SeenBeat(Beat.from_json(body), max(0.0, float(age_ms) / 1000))
            for age_ms, body in zip(found[::2], found[1::2], strict=True)
        ]

    async def forget(self, process: str) -> None:
        """See `CallStore.forget`."""
        beats, bodies = self._beat_keys()

        async def drop() -> None:
            async with self._link.redis.pipeline(transaction=True) as pipe:
                pipe.zrem(beats, process)
                pipe.hdel(bodies, process)
                await pipe.execute()

        await self._link.run(drop)

    async def close(self) -> None:
        """See `CallStore.close`."""

    def _beat_keys(self) -> list[str]:
        return [self._link.key("beats"), self._link.key("beat-bodies")]

    def _arguments(self, call: SavedCall) -> tuple[list[str], list[Any]]:
        keys = [self._link.key("call", call.call_sid), self._link.key("calls", call.process)]
        kept_ms = max(1, int(call.kept_s * 1000))
        return keys, [
            call.claim,
            call.revision,
            call.process,
            call.phase.value,
            call.to_json(),
            kept_ms,
            call.call_sid,
            self._link.key("calls", ""),
        ]
