"""What goes wrong in the call of a seed, and who calls. Pure: the same seed is always the same plan.

Seeds go round the table of faults, shuffled, so that as many seeds in a row as it has rows hold each row once, wherever
they begin. Some calls get a second fault, of the same layer as often as of another. Who is called is always open, or
never: no call depends on the hour at which it is played.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.agents import BACKED, NUMBERS, RECEPTION, TURNED, at_any_hour
from bench.chaos.faults import (
    CELLS,
    LAYERS,
    MODELS,
    RECOGNISERS,
    VOICES,
    Cell,
    Injection,
    Stage,
    Target,
)
from sims.faults import FaultKind

PERSON = "person"
"""Who asks for a person at once."""
CALLERS: Mapping[str, int] = {"questions": 4, "message": 1, "booking": 1, PERSON: 1}
"""Scenarios of `bench/callers/chaos`, and how often each is drawn."""
CLOSED_SHARE = 0.3
"""Of the calls of whoever wants no appointment, to an agent that is never open: nobody is rung."""
REDIS_SHARE = 0.5
"""Of the calls whose process is lost, with their state in Redis, which is well."""
PAIRED_SHARE = 0.35
"""Of the calls, with two faults at once."""
TALK_S = (2.0, 15.0)
"""When a fault may be armed: while these calls still have something to ask."""
_STREAM_S: Mapping[Target, tuple[float, float]] = {
    **dict.fromkeys(RECOGNISERS, (0.0, 15.0)),
    Target.LINE: (1.0, 15.0),
    Target.BOOKS: (0.5, 12.0),
    Target.STORE: (1.0, 10.0),
    **dict.fromkeys(MODELS, (0.05, 0.5)),
    **dict.fromkeys(VOICES, (0.1, 2.5)),
}
"""Range of `after_s`: seconds of audio, or wall time of tokens, or of a store that is down."""
_SHUFFLED = tuple(random.Random("chaos table").sample(CELLS, len(CELLS)))
_FIRST = frozenset(layer[0] for layer in LAYERS)
_SECOND = frozenset(layer[1] for layer in LAYERS)
_NOT_WITH: Mapping[Target, tuple[Target, ...]] = {
    Target.SERVER: (Target.STORE,),
    Target.STORE: (Target.SERVER,),
}
"""Whose loss together leaves nothing that could know of the call."""
_LATE_STAGES = (Stage.LATER, Stage.WITHIN, Stage.HANG_UP)
_ASKS_FOR_A_PERSON = (Stage.REDIRECT, Stage.RING, Stage.RECORDING)
_LATE_S = (1.0, 6.0)
"""How late a first token or sound may come."""
_COUNTS: tuple[int | None, ...] = (1, 1, 2, 3, None, None)
_STORE_COUNTS: tuple[int | None, ...] = (1, 1, None)
_SKIPS: Mapping[Stage, int] = {Stage.RECORDING: 1}
"""What comes before: the request that has the carrier take the caller."""
_REDIAL_S = (2.0, 6.0)
_CUT_AFTER_S = (0.5, 9.0)
_CUTS: tuple[int, ...] = (1, 1, 2)
"""How often a call gets a new line; what comes after that the carrier's own voice says, whose words are not known."""


@dataclass(frozen=True)
class Plan:
    """One call."""

    seed: int
    caller: str
    """Its scenario."""
    agent: str
    injections: tuple[Injection, ...]
    is_on_redis: bool = False
    """Whether the state of calls is kept there, or else in the SQLite file."""

    @property
    def called(self) -> str:
        """Return the agent's number."""
        return NUMBERS[self.agent]

    @property
    def number(self) -> str:
        """Return the caller's number."""
        return f"+1850555{100 + self.seed % 100:04}"

    @property
    def needs_standby(self) -> bool:
        """Tell whether another server has to stand beside the one that has the call."""
        return any(one.cell.target is Target.SERVER for one in self.injections)

    @property
    def loses_store(self) -> bool:
        """Tell whether what keeps the state of calls fails."""
        return any(one.cell.target is Target.STORE for one in self.injections)

    def __str__(self) -> str:
        store = " on Redis" if self.is_on_redis else ""
        return f"seed {self.seed}: {self.caller} to {self.agent}{store}; " + " and ".join(
            map(str, self.injections)
        )


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed.

    Raises:
        ValueError: If it is negative.
    """
    if seed < 0:
        raise ValueError(f"a seed is >= 0, got {seed}")
    dice = random.Random(f"chaos {seed}")
    cells = [_cell_of(seed)]
    if dice.random() < PAIRED_SHARE:
        cells.append(_partner(cells[0], dice))
    agent = _agent_for(cells, dice)
    caller = _caller_for(cells, dice)
    agent = at_any_hour(agent, is_open=_is_open(cells, caller, dice))
    targets = {cell.target for cell in cells}
    is_on_redis = Target.STORE in targets or (Target.SERVER in targets and dice.random() < REDIS_SHARE)
    return Plan(seed, caller, agent, tuple(_injection(cell, dice) for cell in cells), is_on_redis)


def _cell_of(seed: int) -> Cell:
    return _SHUFFLED[seed % len(_SHUFFLED)]


def _partner(first: Cell, dice: random.Random) -> Cell:
    """Draw the fault of another target: the one that would stand in, or any that one agent can have beside."""
    other = _stand_in(first.target)
    if other is not None and dice.random() < 0.5:
        return dice.choice([cell for cell in CELLS if cell.target is other])
    wrong = {
        first.target,
        *(_SECOND if first.target in _FIRST else _FIRST if first.target in _SECOND else ()),
        *_NOT_WITH.get(first.target, ()),
    }
    return dice.choice([cell for cell in CELLS if cell.target not in wrong])


def _stand_in(target: Target) -> Target | None:
    layer = next((layer for layer in LAYERS if target in layer), None)
    return None if layer is None else layer[1 - layer.index(target)]


def _agent_for(cells: Sequence[Cell], dice: random.Random) -> str:
    """Return an agent that begins with the vendor of the first fault, and with that of the second in its layer."""
    first, *others = (cell.target for cell in cells)
    if first in _SECOND:
        return TURNED
    if not any(other in _SECOND for other in others):
        return dice.choice((RECEPTION, BACKED))
    # It stands in for what the first fault hits, or has to come first itself.
    return BACKED if first in _FIRST else TURNED


def _caller_for(cells: Sequence[Cell], dice: random.Random) -> str:
    """Return a caller whom the faults can meet.

    Who asks for a person at once hears nothing but lines that were rendered before, asks the model once, and the agent
    does not hang up on them.
    """
    drawn = dice.choices(list(CALLERS), weights=list(CALLERS.values()))[0]
    stages = {cell.stage for cell in cells}
    if not stages.isdisjoint(_ASKS_FOR_A_PERSON):
        return PERSON
    is_met = stages.isdisjoint(_LATE_STAGES) and not any(cell.target in VOICES for cell in cells)
    return drawn if drawn != PERSON or is_met else "questions"


def _is_open(cells: Sequence[Cell], caller: str, dice: random.Random) -> bool:
    stages = {cell.stage for cell in cells}
    if Stage.RING in stages:
        return True
    if Stage.RECORDING in stages:
        return False
    is_closed = dice.random() < CLOSED_SHARE
    return caller == "booking" or not is_closed


def _injection(cell: Cell, dice: random.Random) -> Injection:
    is_later = cell.stage is Stage.LATER or (cell.is_ours and cell.stage is not Stage.DIAL)
    at_s = dice.uniform(*TALK_S) if is_later else None
    span = _LATE_S if cell.kind is FaultKind.SLOW_FIRST_BYTE else _STREAM_S.get(cell.target, (0.0, 0.0))
    after_s = dice.uniform(*span)
    if cell.stage is Stage.REDIAL:  # the first stream is cut once whoever dials again would be hit
        at_s = dice.uniform(*_REDIAL_S)
        after_s = at_s + dice.uniform(*_CUT_AFTER_S)
    skip = dice.choice((0, 0, 1)) if cell.stage is Stage.WITHIN else _SKIPS.get(cell.stage, 0)
    return Injection(cell, at_s, dice.choice(_counts_of(cell)), after_s, skip)


def _counts_of(cell: Cell) -> tuple[int | None, ...]:
    match cell.target:
        case Target.LINE:
            return _CUTS
        case Target.STORE:
            return _STORE_COUNTS
        case Target.PERSON:
            return (None,)
        case _:
            return (1,) if cell.is_ours else _COUNTS
