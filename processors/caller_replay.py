"""The last seconds of the caller's audio, and from where on a new recogniser must hear them again. Pure.

Places are samples of the line: all audio since the call began, silence included. What was *settled* has final words or
none; what was *dismissed* was listened to and had none. A recogniser that takes over hears the rest: from the last
settled word on, if speech goes on there, otherwise from shortly before the speech behind it. So no word is missed and
none is heard twice, and no silence is heard again, for vendors listen only a little faster than people speak.
"""

from collections import deque
from dataclasses import dataclass

KEPT_S = 20.0
"""Audio kept: longer than a breath's speech, and than what a vendor needs to make words final."""
LEAD_S = 0.3
"""Before the first sound of speech that is known as such."""
WORD_TAIL_S = 0.1
"""Behind the end of a final word: vendors tell ends a little early, and less would be heard as a word of its own."""
_BYTES = 2
_MOST_SPEECHES = 64


@dataclass
class _Speech:
    began: int
    ended: int | None = None


class CallerReplay:
    """One call's. `add` keeps what it is given, without a copy."""

    def __init__(self, *, rate_hz: int, kept_s: float = KEPT_S) -> None:
        """Start at the beginning of the line.

        Args:
            rate_hz: Sample rate.
            kept_s: Audio kept, in seconds.
        """
        self._rate_hz = rate_hz
        self._kept = round(kept_s * rate_hz)
        self._chunks: deque[bytes] = deque()
        self.first = 0
        """Place of the first sample kept."""
        self.end = 0
        """Place behind the last sample."""
        self.settled = 0
        """Up to here all words are final."""
        self._dismissed = 0
        self._speeches: deque[_Speech] = deque(maxlen=_MOST_SPEECHES)
        self._has_interim = False

    @property
    def end_s(self) -> float:
        """Length of the line so far, in seconds."""
        return self.end / self._rate_hz

    @property
    def is_pending(self) -> bool:
        """Whether there is speech, or the beginning of words, whose words are not final."""
        return self._has_interim or self._pending(max(self.settled, self._dismissed)) is not None

    def add(self, pcm: bytes) -> None:
        """Take the next audio: s16le mono."""
        self._chunks.append(pcm)
        self.end += len(pcm) // _BYTES
        while self.end - self.first - len(self._chunks[0]) // _BYTES >= self._kept:
            self.first += len(self._chunks.popleft()) // _BYTES

    def place(self, line_s: float) -> int:
        """Return the place of a time on the line, in seconds."""
        return round(line_s * self._rate_hz)

    # Speech

    def speech_began(self, ago_s: float) -> None:
        """The caller speaks, since so many seconds."""
        if not self._speeches or self._speeches[-1].ended is not None:
            self._speeches.append(_Speech(max(0, self.end - self.place(ago_s))))

    def speech_ended(self, ago_s: float) -> None:
        """The caller has been quiet for so many seconds."""
        if self._speeches and self._speeches[-1].ended is None:
            speech = self._speeches[-1]
            speech.ended = max(speech.began, self.end - self.place(ago_s))

    @property
    def is_sounding(self) -> bool:
        """Whether the caller speaks."""
        return bool(self._speeches) and self._speeches[-1].ended is None

    def quiet_at(self, place: int) -> tuple[int, int]:
        """Return from where to where a place lies in quiet or settled speech; twice the place inside other speech."""
        began, until = self.first, self.end
        for speech in self._speeches:
            if speech.began <= place and (speech.ended is None or speech.ended > place):
                return place, place
            if speech.ended is not None and speech.ended <= place:
                began = max(began, speech.ended)
            elif speech.began > place:
                until = min(until, speech.began)
        return began, until

    # Results

    def interim(self) -> None:
        """There are words that are not final."""
        self._has_interim = True

    def settle(self, words_end: int, until: int) -> None:
        """Words became final.

        Args:
            words_end: Where the last of them ends.
            until: Up to where the audio was listened to for them.
        """
        self.settled = max(self.settled, min(until, words_end + self.place(WORD_TAIL_S), self.end))
        self._has_interim = False
        self._forget_speech(self.settled)

    def dismiss(self, until: int) -> None:
        """The audio up to here was listened to, and there are no words in it but those that were told."""
        self._dismissed = max(self._dismissed, min(until, self.end))
        self._has_interim = False

    # Replay

    def start(self) -> int:
        """Return where a recogniser that takes over begins to hear."""
        known = max(self.settled, self._dismissed)
        begin = self._pending(known)
        if begin is None:
            begin = known if self._has_interim else self.end
        return self._before(begin, known)

    def opinion_start(self, owed: int | None = None) -> int:
        """Return where a recogniser begins to hear that is asked what the last one missed of the last speech.

        Args:
            owed: Where earlier speech began that the last one had not heard yet, None if there is none.
        """
        begin = self._speeches[-1].began if self._speeches else self.end
        return self._before(begin if owed is None else min(begin, owed), self.settled)

    def piece(self, place: int, most: int) -> bytes:
        """Return the audio from a place on, so many samples at most; none at the end of the line."""
        at, wanted = self.first, bytearray()
        for chunk in self._chunks:
            behind = at + len(chunk) // _BYTES
            if behind > place:
                wanted += chunk[max(0, place - at) * _BYTES :]
                if len(wanted) >= most * _BYTES:
                    break
            at = behind
        return bytes(wanted[: most * _BYTES])

    # Inside

    def _before(self, begin: int, known: int) -> int:
        return max(known, self.first, min(begin, self.end) - self.place(LEAD_S))

    def _pending(self, known: int) -> int | None:
        """Return where the first speech begins that goes on behind `known`, None if none does."""
        slack = self.place(WORD_TAIL_S)
        for speech in self._speeches:
            if speech.ended is None or speech.ended > known + slack:
                return speech.began
        return None

    def _forget_speech(self, known: int) -> None:
        while self._speeches:
            ended = self._speeches[0].ended
            if ended is None or ended > known + self.place(WORD_TAIL_S):
                return
            self._speeches.popleft()
