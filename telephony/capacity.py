"""Whether a process can take one more call, by what it measures and not only by a number. Pure: no clock, no I/O.

    KEEPING_UP --`late` of the event loop's last timers came later than `late_s`--> BEHIND
    BEHIND --`calm_samples` timers in a row came sooner than `calm_s`--> KEEPING_UP

Between `calm_s` and `late_s` nothing changes, and who is behind stays so for `calm_samples` at least: a process at
its limit does not let in and send away by turns. `shortage` puts that together with the calls there are, the calls
that wait to be prepared and what the vendors' plans leave; `Admission` asks it.

Never decides what a caller hears who is not let in.
"""

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LATE_S: Final = 0.15
"""With timers that late the playout's lead of 250 ms is nearly used up, and every answer is later by as much."""
CALM_S: Final = 0.05
WINDOW_SAMPLES: Final = 20
"""Five seconds of `bot.loop_lag`."""
CALM_SAMPLES: Final = 12
"""Three seconds of it."""
LATE_SHARE: Final = 0.15
"""Three of twenty: one stall, as of a slow disk, says nothing about the next call."""
LONGEST_BACKLOG_S: Final = 4.0
"""A caller who is let in hears a greeting at once; by then somebody has to listen."""
CALLS_PER_UTTERANCE: Final = 3
"""Calls that share one place at a voice or a model: an agent speaks, or thinks, for less than a third of a call."""


class Shortage(enum.StrEnum):
    """Why there is no room for one more call."""

    FULL = "full"
    """As many calls as `MAX_CALLS` allows."""
    BEHIND = "behind"
    """The event loop does not keep up with the calls there are."""
    BACKLOG = "backlog"
    """So many calls came at once that this one would be prepared too late."""
    VENDOR_LIMIT = "vendor_limit"
    """A vendor's plan allows no more."""


@dataclass(frozen=True, slots=True)
class LagLimits:
    """When an event loop is behind. Seconds, and numbers of samples."""

    late_s: float = LATE_S
    calm_s: float = CALM_S
    window: int = WINDOW_SAMPLES
    late_share: float = LATE_SHARE
    calm_samples: int = CALM_SAMPLES

    def __post_init__(self) -> None:
        """Check that the limits leave room between each other.

        Raises:
            ValueError: If they do not.
        """
        if not 0 < self.calm_s < self.late_s:
            raise ValueError(f"calm_s must be > 0 and < late_s, got {self.calm_s} and {self.late_s}")
        if self.window < 1 or self.calm_samples < 1 or not 0 < self.late_share <= 1:
            raise ValueError("window and calm_samples must be >= 1, late_share within 0..1")


class LoopHealth:
    """Whether an event loop keeps up; see the module. Remembers `window` samples."""

    def __init__(self, limits: LagLimits | None = None) -> None:
        """Begin with a loop that keeps up."""
        self._limits = limits or LagLimits()
        self._samples: deque[float] = deque(maxlen=self._limits.window)
        self._calm = 0
        self._is_behind = False

    @property
    def is_behind(self) -> bool:
        """Whether it does not keep up."""
        return self._is_behind

    @property
    def worst_s(self) -> float:
        """The latest of the window's timers, in seconds."""
        return max(self._samples, default=0.0)

    def observe(self, lag_s: float) -> None:
        """Take how late the next timer was, in seconds."""
        limits = self._limits
        self._samples.append(lag_s)
        self._calm = self._calm + 1 if lag_s < limits.calm_s else 0
        if self._is_behind:
            self._is_behind = self._calm < limits.calm_samples
            if not self._is_behind:
                self._samples.clear()  # what made it late is over and is not held against it twice
            return
        late = sum(sample > limits.late_s for sample in self._samples)
        self._is_behind = late >= limits.late_share * limits.window


@dataclass(frozen=True, slots=True)
class VendorPlan:
    """What the vendors of one layer allow together."""

    vendors: frozenset[str]
    """Those that serve this layer of a call, e.g. of `services.tts`."""
    calls: int
    """Calls that they can serve at the same time."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a process carries when a call asks to come in."""

    agents: Mapping[str, int]
    """Agent to the calls it has, reserved and live."""
    is_behind: bool = False
    backlog_s: float = 0.0
    """How long one more call would wait until it is prepared."""
    is_voice_taken: bool = False
    """Whether every voice of the agent says as much as its plan allows, right now."""

    @property
    def calls(self) -> int:
        """Calls of all agents."""
        return sum(self.agents.values())


def shortage(
    agent: str, load: Load, *, max_calls: int, plans: Mapping[str, tuple[VendorPlan, ...]]
) -> Shortage | None:
    """Return why one more call of `agent` cannot be taken, or None if it can.

    A process without a call takes one, however late it is: nothing that it does for callers can be the reason.

    Args:
        agent: Whose call it would be.
        load: What there is.
        max_calls: Calls at the same time, of all agents.
        plans: Agent to the plans of its vendors; only of layers in which every vendor has a limit.
    """
    if load.calls >= max_calls:
        return Shortage.FULL
    if any(_served(plan, load.agents, plans) >= plan.calls for plan in plans.get(agent, ())):
        return Shortage.VENDOR_LIMIT
    if not load.calls:
        return None
    if load.is_voice_taken:
        return Shortage.VENDOR_LIMIT
    if load.backlog_s > LONGEST_BACKLOG_S:
        return Shortage.BACKLOG
    return Shortage.BEHIND if load.is_behind else None


def _served(plan: VendorPlan, agents: Mapping[str, int], plans: Mapping[str, tuple[VendorPlan, ...]]) -> int:
    """Return how many calls there are that need a vendor of `plan`."""
    return sum(
        calls
        for agent, calls in agents.items()
        if any(plan.vendors & other.vendors for other in plans.get(agent, ()))
    )
