"""What an utterance says, how much of it a voice has made, and what is left for the next voice. Pure: no clock, no I/O.

A *script* is the text of one utterance, given piece by piece and told apart into tokens: what stands between white
space. A voice reports its own words with times; they are matched to the tokens by their letters and digits. A token is
*said* when all the audio of its words is there and was no silence. When a voice fails, `cut` tells the text behind the
last token said, and where in the audio that token ends: what comes behind is the beginning of a word that the next
voice says whole. So each token is said once, wherever the cut. A word that has been begun and cannot be taken back is
said too when half of it is heard, as everywhere: it would be heard twice.

Positions are samples of the utterance's audio, over all its voices.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from processors.voices import TimedWord

_BYTES_PER_SAMPLE = 2
AUDIBLE_LEVEL = 100
"""Of 32768: about -50 dBFS. What never rises above is silence."""
LEAST_S_PER_CHAR = 0.03
"""No voice says a letter or digit faster: less audio than this for a text was not that text."""
USUAL_S_PER_CHAR = 0.065
_LONGEST_LOOK_AHEAD = 3
"""Tokens that a vendor may leave out between two words it reports."""
_QUIET_TAIL_S = 0.03
"""Silence behind a word: it is over."""
_TRAILING_SILENCE_S = 0.25
"""Silence at a cut that is longer belongs to the failure, and is cut off."""


@dataclass(frozen=True, slots=True)
class _Token:
    key: str
    """Its letters and digits, folded."""
    piece: int
    start: int
    """Where in its piece it begins."""


@dataclass(slots=True)
class _Spoken:
    """A word that the voice reports, not handed on yet."""

    text: str
    start: int
    end: int | None
    through: int
    """Tokens matched with it."""
    is_boundary: bool
    """Whether a token ends with it."""


@dataclass(frozen=True)
class Cut:
    """Where one voice stopped."""

    rest: tuple[str, ...]
    """What the next voice is to say; empty if nothing is missing."""
    keep: int
    """Audio behind this position is not to be heard."""


def _key(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


class VoiceScript:
    """One utterance's books."""

    def __init__(self, *, rate_hz: int) -> None:
        """Open empty books for audio of this sample rate."""
        self._rate_hz = rate_hz
        self._pieces: list[str] = []
        self._tokens: list[_Token] = []
        self._said = 0
        """Tokens said."""
        self._matched = 0
        """Tokens that the present voice's words cover."""
        self._part = ""
        """What its words cover of the token behind them."""
        self._strays = 0
        """Words in a row that fit nowhere."""
        self._pending: list[_Spoken] = []
        self._base = 0
        """Where the present voice's audio begins."""
        self._audio = 0
        self._audible = 0
        """Behind the last sample that is no silence."""
        self._said_end = 0
        """Where the last token said ends, as far as known."""
        self.is_complete = False
        """Whether no more text comes."""

    # What is to be said

    def add(self, text: str) -> None:
        """Add a piece behind all others; it reaches the voice as one text."""
        tokens = [
            (_key(match.group()), match.start()) for match in re.finditer(r"\S+", text) if _key(match.group())
        ]
        piece = len(self._pieces)
        self._pieces.append(text)
        self._tokens += [_Token(key, piece, start) for key, start in tokens]

    # What the voice did

    @property
    def audio(self) -> int:
        """Samples so far."""
        return self._audio

    @property
    def silence_s(self) -> float:
        """How long the present voice's audio has been silent at its end, in seconds."""
        return (self._audio - max(self._audible, self._base)) / self._rate_hz

    @property
    def has_sound(self) -> bool:
        """Whether the present voice was audible at all."""
        return self._audible > self._base

    @property
    def said_end(self) -> int:
        """Where the last word said ends."""
        return self._said_end

    @property
    def has_said_by_voice(self) -> bool:
        """Whether the present voice has said any word."""
        return self._said_end > self._base

    def add_audio(self, pcm: bytes) -> bool:
        """Count audio, s16le mono, whole samples; return whether any of it can be heard."""
        loud = np.flatnonzero(np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > AUDIBLE_LEVEL)
        if loud.size:
            self._audible = self._audio + int(loud[-1]) + 1
        self._audio += len(pcm) // _BYTES_PER_SAMPLE
        return bool(loud.size)

    def add_words(self, words: Iterable[TimedWord]) -> None:
        """Take the present voice's words, in order; their times count from its first audio."""
        for word in words:
            start = self._base + round(word.start_s * self._rate_hz)
            end = None if word.end_s is None else self._base + round(word.end_s * self._rate_hz)
            if self._pending and (last := self._pending[-1]).end is not None:
                last.end = min(last.end, max(start, last.start))
            if self._match(_key(word.text)):
                self._strays = 0
            else:
                self._strays += 1
            is_boundary = not self._part and not self._strays
            self._pending.append(_Spoken(word.text, start, end, self._matched, is_boundary))

    def take_said(self) -> list[TimedWord]:
        """Return words that have been said since; times in seconds of the utterance's audio."""
        count = 0
        for index, word in enumerate(self._pending):
            if not self._is_whole(index):
                break
            if word.is_boundary:
                count = index + 1
        return self._take(count)

    def ended(self) -> tuple[list[TimedWord], bool]:
        """The present voice says that it has made all it was given.

        Returns:
            Words that have been said since, and whether it is true: there may be no audio for the last of the text.
        """
        said = self.take_said()
        # Numbers may be reported as they are spoken, which no token fits: then there is at least sound for them.
        is_plausible = self.new_sound_s() >= LEAST_S_PER_CHAR * self._missing_chars()
        if self._pending and all(self._audible > word.start for word in self._pending):
            said += self._take(len(self._pending))
        if not (self.is_said or is_plausible):
            return said, False
        self._said, self._said_end = len(self._tokens), self._audio
        return said, True

    # How far it is

    @property
    def is_said(self) -> bool:
        """Whether all the text so far is said."""
        return self._said >= len(self._tokens)

    @property
    def piece(self) -> int:
        """Index of the piece that is being said, or would come next."""
        return len(self._pieces) if self.is_said else self._tokens[self._said].piece

    def owed_s(self) -> float:
        """Return an estimate of the audio that the text still needs, in seconds."""
        return max(0.0, USUAL_S_PER_CHAR * self._missing_chars() - self.new_sound_s())

    def new_sound_s(self) -> float:
        """Return the seconds from the end of the last token said to the last audible sample."""
        return max(0, self._audible - max(self._said_end, self._base)) / self._rate_hz

    # From one voice to the next

    def cut(
        self, whole_word: TimedWord | None = None, *, begun: int | None = None
    ) -> tuple[list[TimedWord], Cut]:
        """End the present voice where it is; the next begins at the cut.

        Args:
            whole_word: A word, or the beginning of one, whose audio is there though it was not reported.
            begun: Up to where the audio is heard in any case; None if all of it can be taken back.

        Returns:
            Words that have been said since, and the cut.
        """
        if whole_word is not None:
            end_s = whole_word.end_s
            if end_s is None:
                end_s = (self._audio - self._base) / self._rate_hz
            self.add_words([TimedWord(whole_word.text, whole_word.start_s, end_s)])
        said = self.take_said()
        if self._is_last_word_over():
            said += self._take(len(self._pending))
            self._said = len(self._tokens)
        if begun is not None:
            said += self._take_begun(min(begun, self._audible))
        keep = self._audio
        if self.is_said:
            rest: tuple[str, ...] = ()
        else:
            rest = self._rest()
            if self._pending:
                keep = min(keep, max(self._pending[0].start, self._said_end))
            else:
                keep = min(keep, self._said_end)
        silence = max(self._audible, self._said_end)
        if keep - silence > _TRAILING_SILENCE_S * self._rate_hz:
            keep = silence
        self.begin_voice(keep)
        return said, Cut(rest, keep)

    def begin_voice(self, at: int | None = None) -> None:
        """Another voice, or the same anew, says the rest; its audio begins at position `at`, at the end if None."""
        self._audio = self._base = self._said_end = self._audio if at is None else at
        self._audible = min(self._audible, self._base)
        self._pending.clear()
        self._matched, self._part, self._strays = self._said, "", 0

    # Inside

    def _match(self, key: str) -> bool:
        """Advance over the tokens that a word covers; return whether it covers any."""
        if not key:  # punctuation of its own
            return True
        if self._matched < len(self._tokens):
            whole, wanted = self._part + key, self._tokens[self._matched].key
            if wanted == whole:
                self._matched, self._part = self._matched + 1, ""
                return True
            if wanted.startswith(whole):
                self._part = whole
                return True
            if whole.startswith(wanted) and (after := self._covered(whole)) is not None:
                self._matched, self._part = after
                return True
        last = self._matched + 1 + _LONGEST_LOOK_AHEAD + self._strays
        for index in range(self._matched, min(last, len(self._tokens))):
            if self._tokens[index].key == key:
                self._matched, self._part = index + 1, ""
                return True
        return False

    def _covered(self, key: str) -> tuple[int, str] | None:
        """Return how far a word goes that is longer than its token, None if it goes elsewhere."""
        at = self._matched
        while at < len(self._tokens) and key.startswith(self._tokens[at].key):
            key = key[len(self._tokens[at].key) :]
            at += 1
            if not key:
                return at, ""
        if at < len(self._tokens) and self._tokens[at].key.startswith(key):
            return at, key
        return None

    def _is_whole(self, index: int) -> bool:
        word = self._pending[index]
        if self._audible <= word.start:
            return False
        if word.end is not None:
            return word.end <= self._audio
        return index + 1 < len(self._pending) and self._pending[index + 1].start <= self._audio

    def _take(self, count: int) -> list[TimedWord]:
        taken, self._pending = self._pending[:count], self._pending[count:]
        if not taken:
            return []
        self._said = max(self._said, taken[-1].through)
        end = taken[-1].end
        if end is None:
            end = self._pending[0].start if self._pending else self._audio
        self._said_end = max(self._said_end, min(end, self._audio))
        rate_hz = self._rate_hz
        return [
            TimedWord(word.text, word.start / rate_hz, None if word.end is None else word.end / rate_hz)
            for word in taken
        ]

    def _take_begun(self, begun: int) -> list[TimedWord]:
        """Take the word that is not whole, if half of it is heard before `begun`."""
        if self.is_said or not self._pending:
            return []
        start = max(self._pending[0].start, self._said_end)
        count = next((index + 1 for index, word in enumerate(self._pending) if word.is_boundary), 0)
        if count:
            end = self._end_of(count, start)
        elif self._part:  # letters come with their sound
            token = self._tokens[self._matched]
            end = start + (self._audio - start) * len(token.key) / len(self._part)
        else:
            return []
        if begun <= start or begun - start < (end - start) / 2:  # of what has no sound nothing is heard
            return []
        if count:
            return self._take(count)
        self._pending.clear()
        self._said, self._said_end, self._part = self._matched + 1, self._audio, ""
        token = self._tokens[self._said - 1]
        text = self._pieces[token.piece][token.start :].split(maxsplit=1)[0]
        return [TimedWord(text, start / self._rate_hz)]

    def _end_of(self, count: int, start: int) -> float:
        """Return where the sound of the first `count` words that wait ends, an estimate if the voice does not tell."""
        last = self._pending[count - 1]
        if last.end is not None:
            return last.end
        if count < len(self._pending):
            return self._pending[count].start
        letters = sum(len(token.key) for token in self._tokens[self._said : last.through])
        return start + USUAL_S_PER_CHAR * letters * self._rate_hz

    def _missing_chars(self) -> int:
        return sum(len(token.key) for token in self._tokens[self._said :])

    def _is_last_word_over(self) -> bool:
        """Whether the sound that no word accounts for is the last token: long enough, and silence behind it."""
        return (
            self._said == len(self._tokens) - 1
            and self.new_sound_s() >= USUAL_S_PER_CHAR * self._missing_chars()
            and self.silence_s >= _QUIET_TAIL_S
        )

    def _rest(self) -> tuple[str, ...]:
        first = self._tokens[self._said]
        pieces: Sequence[str] = self._pieces[first.piece :]
        return (pieces[0][first.start :], *(piece for piece in pieces[1:] if _key(piece)))
