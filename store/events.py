"""What happened in calls, one row for each thing, and the `EventLog` Protocol. Append-only.

A row is small and has no caller's words: names of vendors, kinds, times, costs. Which fields a kind has stands at the
function that makes it.
"""

import dataclasses
import enum
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol, Self

import orjson

FieldValue = str | int | float | bool | None

MAX_FIELD_CHARS: Final = 500


class EventKind(enum.StrEnum):
    """What happened. Others may be added: readers must bear kinds that they do not know."""

    CALL_BEGAN = "call_began"
    CALL_ENDED = "call_ended"
    CALL_RESUMED = "call_resumed"
    """It went on on a new line, or could not."""
    CALL_REFUSED = "call_refused"
    FAILURE = "failure"
    """Something of ours or of a vendor's failed; see `failure`."""
    SILENCE = "silence"
    """The caller heard nothing, and something was done about it."""
    GAVE_UP = "gave_up"
    HANDOFF = "handoff"
    STORE_BACK = "store_back"
    """A store takes writes again, and has what was spooled."""


@dataclass(frozen=True)
class CallEvent:
    """One row."""

    call_sid: str
    """Empty for what concerns no call."""
    at: datetime
    """Aware."""
    kind: str
    """An `EventKind`, as text: rows of a newer release stay readable."""
    fields: Mapping[str, FieldValue] = field(default_factory=dict[str, FieldValue])
    event_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Appending the same event twice writes it once."""

    def to_json(self) -> bytes:
        """Return it as JSON, its texts cut at `MAX_FIELD_CHARS`.

        Raises:
            ValueError: If a field is not JSON.
        """
        short = {
            name: value[:MAX_FIELD_CHARS] if isinstance(value, str) else value
            for name, value in self.fields.items()
        }
        try:
            return orjson.dumps(dataclasses.replace(self, fields=short))
        except TypeError as error:
            raise ValueError(f"the fields of an event must be JSON: {error}") from error

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If it is not an event.
        """
        try:
            row = orjson.loads(body)
            return cls(
                row["call_sid"],
                datetime.fromisoformat(row["at"]),
                row["kind"],
                row["fields"],
                row["event_id"],
            )
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"not an event: {error}") from error


@dataclass(frozen=True)
class EventPage:
    """Events in the order in which they were written."""

    events: tuple[CallEvent, ...]
    cursor: str
    """For the next page; the same as before when there is nothing new."""


class EventLog(Protocol):
    """Where events are written down. Every method answers within a fraction of a second or raises."""

    async def append(self, events: Sequence[CallEvent]) -> None:
        """Write events, each once, in this order.

        Raises:
            StoreUnavailableError: If there is no answer in time. Appending the same again is safe.
            ValueError: If an event is not JSON.
        """
        ...

    async def of_call(self, call_sid: str) -> list[CallEvent]:
        """Return all events of a call in the order in which they were written.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def since(self, cursor: str = "", limit: int = 500) -> EventPage:
        """Return at most `limit` events behind `cursor`, of all calls; an empty cursor is the beginning.

        Raises:
            StoreUnavailableError: If there is no answer in time.
            ValueError: If the cursor is not one of this log's.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections, within a deadline."""
        ...


def event_now(call_sid: str, kind: EventKind, fields: Mapping[str, FieldValue]) -> CallEvent:
    """Return the row of something that has just happened."""
    return CallEvent(call_sid, datetime.now(UTC), kind, fields)


def failure_line(event: CallEvent) -> str:
    """Return the row of a failure as a line of a log: `call=… vendor=… kind=…`, in the order of its fields."""
    return " ".join(
        f"{name}={_shown(value)}" for name, value in {"call": event.call_sid, **event.fields}.items()
    )


def _shown(value: FieldValue) -> str:
    is_word = isinstance(value, str) and value and not any(char.isspace() or char == '"' for char in value)
    return value if is_word and isinstance(value, str) else repr(value)


def failure(
    call_sid: str,
    *,
    vendor: str,
    kind: str,
    stage: str,
    action: str,
    cost_ms: float,
    at: datetime | None = None,
    more: Mapping[str, FieldValue] | None = None,
) -> CallEvent:
    """Return the row of a failure.

    Args:
        call_sid: The call it happened in, empty if in none.
        vendor: Who failed, as in `agent.yaml`; `twilio`, `store` or our own part's name otherwise.
        kind: How, e.g. `refused`, `timeout`.
        stage: What it was doing, e.g. `connect`, `first_token`.
        action: What was done about it, e.g. `next:cartesia`, `retry`.
        cost_ms: What the caller waited longer because of it; 0 when they noticed nothing.
        at: When, aware; now by default.
        more: What else is known, without a caller's words.
    """
    fields: dict[str, FieldValue] = {
        "vendor": vendor,
        "kind": kind,
        "stage": stage,
        "action": action,
        "cost_ms": round(max(0.0, cost_ms), 1),
        **(more or {}),
    }
    return CallEvent(call_sid, at or datetime.now(UTC), EventKind.FAILURE, fields)
