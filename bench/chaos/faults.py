"""What can go wrong, where and when: the table that plans are drawn from, and that a report is counted by. Pure."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sims.carrier import Human
from sims.faults import FaultKind, FaultSpec


class Target(enum.StrEnum):
    """Who fails; a vendor's value is the name of its sim."""

    RECOGNISER = "deepgram"
    OTHER_RECOGNISER = "assemblyai"
    MODEL = "anthropic"
    OTHER_MODEL = "openai"
    VOICE = "elevenlabs"
    OTHER_VOICE = "cartesia"
    CARRIER = "twilio"
    """Its REST API."""
    PERSON = "person"
    """Whoever the carrier rings for a caller."""
    LINE = "line"
    """The media socket of the call."""
    SERVER = "server"
    """The process that has the call; another one stands beside it."""
    BOOKS = "books"
    """The database of appointments and messages."""
    STORE = "redis"
    """Redis, where the state of calls and the event log are kept."""


class ProcessFault(enum.Enum):
    """What goes wrong on our own machine."""

    KILL = "kill -9"
    """A store comes back after `after_s`, empty, unless it is gone for good."""
    STOP = "SIGSTOP"
    """A store goes on after `after_s`, unless it hangs for good."""
    LOCK = "locked"
    """Somebody else writes, and does not come to an end for `after_s`."""


RECOGNISERS = (Target.RECOGNISER, Target.OTHER_RECOGNISER)
MODELS = (Target.MODEL, Target.OTHER_MODEL)
VOICES = (Target.VOICE, Target.OTHER_VOICE)


class Stage(enum.StrEnum):
    """When it fails."""

    DIAL = "dial"
    """From the ring on, whoever connects."""
    LISTENING = "listening"
    """A stream of the caller's audio, after so many seconds of it."""
    REDIAL = "dialled again"
    """Whoever connects after a moment of the call; `after_s` of audio cuts the first stream, so that somebody does."""
    FIRST = "first answer"
    """The first request, or the first text that is not in the cache."""
    LATER = "later"
    """Whatever is asked for after a moment of the call."""
    WITHIN = "within an answer"
    """An error that the vendor tells in the middle of a stream."""
    HANG_UP = "hang-up"
    REDIRECT = "hand-off"
    """The carrier is told to take the caller."""
    RING = "ringing a person"
    RECORDING = "voicemail"
    """What the caller has left there is fetched."""
    TALK = "talk"


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    target: Target
    kind: FaultKind | ProcessFault | Human
    stage: Stage

    @property
    def is_ours(self) -> bool:
        """Tell whether it is done to our processes and files, and not asked of a sim."""
        return isinstance(self.kind, ProcessFault)

    def __str__(self) -> str:
        return f"{self.target.value} {self.kind.value}, {self.stage.value}"


@dataclass(frozen=True)
class Injection:
    """One fault of one call."""

    cell: Cell
    at_s: float | None
    """When it is armed, in seconds after the call was answered; None before it rings."""
    count: int | None
    """Requests or sockets that it hits; None for all."""
    after_s: float
    """Where in a stream; see `FaultSpec`."""
    skip: int = 0

    def __str__(self) -> str:
        times = "for good" if self.count is None else f"{self.count} times" if self.count > 1 else "once"
        armed = "" if self.at_s is None else f" from {self.at_s:.1f} s"
        return f"{self.cell}, {times}{armed}, after_s={self.after_s:.2f}, skip={self.skip}"

    @property
    def order(self) -> Mapping[str, Any]:
        """What the sim's control surface is told."""
        shape: dict[str, Any] = {"kind": self.cell.kind.value, "skip": self.skip, "count": self.count}
        if self.cell.kind in _TIMED or self.cell.stage is Stage.WITHIN:
            shape["after_s"] = round(self.after_s, 3)
        return FaultSpec.model_validate(shape).model_dump(mode="json", exclude_unset=True)

    @property
    def before(self) -> "Injection | None":
        """What has to happen first for it to hit; None where it does by itself."""
        if self.cell.stage is not Stage.REDIAL:
            return None
        cut = Cell(self.cell.target, FaultKind.CLOSE_MID_STREAM, Stage.LISTENING)
        return Injection(cut, None, 1, self.after_s)

    @property
    def is_mended(self) -> bool:
        """Tell whether what is done to us ends by itself during the call, after `after_s`."""
        return self.cell.target is Target.STORE and self.count is not None


REFUSALS = (
    FaultKind.REFUSE,
    FaultKind.UNAUTHORIZED,
    FaultKind.RATE_LIMITED,
    FaultKind.SERVER_ERROR,
    FaultKind.OVERLOADED,
)
"""Said or done before anything else."""
_TIMED = frozenset(
    {
        FaultKind.HANG_AFTER_FIRST_BYTE,
        FaultKind.CLOSE_MID_STREAM,
        FaultKind.SLOW_FIRST_BYTE,
        FaultKind.GARBAGE,
    }
)
"""Faults that `after_s` means something to."""
_CARRIER_KINDS = (
    FaultKind.REFUSE,
    FaultKind.UNAUTHORIZED,
    FaultKind.RATE_LIMITED,
    FaultKind.SERVER_ERROR,
    FaultKind.HANG_BEFORE_FIRST_BYTE,
    FaultKind.GARBAGE,
    FaultKind.EMPTY,
)
_AT_THE_DIAL = (
    FaultKind.REFUSE,
    FaultKind.UNAUTHORIZED,
    FaultKind.RATE_LIMITED,
    FaultKind.SERVER_ERROR,
    FaultKind.HANG_BEFORE_FIRST_BYTE,
)
_WHILE_LISTENING = (
    FaultKind.HANG_AFTER_FIRST_BYTE,
    FaultKind.CLOSE_MID_STREAM,
    FaultKind.TRICKLE,
    FaultKind.GARBAGE,
    FaultKind.EMPTY,
)


_NOBODY_COMES = (Human.NO_ANSWER, Human.FAILED, Human.MACHINE)
"""What has the carrier's dial come to nothing, so that the voicemail is next."""
LAYERS = (RECOGNISERS, MODELS, VOICES)
"""Who stands in for whom: the first of each is the shipped agent's first."""


def _rows() -> Iterator[Cell]:
    for recogniser in RECOGNISERS:
        for kind in _AT_THE_DIAL:
            yield Cell(recogniser, kind, Stage.DIAL)
            yield Cell(recogniser, kind, Stage.REDIAL)
        for kind in _WHILE_LISTENING:
            yield Cell(recogniser, kind, Stage.LISTENING)
    for model in MODELS:
        for kind in FaultKind:
            yield Cell(model, kind, Stage.FIRST)
            yield Cell(model, kind, Stage.LATER)
        for kind in (FaultKind.SERVER_ERROR, FaultKind.OVERLOADED):
            yield Cell(model, kind, Stage.WITHIN)
    for voice in VOICES:
        for kind in FaultKind:
            yield Cell(voice, kind, Stage.DIAL if kind in REFUSALS else Stage.FIRST)
            yield Cell(voice, kind, Stage.LATER)
    for kind in _CARRIER_KINDS:
        for stage in (Stage.HANG_UP, Stage.REDIRECT, Stage.RECORDING):
            yield Cell(Target.CARRIER, kind, stage)
    for human in _NOBODY_COMES:
        yield Cell(Target.PERSON, human, Stage.RING)
    yield Cell(Target.LINE, FaultKind.GARBAGE, Stage.TALK)
    yield Cell(Target.LINE, FaultKind.CLOSE_MID_STREAM, Stage.TALK)
    for fault in (ProcessFault.KILL, ProcessFault.STOP):
        yield Cell(Target.SERVER, fault, Stage.TALK)
        yield Cell(Target.STORE, fault, Stage.DIAL)
        yield Cell(Target.STORE, fault, Stage.TALK)
    yield Cell(Target.BOOKS, ProcessFault.LOCK, Stage.TALK)


CELLS = tuple(_rows())
"""All of it."""
