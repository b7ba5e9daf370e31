"""When Flux says that a caller's turn begins, may be over, goes on and ends. The pure core of the Flux sim.

`FluxTurns` is the state machine, on audio time alone. `FluxTranscript` puts the vendor's delay before it: audio,
words and orders go in with the wall time at which they came, events come out when they are due. Neither reads a
clock, knows the wire format or owns a timer: the socket shell calls `advance` at `due_s`.

Real Flux judges the end of a turn by sound and meaning; this one judges by silence and by how finished the text
reads, which errs in the same places: after a whole sentence in the middle of a turn, after an answer without a verb.

Source: developers.deepgram.com/docs/flux (state, configuration, force-end-turn, close-stream).
"""

import enum
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sims.spoken import HeardWord

STEP_S = 0.08
"""Audio per decision: the model's frame."""
_REDRAW_S = 1.0
"""Audio for which one drawn delay holds; drawn for each step, the worst of many would hold up the rest."""
_EPSILON_S = 1e-6
"""Audio times are sums of frames."""
_CEILING = 0.98
"""Confidence after endless silence: no threshold of 1 is ever reached."""


class Reading(enum.Enum):
    """How finished a text reads."""

    FINISHED = "finished"
    """It ends a sentence."""
    OPEN = "open"
    """It could end here."""
    COUNTING = "counting"
    """It ends in a number, and more digits may come."""
    PROMISING = "promising"
    """It ends in a filler, or in a comma or word that promises more."""


_PATIENCE_S = {
    Reading.FINISHED: 0.2,
    Reading.OPEN: 0.6,
    Reading.COUNTING: 1.0,
    Reading.PROMISING: 1.2,
}
"""Silence after which the confidence has come to 63% of the way: 0.7 is reached after 1.25 times as long."""

_NUMBER = re.compile(
    r"\d+|zero|oh|one|two|three|four|five|six|seven|eight|nine|ten|double|triple", re.IGNORECASE
)
_FILLER = re.compile(r"um+|uh+|er+m?|hm+|and|or|but|because", re.IGNORECASE)
"""Promises more whatever mark a transcriber puts behind it."""
_PROMISE = re.compile(
    r"like|well|so|if|that|the|a|an|my|to|for|on|at|in|with|of|is|i|i'm|it's", re.IGNORECASE
)


def reading_of(text: str) -> Reading:
    """Judge a text by its end. A number that ends a sentence is whole: whoever wrote the text knew."""
    last = text.rsplit(maxsplit=1)[-1] if text.strip() else ""
    word = last.rstrip(".,?!;:")
    if last.endswith(("...", ",", ";", ":", "-")) or _FILLER.fullmatch(word):
        return Reading.PROMISING
    if last.endswith((".", "?", "!")):
        return Reading.FINISHED
    if _PROMISE.fullmatch(word):
        return Reading.PROMISING
    if _NUMBER.fullmatch(word.rpartition("-")[2]):
        return Reading.COUNTING
    return Reading.OPEN


def end_confidence(silence_s: float, reading: Reading) -> float:
    """Return how sure the model is that nothing more comes: grows with silence, faster the more finished."""
    return _CEILING * (1 - math.exp(-max(silence_s, 0.0) / _PATIENCE_S[reading]))


@dataclass(frozen=True)
class Thresholds:
    """When a turn ends.

    Attributes:
        eot: Confidence that ends a turn, 0.5 to 1; 1 never does.
        eager: Confidence that predicts the end, at most `eot`; None predicts nothing.
        timeout_s: Silence that ends a turn whatever the confidence.
    """

    eot: float = 0.7
    eager: float | None = None
    timeout_s: float = 5.0


class TurnEvent(enum.Enum):
    """What a `TurnInfo` tells; the values are those of the wire."""

    UPDATE = "Update"
    STARTED = "StartOfTurn"
    EAGER = "EagerEndOfTurn"
    RESUMED = "TurnResumed"
    ENDED = "EndOfTurn"


class Trigger(enum.Enum):
    """What ended a turn; the values are those of the wire."""

    MODEL = "model"
    MANUAL = "manual"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class TurnInfo:
    """The state of a turn at audio time `window_end_s`; `words` are all of the turn so far."""

    event: TurnEvent
    turn_index: int
    window_start_s: float
    window_end_s: float
    words: tuple[HeardWord, ...]
    confidence: float
    trigger: Trigger | None = None

    @property
    def transcript(self) -> str:
        """The words as one text."""
        return " ".join(word.text for word in self.words)


class Phase(enum.Enum):
    """Where a turn stands."""

    INITIAL = "initial"
    ONGOING = "ongoing"
    AWAITING_END = "awaiting end"


class FluxTurns:
    """The turns of one stream. Each step tells one thing: a change of phase, or an update now and then.

    INITIAL --words--> ONGOING, **StartOfTurn**
    ONGOING --confidence >= eager, and words--> AWAITING_END, **EagerEndOfTurn**
    ONGOING --nothing to predict, and confidence >= eot | silence >= timeout | forced--> INITIAL, **EndOfTurn**
    AWAITING_END --other words | speech--> ONGOING, **TurnResumed**
    AWAITING_END --confidence >= eot | silence >= timeout | forced--> INITIAL, **EndOfTurn**
    """

    def __init__(
        self, thresholds: Thresholds, *, update_s: float = 0.25, starts_on_sound: bool = False
    ) -> None:
        """Start at audio time 0, before the first turn.

        Args:
            thresholds: When turns end.
            update_s: Audio time between two updates.
            starts_on_sound: Whether speech without words begins a turn, too.
        """
        self.thresholds = thresholds
        self.phase = Phase.INITIAL
        self._update_s = update_s
        self._starts_on_sound = starts_on_sound
        self._index = 0
        self._audio_s = 0.0
        self._window_start_s = 0.0
        self._words: list[HeardWord] = []
        self._guess: tuple[HeardWord, ...] = ()
        self._predicted: tuple[HeardWord, ...] = ()
        self._speech_end_s = 0.0
        self._told_s = 0.0

    def add(self, words: Sequence[HeardWord]) -> None:
        """Take words that end the guess: recognised late, they may have ended a while ago."""
        self._guess = ()
        if words:
            self._words = sorted([*self._words, *words], key=lambda word: word.start_s)
            self._speech_end_s = self._words[-1].end_s

    def guess(self, words: Sequence[HeardWord]) -> None:
        """Take what an unfinished recognition thinks so far; it replaces the previous guess."""
        self._guess = tuple(words)

    def step(
        self,
        audio_s: float,
        words: Sequence[HeardWord] = (),
        *,
        is_speaking: bool = False,
        is_owed: bool = False,
    ) -> TurnInfo | None:
        """Take audio up to `audio_s` and return what is to be told of it.

        Args:
            audio_s: Audio time, not before that of the last step.
            words: Words that ended in the new audio.
            is_speaking: Whether the audio stands inside speech.
            is_owed: Whether words of an earlier time are still to come; no turn ends before they have.
        """
        self._audio_s = audio_s
        if words:
            self._words.extend(words)
            self._speech_end_s = words[-1].end_s
        if is_speaking:
            self._speech_end_s = audio_s
        change = self._change(is_speaking=is_speaking, is_owed=is_owed)
        if change is None and audio_s - self._told_s >= self._update_s - STEP_S / 2:
            return self._tell(TurnEvent.UPDATE)
        return change

    def force(self) -> list[TurnInfo]:
        """End the turn on the audio so far; nothing is told when there is none."""
        if self.phase is Phase.INITIAL:
            return []
        told = [] if self._is_as_predicted() else [self._resume()]
        return [*told, self._end(Trigger.MANUAL)]

    def last_update(self) -> TurnInfo | None:
        """Return the update that ends the stream; None when there was no audio since the last event."""
        return self._tell(TurnEvent.UPDATE) if self._audio_s > self._told_s else None

    @property
    def _silence_s(self) -> float:
        return self._audio_s - self._speech_end_s

    def _confidence(self) -> float:
        if self.phase is Phase.INITIAL:
            return 0.0
        return end_confidence(self._silence_s, reading_of(" ".join(word.text for word in self._shown())))

    def _shown(self) -> tuple[HeardWord, ...]:
        return (*self._words, *self._guess)

    def _change(self, *, is_speaking: bool, is_owed: bool) -> TurnInfo | None:
        match self.phase:
            case Phase.INITIAL:
                if self._shown() or (self._starts_on_sound and is_speaking):
                    self.phase = Phase.ONGOING
                    return self._tell(TurnEvent.STARTED)
                return None
            case Phase.ONGOING:
                return None if is_owed else self._maybe_predict_or_end()
            case Phase.AWAITING_END:
                if is_speaking or not self._is_as_predicted():
                    return self._resume()
                trigger = self._trigger()
                return None if trigger is None or is_owed else self._end(trigger)

    def _maybe_predict_or_end(self) -> TurnInfo | None:
        eager, confidence, trigger = self.thresholds.eager, self._confidence(), self._trigger()
        if eager is not None and self._shown() and confidence >= eager:
            self.phase = Phase.AWAITING_END
            self._predicted = self._shown()
            return self._tell(TurnEvent.EAGER)
        return None if trigger is None else self._end(trigger)

    def _trigger(self) -> Trigger | None:
        if self._confidence() >= self.thresholds.eot:
            return Trigger.MODEL
        return Trigger.TIMEOUT if self._silence_s >= self.thresholds.timeout_s else None

    def _is_as_predicted(self) -> bool:
        return self.phase is not Phase.AWAITING_END or self._predicted == self._shown()

    def _resume(self) -> TurnInfo:
        self.phase = Phase.ONGOING
        return self._tell(TurnEvent.RESUMED)

    def _end(self, trigger: Trigger) -> TurnInfo:
        told = self._tell(TurnEvent.ENDED, trigger)
        self.phase = Phase.INITIAL
        self._index += 1
        self._window_start_s = self._audio_s
        self._words, self._guess, self._predicted = [], (), ()
        return told

    def _tell(self, event: TurnEvent, trigger: Trigger | None = None) -> TurnInfo:
        self._told_s = self._audio_s
        return TurnInfo(
            event,
            self._index,
            self._window_start_s,
            self._audio_s,
            self._shown(),
            self._confidence(),
            trigger,
        )


@dataclass(frozen=True)
class Configured:
    """The thresholds now hold."""

    thresholds: Thresholds


@dataclass(frozen=True)
class NoTurn:
    """A turn was to be ended, and there was none."""


@dataclass(frozen=True)
class Closed:
    """The last event: everything heard has been told."""


Event = TurnInfo | Configured | NoTurn | Closed


@dataclass(frozen=True, slots=True)
class _Heard:
    """Audio up to `audio_s`, decided upon at wall time `due_s`."""

    due_s: float
    audio_s: float
    words: tuple[HeardWord, ...]
    is_speaking: bool


class _Order(enum.Enum):
    FORCE = "force"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class _Ordered:
    due_s: float
    what: _Order | Thresholds


class FluxTranscript:
    """One stream's events, each the vendor's delay after the audio it speaks of. Orders keep their place in it."""

    def __init__(self, turns: FluxTurns, latency_s: Callable[[], float]) -> None:
        """Start at audio time 0.

        Args:
            turns: The turns, not begun.
            latency_s: Draws the wall time from audio to what is told of it.
        """
        self._turns = turns
        self._latency_s = latency_s
        self._drawn_latency_s = 0.0
        self._redraw_at_s = 0.0
        self._next_step_s = STEP_S
        self._decided_s = 0.0
        self._audio_s = 0.0
        self._is_speaking = False
        self._waiting_words: list[HeardWord] = []
        self._pending: deque[_Heard | _Ordered] = deque()
        self._last_due_s = -math.inf
        self._owed_until_s: float | None = None
        self._is_closed = False

    @property
    def due_s(self) -> float | None:
        """Return the wall time at which `advance` has something to do, None when nothing waits."""
        if not self._pending:
            return None
        first = self._pending[0]
        if self._owed_until_s is not None and isinstance(first, _Ordered) and isinstance(first.what, _Order):
            return max(first.due_s, self._owed_until_s)
        return first.due_s

    def hear(self, now_s: float, audio_s: float, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Take audio up to `audio_s`.

        Args:
            now_s: Wall time.
            audio_s: Length of the stream so far.
            words: Words that ended in the new audio.
            is_speaking: Whether the stream now stands inside speech.
        """
        self._audio_s = audio_s
        self._is_speaking = is_speaking
        self._waiting_words.extend(words)
        while (upto_s := self._next_step_s) <= audio_s + _EPSILON_S:
            self._next_step_s = upto_s + STEP_S
            is_inside = any(word.start_s < upto_s < word.end_s for word in self._waiting_words)
            is_last = self._next_step_s > audio_s + _EPSILON_S
            self._decide(now_s, upto_s, is_speaking=is_inside or (is_last and is_speaking))

    def expect(self, until_s: float) -> None:
        """Let no turn end, by itself or by order, until `settle`, at the latest until wall time `until_s`."""
        self._owed_until_s = until_s

    def guess(self, words: Sequence[HeardWord]) -> None:
        """Take what an unfinished recognition thinks so far; it replaces the previous guess."""
        self._turns.guess(words)

    def settle(self, _now_s: float, words: Sequence[HeardWord], /) -> None:
        """End `expect` with the recognised words."""
        self._owed_until_s = None
        self._turns.add(words)

    def configure(self, now_s: float, thresholds: Thresholds) -> None:
        """Decide by other thresholds from here on."""
        self._wait(_Ordered(self._due(now_s), thresholds))

    def force(self, now_s: float) -> None:
        """End the turn here."""
        self._decide(now_s, self._audio_s, is_speaking=self._is_speaking)
        self._wait(_Ordered(self._due(now_s), _Order.FORCE))

    def close(self, now_s: float) -> None:
        """Tell what is left and end, without ending the turn."""
        self._decide(now_s, self._audio_s, is_speaking=self._is_speaking)
        self._wait(_Ordered(self._due(now_s), _Order.CLOSE))

    def advance(self, now_s: float) -> list[Event]:
        """Return what is to be said by wall time `now_s`, in order."""
        events: list[Event] = []
        while not self._is_closed and (due_s := self.due_s) is not None and due_s <= now_s:
            pending = self._pending.popleft()
            if isinstance(pending, _Heard):
                is_owed = self._owed_until_s is not None and now_s < self._owed_until_s
                told = self._turns.step(
                    pending.audio_s, pending.words, is_speaking=pending.is_speaking, is_owed=is_owed
                )
                events += [] if told is None else [told]
            else:
                events += self._obey(pending.what)
        return events

    def _obey(self, what: _Order | Thresholds) -> list[Event]:
        if isinstance(what, Thresholds):
            self._turns.thresholds = what
            return [Configured(what)]
        if what is _Order.FORCE:
            return [*self._turns.force()] or [NoTurn()]
        self._is_closed = True
        update = self._turns.last_update()
        return [Closed()] if update is None else [update, Closed()]

    def _decide(self, now_s: float, upto_s: float, *, is_speaking: bool) -> None:
        upto_s = self._decided_s = max(upto_s, self._decided_s)
        ended = tuple(word for word in self._waiting_words if word.end_s <= upto_s + _EPSILON_S)
        self._waiting_words = self._waiting_words[len(ended) :]
        self._wait(_Heard(self._due(now_s), upto_s, ended, is_speaking))

    def _due(self, now_s: float) -> float:
        if self._audio_s >= self._redraw_at_s:
            self._drawn_latency_s = self._latency_s()
            self._redraw_at_s = self._audio_s + _REDRAW_S
        # Nothing overtakes what was heard before it.
        self._last_due_s = max(self._last_due_s, now_s + self._drawn_latency_s)
        return self._last_due_s

    def _wait(self, pending: _Heard | _Ordered) -> None:
        self._pending.append(pending)
