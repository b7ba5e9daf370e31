"""What a transcriber that thinks in turns says when: partials, ends of turns. The pure core of the AssemblyAI sim.

Audio and words go in with the time they came, events come out when they are due. It reads no clock and knows no wire
format. `…_s` of words and turns is stream audio time; `now_s` and `due_s` are wall time.

Two families of models. *Universal-3 Pro* shows a turn as a whole: first when speech has lasted for a while, then every
three seconds, then at pauses; its words are final, and written as they should be, at the end of the turn alone.
*Universal-Streaming* shows each word as it becomes final, and writes the turn as it should be in a second message.

Source: assemblyai.com/docs/streaming (message-sequence, turn-detection, universal-3-pro), assemblyai 1.8.2.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sims.spoken import HeardWord

_PARTIAL_EVERY_S = 3.0
"""Between two partials of a turn in which nobody pauses."""
_TERMINAL = (".", "?", "!")
_NEAR_S = 1e-6
"""Times that are sums of the same parts in another order differ by less."""


@dataclass(frozen=True)
class TurnRules:
    """What the client asked for. All durations in seconds."""

    shows_words: bool = False
    """Universal-Streaming's way."""
    formats: bool = False
    """Whether Universal-Streaming tells a turn a second time, as it should be written."""
    min_silence_s: float = 0.1
    """That ends a turn whose words read finished."""
    max_silence_s: float = 1.0
    """That ends any turn."""
    first_partial_s: float = 0.75
    """Speech before the first partial."""
    continues: bool = True
    """Whether partials come in a turn without a pause."""


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak at `at_s`."""

    at_s: float


@dataclass(frozen=True)
class Turn:
    """What is known of a turn."""

    order: int
    words: tuple[HeardWord, ...]
    finals: int
    """How many of the words are final."""
    is_end: bool = False
    is_formatted: bool = False


@dataclass(frozen=True)
class Terminated:
    """The last event: the client asked to end and has been told everything."""


Event = SpeechStarted | Turn | Terminated


@dataclass(frozen=True, slots=True)
class _Pending:
    due_s: float
    upto_s: float
    is_end: bool = False
    is_last: bool = False


class TurnTranscript:
    """One session's turns."""

    def __init__(self, rules: TurnRules, latency_s: Callable[[], float]) -> None:
        """Start at audio time 0.

        Args:
            rules: What the client asked for.
            latency_s: Draws the wall time from a word's end to its transcript.
        """
        self._rules = rules
        self._latency_s = latency_s
        self._order = 0
        self._audio_s = 0.0
        self._words: list[HeardWord] = []
        self._guess: tuple[HeardWord, ...] = ()
        self._shown: tuple[HeardWord, ...] = ()
        self._available_s = 0.0
        self._began_s: float | None = None
        self._speech_end_s = 0.0
        self._partial_at_s = 0.0
        self._is_ending = False
        self._answer_by_s: float | None = None
        self._pending: deque[_Pending] = deque()
        self._started: deque[SpeechStarted] = deque()

    @property
    def due_s(self) -> float | None:
        """Return the wall time at which `advance` has something to do, None when nothing waits."""
        if self._started:
            return 0.0
        if not self._pending:
            return None
        first = self._pending[0]
        is_held = self._answer_by_s is not None and (first.is_end or first.is_last)
        return max(first.due_s, self._answer_by_s or 0.0) if is_held else first.due_s

    def hear(self, now_s: float, audio_s: float, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Take audio up to `audio_s`; see `LiveTranscript.hear`."""
        if (is_speaking or words) and (self._began_s is None or self._is_ending):
            self._begin(words[0].start_s if words else self._audio_s)
        self._audio_s = audio_s
        if words:
            self._available_s = max(self._available_s, now_s + self._latency_s())
            self._words.extend(words)
        if is_speaking:
            self._speech_end_s = audio_s
        elif words:
            self._speech_end_s = words[-1].end_s
        if self._began_s is not None and not self._is_ending:
            self._look(now_s, has_new=bool(words))

    def expect(self, until_s: float) -> None:
        """Hold the ends of turns until `settle`, at the latest until wall time `until_s`."""
        self._answer_by_s = until_s

    def guess(self, words: Sequence[HeardWord]) -> None:
        """Take what an unfinished recognition thinks so far."""
        self._guess = tuple(words)

    def settle(self, now_s: float, words: Sequence[HeardWord]) -> None:
        """End `expect` with the recognised words."""
        self._answer_by_s, self._guess = None, ()
        if words:
            self._words.extend(words)
            self._words.sort(key=lambda word: word.start_s)
            self._available_s = max(self._available_s, now_s)
            if self._began_s is None:
                self._begin(words[0].start_s)
                self._end(now_s)

    def force(self, now_s: float) -> None:
        """End the turn that is open; when none is, nothing comes of it."""
        if self._began_s is not None and not self._is_ending:
            self._end(now_s)

    def close(self, now_s: float) -> None:
        """End the turn that is open, and the session."""
        self.force(now_s)
        self._pending.append(_Pending(max(now_s, self._available_s), self._audio_s, is_last=True))

    def advance(self, now_s: float) -> list[Event]:
        """Return what is to be said by wall time `now_s`, in order."""
        events: list[Event] = list(self._started)
        self._started.clear()
        while (due_s := self.due_s) is not None and due_s <= now_s:
            pending = self._pending.popleft()
            if pending.is_last:
                events.append(Terminated())
            elif pending.is_end:
                events += self._tell_end(pending.upto_s)
            else:
                events += self._tell_partial(pending.upto_s)
        return events

    # --- Audio in

    def _begin(self, at_s: float) -> None:
        self._began_s, self._is_ending = at_s, False
        self._partial_at_s = at_s + self._rules.first_partial_s
        if not self._rules.shows_words:
            self._started.append(SpeechStarted(at_s))

    def _look(self, now_s: float, *, has_new: bool) -> None:
        rules = self._rules
        due_s = max(now_s + self._latency_s(), self._available_s)
        if has_new and rules.shows_words:
            self._pending.append(_Pending(due_s, self._audio_s))
        elif not rules.shows_words and self._audio_s >= self._partial_at_s:
            self._pending.append(_Pending(due_s, self._audio_s))
            self._partial_at_s = self._audio_s + (_PARTIAL_EVERY_S if rules.continues else float("inf"))
        quiet_s = self._audio_s - self._speech_end_s
        reads_finished = bool(self._words) and self._words[-1].text.endswith(_TERMINAL)
        limit_s = rules.min_silence_s if reads_finished and not rules.shows_words else rules.max_silence_s
        if quiet_s >= limit_s - _NEAR_S:
            self._end(now_s)

    def _end(self, now_s: float) -> None:
        self._is_ending = True
        self._pending.append(_Pending(max(now_s, self._available_s), self._audio_s, is_end=True))

    # --- Events out

    def _tell_partial(self, upto_s: float) -> list[Event]:
        words = tuple(word for word in self._words if word.end_s <= upto_s + _NEAR_S) + self._guess
        if not words or words == self._shown:
            return []
        self._shown = words
        # Of the last word it cannot be sure: it may go on.
        return [Turn(self._order, words, len(words) - 1 if self._rules.shows_words else 0)]

    def _tell_end(self, upto_s: float) -> list[Event]:
        words = tuple(word for word in self._words if word.end_s <= upto_s + _NEAR_S)
        self._words = self._words[len(words) :]
        self._shown = ()
        if self._is_ending:
            self._began_s, self._is_ending = None, False
        if not words:
            return []
        order, self._order = self._order, self._order + 1
        if not self._rules.shows_words:
            return [Turn(order, words, len(words), is_end=True, is_formatted=True)]
        plain = Turn(order, words, len(words), is_end=True)
        written = Turn(order, words, len(words), is_end=True, is_formatted=True)
        return [plain, written] if self._rules.formats else [plain]
