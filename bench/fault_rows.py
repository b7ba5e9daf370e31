"""What fails in each row of FAULTS.md, and when: every fault that a sim can act out, and what fails on our own machine.

The rows of a vendor are those that its sim supports, so that a kind that a sim learns has its row. Pure.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from bench.chaos.faults import Cell, Injection, ProcessFault, Stage, Target
from bench.servers import Bot
from sims.anthropic import AnthropicSim
from sims.deepgram import DeepgramSim
from sims.elevenlabs import ElevenLabsSim
from sims.faults import FaultKind
from sims.twilio import TwilioSim
from sims.vendor import VendorSim

ASKS = "asks"
LEAVES_MESSAGE = "message"
"""Callers of `bench/callers/chaos`."""
ASKS_S = 5.0
"""After the greeting of either server, and before the caller's first question."""
SPEAKS_S = 1.0
"""Before whoever leaves a message has said it."""
IN_QUESTION_S = 6.3
"""Of the caller's audio: in the middle of the first question."""
IN_ANSWER_S = 1.0
"""Of a voice's audio: in the middle of its first sentence."""
IN_STREAM_S = 0.1
"""Of a model's tokens: a few words."""
IN_TALK_S = 9.0
"""After the first question, while the answer is on its way or heard."""
SLOW_S = 6.0
"""How late a first byte comes: later than anybody waits for, and before the caller gives up."""

SIMS: Mapping[Target, type[VendorSim]] = {
    Target.RECOGNISER: DeepgramSim,
    Target.MODEL: AnthropicSim,
    Target.VOICE: ElevenLabsSim,
    Target.CARRIER: TwilioSim,
}
"""Who fails: the vendor that the shipped agent and the plain bot begin with."""
_NAMES: Mapping[Target, str] = {
    Target.RECOGNISER: "recogniser",
    Target.MODEL: "model",
    Target.VOICE: "voice",
    Target.CARRIER: "carrier",
}
_WORDS: Mapping[FaultKind, str] = {
    FaultKind.REFUSE: "refuses",
    FaultKind.UNAUTHORIZED: "answers 401",
    FaultKind.RATE_LIMITED: "answers 429",
    FaultKind.SERVER_ERROR: "answers 500",
    FaultKind.OVERLOADED: "answers 529",
    FaultKind.HANG_BEFORE_FIRST_BYTE: "accepts and says nothing",
    FaultKind.HANG_AFTER_FIRST_BYTE: "falls silent in the middle",
    FaultKind.CLOSE_MID_STREAM: "cuts the connection in the middle",
    FaultKind.SLOW_FIRST_BYTE: f"begins {SLOW_S:g} s late",
    FaultKind.TRICKLE: "trickles",
    FaultKind.GARBAGE: "sends garbage",
    FaultKind.EMPTY: "sends nothing in it",
}
_IN_THE_MIDDLE_S: Mapping[Target, float] = {
    Target.RECOGNISER: IN_QUESTION_S,
    Target.MODEL: IN_STREAM_S,
    Target.VOICE: IN_ANSWER_S,
}
_STREAMS = (FaultKind.HANG_AFTER_FIRST_BYTE, FaultKind.CLOSE_MID_STREAM)
_CONTENT = (FaultKind.TRICKLE, FaultKind.GARBAGE, FaultKind.EMPTY)


class Trouble(enum.Enum):
    """What goes wrong beyond the faults that a sim is told of one by one."""

    QUOTA = "voice has no quota left"
    LOCKED = "database is locked"
    """Somebody else writes, and does not come to an end."""
    DAMAGED = "database is damaged"
    """Its file is no database any more."""
    REDIS_GONE = "Redis is gone"
    REDIS_HANGS = "Redis hangs"

    @property
    def is_of_redis(self) -> bool:
        """Whether only a server that has a Redis can have it."""
        return self in (Trouble.REDIS_GONE, Trouble.REDIS_HANGS)


@dataclass(frozen=True)
class Fault:
    """One row of the page."""

    name: str
    injections: tuple[Injection, ...] = ()
    trouble: Trouble | None = None
    caller: str = ASKS
    """The scenario."""

    @property
    def targets(self) -> frozenset[Target]:
        """Who fails, but for a trouble."""
        return frozenset(injection.cell.target for injection in self.injections)

    @property
    def needs_standby(self) -> bool:
        """Whether a server that can go on in another process has one beside it."""
        return Target.SERVER in self.targets

    @property
    def trouble_at_s(self) -> float:
        """When the trouble begins, in seconds after the call was answered."""
        return ASKS_S if self.caller == ASKS else SPEAKS_S

    def is_for(self, bot: Bot) -> bool:
        """Tell whether a server has what fails."""
        return bot is Bot.OURS or self.trouble is None or not self.trouble.is_of_redis


def _of_vendor(target: Target, kind: FaultKind) -> Fault:
    """Return a vendor's fault, which lasts from before the first question to the end of the call."""
    # A recogniser has one connection for the whole call, and the carrier is asked for nothing before its end.
    from_ring = target in (Target.RECOGNISER, Target.CARRIER)
    after_s = SLOW_S if kind is FaultKind.SLOW_FIRST_BYTE else 0.0
    if kind in (*_STREAMS, *_CONTENT):
        after_s = _IN_THE_MIDDLE_S.get(target, 0.0)
    is_once = target is Target.RECOGNISER and kind in _STREAMS  # for good is what the other rows are
    cell = Cell(target, kind, Stage.LISTENING if from_ring else Stage.LATER)
    injection = Injection(cell, None if from_ring else ASKS_S, 1 if is_once else None, after_s)
    return Fault(f"{_NAMES[target]} {_WORDS[kind]}{', once' if is_once else ''}", (injection,))


def _of_line(name: str, kind: FaultKind) -> Fault:
    return Fault(name, (Injection(Cell(Target.LINE, kind, Stage.TALK), None, 1, IN_TALK_S),))


def _of_process(name: str, kind: ProcessFault) -> Fault:
    return Fault(name, (Injection(Cell(Target.SERVER, kind, Stage.TALK), IN_TALK_S, 1, 0.0),))


def _of_two(*rows: Fault) -> Fault:
    return Fault(
        " and ".join(row.name for row in rows),
        tuple(injection for row in rows for injection in row.injections),
    )


def _of_store(trouble: Trouble) -> Fault:
    return Fault(trouble.value, trouble=trouble, caller=ASKS if trouble.is_of_redis else LEAVES_MESSAGE)


VENDOR_FAULTS = tuple(
    _of_vendor(target, kind)
    for target, sim in SIMS.items()
    for kind in FaultKind
    if kind in sim.supported_faults
)
FAULTS = (
    Fault("nothing fails"),
    *VENDOR_FAULTS,
    Fault(Trouble.QUOTA.value, trouble=Trouble.QUOTA),
    _of_two(
        _of_vendor(Target.RECOGNISER, FaultKind.HANG_BEFORE_FIRST_BYTE),
        _of_vendor(Target.MODEL, FaultKind.OVERLOADED),
    ),
    _of_two(
        _of_vendor(Target.MODEL, FaultKind.HANG_BEFORE_FIRST_BYTE),
        _of_vendor(Target.VOICE, FaultKind.CLOSE_MID_STREAM),
    ),
    _of_two(
        _of_vendor(Target.RECOGNISER, FaultKind.CLOSE_MID_STREAM),
        _of_vendor(Target.VOICE, FaultKind.HANG_BEFORE_FIRST_BYTE),
    ),
    _of_line("media socket is cut, once", FaultKind.CLOSE_MID_STREAM),
    _of_line("media socket brings garbage, once", FaultKind.GARBAGE),
    _of_process("process is killed, kill -9", ProcessFault.KILL),
    _of_process("process hangs, SIGSTOP", ProcessFault.STOP),
    Fault("nothing fails, a message is left", caller=LEAVES_MESSAGE),
    _of_store(Trouble.LOCKED),
    _of_store(Trouble.DAMAGED),
    _of_store(Trouble.REDIS_GONE),
    _of_store(Trouble.REDIS_HANGS),
)
