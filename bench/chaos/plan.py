"""What goes wrong in the call of a seed, and who calls. Pure: the same seed is always the same plan.

Seeds go round the table of faults, shuffled anew each time, so that as many seeds as it has rows in a row hold each row
once. Some calls get a second fault, of the same layer as often as of another.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.agents import BACKED, NUMBERS, RECEPTION, TURNED
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

CALLERS: Mapping[str, int] = {"questions": 4, "message": 1, "booking": 1}
"""Scenarios of `bench/callers/chaos`, and how often each is drawn."""
PAIRED_SHARE = 0.35
"""Of the calls, with two faults at once."""
TALK_S = (2.0, 15.0)
"""When a fault may be armed: while these calls still have something to ask."""
_STREAM_S: Mapping[Target, tuple[float, float]] = {
    **dict.fromkeys(RECOGNISERS, (0.0, 15.0)),
    Target.LINE: (1.0, 15.0),
    Target.BOOKS: (0.5, 12.0),
    **dict.fromkeys(MODELS, (0.05, 0.5)),
    **dict.fromkeys(VOICES, (0.1, 2.5)),
}
"""Range of `after_s`: seconds of audio, or wall time of tokens."""
_FIRST = frozenset(layer[0] for layer in LAYERS)
_SECOND = frozenset(layer[1] for layer in LAYERS)
_LATE_S = (1.0, 6.0)
"""How late a first token or sound may come."""
_COUNTS: tuple[int | None, ...] = (1, 1, 2, 3, None, None)
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

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.caller} to {self.agent}; " + " and ".join(map(str, self.injections))


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
    caller = dice.choices(list(CALLERS), weights=list(CALLERS.values()))[0]
    return Plan(seed, caller, agent, tuple(_injection(cell, dice) for cell in cells))


def _cell_of(seed: int) -> Cell:
    turn, place = divmod(seed, len(CELLS))
    shuffled = list(CELLS)
    random.Random(f"chaos table {turn}").shuffle(shuffled)
    return shuffled[place]


def _partner(first: Cell, dice: random.Random) -> Cell:
    """Draw the fault of another target: the one that would stand in, or any that one agent can have beside."""
    other = _stand_in(first.target)
    if other is not None and dice.random() < 0.5:
        return dice.choice([cell for cell in CELLS if cell.target is other])
    wrong = {
        first.target,
        *(_SECOND if first.target in _FIRST else _FIRST if first.target in _SECOND else ()),
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


def _injection(cell: Cell, dice: random.Random) -> Injection:
    is_later = cell.stage is Stage.LATER or cell.is_ours
    at_s = dice.uniform(*TALK_S) if is_later else None
    span = _LATE_S if cell.kind is FaultKind.SLOW_FIRST_BYTE else _STREAM_S.get(cell.target, (0.0, 0.0))
    skip = dice.choice((0, 0, 1)) if cell.stage is Stage.WITHIN else 0
    counts = _CUTS if cell.target is Target.LINE else (1,) if cell.is_ours else _COUNTS
    return Injection(cell, at_s, dice.choice(counts), dice.uniform(*span), skip)
