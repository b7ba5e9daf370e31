"""Customer records behind the spool: whoever writes never waits for them, and what was written outlives the process."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import orjson

from integrations.crm import Crm, CrmUnavailableError, HandoffRecord, Said, Speaker
from store.errors import StoreUnavailableError
from store.spool import Sink, Spool

_KIND: Final = "crm_handoff"


class SpooledCrm:
    """See the module."""

    def __init__(self, spool: Spool) -> None:
        """Use a spool; `deliver_to` must name the records once for all that share it."""
        self._spool = spool

    def note_handoff(self, record: HandoffRecord) -> None:
        """Have it written down, in place of an earlier one of its key. Returns at once.

        Raises:
            StoreUnavailableError: If the records are down, and there is no room for more.
        """
        self._spool.put(_KIND, record.key, orjson.dumps(dataclasses.asdict(record)), supersedes=True)


def deliver_to(crm: Crm, spool: Spool) -> None:
    """Have what was spooled written into the records."""

    async def deliver(bodies: Sequence[bytes]) -> None:
        for body in bodies:
            try:
                await crm.note_handoff(_record(body))
            except CrmUnavailableError as error:
                raise StoreUnavailableError(str(error)) from error

    spool.serve(_KIND, Sink(deliver))


def _record(body: bytes) -> HandoffRecord:
    fields = orjson.loads(body)
    transcript = tuple(Said(Speaker(one["speaker"]), one["text"]) for one in fields.pop("transcript"))
    began_at = datetime.fromisoformat(fields.pop("began_at"))
    return HandoffRecord(**fields, transcript=transcript, began_at=began_at)
