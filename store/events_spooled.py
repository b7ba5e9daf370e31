"""An `EventLog` that may be down: events go through the spool."""

from collections.abc import Sequence
from typing import Final

from loguru import logger

from store.errors import StoreUnavailableError
from store.events import CallEvent, EventKind, EventLog, EventPage, failure_line
from store.spool import Sink, Spool, SpoolFullError

_KIND: Final = "event"


class SpooledEventLog:
    """See the module. Closing it closes the log behind it, not the spool, which others use too."""

    def __init__(self, log: EventLog, spool: Spool) -> None:
        """Join a log and a spool."""
        self._log = log
        self._spool = spool
        spool.serve(_KIND, Sink(self._deliver, takes_several=True))

    def note(self, event: CallEvent) -> None:
        """Take an event and return at once; whatever becomes of it, the caller goes on. A failure is logged, too."""
        if event.kind == EventKind.FAILURE:
            logger.warning("failure: {}", failure_line(event))
        try:
            self._spool.put(_KIND, event.call_sid, event.to_json())
        except SpoolFullError:
            pass  # the spool has logged and counted it
        except ValueError as error:
            logger.error("an event of kind {} cannot be written: {}", event.kind, error)

    async def append(self, events: Sequence[CallEvent]) -> None:
        """Take events to be appended; see `EventLog.append`. Returns at once.

        Raises:
            StoreUnavailableError: If the log is down and the spool full; some of them may have been taken.
            ValueError: As in `EventLog.append`.
        """
        for event, body in [(event, event.to_json()) for event in events]:
            self._spool.put(_KIND, event.call_sid, body)

    async def of_call(self, call_sid: str) -> list[CallEvent]:
        """See `EventLog.of_call`; what is still on its way stands at the end."""
        waiting = [CallEvent.from_json(body) for body in self._spool.waiting(_KIND, call_sid)]
        waiting = [event for event in waiting if event.call_sid == call_sid]
        try:
            stored = await self._log.of_call(call_sid)
        except StoreUnavailableError:
            if not waiting:
                raise
            stored = []
        known = {event.event_id for event in stored}
        return [*stored, *(event for event in waiting if event.event_id not in known)]

    async def since(self, cursor: str = "", limit: int = 500) -> EventPage:
        """See `EventLog.since`; what is still on its way is not among them."""
        return await self._log.since(cursor, limit)

    async def close(self) -> None:
        """Close the log behind it; the spool must be closed before."""
        await self._log.close()

    async def _deliver(self, bodies: Sequence[bytes]) -> None:
        await self._log.append([CallEvent.from_json(body) for body in bodies])
