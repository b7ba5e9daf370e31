"""What can go wrong, where and when: the table that plans are drawn from, and that a report is counted by. Pure."""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
    LINE = "line"
    """The media socket of the call."""
    SERVER = "server"
    """The process that has the call; another one stands beside it."""
    BOOKS = "books"
    """The database of appointments and messages."""


class ProcessFault(enum.Enum):
    """What goes wrong on our own machine."""

    KILL = "kill -9"
    STOP = "SIGSTOP"
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
    FIRST = "first answer"
    """The first request, or the first text that is not in the cache."""
    LATER = "later"
    """Whatever is asked for after a moment of the call."""
    WITHIN = "within an answer"
    """An error that the vendor tells in the middle of a stream."""
    HANG_UP = "hang-up"
    TALK = "talk"


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    target: Target
    kind: FaultKind | ProcessFault
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


class Feature(enum.Enum):
    """What the product must be able to do before a row makes sense."""

    OUTLIVES_LINE = "a call goes on when its media socket is cut"
    OUTLIVES_PROCESS = "a call goes on in another process"
    OUTLIVES_LOCK = "what cannot be written down now is written down later"


FEATURES = frozenset(Feature)
"""Which of them it has."""
LAYERS = (RECOGNISERS, MODELS, VOICES)
"""Who stands in for whom: the first of each is the shipped agent's first."""


def _rows() -> Iterator[Cell]:
    for recogniser in RECOGNISERS:
        for kind in _AT_THE_DIAL:
            yield Cell(recogniser, kind, Stage.DIAL)
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
        yield Cell(Target.CARRIER, kind, Stage.HANG_UP)
    yield Cell(Target.LINE, FaultKind.GARBAGE, Stage.TALK)
    if Feature.OUTLIVES_LINE in FEATURES:
        yield Cell(Target.LINE, FaultKind.CLOSE_MID_STREAM, Stage.TALK)
    if Feature.OUTLIVES_PROCESS in FEATURES:
        yield Cell(Target.SERVER, ProcessFault.KILL, Stage.TALK)
        yield Cell(Target.SERVER, ProcessFault.STOP, Stage.TALK)
    if Feature.OUTLIVES_LOCK in FEATURES:
        yield Cell(Target.BOOKS, ProcessFault.LOCK, Stage.TALK)


CELLS = tuple(_rows())
"""All of it."""
