"""What scripted callers say, recognised from the very frames they send.

A caller registers each utterance before it speaks; a speech-to-text sim then knows its words when the same
20 ms mu-law frames come by, because nothing between the two changes a sample at 8 kHz. It is a lookup, never
a recogniser: sound that nobody registered stays unexplained, and nothing here touches a socket or a clock.
"""

import enum
import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sims.mulaw import FRAME_SAMPLES, RATE_HZ, SILENT_FRAME, pad_to_frames
from sims.speech import Word, encode_ulaw

FRAME_BYTES = FRAME_SAMPLES
FRAME_S = FRAME_BYTES / RATE_HZ
_ONE_ZERO = bytes([*range(0x7F), 0xFF, *range(0x80, 0x100)])
"""Maps -0 to +0, which linear samples cannot tell apart."""

_MAX_GAP_FRAMES = 25
"""Frames an utterance may miss in a row and still go on: half a second of loss."""
_MAX_PLACES = 8
"""Utterances followed at once while their sound is the same (shared prefixes)."""
_SEARCH_EVERY_FRAMES = 10
"""Unknown frames in a row before other phases are tried, and between two such searches."""
_BACKLOG_FRAMES = 16
"""How far back a search looks, so that finding the phase late loses no word."""
_HELD_FRAMES = 5
"""Missing frames in a row after which a speaker counts as silent."""


class Encoding(enum.Enum):
    """How samples come in."""

    LINEAR16 = "linear16"
    MULAW = "mulaw"


@dataclass(frozen=True, slots=True)
class HeardWord:
    """One word of a stream.

    Attributes:
        text: As written, with case and punctuation.
        start_s: Start in stream audio time, seconds.
        end_s: End in stream audio time, seconds; never after the audio it was heard in.
        confidence: 0 to 1.
    """

    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class _PlacedWord:
    """A word with the frames that carry it, both ends included; `known` of them can be recognised."""

    text: str
    start_s: float
    end_s: float
    first: int
    last: int
    known: int


@dataclass(frozen=True, slots=True, eq=False)
class _Utterance:
    words: tuple[_PlacedWord, ...]
    keys: tuple[int, ...]
    confidence: float


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Frame number `frame` of `utterance`."""

    utterance: _Utterance
    frame: int


class SpokenIndex:
    """The frames of all that scripted callers said or are about to say; bounded, oldest forgotten."""

    def __init__(self, *, max_frames: int = 100_000) -> None:
        """Create an empty index.

        Args:
            max_frames: Frames kept (100,000 are 33 minutes of different speech, about 20 MB).
        """
        self._max_frames = max_frames
        self._frame_count = 0
        self._utterances: OrderedDict[bytes, _Utterance] = OrderedDict()
        self._places: dict[int, tuple[_Place, ...]] = {}

    def __len__(self) -> int:
        """Return the number of utterances known."""
        return len(self._utterances)

    def add(self, ulaw: bytes, words: Sequence[Word], *, confidence: float = 0.97) -> None:
        """Register one utterance; saying the same again costs nothing.

        Args:
            ulaw: Mu-law, 8 kHz, as it will be cut into 160-byte frames from offset 0 (the last one is filled
                up with silence). Frames of digital silence are not recognised.
            words: Its words, times in seconds from the start of `ulaw`. None at all marks a noise: sound
                that is known and says nothing.
            confidence: What a recogniser shall report for each word, 0 to 1.
        """
        digest = hashlib.blake2b(ulaw, digest_size=16).digest()
        if digest in self._utterances:
            self._utterances.move_to_end(digest)
            return
        frames = _cut(ulaw)
        utterance = _Utterance(
            words=tuple(_place(word, frames) for word in words),
            keys=tuple(hash(frame) for frame in frames),
            confidence=confidence,
        )
        self._utterances[digest] = utterance
        self._frame_count += len(frames)
        for number, (key, frame) in enumerate(zip(utterance.keys, frames, strict=True)):
            places = self._places.get(key, ())
            if frame != SILENT_FRAME and len(places) < _MAX_PLACES:
                self._places[key] = (*places, _Place(utterance, number))
        while self._frame_count > self._max_frames and len(self._utterances) > 1:
            self._forget_oldest()

    def tracker(self, encoding: Encoding = Encoding.LINEAR16) -> "SpokenTracker":
        """Return a tracker for one 8 kHz mono stream in `encoding`."""
        return SpokenTracker(self._places, encoding)

    def _forget_oldest(self) -> None:
        _, gone = self._utterances.popitem(last=False)
        self._frame_count -= len(gone.keys)
        for key in gone.keys:
            left = tuple(place for place in self._places.get(key, ()) if place.utterance is not gone)
            if left:
                self._places[key] = left
            else:
                self._places.pop(key, None)


def _cut(ulaw: bytes) -> list[bytes]:
    ulaw = pad_to_frames(ulaw.translate(_ONE_ZERO))
    return [ulaw[at : at + FRAME_BYTES] for at in range(0, len(ulaw), FRAME_BYTES)]


def _place(word: Word, frames: list[bytes]) -> _PlacedWord:
    """Find the frames of a word: those it covers, less digital silence at its end."""
    first = min(max(int(word.start_s / FRAME_S + 1e-6), 0), max(len(frames) - 1, 0))
    last = min(max(math.ceil(word.end_s / FRAME_S - 1e-6) - 1, first), max(len(frames) - 1, 0))
    while last > first and frames[last] == SILENT_FRAME:
        last -= 1
    known = sum(frame != SILENT_FRAME for frame in frames[first : last + 1])
    return _PlacedWord(word.text, word.start_s, word.end_s, first, last, known)


@dataclass(slots=True, eq=False)
class _Follow:
    """One utterance being followed: the next frame expected, and how much of the current word was heard."""

    utterance: _Utterance
    next: int
    word: int = 0
    hits: int = 0
    done: list[_PlacedWord] = field(default_factory=list)

    @classmethod
    def start(cls, place: _Place) -> "_Follow":
        """Begin at any frame; words that ended before it were not heard."""
        words = place.utterance.words
        word = next((n for n, w in enumerate(words) if w.last >= place.frame), len(words))
        return cls(place.utterance, place.frame, word)

    def gap_to(self, places: tuple[_Place, ...]) -> int | None:
        """Return how many frames were skipped if one of `places` continues this utterance."""
        gaps = [
            place.frame - self.next
            for place in places
            if place.utterance is self.utterance and 0 <= place.frame - self.next <= _MAX_GAP_FRAMES
        ]
        return min(gaps) if gaps else None

    def advance(self, frame: int) -> None:
        """Hear `frame`, maybe one after `next`; finished words that were heard by half or more go to `done`."""
        words = self.utterance.words
        while self.word < len(words) and words[self.word].last < frame:
            self._finish_word()
        if self.word < len(words):
            word = words[self.word]
            self.hits += word.first <= frame
            if word.last == frame:
                self._finish_word()
        self.next = frame + 1

    def finish_overdue(self, frame: int) -> None:
        """Finish the current word if it must have ended by `frame` and enough of it was heard before."""
        words = self.utterance.words
        if self.word < len(words) and words[self.word].last <= frame and self._is_heard(words[self.word]):
            self._finish_word()

    def is_in_word(self) -> bool:
        """Tell whether the frame before `next` belongs to a word that goes on."""
        words = self.utterance.words
        return self.word < len(words) and words[self.word].first < self.next

    def _finish_word(self) -> None:
        word = self.utterance.words[self.word]
        if self._is_heard(word):
            self.done.append(word)
        self.word += 1
        self.hits = 0

    def _is_heard(self, word: _PlacedWord) -> bool:
        return self.hits * 2 >= word.known > 0


class SpokenTracker:
    """Follows one 8 kHz stream and tells its words as their last frame goes by.

    IDLE --known frame--> FOLLOWING --`_MAX_GAP_FRAMES` unknown ones--> IDLE. The phase of the frames inside
    the stream is taken as last found, at first 0; after some unknown frames all 160 are tried once.
    """

    def __init__(self, places: dict[int, tuple[_Place, ...]], encoding: Encoding) -> None:
        """Use `SpokenIndex.tracker` instead.

        Args:
            places: The index's frames, shared and growing.
            encoding: Encoding of the bytes that `feed` gets.
        """
        self._places = places
        self._is_linear = encoding is Encoding.LINEAR16
        self._odd = b""
        self._rest = b""
        self._taken_bytes = 0
        self._follows: list[_Follow] = []
        self._missing = 0
        self._unknown = 0
        self._backlog = b""
        self._last_end_s = 0.0
        self.unexplained = b""
        """Mu-law of the last `feed` that belongs to nothing known, silence included."""

    @property
    def audio_s(self) -> float:
        """Return the length of the audio fed so far, seconds."""
        return (self._taken_bytes + len(self._rest)) / RATE_HZ

    @property
    def is_following(self) -> bool:
        """Tell whether a known utterance is being heard."""
        return bool(self._follows)

    @property
    def is_speaking(self) -> bool:
        """Tell whether the stream stands inside a word of a known utterance."""
        return bool(self._follows) and self._missing <= _HELD_FRAMES and self._follows[0].is_in_word()

    def feed(self, audio: bytes) -> list[HeardWord]:
        """Take audio of any length and return the words that ended in it.

        Args:
            audio: 8 kHz mono; s16le or mu-law as the tracker was made. Chunks need not be whole samples or
                frames.
        """
        self._rest += self._to_ulaw(audio)
        self.unexplained = b""
        heard: list[HeardWord] = []
        while len(self._rest) >= FRAME_BYTES:
            frame, self._rest = self._rest[:FRAME_BYTES], self._rest[FRAME_BYTES:]
            self._taken_bytes += FRAME_BYTES
            self._take(frame, heard)
        return heard

    def _to_ulaw(self, audio: bytes) -> bytes:
        if not self._is_linear:
            return audio.translate(_ONE_ZERO)
        if self._odd or len(audio) % 2:
            audio = self._odd + audio
            cut = len(audio) - len(audio) % 2
            audio, self._odd = audio[:cut], audio[cut:]
        return encode_ulaw(audio)

    def _take(self, frame: bytes, heard: list[HeardWord]) -> None:
        places = None if frame == SILENT_FRAME else self._places.get(hash(frame))
        if places is None:
            self._take_unknown(frame, heard)
            return
        self._missing = self._unknown = 0
        self._backlog = b""
        self._follow(places)
        self._collect(heard)

    def _follow(self, places: tuple[_Place, ...]) -> None:
        gaps = [(follow.gap_to(places), follow) for follow in self._follows]
        best = min((gap for gap, _ in gaps if gap is not None), default=None)
        if best is None:
            self._follows = [_Follow.start(place) for place in places]
        else:
            self._follows = [follow for gap, follow in gaps if gap == best]
        for follow in self._follows:
            follow.advance(follow.next + (best or 0))

    def _take_unknown(self, frame: bytes, heard: list[HeardWord]) -> None:
        if self._follows:
            self._missing += 1
            for follow in self._follows:
                follow.finish_overdue(follow.next + self._missing - 1)
            self._collect(heard)
            if self._missing > _MAX_GAP_FRAMES:
                self._follows = []
        if not self._follows:
            self.unexplained += frame
        if frame == SILENT_FRAME:
            self._unknown = 0
            self._backlog = b""
            return
        self._unknown += 1
        self._backlog = (self._backlog + frame)[-_BACKLOG_FRAMES * FRAME_BYTES :]
        if self._unknown > 0 and self._unknown % _SEARCH_EVERY_FRAMES == 0 and self._places:
            self._search_phase()

    def _search_phase(self) -> None:
        """Try all phases in the last two frames; when one is known, take the backlog again in that phase."""
        window = self._backlog[-2 * FRAME_BYTES :]
        for phase in range(1, FRAME_BYTES):
            if hash(window[phase : phase + FRAME_BYTES]) in self._places:
                break
        else:
            return
        again = self._backlog[phase:]
        self._rest = again + self._rest
        self._taken_bytes -= len(again)
        self._backlog = b""
        self._missing = max(self._missing - len(again) // FRAME_BYTES, 0)
        # Below zero: the frames taken again cannot start another search, so that a stream always moves on.
        self._unknown = -_BACKLOG_FRAMES

    def _collect(self, heard: list[HeardWord]) -> None:
        """Move the finished words of the first follow to `heard`, in stream time."""
        now_s = self._taken_bytes / RATE_HZ
        follow = self._follows[0]
        origin_s = now_s - (follow.next + self._missing) * FRAME_S
        for word in follow.done:
            start_s = max(origin_s + word.start_s, self._last_end_s)
            self._last_end_s = max(min(origin_s + word.end_s, now_s), start_s)
            heard.append(HeardWord(word.text, start_s, self._last_end_s, follow.utterance.confidence))
        for each in self._follows:
            each.done.clear()
