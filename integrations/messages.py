"""What a message book is to us: messages callers leave, and the `MessageBook` Protocol."""

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class MessageBookUnavailableError(Exception):
    """The book did not answer in time. Sending the same message again is safe: its key makes it one."""


@dataclass(frozen=True)
class CallerMessage:
    """One message for the business.

    `key` names it (call SID and content): leaving it twice writes it once.
    """

    key: str
    call_sid: str
    name: str
    phone: str
    """E.164."""
    text: str
    received_at: datetime
    """Aware; its zone is the business's."""


class Noted(enum.Enum):
    """Where a message is."""

    IN_THE_BOOK = "in the book"
    ON_THIS_MACHINE = "on this machine"
    """The book is down: it will be passed on when the book is back."""


class MessageBook(Protocol):
    """Where messages are written down."""

    async def leave(self, message: CallerMessage) -> Noted:
        """Write the message down, once per key.

        Raises:
            MessageBookUnavailableError: If there is no answer in time.
        """
        ...
