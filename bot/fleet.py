"""The workers of one server: which to start, to retire and to kill. Pure: no clock, no processes.

    STARTING --answers, and serves--> SERVING --its successor serves--> RETIRING --its calls have ended--> gone
    STARTING --late--> killed
    SERVING | RETIRING --silent for too long--> killed
    any but RETIRING --died--> another is started in its place; one that dies young waits longer each time

A rolling restart (`renew`) replaces the workers in turn: the successor serves before the old one retires, and nobody
waits for the old one's calls. A successor that does not come up ends the restart, and the old worker stays.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

START_LIMIT_S: Final = 60.0
"""From its start until a worker serves: imports and models, on a busy machine."""
SILENT_LIMIT_S: Final = 5.0
"""A worker that says nothing for so long hangs, and its callers with it."""
YOUNG_S: Final = 10.0
"""Who dies sooner would die again at once."""
RETRY_S: Final = (0.5, 30.0)
"""Least and longest wait before another is started in the place of one that died young."""


class Stage(enum.Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    RETIRING = "retiring"


class Sign(enum.Enum):
    """What was seen of a worker."""

    DEAD = "dead"
    SILENT = "silent"
    """It has not answered since the last look."""
    ALIVE = "alive"
    READY = "ready"
    """It answers, and serves."""


class Act(enum.Enum):
    """What is to be done with a worker."""

    START = "start"
    RETIRE = "retire"
    KILL = "kill"


@dataclass(frozen=True)
class Order:
    """One thing to do."""

    act: Act
    worker: int


@dataclass
class _Worker:
    stage: Stage
    started_s: float
    heard_s: float
    replaces: int | None = None
    """Whom it succeeds in a rolling restart."""


@dataclass
class _Vacancy:
    """A place whose worker died."""

    due_s: float


@dataclass
class Fleet:
    """See the module. Workers are numbered in the order of their start; times are seconds of one clock."""

    size: int
    _workers: dict[int, _Worker] = field(default_factory=dict[int, _Worker])
    _vacancies: list[_Vacancy] = field(default_factory=list[_Vacancy])
    _to_renew: list[int] = field(default_factory=list[int])
    _next: int = 0
    _retry_s: float = 0.0
    has_served: bool = False
    """Whether any worker ever did."""

    @property
    def is_renewing(self) -> bool:
        """Whether a rolling restart is under way."""
        return bool(self._to_renew) or any(one.replaces is not None for one in self._workers.values())

    def stage(self, worker: int) -> Stage | None:
        """Return where a worker is, None when it is gone."""
        one = self._workers.get(worker)
        return None if one is None else one.stage

    def begin(self, now_s: float) -> list[Order]:
        """Start all workers."""
        return [self._start(now_s) for _ in range(self.size)]

    def renew(self) -> None:
        """Begin a rolling restart of all that do not retire; one that is under way goes on.

        Who is still starting may have read what was there before.
        """
        if not self.is_renewing:
            self._to_renew = [n for n, one in self._workers.items() if one.stage is not Stage.RETIRING]

    def look(self, signs: Mapping[int, Sign], now_s: float) -> list[Order]:
        """Take what was seen of every worker that is there, and return what is to be done."""
        orders: list[Order] = []
        for number in list(self._workers):
            orders += self._look_at(number, signs.get(number, Sign.SILENT), now_s)
        due = [vacancy for vacancy in self._vacancies if vacancy.due_s <= now_s]
        for vacancy in due:
            self._vacancies.remove(vacancy)
            orders.append(self._start(now_s))
        return [*orders, *self._go_on_renewing(now_s)]

    def _look_at(self, number: int, sign: Sign, now_s: float) -> list[Order]:
        one = self._workers[number]
        if sign is Sign.DEAD:
            self._died(number, now_s)
            return []
        if sign is not Sign.SILENT:
            one.heard_s = now_s
        if one.stage is Stage.STARTING:
            if sign is Sign.READY:
                return self._serves(one)
            is_over = now_s - one.started_s > START_LIMIT_S
        else:
            is_over = now_s - one.heard_s > SILENT_LIMIT_S
        if not is_over:
            return []
        self._died(number, now_s)
        return [Order(Act.KILL, number)]

    def _serves(self, one: _Worker) -> list[Order]:
        one.stage, self.has_served = Stage.SERVING, True
        old, one.replaces = one.replaces, None
        if old is None or old not in self._workers:  # it died meanwhile, and this is in its place
            return []
        self._workers[old].stage = Stage.RETIRING
        return [Order(Act.RETIRE, old)]

    def _died(self, number: int, now_s: float) -> None:
        one = self._workers.pop(number)
        if one.stage is Stage.RETIRING:
            return
        if one.replaces is not None:  # the new version does not come up: the old one stays
            self._to_renew.clear()
            if one.replaces in self._workers:
                return
        if any(other.replaces == number for other in self._workers.values()):
            return  # its successor is on its way
        is_young = now_s - one.started_s < YOUNG_S
        least_s, longest_s = RETRY_S
        self._retry_s = min(max(least_s, 2 * self._retry_s), longest_s) if is_young else 0.0
        self._vacancies.append(_Vacancy(now_s + self._retry_s))

    def _go_on_renewing(self, now_s: float) -> list[Order]:
        if any(one.replaces is not None for one in self._workers.values()):
            return []
        while self._to_renew:
            old = self._to_renew.pop(0)
            if old in self._workers:
                return [self._start(now_s, replaces=old)]
        return []

    def _start(self, now_s: float, *, replaces: int | None = None) -> Order:
        number, self._next = self._next, self._next + 1
        self._workers[number] = _Worker(Stage.STARTING, now_s, now_s, replaces)
        return Order(Act.START, number)
