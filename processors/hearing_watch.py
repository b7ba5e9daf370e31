"""Whether a recogniser keeps up with the caller, and when a call counts as deaf. Pure: no clock, no I/O.

Two kinds of time: `…_s` of speech and results is seconds of the *line* (the caller's audio since the call began),
`now_s` and what is due is the event loop's. What a recogniser has listened to, it has *covered*; what it has no more to
say about, it has *answered*.

    IDLE --speech--> SPEAKING --speech ends--> OWED --answered | flushed--> IDLE
    SPEAKING fails when more speech than the vendor's limit is not covered: it hangs, or falls behind
    OWED --speech--> SPEAKING, and what was owed still counts
    OWED fails when the end of the speech is not answered for `answer_s` later
    any fails, softly, when `wordless_s` of speech brought no words at all: another is asked for its opinion

Audio that is heard again is given its time, for vendors listen only a little faster than people speak. Speech without
words may be a noise, so who did not hear any is blamed only when another does, and the next opinion is asked for after
twice as much of it.
"""

import enum
from dataclasses import dataclass

from processors.voices import FailureKind

NEAR_S = 0.3
"""Speech is covered when all but so much of its end is: what the voice model takes for its end may be breath."""

LISTENS = 1.2
"""Audio that is heard again, in a second: Deepgram promises 1.25."""


@dataclass(frozen=True)
class HearingLimits:
    """When a recogniser has failed. All in seconds."""

    answer_s: float = 1.0
    """From the end of speech to a result that covers it."""
    first_s: float = 1.5
    """From the connection to the first result, when it is sent much audio at once,"""
    missed_s: float = 1.0
    """that is, so much."""
    least_speech_s: float = 0.3
    """Speech shorter than this needs no answer."""
    wordless_s: float = 1.0
    """Speech that must bring a word."""
    lag_s: float = 0.6
    """By which words come behind their sound, for sure: until then there may be some that are not told yet."""
    most_wordless_s: float = 16.0
    """The same, after many an opinion that there was none."""


class Hearing(enum.StrEnum):
    """What is awaited of a recogniser."""

    IDLE = "idle"
    SPEAKING = "speaking"
    OWED = "owed"


class HearingWatch:
    """One call's; told when another recogniser takes over."""

    def __init__(self, limits: HearingLimits | None = None) -> None:
        """Start IDLE, with nobody listening."""
        self.limits = limits or HearingLimits()
        self.state = Hearing.IDLE
        self._connected_s = 0.0
        self._from_s = 0.0
        self._missed_s = 0.0
        self._left_out_s = 0.0
        self._silence_limit_s = 0.0
        self._acknowledges = True
        self.covered_s = 0.0
        """Up to here the line was listened to."""
        self._answered_s = 0.0
        """Up to here nothing more is to come."""
        self._has_interim = False
        self.has_reported = False
        """Whether any result came from who listens now."""
        self._began_s = 0.0
        self._earlier: list[tuple[float, float]] = []
        """Speech before it that was owed when it began, from and to."""
        self.ended_s = 0.0
        """Where the last speech ended."""
        self._asked_s = 0.0
        self._grace_until_s = 0.0
        self._wordless_s = 0.0
        """Speech since the last word, less that which goes on."""
        self._missed_speech_s = 0.0
        """Speech that has ended, and is owed by who took over."""
        self._limit_s = self.limits.wordless_s

    @property
    def owed_from_s(self) -> float | None:
        """Where earlier speech began that was still owed when the last one began, None if there is none."""
        return self._earlier[0][0] if self._earlier else None

    # What happens

    def connected(
        self,
        now_s: float,
        *,
        from_s: float,
        missed_s: float = 0.0,
        silence_limit_s: float,
        acknowledges: bool,
    ) -> None:
        """A recogniser begins to hear.

        Args:
            now_s: Now.
            from_s: Where on the line.
            missed_s: Audio that it is sent at once.
            silence_limit_s: Of speech that it may leave uncovered.
            acknowledges: Whether it answers a request for the last words though there are none.
        """
        self._connected_s, self._from_s, self.covered_s = now_s, from_s, from_s
        self._answered_s, self._has_interim, self.has_reported = from_s, False, False
        self._missed_s, self._silence_limit_s, self._acknowledges = missed_s, silence_limit_s, acknowledges
        self._wordless_s = self._missed_speech_s = self._left_out_s = 0.0
        self._earlier.clear()
        if self.state is Hearing.SPEAKING:
            self._began_s = max(self._began_s, from_s)
        elif from_s < self.ended_s - NEAR_S:
            self.state, self._began_s = Hearing.OWED, from_s
            self._missed_speech_s = self.ended_s - from_s

    def left_out(self, length_s: float) -> None:
        """So much quiet is not sent to who listens: it is as much nearer to the line."""
        self._left_out_s += length_s

    def speech_began(self, began_s: float) -> None:
        """The caller speaks, or goes on."""
        if self.state is Hearing.OWED and self._missed_speech_s:  # it has not come so far yet
            self.state, self._missed_speech_s = Hearing.SPEAKING, 0.0
        elif self.state is not Hearing.SPEAKING:
            if self.state is Hearing.OWED and self.ended_s > self.covered_s:
                self._earlier.append((self._began_s, self.ended_s))
            self.state, self._began_s = Hearing.SPEAKING, began_s

    def speech_ended(self, ended_s: float, now_s: float) -> None:
        """The caller is quiet, and was asked about."""
        if self.state is not Hearing.SPEAKING:
            return
        speech_s = max(0.0, ended_s - self._began_s)
        self._wordless_s += speech_s
        self.ended_s, self._asked_s = ended_s, now_s
        is_owed = speech_s >= self.limits.least_speech_s or self._has_interim
        self.state = Hearing.OWED if is_owed else Hearing.IDLE

    def reported(self, until_s: float | None, *, has_words: bool, is_answer: bool) -> None:
        """A result came, which covers the line up to `until_s`, for good if it `is_answer`."""
        self.has_reported = True
        if until_s is not None:
            self.covered_s = max(self.covered_s, until_s)
            self._earlier = [(began_s, end_s) for began_s, end_s in self._earlier if end_s > self.covered_s]
            if is_answer:
                self._answered_s = max(self._answered_s, until_s)
        self._has_interim = not is_answer and (self._has_interim or has_words)
        if has_words:
            self._wordless_s = self._missed_speech_s = 0.0
            self._limit_s = self.limits.wordless_s
            self._began_s = max(self._began_s, self.covered_s)

    def flushed(self, asked_s: float) -> None:
        """The recogniser has no more words for the speech that it was asked about, up to there on the line."""
        self._earlier = [(began_s, end_s) for began_s, end_s in self._earlier if end_s > asked_s]
        if self.state is Hearing.OWED and asked_s >= self.ended_s:
            self._answered_s = max(self._answered_s, self.ended_s)
            self._has_interim = False

    def stalled(self, stall_s: float, now_s: float) -> None:
        """This process was held up: a vendor gets as much time more."""
        self._grace_until_s = now_s + stall_s

    def opinion_given(self) -> None:
        """Another heard no words either: what was heard was no speech."""
        self._wordless_s = self._missed_speech_s = 0.0
        self._earlier.clear()
        self._began_s = max(self._began_s, self.covered_s)
        self._limit_s = min(2 * self._limit_s, self.limits.most_wordless_s)

    # What comes of it

    def verdict(self, now_s: float, sent_s: float) -> FailureKind | None:
        """Say whether the recogniser has failed.

        Args:
            now_s: Now.
            sent_s: Up to where it was sent the line.

        Returns:
            `LATE`: it hangs or falls behind. `SILENT`: it heard no words where there may be some. None: it has not.
        """
        if self.state is Hearing.IDLE or now_s < self._grace_until_s:
            return None
        if self._is_dumb(now_s):
            return FailureKind.LATE
        if self.state is Hearing.OWED:
            return self._verdict_owed(now_s)
        # Audio that is heard again takes its time: nobody is late with what could not be heard by now.
        listening_s = now_s - self._connected_s
        heard_s = min(sent_s, self._from_s + LISTENS * listening_s + self._left_out_s)
        if self._uncovered_s(heard_s) >= self._silence_limit_s:
            return FailureKind.LATE
        # Who says nothing of noise has covered it all the same. Not who was behind then and may still listen to it, nor
        # who has shown words of it: the next may take seconds.
        is_live = self._began_s >= self._from_s + self._missed_s
        is_silent = not self._acknowledges and is_live and not self._has_interim
        listened_s = max(self.covered_s, heard_s) if is_silent else self.covered_s
        wordless_s = self._wordless_s + max(0.0, listened_s - self._began_s)
        return FailureKind.SILENT if wordless_s >= self._limit_s + self.limits.lag_s else None

    def _uncovered_s(self, heard_s: float) -> float:
        """Return how much speech up to there was not listened to; the pauses in it are not counted."""
        earlier_s = sum(end_s - max(began_s, self.covered_s) for began_s, end_s in self._earlier)
        return earlier_s + max(0.0, heard_s - max(self.covered_s, self._began_s))

    def _is_dumb(self, now_s: float) -> bool:
        """Whether speech was sent at once, and nothing came of it."""
        is_due = now_s - self._connected_s >= self.limits.first_s
        return (
            is_due and not self.has_reported and self._missed_s >= self.limits.missed_s and self._acknowledges
        )

    def _verdict_owed(self, now_s: float) -> FailureKind | None:
        is_answered = self._answered_s >= self.ended_s - NEAR_S and not self._has_interim
        could_hear_s = self._connected_s + max(0.0, self.ended_s - self._from_s) / LISTENS
        waited_s = now_s - max(self._asked_s, could_hear_s)
        if not self._acknowledges and not self._has_interim:  # it says nothing when there is nothing to say
            is_answered |= waited_s >= self.limits.lag_s
        if not is_answered and waited_s < self.limits.answer_s:
            return None
        self.state = Hearing.IDLE
        if not is_answered:
            return FailureKind.LATE
        wordless_s = self._wordless_s + self._missed_speech_s
        return FailureKind.SILENT if wordless_s >= self._limit_s else None


@dataclass(frozen=True)
class DeafLimits:
    """How long nobody may listen before the caller is told. All in seconds."""

    spoken_s: float = 1.5
    """Since the caller spoke and nobody listened."""
    deaf_s: float = 2.5
    """The least of it: so long others are tried."""
    speaking_s: float = 5.0
    """While the caller speaks on."""
    silent_s: float = 8.0
    """While the caller says nothing."""


class Deafness:
    """Since when nobody has listened, and until when that may go on."""

    def __init__(self, limits: DeafLimits | None = None) -> None:
        """Start hearing."""
        self._limits = limits or DeafLimits()
        self._since_s: float | None = None
        self._spoken_s: float | None = None
        self._is_speaking = False

    @property
    def is_deaf(self) -> bool:
        """Whether nobody has listened for a while."""
        return self._since_s is not None

    def lost(self, now_s: float, *, spoken_s: float | None) -> None:
        """Nobody listens.

        Args:
            now_s: Now.
            spoken_s: When the caller ended speech that nobody understood, None if there is none.
        """
        self._since_s = now_s if self._since_s is None else self._since_s
        self._spoken_s = spoken_s if self._spoken_s is None else self._spoken_s

    def heard(self) -> None:
        """A recogniser has listened to the caller."""
        self._since_s = self._spoken_s = None

    def speech_began(self) -> None:
        """The caller speaks."""
        self._is_speaking = True

    def speech_ended(self, now_s: float) -> None:
        """The caller is quiet."""
        self._is_speaking = False
        if self._since_s is not None and self._spoken_s is None:
            self._spoken_s = now_s

    @property
    def due_s(self) -> float | None:
        """When the caller must be told, None if somebody listens."""
        if self._since_s is None:
            return None
        if self._spoken_s is not None:
            return max(self._since_s + self._limits.deaf_s, self._spoken_s + self._limits.spoken_s)
        return self._since_s + (self._limits.speaking_s if self._is_speaking else self._limits.silent_s)
