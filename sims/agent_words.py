"""Which words the agent was heard to say, found in the sound the phone played.

Every 20 ms of a voice sim's speech is unique after mu-law, so a stretch of played sound tells which text it comes from
and where in it. Speech that no sim made, or that was resampled on its way, is simply not recognised. Pure, no clock.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sims.mulaw import FRAME_SAMPLES, RATE_HZ, SILENCE, audible_range
from sims.speech import Word

_WINDOW = 48
"""Bytes compared to recognise a place."""
_MIN_CODES = 3
"""Different bytes that such a window has at least: silence says nothing about where it is."""
_STRIDE = 240
"""Places remembered per utterance: one in so many samples."""
_EDGE_SAMPLES = FRAME_SAMPLES
"""What may be missing of a phrase that still was heard whole."""
_MAX_TRIES = 12
"""Unrecognised frames after which a stretch of sound is given up until the next silence."""


@dataclass(frozen=True)
class Phrase:
    """One text as a voice sim rendered it; `ulaw` is 8 kHz, word times count from its start."""

    text: str
    ulaw: bytes
    words: tuple[Word, ...]


@dataclass(frozen=True)
class PlayedWord:
    """A word as heard: sample positions in the call; `phrase`, `index` and `count` tell which of how many."""

    text: str
    start: int
    end: int
    phrase: str
    index: int
    count: int


@dataclass(frozen=True)
class PlayedRun:
    """A stretch of the call in which one phrase was played without a break, exact to the sample."""

    phrase: str
    start: int
    end: int
    """Not played any more."""
    first_word: int
    """Index of the first word whose middle was not over at `start`."""
    next_word: int
    """The same at `end`; the number of words when all were heard."""
    is_whole: bool
    """Nothing audible of the phrase came after `end`."""


class PhraseIndex:
    """What the voice sims have rendered so far, found again by a few bytes; shared by all calls."""

    def __init__(self, refresh: Callable[[], Iterable[Phrase]], *, limit_bytes: int = 32 * 2**20) -> None:
        """Create an empty index.

        Args:
            refresh: Returns the phrases that are new since it was last called.
            limit_bytes: Bound of the sound kept; the phrase not heard for longest goes first.
        """
        self._refresh = refresh
        self._limit_bytes = limit_bytes
        self._phrases: OrderedDict[bytes, Phrase] = OrderedDict()
        self._places: dict[bytes, tuple[Phrase, int]] = {}
        self._size_bytes = 0

    def find(self, sound: bytes) -> tuple[Phrase, int, int] | None:
        """Look for a known place; return (phrase, offset in phrase, offset in `sound`)."""
        for phrase in self._refresh():
            self.add(phrase)
        places = self._places
        for at in range(len(sound) - _WINDOW + 1):
            place = places.get(sound[at : at + _WINDOW])
            if place is not None:
                self._phrases.move_to_end(place[0].ulaw)
                return place[0], place[1], at
        return None

    def add(self, phrase: Phrase) -> None:
        """Remember a phrase."""
        if phrase.ulaw in self._phrases:
            return
        self._phrases[phrase.ulaw] = phrase
        self._size_bytes += len(phrase.ulaw)
        for at in range(0, len(phrase.ulaw) - _WINDOW + 1, _STRIDE):
            window = phrase.ulaw[at : at + _WINDOW]
            if len(set(window)) >= _MIN_CODES:
                self._places[window] = (phrase, at)
        while self._size_bytes > self._limit_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        ulaw, _ = self._phrases.popitem(last=False)
        self._size_bytes -= len(ulaw)
        for at in range(0, len(ulaw) - _WINDOW + 1, _STRIDE):
            window = ulaw[at : at + _WINDOW]
            if window in self._places and self._places[window][0].ulaw == ulaw:
                del self._places[window]


class AgentEar:
    """Follows what one phone plays.

    LOST --known place found--> FOLLOWING --sound differs--> LOST --too many tries--> GIVEN UP --silence--> LOST
    """

    def __init__(self, index: PhraseIndex) -> None:
        """Create an ear that has heard nothing."""
        self._index = index
        self._phrase: Phrase | None = None
        self._offset = 0
        """Next byte expected of the phrase."""
        self._origin = 0
        """Where in the call the phrase would have begun, played in one go."""
        self._next_word = 0
        self._run_start = 0
        self._run_word = 0
        self._runs: list[PlayedRun] = []
        self._unknown = b""
        """The latest sound that is not recognised yet."""
        self._tries = 0

    @property
    def place(self) -> tuple[Phrase, int] | None:
        """Return what is being played now and where in the call it began, or would have when played in one go."""
        return None if self._phrase is None else (self._phrase, self._origin)

    @property
    def runs(self) -> tuple[PlayedRun, ...]:
        """Return the stretches in which known phrases were played, the present one included."""
        if self._phrase is None or self._origin + self._offset <= self._run_start:
            return tuple(self._runs)
        return (*self._runs, self._run(self._phrase))

    def feed(self, position: int, sound: bytes) -> list[PlayedWord]:
        """Take in what was played at `position`; return the words whose middle has now been heard."""
        phrase = self._phrase
        if phrase is not None:
            end = self._offset + len(sound)
            if phrase.ulaw[self._offset : end] == sound:
                self._offset = end
                return self._pop_words(phrase, position + len(sound))
            return self._leave(phrase, position, sound)
        return self._search(position, sound)

    def _leave(self, phrase: Phrase, position: int, sound: bytes) -> list[PlayedWord]:
        """Follow the phrase as far as it goes, then look for another in the rest."""
        expected = phrase.ulaw[self._offset : self._offset + len(sound)]
        same = next(
            (i for i, (a, b) in enumerate(zip(expected, sound, strict=False)) if a != b), len(expected)
        )
        self._offset += same
        words = self._pop_words(phrase, position + same)
        if position + same > self._run_start:
            self._runs.append(self._run(phrase))
        self._phrase, self._unknown, self._tries = None, b"", 0
        return words + self._search(position + same, sound[same:])

    def _search(self, position: int, sound: bytes) -> list[PlayedWord]:
        if sound.count(SILENCE) == len(sound):
            self._unknown, self._tries = b"", 0
            return []
        if self._tries >= _MAX_TRIES:
            return []
        self._unknown = (self._unknown + sound)[-(_STRIDE + _WINDOW + FRAME_SAMPLES) :]
        place = self._index.find(self._unknown)
        if place is None:
            self._tries += audible_range(sound) is not None
            return []
        phrase, offset, at = place
        known, self._unknown, self._tries = self._unknown, b"", 0
        return self._follow(phrase, offset, known, at, position + len(sound))

    def _follow(self, phrase: Phrase, offset: int, known: bytes, at: int, end: int) -> list[PlayedWord]:
        """Start to follow a phrase found at `known[at]`; `known` ends at position `end` of the call."""
        back = 0
        while at - back > 0 and offset - back > 0 and known[at - back - 1] == phrase.ulaw[offset - back - 1]:
            back += 1
        start_offset, start = offset - back, end - len(known) + at - back
        self._phrase, self._offset = phrase, start_offset
        self._origin, self._run_start = start - start_offset, start
        self._next_word = self._run_word = sum(_middle(word) <= start_offset for word in phrase.words)
        return self.feed(start, known[at - back :])

    def _run(self, phrase: Phrase) -> PlayedRun:
        rest = phrase.ulaw[self._offset + _EDGE_SAMPLES :]
        return PlayedRun(
            phrase.text, self._run_start, self._origin + self._offset, self._run_word, self._next_word,
            is_whole=audible_range(rest) is None,
        )  # fmt: skip

    def _pop_words(self, phrase: Phrase, end: int) -> list[PlayedWord]:
        """Return the words whose middle lies before the present offset, which is position `end` of the call."""
        begin = end - self._offset
        words: list[PlayedWord] = []
        while self._next_word < len(phrase.words):
            word = phrase.words[self._next_word]
            if _middle(word) > self._offset:
                break
            start, stop = begin + int(word.start_s * RATE_HZ), begin + int(word.end_s * RATE_HZ)
            words.append(PlayedWord(word.text, start, stop, phrase.text, self._next_word, len(phrase.words)))
            self._next_word += 1
        return words


def _middle(word: Word) -> int:
    """Return the offset by which half of a word has been heard."""
    return round((word.start_s + word.end_s) / 2 * RATE_HZ)
