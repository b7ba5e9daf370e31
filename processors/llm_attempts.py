"""How one answer is got out of models that fail: which is asked, when another one is, and whose words are said. Pure.

`TurnAttempts` is the table of one answer's attempts. It owns no clock, no socket and no text; `llm_guard` is its shell.
`ModelRecord` is what is known of one model from its last answers, in all calls of a process.

    ASKING --first words or tool of one--> ANSWERING, every other attempt is cancelled
    ASKING --later than usual--> ASKING two at once (the hedge)
    ASKING --far too late--> ASKING one more beside it: it may come yet
    ASKING, ANSWERING --failed--> ASKING again, after a pause or at the next model; after words: to go on behind them
    ASKING --attempts or time used up--> GIVEN UP        ANSWERING --whole--> FINISHED
"""

import enum
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

# What is known of a model


LEAST_SAMPLES = 10
"""Answers before a model's own first-token times count."""
USUAL_HEDGE_S = 1.2
"""When a second model is asked as long as nothing is known of the first."""
LEAST_HEDGE_S = 0.6
MOST_HEDGE_S = 2.0
"""However slow a model usually is: a caller waits."""
FAILURES_TO_REST = 2
REST_S = 20.0
"""A model that failed `FAILURES_TO_REST` times in a row is not asked first for so long; then it is tried again."""


class ModelRecord:
    """One model's last answers."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self._first_tokens_s: deque[float] = deque(maxlen=64)
        self._failures = 0
        self._rests_until_s = float("-inf")

    @property
    def hedge_after_s(self) -> float:
        """Seconds after which an answer is later than nineteen in twenty, within bounds."""
        if len(self._first_tokens_s) < LEAST_SAMPLES:
            return USUAL_HEDGE_S
        ranked = sorted(self._first_tokens_s)
        p95_s = ranked[min(len(ranked) - 1, int(0.95 * len(ranked)))]
        return min(MOST_HEDGE_S, max(LEAST_HEDGE_S, p95_s))

    def first_token(self, after_s: float) -> None:
        """An answer began, or was not waited for any longer, so long after it was asked for."""
        self._first_tokens_s.append(after_s)

    def answered(self) -> None:
        """An answer was whole."""
        self._failures, self._rests_until_s = 0, float("-inf")

    def failed(self, now_s: float) -> None:
        """An attempt failed by the vendor's fault."""
        self._failures += 1
        if self._failures >= FAILURES_TO_REST:
            self._rests_until_s = now_s + REST_S

    def is_resting(self, now_s: float) -> bool:
        """Whether others are to be asked first."""
        return now_s < self._rests_until_s


# One answer


class Failure(enum.StrEnum):
    """What kind of failure ended an attempt."""

    REFUSED = "refused"
    """No connection."""
    UNAUTHORIZED = "unauthorized"
    """The vendor will not have us, or has no such model: not in this call."""
    REJECTED = "rejected"
    """The vendor does not take this request: not in this turn."""
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    HANG = "hang"
    TRICKLE = "trickle"
    """Words come slower than they are spoken."""
    GARBAGE = "garbage"
    EMPTY = "empty"
    """Nothing to say and nothing to do."""
    CLOSED = "closed"
    """The stream ended before the answer did."""


_AGAIN = frozenset(
    {
        Failure.REFUSED,
        Failure.RATE_LIMITED,
        Failure.OVERLOADED,
        Failure.SERVER_ERROR,
        Failure.GARBAGE,
        Failure.EMPTY,
        Failure.CLOSED,
    }
)
"""The same model may do it at the second try; one that keeps us waiting is not waited for twice."""
_BARRED = frozenset({Failure.UNAUTHORIZED, Failure.REJECTED})


class Stage(enum.StrEnum):
    """How far an attempt had come."""

    FIRST_TOKEN = "first_token"  # noqa: S105 - no secret
    """Nothing of its answer had come."""
    ANSWER = "answer"


class Response(enum.StrEnum):
    """What was done about a failure."""

    RETRY = "retry"
    """The same model is asked again."""
    NEXT = "next"
    """The next model is."""
    OTHER = "other"
    """Another attempt is on its way already."""
    GIVE_UP = "give_up"


@dataclass(frozen=True)
class AttemptPolicy:
    """Bounds of one answer. Seconds."""

    max_attempts: int = 3
    """Hedge included."""
    first_token_s: float = 2.5
    """To the first sign of an answer; beyond it an attempt is late, and not relied upon any more."""
    gap_s: float = 2.0
    """Between two signs of it."""
    turn_limit_s: float = 11.0
    """To the first words, all attempts together. Others see to it that the caller hears something meanwhile."""
    recover_limit_s: float = 4.5
    """To the next words of an answer that broke off."""
    retry_pause_s: float = 0.15
    """Before the same model is asked again, give or take half of it."""
    patience_s: float = 1.0
    """A vendor that asks for a longer pause has failed this turn..."""
    short_pause_s: float = 0.3
    """... and one that asks for a longer pause than this is not waited for while there is another."""
    chars_per_s: float = 14.0
    """How fast text is spoken."""
    starved_s: float = 2.0
    """How far an answer's text may fall behind its speech."""
    answer_limit_s: float = 60.0
    """An answer that has not ended by then is long enough."""


@dataclass(frozen=True)
class Start:
    """Ask a model."""

    attempt: int
    model: int
    continues: bool
    """Whether words of this answer have gone out: it is to go on behind them."""
    is_hedge: bool = False


@dataclass(frozen=True)
class Cancel:
    """Stop an attempt whose answer is not wanted any more."""

    attempt: int


@dataclass(frozen=True)
class Failed:
    """An attempt is over; to be told and counted."""

    attempt: int
    failure: Failure
    stage: Stage
    response: Response


@dataclass(frozen=True)
class Late:
    """An attempt hangs; it goes on, in case it answers after all. To be told and counted as `Failure.HANG`."""

    attempt: int
    response: Response


@dataclass(frozen=True)
class Finish:
    """The answer is whole."""

    attempt: int


@dataclass(frozen=True)
class GiveUp:
    """There will be no answer, or no more of it."""


Action = Start | Cancel | Failed | Late | Finish | GiveUp
NOTHING: Sequence[Action] = ()


@dataclass
class _Attempt:
    model: int
    started_s: float
    sign_s: float | None = None
    """When the last sign of its answer came."""
    answered_s: float | None = None
    """When its first words or its tool came."""
    chars: int = 0
    has_tool: bool = False
    is_running: bool = True
    is_late: bool = False

    @property
    def stage(self) -> Stage:
        return Stage.FIRST_TOKEN if self.answered_s is None else Stage.ANSWER


class TurnAttempts:
    """The attempts of one answer. All times are seconds of one clock; whoever calls does what is returned."""

    def __init__(
        self,
        order: Sequence[int],
        hedge_after_s: Sequence[float],
        *,
        reserve: Collection[int] = (),
        policy: AttemptPolicy | None = None,
        jitter: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """Create the table.

        Args:
            order: Models that may be asked, the first one first.
            hedge_after_s: For each model by number, when another is asked beside it.
            reserve: Those that are asked when others have failed, and not because one is late.
            policy: Bounds.
            jitter: Returns a number from 0 to 1.

        Raises:
            ValueError: If there is no model to ask.
        """
        if not order:
            raise ValueError("there must be a model to ask")
        self._order = tuple(order)
        self._hedge_after_s = hedge_after_s
        self._reserve = frozenset(reserve)
        self._policy = policy or AttemptPolicy()
        self._jitter = jitter
        self._attempts: list[_Attempt] = []
        self._barred: set[int] = set()
        self._retry: tuple[float, int] | None = None
        """When which model is asked again."""
        self._deadline_s = float("inf")
        self._has_hedged = False
        self._has_said = False
        self._at_fault: set[int] = set()
        self.winner: int | None = None
        """The attempt whose words are said; every other one's are dropped."""
        self.is_over = False

    @property
    def count(self) -> int:
        """Attempts so far."""
        return len(self._attempts)

    @property
    def at_fault(self) -> frozenset[int]:
        """Models that kept the caller waiting or failed in this answer."""
        return frozenset(self._at_fault)

    def next_s(self) -> float:
        """Return when `tick` is due."""
        if self.is_over:
            return float("inf")
        due = [self._due(number)[0] for number in self._running()]
        due += [self._deadline_s, self._hedge_s()]
        if self._retry is not None:
            due.append(self._retry[0])
        return min(due)

    def waited_s(self, attempt: int, now_s: float) -> float:
        """Return how long an attempt has been waited for."""
        return now_s - self._attempts[attempt].started_s

    def cost_s(self, attempt: int, now_s: float) -> float:
        """Return how much later the caller hears an answer because an attempt failed.

        From when it was asked, or from when what it had said is spoken, until the next one was or will be asked.
        """
        one = self._attempts[attempt]
        last_s = since_s = one.started_s
        if one.answered_s is not None:
            last_s = since_s = one.answered_s if one.sign_s is None else one.sign_s
            since_s = max(since_s, one.answered_s + one.chars / self._policy.chars_per_s)
        asked = [other.started_s for other in self._attempts[attempt + 1 :] if other.started_s >= last_s]
        if self._retry is not None:
            asked.append(self._retry[0])
        return max(0.0, min(asked, default=now_s) - since_s)

    # Events

    def begin(self, now_s: float, *, has_said: bool = False) -> Sequence[Action]:
        """Ask the first model; with `has_said`, to go on behind words that went out earlier."""
        self._has_said = has_said
        self._deadline_s = now_s + self._policy.turn_limit_s
        return [self._start(self._order[0], now_s)]

    def sign(self, attempt: int, now_s: float) -> Sequence[Action]:
        """Something of an answer came that is not said: it is on its way."""
        self._attempts[attempt].sign_s = now_s
        return NOTHING

    def words(self, attempt: int, chars: int, now_s: float) -> Sequence[Action]:
        """So many characters to be said came; they are said if `winner` is this attempt afterwards."""
        one = self._attempts[attempt]
        if self.winner == attempt:  # nearly always
            one.sign_s = now_s
            one.chars += chars
            self._has_said = True
            return NOTHING
        if not one.is_running or self.is_over:
            return NOTHING
        actions = self._answers(attempt, now_s)
        if self.winner == attempt:
            one.chars += chars
            self._has_said = True
        return actions

    def tool(self, attempt: int, now_s: float) -> Sequence[Action]:
        """A tool call began."""
        one = self._attempts[attempt]
        if not one.is_running or self.is_over:
            return NOTHING
        one.has_tool = True
        return self._answers(attempt, now_s)

    def done(self, attempt: int, now_s: float, *, may_be_empty: bool = False) -> Sequence[Action]:
        """An answer is whole; `may_be_empty` when what was said before is a whole answer already."""
        one = self._attempts[attempt]
        if not one.is_running or self.is_over:
            return NOTHING
        if one.answered_s is None and not may_be_empty:
            return self.failed(attempt, Failure.EMPTY, now_s)
        actions = self._cancel_all(but=attempt)
        one.is_running = False
        self.is_over = True
        return [*actions, Finish(attempt)]

    def failed(
        self, attempt: int, failure: Failure, now_s: float, *, retry_after_s: float | None = None
    ) -> Sequence[Action]:
        """An attempt failed.

        Args:
            attempt: Which.
            failure: How.
            now_s: When.
            retry_after_s: Pause that the vendor asks for.
        """
        one = self._attempts[attempt]
        if not one.is_running or self.is_over:
            return NOTHING
        one.is_running = False
        self._at_fault.add(one.model)
        if self.winner == attempt:
            self.winner = None
            self._deadline_s = now_s + self._policy.recover_limit_s
        if failure in _BARRED or (retry_after_s is not None and retry_after_s > self._policy.patience_s):
            self._barred.add(one.model)
        if self._relied_upon() or self._retry is not None:
            return [Failed(attempt, failure, one.stage, Response.OTHER)]
        may_wait = (retry_after_s or 0.0) <= self._policy.short_pause_s
        model = self._next_model(one, failure, may_wait=may_wait)
        if model is None and self._running():
            return [Failed(attempt, failure, one.stage, Response.OTHER)]
        if model is None:
            self.is_over = True
            return [Failed(attempt, failure, one.stage, Response.GIVE_UP), GiveUp()]
        response = Response.RETRY if model == one.model else Response.NEXT
        told = Failed(attempt, failure, one.stage, response)
        if response is Response.NEXT or (one.stage is Stage.ANSWER and retry_after_s is None):
            return [told, self._start(model, now_s)]
        pause_s = self._policy.retry_pause_s * (0.5 + self._jitter())
        self._retry = (now_s + max(pause_s, retry_after_s or 0.0), model)
        return [told]

    def tick(self, now_s: float) -> Sequence[Action]:
        """Time has passed."""
        actions: list[Action] = []
        for number in self._running():
            due_s, failure = self._due(number)
            if now_s < due_s or self.is_over:
                continue
            if self._attempts[number].answered_s is None:
                actions += self._is_late(number, now_s)
                continue
            actions.append(Cancel(number))
            if failure is None:  # it talks on and on
                self._attempts[number].is_running = False
                self.is_over = True
                actions.append(Finish(number))
            else:
                actions += self.failed(number, failure, now_s)
        if not self.is_over and now_s >= self._deadline_s:
            return [*actions, *self._give_up(now_s)]
        if not self.is_over and self._retry is not None and now_s >= self._retry[0]:
            model, self._retry = self._retry[1], None
            actions.append(self._start(model, now_s))
        if not self.is_over and now_s >= self._hedge_s():
            self._has_hedged = True
            actions.append(self._start(self._hedge_model(), now_s, is_hedge=True))
        return actions

    def dropped(self, now_s: float) -> Sequence[Failed]:
        """The answer is thrown away and asked for anew: the caller was kept waiting; `at_fault` says by whom.

        Returns:
            Attempts that kept them waiting and were not told of as failed.
        """
        told: list[Failed] = []
        for number in () if self.is_over else self._running():
            one = self._attempts[number]
            if one.is_late and one.answered_s is None:
                continue  # told
            if one.answered_s is None:
                is_slow = now_s - one.started_s >= self._hedge_after_s[one.model] and one.sign_s is None
                failure = Failure.HANG
            else:
                is_slow = not one.has_tool and now_s - one.answered_s > one.chars / self._policy.chars_per_s
                failure = Failure.TRICKLE
            if is_slow:
                self._at_fault.add(one.model)
                told.append(Failed(number, failure, one.stage, Response.NEXT))
        return told

    # Inside

    def _running(self) -> list[int]:
        return [number for number, one in enumerate(self._attempts) if one.is_running]

    def _relied_upon(self) -> bool:
        return any(one.is_running and not one.is_late for one in self._attempts)

    def _is_late(self, attempt: int, now_s: float) -> list[Action]:
        one = self._attempts[attempt]
        one.is_late = True
        self._at_fault.add(one.model)
        if self._relied_upon() or self._retry is not None:
            return [Late(attempt, Response.OTHER)]
        model = self._next_model(one, Failure.HANG, may_wait=False)
        if model is None:
            return [Late(attempt, Response.OTHER)]
        response = Response.RETRY if model == one.model else Response.NEXT
        return [Late(attempt, response), self._start(model, now_s)]

    def _start(self, model: int, now_s: float, *, is_hedge: bool = False) -> Start:
        self._attempts.append(_Attempt(model, now_s))
        return Start(self.count - 1, model, self._has_said, is_hedge)

    def _answers(self, attempt: int, now_s: float) -> Sequence[Action]:
        one = self._attempts[attempt]
        one.sign_s = now_s
        if one.answered_s is None:
            one.answered_s = now_s
        if self.winner is not None:
            return NOTHING
        self.winner = attempt
        self._deadline_s = float("inf")
        return self._cancel_all(but=attempt)

    def _cancel_all(self, *, but: int) -> list[Action]:
        self._retry = None
        actions: list[Action] = []
        for number in self._running():
            if number != but:
                self._attempts[number].is_running = False
                actions.append(Cancel(number))
        return actions

    def _give_up(self, now_s: float) -> list[Action]:
        actions: list[Action] = []
        for number in self._running():
            one = self._attempts[number]
            one.is_running = False
            actions += [Cancel(number), Failed(number, Failure.HANG, one.stage, Response.GIVE_UP)]
        self.is_over = True
        return [*actions, GiveUp()]

    def _due(self, attempt: int) -> tuple[float, Failure | None]:
        """When an attempt has to be stopped as things are, and what is wrong with it then; None: nothing."""
        one, policy = self._attempts[attempt], self._policy
        if one.is_late and one.answered_s is None:
            return float("inf"), None
        if one.sign_s is None:
            return one.started_s + policy.first_token_s, Failure.HANG
        due: list[tuple[float, Failure | None]] = [
            (one.sign_s + policy.gap_s, Failure.HANG),
            (one.started_s + policy.answer_limit_s, None),
        ]
        if one.answered_s is not None and not one.has_tool:
            due.append((one.answered_s + one.chars / policy.chars_per_s + policy.starved_s, Failure.TRICKLE))
        return min(due, key=lambda limit: limit[0])

    def _hedge_s(self) -> float:
        """When a second model is asked beside the first; never when there is no need or no leave."""
        running = self._running()
        if self._has_hedged or len(running) != 1 or self.count >= self._policy.max_attempts:
            return float("inf")
        one = self._attempts[running[0]]
        if one.answered_s is not None:
            return float("inf")
        return one.started_s + self._hedge_after_s[one.model]

    def _hedge_model(self) -> int:
        asked = self._attempts[self._running()[0]].model
        others = (m for m in self._order if m != asked and m not in self._barred | self._reserve)
        return next(others, asked)

    def _next_model(self, last: _Attempt, failure: Failure, *, may_wait: bool) -> int | None:
        if self.count >= self._policy.max_attempts:
            return None
        tries = [sum(one.model == model for one in self._attempts) for model in range(max(self._order) + 1)]
        may_again = last.model not in self._barred
        others = [model for model in self._order if model != last.model and model not in self._barred]
        is_first = last.stage is Stage.FIRST_TOKEN and tries[last.model] < 2
        if may_again and is_first and failure in _AGAIN and (may_wait or not others):
            return last.model
        if others:
            return min(others, key=lambda model: tries[model])
        return last.model if may_again else None
