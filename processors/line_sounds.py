"""Nobody human on the line: fax tones, hold music, a recording that repeats itself.

`LineSounds` is pure: it is fed with the caller's 32 ms windows and final transcripts and tells each thing once. It
counts audio in windows and reads no clock. `LineSoundWatch` joins it to a call: it stands beside the voice model (which
knows level and probability of each window) and behind barge-in, where an echo of the agent no longer counts.

Never ends a call and says nothing; a false alarm here would hang up on a person, so what is unsure is not told.

    fax     QUIET --1100 Hz for 0.5 s--> PAUSE --the same again after 3 s--> FAX        2100 Hz for 1.5 s --> FAX
    music   20 s of sound with hardly a pause that changes as notes do, without words --> MUSIC, once a stretch
    loop    the same long enough words three times in 3 min, or a monologue that repeats itself --> LOOP

Sources: ITU-T T.30 (CNG: 1100 Hz +-38, 0.5 s on, 3 s off, +-15%; CED: 2100 Hz +-15, 2.6 to 4 s).
"""

import enum
import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz

from processors.voice_activity import WINDOW_S
from processors.voice_activity import windows as windows_of

_NOT_A_WORD = re.compile(r"[^\w\s]|_")


class LineSound(enum.Enum):
    """What is on the line instead of a person."""

    FAX = "fax"
    MUSIC = "music"
    LOOP = "loop"


@dataclass(frozen=True)
class LineSoundsParams:
    """When a sound counts. Times in seconds of the caller's audio, levels in dBFS, shares 0..1."""

    tone_level_db: float = -50.0
    """No window below it is looked at for tones."""
    tone_share: float = 0.7
    """A window is a tone when so much of its power is at one frequency."""
    sound_level_db: float = -42.0
    """A window below it is a pause."""
    music_after_s: float = 20.0
    music_pause_s: float = 0.4
    """Music has hardly a pause longer than this."""
    music_words: int = 5
    """So many words within `music_after_s` are speech."""
    music_sound_share: float = 0.9
    music_voice_share: float = 0.75
    """Speech without a pause sounds like voice more often than this."""
    music_likeness: float = 0.25
    """How alike spectra 128 ms apart are in music, where a hum never changes and noise and speech always do; -1..1."""
    loop_ratio: float = 92.0
    """From here on two texts are the same, 0..100."""
    loop_words: int = 5
    loop_sure_words: int = 12
    """A person may say a shorter text three times; a machine does it at even intervals."""
    loop_within_s: float = 180.0
    monologue_s: float = 60.0
    """A text that repeats itself in this time without a pause is a recording."""
    monologue_pause_s: float = 2.0
    """Quiet that ends a monologue."""
    monologue_gap_s: float = 12.0
    """Time without final words that ends a monologue."""


class LineSounds:
    """All detectors of one call."""

    def __init__(self, rate_hz: int, params: LineSoundsParams | None = None) -> None:
        """Start with nothing heard.

        Args:
            rate_hz: Rate of the caller's audio, 8000 or 16000.
            params: When a sound counts.

        Raises:
            ValueError: If the rate is another.
        """
        if rate_hz not in (8000, 16000):
            raise ValueError(f"rate_hz must be 8000 or 16000, got {rate_hz}")
        self.params = params or LineSoundsParams()
        self.window_samples = round(WINDOW_S * rate_hz)
        self._comb = _ToneComb(rate_hz, self.window_samples)
        self._fax = _FaxTones()
        self._music = _Music(rate_hz, self.window_samples, self.params)
        self._loop = _Loop(self.params)
        self._quiet_windows = 0
        self._monologue_pause_windows = windows_of(self.params.monologue_pause_s)

    def window(
        self, samples: NDArray[np.float32], level_db: float, probability: float, now_s: float
    ) -> LineSound | None:
        """Take the next 32 ms of the caller.

        Args:
            samples: `window_samples` samples, -1..1.
            level_db: Their level in dBFS.
            probability: How much they are voice, 0..1; 0 when nobody asked the model.
            now_s: When, on the clock of `transcript`.

        Raises:
            ValueError: If the window is not that long.
        """
        if len(samples) != self.window_samples:
            raise ValueError(f"a window has {self.window_samples} samples, got {len(samples)}")
        is_sound = level_db >= self.params.sound_level_db
        self._quiet_windows = 0 if is_sound else self._quiet_windows + 1
        if self._quiet_windows == self._monologue_pause_windows:
            self._loop.end_monologue()
        tone: _Tone | None = None
        if level_db >= self.params.tone_level_db:
            tone = self._comb.tone(samples, self.params.tone_share)
        if self._fax.step(tone):
            return LineSound.FAX
        if self._music.step(samples if is_sound else None, probability, now_s):
            return LineSound.MUSIC
        return None

    def transcript(self, text: str, now_s: float) -> LineSound | None:
        """Take a final transcript of the caller."""
        words = normalised(text).split()
        if not words:
            return None
        self._music.words(len(words), now_s)
        return LineSound.LOOP if self._loop.said(words, now_s) else None


class LineSoundWatch:
    """The shell: tells a call what its line sounds like. Runs on the event loop and never waits."""

    def __init__(self, sounds: LineSounds, on_sound: Callable[[LineSound], None]) -> None:
        """Watch a line.

        Args:
            sounds: The detectors of this call.
            on_sound: Told of each sound, at most once in a while; must not block.
        """
        self._sounds = sounds
        self._on_sound = on_sound

    def caller_window(
        self, samples: NDArray[np.float32], level_db: float, probability: float, now_s: float
    ) -> None:
        """Take the next 32 ms of the caller; see `LineSounds.window`."""
        self._tell(self._sounds.window(samples, level_db, probability, now_s))

    def transcript(self, text: str, final: bool, now_s: float) -> None:
        """Take what the recogniser understood; interim versions are ignored."""
        if final:
            self._tell(self._sounds.transcript(text, now_s))

    def _tell(self, sound: LineSound | None) -> None:
        if sound is not None:
            self._on_sound(sound)


def normalised(text: str) -> str:
    """Return `text` in lower case, without punctuation, words one space apart."""
    return " ".join(_NOT_A_WORD.sub("", text.lower()).split())


# Fax


class _Tone(enum.Enum):
    CNG = "cng"
    CED = "ced"


class _ToneComb:
    """Goertzel's sums for two combs of frequencies, as one product of a matrix and a window.

    A tone belongs to the tooth that it is nearest to: the outer teeth are there to take what is too far off.
    """

    def __init__(self, rate_hz: int, window_samples: int) -> None:
        cng = [(1100.0 + offset, _Tone.CNG if abs(offset) <= 30 else None) for offset in range(-60, 61, 15)]
        ced = [(2100.0 + offset, _Tone.CED if abs(offset) <= 10 else None) for offset in range(-40, 41, 10)]
        teeth = cng + ced
        self._tones = [tone for _, tone in teeth]
        angles = np.outer([hz for hz, _ in teeth], np.arange(window_samples)) * (2 * math.pi / rate_hz)
        self._matrix = np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)
        self._half = window_samples / 2

    def tone(self, samples: NDArray[np.float32], share: float) -> _Tone | None:
        """Return the tone that holds at least `share` of the window's power."""
        sums = self._matrix @ samples
        sums *= sums
        teeth = len(self._tones)
        powers = sums[:teeth] + sums[teeth:]
        strongest = int(powers.argmax())
        whole = float(samples @ samples) * self._half
        return self._tones[strongest] if whole > 0 and float(powers[strongest]) >= share * whole else None


class _FaxTones:
    """Two bursts of CNG in the right rhythm, or one long CED; once per call."""

    _BURST = range(12, 20)
    """0.5 s +-15% in windows, and one more at either end that only holds a part."""
    _PAUSE = range(76, 113)
    """3 s +-15% in windows, likewise."""
    _LONG = windows_of(1.5)
    _MISSES = 2
    """Windows without the tone that end it; fewer are a click on the line, or a phase that was turned."""

    def __init__(self) -> None:
        self._tone: _Tone | None = None
        self._length = 0
        self._missed = 0
        self._since_burst: int | None = None
        self._pause: int | None = None
        self._is_told = False

    def step(self, tone: _Tone | None) -> bool:
        """Take one window; return whether a fax is now known."""
        if self._is_told or (tone is None and self._tone is None and self._since_burst is None):
            return False
        if self._since_burst is not None:
            self._since_burst += 1
            if self._tone is None and self._since_burst > self._PAUSE.stop + self._MISSES:
                self._since_burst = None
        is_fax = self._follow(tone)
        self._is_told = is_fax
        return is_fax

    def _follow(self, tone: _Tone | None) -> bool:
        if self._tone is None:
            if tone is not None:
                self._begin(tone)
            return False
        self._length += 1
        if tone is self._tone:
            self._missed = 0
            return tone is _Tone.CED and self._length >= self._LONG
        self._missed += 1
        return self._missed >= self._MISSES and self._end(tone)

    def _begin(self, tone: _Tone) -> None:
        self._tone, self._length, self._missed = tone, 1, 0
        self._pause = self._since_burst

    def _end(self, tone: _Tone | None) -> bool:
        was_burst = self._tone is _Tone.CNG and self._length - self._missed in self._BURST
        is_second = was_burst and self._pause is not None and self._pause in self._PAUSE
        self._since_burst = self._missed if was_burst else None
        self._tone = None
        if tone is not None:
            self._begin(tone)
        return is_second


# Music


class _Music:
    """What the last `music_after_s` sounded like.

    Told once; again only after as long a stretch in which most was not sound.
    """

    _PROBE_EVERY = 4
    """Spectra are compared 128 ms apart: a note lasts longer, a speech sound does not."""
    _JUDGE_EVERY = 16
    _LOWEST_HZ = 300.0
    _HIGHEST_HZ = 3400.0
    _USUAL_S = 5.0
    """Time over which the usual spectrum of the line is taken."""
    _QUIET_SHARE = 0.5
    _FLOOR = 1e-4

    def __init__(self, rate_hz: int, window_samples: int, params: LineSoundsParams) -> None:
        self._params = params
        size = windows_of(params.music_after_s)
        self._size = size
        self._heard: deque[bool] = deque(maxlen=size)
        self._voiced: deque[bool] = deque(maxlen=size)
        self._likeness: deque[float] = deque(maxlen=size // self._PROBE_EVERY)
        self._words: deque[tuple[float, int]] = deque()
        self._pause_windows = windows_of(params.music_pause_s)
        self._count = 0
        self._is_told = False
        bin_hz = rate_hz / window_samples
        self._band = slice(round(self._LOWEST_HZ / bin_hz), round(self._HIGHEST_HZ / bin_hz))
        self._hann = np.hanning(window_samples).astype(np.float32)
        self._usual: NDArray[np.float32] | None = None
        self._last: NDArray[np.float32] | None = None
        self._pace = self._PROBE_EVERY * WINDOW_S / self._USUAL_S

    def words(self, count: int, now_s: float) -> None:
        """Note words that were understood."""
        self._words.append((now_s, count))
        self._forget_words(now_s)

    def step(self, samples: NDArray[np.float32] | None, probability: float, now_s: float) -> bool:
        """Take one window, None for a pause; return whether music is now known."""
        self._heard.append(samples is not None)
        self._voiced.append(probability >= 0.5)
        self._count += 1
        if self._count % self._PROBE_EVERY == 0:
            self._probe(samples)
        if self._count % self._JUDGE_EVERY or len(self._heard) < self._size:
            return False
        is_music = self._is_music(now_s)
        if self._is_told and sum(self._heard) < self._QUIET_SHARE * self._size:
            self._is_told = False
        is_new = is_music and not self._is_told
        self._is_told = self._is_told or is_music
        return is_new

    def _probe(self, samples: NDArray[np.float32] | None) -> None:
        if samples is None:
            self._last = None
            self._likeness.append(0.0)
            return
        spectrum = np.fft.rfft(samples * self._hann)[self._band]
        powers = spectrum.real**2 + spectrum.imag**2
        # Far below the loudest is what a window leaks: it says more about the window than about the sound.
        shape = np.log(powers + self._FLOOR * powers.max() + 1e-12)
        shape -= shape.mean()
        if self._usual is None:
            self._usual = shape
        change = shape - self._usual
        self._usual = self._usual + self._pace * change
        norm = math.sqrt(float(change @ change))
        change = change / norm if norm > 0 else change
        self._likeness.append(float(change @ self._last) if self._last is not None else 0.0)
        self._last = change

    def _is_music(self, now_s: float) -> bool:
        params = self._params
        if sum(self._heard) < params.music_sound_share * self._size:
            return False
        voice_share = sum(self._voiced) / self._size
        if voice_share > params.music_voice_share:
            return False
        self._forget_words(now_s)
        if sum(count for _, count in self._words) >= params.music_words or self._pauses() > 1:
            return False
        return sum(self._likeness) / len(self._likeness) >= params.music_likeness

    def _forget_words(self, now_s: float) -> None:
        while self._words and self._words[0][0] < now_s - self._params.music_after_s:
            self._words.popleft()

    def _pauses(self) -> int:
        pauses = run = 0
        for heard in self._heard:
            run = 0 if heard else run + 1
            pauses += run == self._pause_windows
        return pauses


# Recordings


@dataclass
class _Said:
    text: str
    times_s: list[float]


class _Loop:
    """The texts of the last minutes, and the monologue that is going on. Memory is bounded."""

    _TIMES = 3
    _MOST_TEXTS = 40
    _MOST_WORDS = 400
    _EVEN = 0.1
    """Intervals are even when they differ by no more than this share."""
    _PHRASE_WORDS = 4
    _REPEATED_SHARE = 0.5

    def __init__(self, params: LineSoundsParams) -> None:
        self._params = params
        self._texts: deque[_Said] = deque(maxlen=self._MOST_TEXTS)
        self._monologue: deque[str] = deque(maxlen=self._MOST_WORDS)
        self._began_s: float | None = None
        self._last_s = 0.0

    def said(self, words: list[str], now_s: float) -> bool:
        """Take the words of a final transcript; return whether a recording is now known."""
        if self._is_repeated(words, now_s) or self._is_endless(words, now_s):
            self._texts.clear()
            self.end_monologue()
            return True
        return False

    def end_monologue(self) -> None:
        """There was a pause."""
        self._monologue.clear()
        self._began_s = None

    def _is_repeated(self, words: list[str], now_s: float) -> bool:
        params = self._params
        if len(words) < params.loop_words:
            return False
        text = " ".join(words)
        said = next(
            (one for one in self._texts if fuzz.ratio(text, one.text) >= params.loop_ratio), _Said(text, [])
        )
        if not said.times_s:
            self._texts.append(said)
        said.times_s = [time_s for time_s in said.times_s if time_s >= now_s - params.loop_within_s]
        said.times_s.append(now_s)
        if len(said.times_s) < self._TIMES:
            return False
        return len(words) >= params.loop_sure_words or _are_even(said.times_s[-self._TIMES :], self._EVEN)

    def _is_endless(self, words: list[str], now_s: float) -> bool:
        params = self._params
        if self._began_s is None or now_s - self._last_s > params.monologue_gap_s:
            self.end_monologue()
            self._began_s = now_s
        self._last_s = now_s
        self._monologue.extend(words)
        if now_s - self._began_s < params.monologue_s:
            return False
        return _repeated_share(list(self._monologue), self._PHRASE_WORDS) >= self._REPEATED_SHARE


def _are_even(times_s: list[float], tolerance: float) -> bool:
    intervals = [after - before for before, after in itertools.pairwise(times_s)]
    return max(intervals) - min(intervals) <= tolerance * max(intervals)


def _repeated_share(words: list[str], phrase_words: int) -> float:
    """Return how many of `words` stand in a phrase of `phrase_words` words that comes more than once."""
    starts = range(len(words) - phrase_words + 1)
    phrases = [tuple(words[start : start + phrase_words]) for start in starts]
    times = Counter(phrases)
    repeated = [False] * len(words)
    for start, phrase in enumerate(phrases):
        if times[phrase] > 1:
            repeated[start : start + phrase_words] = [True] * phrase_words
    return sum(repeated) / len(words) if words else 0.0
