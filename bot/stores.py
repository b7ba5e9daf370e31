"""What outlives this process, opened: Redis if it is configured, otherwise the SQLite file; in front of it a spool.

There are two spools, since there are two things that can be down: what keeps the state of calls and the event log, and
the business's own database.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bot.settings import Settings
from store.calls import new_process_id
from store.calls_redis import RedisCallStore
from store.calls_spooled import SpooledCallStore
from store.calls_sqlite import SqliteCallStore
from store.events_redis import RedisEventLog
from store.events_spooled import SpooledEventLog
from store.events_sqlite import SqliteEventLog
from store.handoffs import HandoffStore
from store.handoffs_redis import RedisHandoffStore
from store.handoffs_sqlite import SqliteHandoffStore
from store.redis_link import RedisLink
from store.spool import Spool, SpoolListener
from store.vendor_board import RedisVendorBoard, VendorBoard

WRITE_LIMIT_S = 0.3
"""For the store to take a write; then it is spooled."""
BOOKS_LIMIT_S = 1.5
"""For the business's database to take what was spooled: nobody waits for it."""


def spool_folder(settings: Settings) -> Path:
    """Return where this machine keeps what waits for a store."""
    return settings.data_dir / "spool"


@dataclass(frozen=True)
class Stores:
    """Of one process."""

    process: str
    """Its name in the stores."""
    calls: SpooledCallStore
    events: SpooledEventLog
    handoffs: HandoffStore
    """Not spooled: what a hand-off is at, the carrier tells again."""
    state_spool: Spool
    """In front of calls and events."""
    books_spool: Spool
    """In front of the business's database."""
    board: VendorBoard | None
    """Where processes tell each other how the vendors are; None without Redis."""
    link: RedisLink | None

    @classmethod
    def open(cls, settings: Settings) -> "Stores":
        """Name files and servers; nothing is touched or connected before the first use."""
        process, folder = new_process_id(), spool_folder(settings)
        books_spool = Spool(folder, name="books", store="database", process=process, deadline_s=BOOKS_LIMIT_S)
        # One name for both: what waited for one of them is done by the other once the settings have changed.
        kept_in = "sqlite" if settings.redis_url is None else "redis"
        spool = Spool(folder, name="state", store=kept_in, process=process, deadline_s=WRITE_LIMIT_S)
        if settings.redis_url is None:
            path = settings.database_path
            calls = SqliteCallStore(path, deadline_s=WRITE_LIMIT_S)
            events = SqliteEventLog(path, deadline_s=WRITE_LIMIT_S)
            handoffs = SqliteHandoffStore(path, deadline_s=WRITE_LIMIT_S)
            link = board = None
        else:
            link = RedisLink(settings.redis_url.get_secret_value(), deadline_s=WRITE_LIMIT_S)
            calls, events, board = RedisCallStore(link), RedisEventLog(link), RedisVendorBoard(link)
            handoffs = RedisHandoffStore(link)
        return cls(
            process=process,
            calls=SpooledCallStore(calls, spool, process=process),
            events=SpooledEventLog(events, spool),
            handoffs=handoffs,
            state_spool=spool,
            books_spool=books_spool,
            board=board,
            link=link,
        )

    def listen(self, listener: SpoolListener) -> None:
        """Have `listener` told when a store is down and back."""
        for spool in (self.state_spool, self.books_spool):
            spool.listen(listener)

    def start(self) -> None:
        """Take over what processes of this machine left that have ended."""
        for spool in (self.state_spool, self.books_spool):
            spool.start()

    async def close(self) -> None:
        """Let what waits be done where a store is up, leave the rest on disk, and let go of everything."""
        await asyncio.gather(self.state_spool.close(), self.books_spool.close())
        await asyncio.gather(self.calls.close(), self.events.close(), self.handoffs.close())
        if self.link is not None:
            await self.link.close()
