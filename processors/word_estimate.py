"""Where the words are in a voice's audio whose vendor tells no times: by their length over the audio. Pure.

A voice says its texts one after another and tells when all the audio of a text has come. Then the text's words are
shared out over that audio by what they take to say: letters, digits (each of which is a word), pauses at punctuation.
Before that a word is placed by the pace of the texts so far, and not before the audio is well past it: a guess that is
too early would have another voice leave the word out. What was told stays; the words behind it fill the rest.

How far off it is: within a text of a few seconds a word is some tenths of a second off, and the first and the last word
of a text hardly.
"""

from dataclasses import dataclass

import numpy as np

from processors.voice_script import AUDIBLE_LEVEL
from processors.voices import TimedWord

USUAL_S_PER_UNIT = 0.055
"""Of a letter, until a voice's own pace is known."""
DIGIT_UNITS = 4
WORD_UNITS = 1
PAUSE_UNITS = {",": 2, ";": 2, ":": 2, ".": 3, "!": 3, "?": 3, "…": 3}
"""Added to a word with this behind it."""
LEAST_PAST_S = 0.15
PAST_SHARE = 0.1
"""A word is taken as said when the audio is so far past the place where it is guessed to end."""
_NEW_PACE_SHARE = 0.5
_CLOSING = "\"')\u201d\u2019"


class Pace:
    """How fast a voice speaks, learned from its texts."""

    def __init__(self) -> None:
        """Begin with what is usual."""
        self.s_per_unit = USUAL_S_PER_UNIT

    def measured(self, units: float, seconds: float) -> None:
        """A text of so many units took so long."""
        if units > 0 and seconds > 0:
            new = seconds / units
            self.s_per_unit += _NEW_PACE_SHARE * (new - self.s_per_unit)


@dataclass(frozen=True)
class _Word:
    text: str
    units: float
    piece: int


class EstimatedWords:
    """The words of one context, in seconds from its first audio."""

    def __init__(self, *, rate_hz: int, pace: Pace) -> None:
        """Begin without text.

        Args:
            rate_hz: Of the audio.
            pace: The voice's; learns from every text.
        """
        self._rate_hz = rate_hz
        self._pace = pace
        self._words: list[_Word] = []
        """Those that are not told yet."""
        self._pieces = 0
        self._over = 0
        """Texts whose audio is all there."""
        self._audio = 0
        self._half = b""
        """The first byte of a sample."""
        self._audible = 0
        """Behind the last sample that is no silence."""
        self._units = 0.0
        """Of the text that is being said, told ones included."""
        self._begins_s: float | None = None
        """Where that text begins to be heard."""
        self._told_s = 0.0
        """Where the last word told ends."""

    def add(self, text: str) -> None:
        """Take one more text; it is said behind the others."""
        words = text.split()
        kept = [_Word(word, _units(word), self._pieces) for word in words if any(map(str.isalnum, word))]
        self._words += kept
        self._pieces += 1

    def audio(self, pcm: bytes) -> list[TimedWord]:
        """Take audio, s16le mono, cut anywhere; return the words that have surely been said by now."""
        pcm = self._half + pcm
        whole = len(pcm) // 2 * 2
        pcm, self._half = pcm[:whole], pcm[whole:]
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > AUDIBLE_LEVEL)
        if loud.size:
            if self._begins_s is None:
                self._begins_s = self._told_s = (self._audio + int(loud[0])) / self._rate_hz
            self._audible = self._audio + int(loud[-1]) + 1
        self._audio += len(pcm) // 2
        told: list[TimedWord] = []
        while self._begins_s is not None and self._words:
            word = self._words[0]
            end_s = self._told_s + word.units * self._pace.s_per_unit
            past_s = LEAST_PAST_S + PAST_SHARE * (end_s - self._begins_s)
            if self._audible / self._rate_hz < end_s + past_s:
                break
            told.append(self._tell(end_s))
        return told

    def over(self, texts: int = 1) -> list[TimedWord]:
        """All audio of the next so many texts is there: return the words of them that were not told."""
        self._over += texts
        left = [word for word in self._words if word.piece < self._over]
        end_s = max(self._told_s, self._audible / self._rate_hz)
        units, span_s = sum(word.units for word in left), end_s - self._told_s
        if self._begins_s is not None:
            self._pace.measured(self._units + units, end_s - self._begins_s)
        told = [self._tell(min(end_s, self._told_s + word.units / units * span_s)) for word in left]
        self._begins_s, self._units, self._told_s = None, 0.0, end_s
        return told

    def _tell(self, end_s: float) -> TimedWord:
        word, start_s = self._words.pop(0), self._told_s
        self._units += word.units
        self._told_s = end_s
        return TimedWord(word.text, start_s, end_s)


def _units(word: str) -> float:
    letters = sum(char.isalpha() for char in word)
    digits = sum(char.isdigit() for char in word)
    return WORD_UNITS + letters + DIGIT_UNITS * digits + PAUSE_UNITS.get(word.rstrip(_CLOSING)[-1:], 0)
