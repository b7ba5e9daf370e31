"""What a live transcriber says when: segments, interims, endpoints, Finalize. The pure core of the Deepgram sim.

Audio and words go in with the time they came, events come out when they are due. It reads no clock, knows no
wire format and owns no timer: the socket shell calls `advance` at `due_s`.

Two clocks: `…_s` of words, segments and steps is stream audio time; `now_s` and `due_s` are wall time.

Source: developers.deepgram.com/docs (using-interim-results, understand-endpointing-interim-results, utterance-end,
finalize); lengths of silent segments as in captures of pipecat-ai/pipecat#1261.
"""

import enum
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sims.spoken import HeardWord

_LONGEST_SEGMENT_S = 5.0
"""Speech without a pause is made final at about this length."""
_LONGEST_QUIET_SEGMENT_S = 4.0
"""Silence is made final (with nothing in it) at this length."""
_QUIET_INTERIM_S = 1.0
"""Audio between two interims that say nothing new."""
_NOTICEABLE_S = 0.1
"""Finalize is answered only when at least this much audio is buffered."""
_PHRASE_GAP_S = 0.3
"""Silence after which speech counts as started anew."""


@dataclass(frozen=True)
class Rules:
    """What the client asked for.

    Attributes:
        interim_results: Whether interims are wanted.
        interim_s: Audio time between two looks at the stream (interims, pauses).
        endpointing_s: Pause that ends a phrase; None never does.
        utterance_end_s: Gap after a word that ends the utterance; None is not told.
        vad_events: Whether the start of speech is told.
    """

    interim_results: bool = False
    interim_s: float = 0.25
    endpointing_s: float | None = 0.010
    utterance_end_s: float | None = None
    vad_events: bool = False


@dataclass(frozen=True)
class Result:
    """One transcript of the audio from `start_s`, `duration_s` long."""

    start_s: float
    duration_s: float
    words: tuple[HeardWord, ...]
    is_final: bool = False
    speech_final: bool = False
    from_finalize: bool = False


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak at `at_s`."""

    at_s: float


@dataclass(frozen=True)
class UtteranceEnd:
    """Nothing was said for a while after `last_word_end_s`."""

    last_word_end_s: float


@dataclass(frozen=True)
class Ended:
    """The last event: the client asked to close and has been told everything."""


Event = Result | SpeechStarted | UtteranceEnd | Ended


class _Kind(enum.Enum):
    LOOK = "look"
    SPEECH_STARTED = "speech started"
    FINALIZE = "finalize"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class _Pending:
    """Something that will be said at wall time `due_s` about the audio up to `upto_s`."""

    kind: _Kind
    due_s: float
    upto_s: float
    quiet_s: float = 0.0


class LiveTranscript:
    """One stream's transcript.

    A look at the stream every `interim_s` of audio is told `latency` later and gives an interim, or a final
    when the speaker paused. Finalize and close drop the looks that wait (they speak of the same audio), and are
    answered as soon as the words heard so far are available, each `latency` after its last frame.
    """

    def __init__(self, rules: Rules, latency_s: Callable[[], float]) -> None:
        """Start at audio time 0.

        Args:
            rules: What the client asked for.
            latency_s: Draws the wall time from a word's end to its transcript.
        """
        self._rules = rules
        self._latency_s = latency_s
        self._audio_s = 0.0
        self._start_s = 0.0
        self._words: list[HeardWord] = []
        self._available_s = 0.0
        self._guess: tuple[HeardWord, ...] = ()
        self._answer_by_s: float | None = None
        self._pending: deque[_Pending] = deque()
        self._next_look_s = rules.interim_s
        self._told: tuple[HeardWord, ...] = ()
        self._told_at_s = 0.0
        self._speech_end_s = 0.0
        self._is_speaking = False
        self._is_in_phrase = False
        self._utterance_end_after_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """Return the wall time at which `advance` has something to do, None when nothing waits."""
        if not self._pending:
            return None
        first = self._pending[0]
        if self._answer_by_s is not None and first.kind in (_Kind.FINALIZE, _Kind.CLOSE):
            return max(first.due_s, self._answer_by_s)
        return first.due_s

    def hear(self, now_s: float, audio_s: float, words: Sequence[HeardWord], *, is_speaking: bool) -> None:
        """Take audio up to `audio_s`.

        Args:
            now_s: Wall time.
            audio_s: Length of the stream so far.
            words: Words that ended in the new audio.
            is_speaking: Whether the stream now stands inside speech.
        """
        if (is_speaking or words) and not self._is_in_phrase:
            self._is_in_phrase = True
            if self._rules.vad_events:
                self._wait(_Kind.SPEECH_STARTED, now_s, words[0].start_s if words else self._audio_s)
        self._audio_s = audio_s
        self._is_speaking = is_speaking
        if is_speaking:
            self._speech_end_s = audio_s
        elif words:
            self._speech_end_s = words[-1].end_s
        elif audio_s - self._speech_end_s >= _PHRASE_GAP_S:
            self._is_in_phrase = False
        if words:
            self._take(now_s, words)
        if audio_s >= self._next_look_s:
            self._look(now_s)

    def expect(self, until_s: float) -> None:
        """Hold Finalize and close until `settle`, at the latest until wall time `until_s`."""
        self._answer_by_s = until_s

    def guess(self, words: Sequence[HeardWord]) -> None:
        """Take what an unfinished recognition thinks so far; it replaces the previous guess."""
        self._guess = tuple(words)

    def settle(self, now_s: float, words: Sequence[HeardWord]) -> None:
        """End `expect` with the recognised words."""
        self._answer_by_s = None
        self._guess = ()
        if words:
            self._words.extend(words)
            self._words.sort(key=lambda word: word.start_s)
            self._utterance_end_after_s = self._words[-1].end_s

    def finalize(self, now_s: float) -> None:
        """Make everything heard so far final, once it is available."""
        self._drop_looks()
        self._wait(_Kind.FINALIZE, max(now_s, self._available_s), self._audio_s)

    def close(self, now_s: float) -> None:
        """Make everything final and end."""
        self._drop_looks()
        self._wait(_Kind.CLOSE, max(now_s, self._available_s), self._audio_s)

    def advance(self, now_s: float) -> list[Event]:
        """Return what is to be said by wall time `now_s`, in order."""
        events: list[Event] = []
        while (due_s := self.due_s) is not None and due_s <= now_s:
            pending = self._pending.popleft()
            match pending.kind:
                case _Kind.LOOK:
                    events += self._tell_look(pending)
                case _Kind.SPEECH_STARTED:
                    events.append(SpeechStarted(pending.upto_s))
                case _Kind.FINALIZE:
                    events += self._tell_finalize(pending)
                case _Kind.CLOSE:
                    events += self._tell_close(pending)
        return events

    # --- Audio in

    def _take(self, now_s: float, words: Sequence[HeardWord]) -> None:
        # Availability only grows: a lucky draw must not let a word overtake the one before it.
        self._available_s = max(self._available_s, now_s + self._latency_s())
        self._words.extend(words)
        self._utterance_end_after_s = words[-1].end_s

    def _look(self, now_s: float) -> None:
        self._next_look_s = self._audio_s + self._rules.interim_s
        has_news = self._words or self._guess or self._utterance_end_after_s is not None
        quiet_limit_s = _QUIET_INTERIM_S if self._rules.interim_results else _LONGEST_QUIET_SEGMENT_S
        if has_news or self._audio_s - self._told_at_s >= quiet_limit_s:
            quiet_s = 0.0 if self._is_speaking else self._audio_s - self._speech_end_s
            due_s = max(now_s + self._latency_s(), self._available_s)
            self._wait(_Kind.LOOK, due_s, self._audio_s, quiet_s)

    def _wait(self, kind: _Kind, due_s: float, upto_s: float, quiet_s: float = 0.0) -> None:
        pending = _Pending(kind, due_s, upto_s, quiet_s)
        if kind is _Kind.SPEECH_STARTED:
            self._pending.appendleft(pending)  # it does not wait for the transcript
        else:
            self._pending.append(pending)

    def _drop_looks(self) -> None:
        self._pending = deque(pending for pending in self._pending if pending.kind is not _Kind.LOOK)
        self._next_look_s = self._audio_s + self._rules.interim_s

    # --- Events out

    def _tell_look(self, look: _Pending) -> list[Event]:
        if look.upto_s <= self._start_s:
            return []
        words = tuple(word for word in self._words if word.end_s <= look.upto_s)
        length_s = look.upto_s - self._start_s
        if words and self._is_endpoint(look):
            return [self._final(words, look.upto_s, speech_final=True), *self._utterance_end(look)]
        if words and length_s >= _LONGEST_SEGMENT_S:
            return [self._final(words, words[-1].end_s)]
        if self._words or self._guess or self._answer_by_s is not None:
            return [*self._interim(words + self._guess, look.upto_s), *self._utterance_end(look)]
        if length_s >= _LONGEST_QUIET_SEGMENT_S and look.quiet_s > 0:
            return [self._final((), look.upto_s, speech_final=True), *self._utterance_end(look)]
        return [*self._interim((), look.upto_s), *self._utterance_end(look)]

    def _is_endpoint(self, look: _Pending) -> bool:
        limit_s = self._rules.endpointing_s
        return limit_s is not None and look.quiet_s > 0 and look.quiet_s >= limit_s

    def _interim(self, words: tuple[HeardWord, ...], upto_s: float) -> list[Event]:
        is_news = words != self._told
        is_time = upto_s - self._told_at_s >= _QUIET_INTERIM_S
        if not self._rules.interim_results or not (is_news or is_time):
            return []
        self._told, self._told_at_s = words, upto_s
        return [Result(self._start_s, upto_s - self._start_s, words)]

    def _utterance_end(self, look: _Pending) -> list[Event]:
        after_s, limit_s = self._utterance_end_after_s, self._rules.utterance_end_s
        if after_s is None:
            return []
        if limit_s is None or not self._rules.interim_results:
            self._utterance_end_after_s = None
            return []
        if look.upto_s - after_s < limit_s:
            return []
        self._utterance_end_after_s = None
        return [UtteranceEnd(after_s)]

    def _tell_finalize(self, pending: _Pending) -> list[Event]:
        if not self._words and pending.upto_s - self._start_s < _NOTICEABLE_S:
            return []
        words = tuple(word for word in self._words if word.end_s <= pending.upto_s)
        # Not a speech_final: that follows pauses alone (deepgram/deepgram-js-sdk#343).
        return [self._final(words, pending.upto_s, from_finalize=True)]

    def _tell_close(self, pending: _Pending) -> list[Event]:
        events: list[Event] = []
        if pending.upto_s > self._start_s:
            events.append(self._final(tuple(self._words), pending.upto_s))
        self._pending.clear()
        return [*events, Ended()]

    def _final(
        self,
        words: tuple[HeardWord, ...],
        upto_s: float,
        *,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Result:
        """Close the segment at `upto_s`; words after it stay for the next one."""
        result = Result(
            self._start_s,
            upto_s - self._start_s,
            words,
            is_final=True,
            speech_final=speech_final,
            from_finalize=from_finalize,
        )
        self._words = self._words[len(words) :]
        self._start_s = self._told_at_s = upto_s
        self._told = ()
        return result
