"""A message book that may be down: a message is written down on this machine and passed on when the book is back.

The caller is told of a message only when it is on record somewhere that outlives this process.
"""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import orjson
from loguru import logger

from integrations.messages import CallerMessage, MessageBook, MessageBookUnavailableError, Noted
from store.errors import StoreUnavailableError
from store.spool import Sink, Spool

_KIND: Final = "message"


class SpooledMessageBook:
    """See the module."""

    def __init__(self, book: MessageBook, spool: Spool) -> None:
        """Put a spool beside a book; `deliver_to` must name a book once for all that share the spool."""
        self._book = book
        self._spool = spool

    async def leave(self, message: CallerMessage) -> Noted:
        """See `MessageBook.leave`."""
        try:
            return await self._book.leave(message)
        except MessageBookUnavailableError as error:
            try:
                await self._spool.put_durably(_KIND, message.key, _body(message))
            except StoreUnavailableError as full:
                raise MessageBookUnavailableError(f"{error}; {full}") from full
            logger.info("a message waits on this machine: call={} reason={!r}", message.call_sid, str(error))
            return Noted.ON_THIS_MACHINE


def deliver_to(book: MessageBook, spool: Spool) -> None:
    """Have what was spooled written into a book, once for each key."""

    async def deliver(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            try:
                await book.leave(_message(body))
            except MessageBookUnavailableError as error:
                raise StoreUnavailableError(str(error)) from error

    spool.serve(_KIND, Sink(deliver))


def _body(message: CallerMessage) -> bytes:
    zone = message.received_at.tzinfo
    return orjson.dumps(
        dataclasses.asdict(message) | {"zone": zone.key if isinstance(zone, ZoneInfo) else None}
    )


def _message(body: bytes) -> CallerMessage:
    fields = orjson.loads(body)
    zone, received_at = fields.pop("zone"), datetime.fromisoformat(fields.pop("received_at"))
    return CallerMessage(
        **fields, received_at=received_at.astimezone(ZoneInfo(zone)) if zone else received_at
    )
