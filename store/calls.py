"""The state of a call that another process needs to go on with it, and the `CallStore` Protocol.

A call belongs to one process at a time. Whoever takes it over *claims* it: the claim's number grows, and from then on
nothing that an earlier owner writes is taken, however late it comes. Within one claim the owner numbers its writes
(`revision`). Both numbers together order all writes of a call without a clock.

    RINGING --line up--> LIVE --hand-off begins--> HANDING_OVER --back to the agent--> LIVE
    any --call over--> FINISHED

Processes tell that they are alive with a `Beat` each second.
"""

import dataclasses
import enum
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, Self

import orjson

KEPT_AFTER_S: Final = 300.0
"""A call's state expires this long after the call must be over."""
BEAT_KEPT_S: Final = 600.0
"""A process that has not beaten for this long is forgotten."""
MAX_CALL_BYTES: Final = 1 << 20
"""Of a call's state as JSON; a call of fifteen minutes has about 50 kB."""


class CallPhase(enum.StrEnum):
    """Where a call is."""

    RINGING = "ringing"
    LIVE = "live"
    HANDING_OVER = "handing_over"
    """The carrier connects the caller to a person; the media socket may be closed for it."""
    FINISHED = "finished"
    """Nobody goes on with it. Its words are gone, its record stays until it expires."""


class SaveVerdict(enum.Enum):
    """What became of a write."""

    WRITTEN = "written"
    STALE = "stale"
    """A later write of the same owner stands already: nothing to do."""
    LOST = "lost"
    """The call is another process's by now, or finished: whoever wrote must let go of it."""


@dataclass(frozen=True)
class SavedCall:
    """A call as it can be gone on with. Everything in it is JSON."""

    call_sid: str
    agent: str
    """Slug."""
    caller: str
    """Number as the carrier gave it."""
    process: str
    """Owner; see `new_process_id`."""
    phase: CallPhase
    started_at: datetime
    """Aware, like every time here."""
    updated_at: datetime
    expires_at: datetime
    """See `expiry`."""
    claim: int = 1
    """How often the call was taken over, plus one; the store counts it."""
    revision: int = 0
    """The owner's write under this claim; each of its writes has a higher one."""
    called: str = ""
    """Number that was called."""
    node: str | None = None
    """Node of the flow."""
    slots: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What was captured, by name."""
    flow_state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else the flow's tools remember: times offered, a read-back that waits for its yes."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """The model's context, as heard."""
    about_to_say: str = ""
    """What the agent was saying or about to say, for the case that it is cut off."""
    is_caller_talking: bool = False
    """Whether the caller has begun a turn that is not over: what they say in it is known to nobody else."""
    is_ending: bool = False
    """Whether the agent says goodbye: nothing follows but the end."""
    resumes: tuple[datetime, ...] = ()
    """When the call was put on a new line."""
    handover: Mapping[str, Any] | None = None
    """How the hand-off to a person stands."""

    @property
    def order(self) -> tuple[int, int]:
        """Where this write stands among all writes of the call."""
        return self.claim, self.revision

    @property
    def is_finished(self) -> bool:
        """Whether nobody goes on with it."""
        return self.phase is CallPhase.FINISHED

    @property
    def kept_s(self) -> float:
        """Seconds from this write until it expires; > 0."""
        return max(0.001, (self.expires_at - self.updated_at).total_seconds())

    def next(self, at: datetime, **changes: Any) -> Self:
        """Return the owner's next write: `changes`, a higher revision, and the time of it."""
        return dataclasses.replace(self, updated_at=at, revision=self.revision + 1, **changes)

    def taken_over(self, process: str, at: datetime, *, is_resumed: bool) -> Self:
        """Return it under a new claim of `process`; `is_resumed` counts as one more line."""
        return dataclasses.replace(
            self,
            process=process,
            claim=self.claim + 1,
            revision=0,
            updated_at=at,
            resumes=(*self.resumes, at) if is_resumed else self.resumes,
        )

    def finished(self, at: datetime) -> Self:
        """Return the owner's last write: the record of a call that is over, without what was said in it."""
        return self.next(
            at, phase=CallPhase.FINISHED, slots={}, flow_state={}, messages=(), about_to_say="", handover=None
        )

    def to_json(self) -> bytes:
        """Return it as JSON.

        Raises:
            ValueError: If something in it is not JSON, or it is larger than `MAX_CALL_BYTES`.
        """
        try:
            body = orjson.dumps(self)
        except TypeError as error:
            raise ValueError(f"the state of a call must be JSON: {error}") from error
        if len(body) > MAX_CALL_BYTES:
            raise ValueError(f"the state of a call must be <= {MAX_CALL_BYTES} bytes, got {len(body)}")
        return body

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Read what `to_json` wrote, of an older or newer release too: what is not known is left out.

        Raises:
            ValueError: If it is not the state of a call.
        """
        try:
            fields = orjson.loads(body)
            known = {name: fields[name] for name in _FIELDS if name in fields}
            for name in ("started_at", "updated_at", "expires_at"):
                known[name] = datetime.fromisoformat(known[name])
            known["phase"] = CallPhase(known["phase"])
            known["messages"] = tuple(known.get("messages", ()))
            known["resumes"] = tuple(datetime.fromisoformat(at) for at in known.get("resumes", ()))
            return cls(**known)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"not the state of a call: {error}") from error


_FIELDS = tuple(one.name for one in dataclasses.fields(SavedCall))


@dataclass(frozen=True)
class Beat:
    """A process says that it is alive."""

    process: str
    number: int
    """Grows by one each time: a watcher sees by its own clock for how long it has not grown."""
    url: str = ""
    """Where the process can be reached, if it can."""
    pid: int = 0
    calls: int = 0
    """That it holds."""

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Read a beat that was written as JSON, of an older or newer release too.

        Raises:
            ValueError: If it is not a beat.
        """
        try:
            fields = orjson.loads(body)
            return cls(
                **{one.name: fields[one.name] for one in dataclasses.fields(cls) if one.name in fields}
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a beat: {error}") from error


@dataclass(frozen=True)
class SeenBeat:
    """The last beat of a process."""

    beat: Beat
    age_s: float
    """By the store's own clock."""


class CallStore(Protocol):
    """Where calls and processes are written down. Every method answers within a fraction of a second or raises."""

    async def save(self, call: SavedCall) -> SaveVerdict:
        """Write a call down, unless a later write of it stands already.

        Raises:
            StoreUnavailableError: If there is no answer in time. Saving the same again is safe.
            ValueError: If the call is not JSON, or too large.
        """
        ...

    async def load(self, call_sid: str) -> SavedCall | None:
        """Return a call; None if there is none, or it has expired.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def claim(
        self, known: SavedCall, process: str, at: datetime, *, is_resumed: bool = True
    ) -> SavedCall | None:
        """Take a call over: of all who try with the same `known.claim`, exactly one gets it.

        Args:
            known: As it was loaded; only its SID and claim count.
            process: Who wants it; may be who has it, to shut out an earlier owner in the same process.
            at: Now, aware. Claiming again with the same time is the same claim, and is safe.
            is_resumed: Whether the call gets a new line with it; counts as one of `resumes`.

        Returns:
            The call as it stands now, under the new claim; None if somebody else was quicker, or it is finished
            or gone.

        Raises:
            StoreUnavailableError: If there is no answer in time; it may have been claimed all the same.
        """
        ...

    async def finish(self, call: SavedCall, at: datetime) -> SaveVerdict:
        """Write down that a call is over, as `SavedCall.finished` has it.

        Raises:
            StoreUnavailableError: If there is no answer in time. Finishing the same again is safe.
        """
        ...

    async def calls_of(self, process: str) -> list[SavedCall]:
        """Return the calls that a process has and that are not finished, oldest first.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def beat(self, beat: Beat) -> None:
        """Note that a process is alive.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def beats(self) -> list[SeenBeat]:
        """Return the last beat of every process that is not forgotten.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def forget(self, process: str) -> None:
        """Drop the beat of a process that has ended, or whose calls were all taken over.

        Raises:
            StoreUnavailableError: If there is no answer in time.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections, within a deadline."""
        ...


def judge(stored: SavedCall | None, new: SavedCall) -> SaveVerdict:
    """Tell what becomes of a write. Pure: each store decides by this, or by its like in its own language."""
    if stored is None:
        return SaveVerdict.WRITTEN
    if stored.claim > new.claim or (stored.claim == new.claim and stored.process != new.process):
        return SaveVerdict.LOST
    if stored.order >= new.order:
        return SaveVerdict.STALE
    return SaveVerdict.LOST if stored.is_finished else SaveVerdict.WRITTEN


def is_same_claim(stored: SavedCall, known: SavedCall, process: str, at: datetime) -> bool:
    """Tell whether a claim has been done before: its answer was lost, and it is asked for again."""
    return (stored.process, stored.claim, stored.revision) == (process, known.claim + 1, 0) and (
        stored.updated_at == at
    )


def newest(calls: Sequence[SavedCall | None]) -> SavedCall | None:
    """Return the latest write of a call among several of its writes."""
    found = [call for call in calls if call is not None]
    return max(found, key=lambda call: call.order) if found else None


def expiry(started_at: datetime, longest_call_s: float) -> datetime:
    """Return when the state of a call may be forgotten."""
    return datetime.fromtimestamp(started_at.timestamp() + longest_call_s + KEPT_AFTER_S, started_at.tzinfo)


def new_process_id() -> str:
    """Return a name for this process that no other has had: host, process number, chance."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
