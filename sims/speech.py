"""The voice of the sims: text to speech with word times, by espeak-ng's library.

The TTS sims and the scripted callers speak with it. It never touches a socket, and its output depends
on nothing but (voice, text, rate): the same bytes in every process and whatever was said before.
"""

import _ctypes
import asyncio
import ctypes
import functools
import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np
import numpy.typing as npt
import orjson
import soxr
from loguru import logger

Samples = npt.NDArray[np.float32]

_FORMAT_VERSION = 1
"""Part of every disk key; raise it whenever the produced bytes change."""
_EDGE_SILENCE_S = 0.03
_AUDIBLE_SHARE_OF_PEAK = 0.005
_SPEECH_RMS = 32768 * 10 ** (-20 / 20)
_PEAK_LIMIT = 32000.0
_NOISE_RMS = 32768 * 10 ** (-66 / 20)


@dataclass(frozen=True)
class Word:
    """One whitespace token of the text, punctuation included; seconds from the start of the pcm."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Speech:
    """Spoken text. `pcm`: s16le mono at `rate_hz`, no header."""

    text: str
    voice: str
    rate_hz: int
    pcm: bytes
    words: tuple[Word, ...]

    @property
    def duration_s(self) -> float:
        """Length of the audio in seconds."""
        return len(self.pcm) / 2 / self.rate_hz


class SpeechSynthesizer:
    """Speaks text, remembers what it spoke.

    Safe to use from several threads; espeak itself runs one utterance at a time in a process.
    """

    def __init__(
        self,
        cache_dir: Path | None = None,
        *,
        memory_bytes: int = 64 * 2**20,
        disk_bytes: int = 256 * 2**20,
    ) -> None:
        """Create a synthesizer with an empty memory.

        Args:
            cache_dir: Folder that keeps speech between runs; made when missing. None keeps nothing.
            memory_bytes: Bound of the PCM kept in memory; the least recently used goes first.
            disk_bytes: Bound of the folder; the oldest file goes first.
        """
        self._memory_bytes = memory_bytes
        self._folder = _SpeechFolder(cache_dir, disk_bytes) if cache_dir else None
        self._recent: OrderedDict[tuple[str, str, int], Speech] = OrderedDict()
        self._recent_bytes = 0
        self._recent_lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")

    def synthesize(self, text: str, *, voice: str, rate_hz: int) -> Speech:
        """Speak `text`; blocks for about 1 ms per second of speech on a miss.

        Args:
            text: What to say. Text without anything sayable gives empty pcm.
            voice: A vendor's voice id, or `caller-1` to `caller-3`.
            rate_hz: Sample rate of the result, 8000 to 48000.

        Raises:
            ValueError: If `rate_hz` is out of range.
        """
        if not 8000 <= rate_hz <= 48000:
            raise ValueError(f"rate_hz must be 8000..48000, got {rate_hz}")
        key = (voice, text, rate_hz)
        speech = self._recall(key)
        if speech is None and self._folder:
            speech = self._folder.read(text, voice, rate_hz)
            if speech is not None:
                self._remember(key, speech)
        if speech is None:
            speech = _render(text, voice, rate_hz)
            self._remember(key, speech)
            if self._folder:
                self._folder.write(speech)
        return speech

    async def speak(self, text: str, *, voice: str, rate_hz: int) -> Speech:
        """Do as `synthesize`, off the event loop; what is in memory answers without a thread hop."""
        speech = self._recall((voice, text, rate_hz))
        if speech is not None:
            return speech
        call = functools.partial(self.synthesize, text, voice=voice, rate_hz=rate_hz)
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def close(self) -> None:
        """End the worker thread; waits for the utterance in work."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _recall(self, key: tuple[str, str, int]) -> Speech | None:
        with self._recent_lock:
            speech = self._recent.get(key)
            if speech is not None:
                self._recent.move_to_end(key)
            return speech

    def _remember(self, key: tuple[str, str, int], speech: Speech) -> None:
        with self._recent_lock:
            replaced = self._recent.pop(key, None)
            self._recent[key] = speech
            self._recent_bytes += len(speech.pcm) - (len(replaced.pcm) if replaced else 0)
            while self._recent_bytes > self._memory_bytes and self._recent:
                _, oldest = self._recent.popitem(last=False)
                self._recent_bytes -= len(oldest.pcm)


def encode_ulaw(pcm: bytes) -> bytes:
    """Encode s16le as G.711 mu-law, byte for byte as CPython's `audioop.lin2ulaw` does."""
    return _ulaw_table()[np.frombuffer(pcm, "<u2")].tobytes()


@functools.cache
def _ulaw_table() -> npt.NDArray[np.uint8]:
    """Return the mu-law byte of each 16-bit pattern, indexed as unsigned. Source: ITU-T G.711, table 2."""
    linear = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 2
    mask = np.where(linear < 0, 0x7F, 0xFF)
    biased = np.minimum(np.abs(linear) + 33, 0x1FFF)
    segment = np.searchsorted([0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF], biased)
    step = (biased >> (segment + 1)) & 0x0F
    return (((segment << 4) | step) ^ mask).astype(np.uint8)


# --- Voices


@dataclass(frozen=True)
class _Voice:
    espeak_name: str
    words_per_minute: int


_CALLERS = (_Voice("en-us+m3", 165), _Voice("en-us+f2", 170), _Voice("en-gb-x-rp+m7", 155))
_AGENTS = (_Voice("en-us+f3", 170), _Voice("en-us", 170), _Voice("en-us+f4", 165), _Voice("en-us+m1", 170))


def _pick_voice(name: str) -> _Voice:
    """Map a vendor's voice id, or a caller's name, onto one of a few clearly different voices."""
    if name.startswith("caller-") and name[7:].isdecimal():
        return _CALLERS[(int(name[7:]) - 1) % len(_CALLERS)]
    return _AGENTS[hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % len(_AGENTS)]


# --- From text to samples


@dataclass(frozen=True)
class _RawSpeech:
    """What espeak gave: samples at its own rate, and (character offset, sample) of each spoken word."""

    rate_hz: int
    samples: Samples
    marks: list[tuple[int, int]]


def _render(text: str, voice: str, rate_hz: int) -> Speech:
    tokens = text.replace("\0", " ").split()
    raw = _run_espeak(" ".join(tokens), _pick_voice(voice))
    first, last = _audible_span(raw.samples, raw.rate_hz)
    voiced = raw.samples[first:last]
    if not voiced.size:
        return Speech(text, voice, rate_hz, b"", tuple(Word(token, 0.0, 0.0) for token in tokens))
    marks = [(at, min(max(sample - first, 0), voiced.size)) for at, sample in raw.marks]
    words = _time_words(tokens, marks, voiced, raw.rate_hz)
    levelled = voiced * _speech_gain(voiced, raw.rate_hz)
    resampled = soxr.resample(levelled, raw.rate_hz, rate_hz, quality="HQ")
    noisy = resampled + _noise_floor(f"{voice}\0{text}", len(resampled))
    pcm = np.clip(np.rint(noisy), -32768, 32767).astype("<i2").tobytes()
    return Speech(text, voice, rate_hz, pcm, words)


def _audible_span(samples: Samples, rate_hz: int) -> tuple[int, int]:
    """Return [first, last) of the sound, with a little silence left at both edges."""
    loud = np.flatnonzero(np.abs(samples) > _AUDIBLE_SHARE_OF_PEAK * np.max(np.abs(samples), initial=0.0))
    if not loud.size:
        return 0, 0
    edge_samples = int(_EDGE_SILENCE_S * rate_hz)
    return max(int(loud[0]) - edge_samples, 0), min(int(loud[-1]) + 1 + edge_samples, len(samples))


def _speech_gain(samples: Samples, rate_hz: int) -> float:
    """Return the factor that brings the spoken parts to the target RMS without clipping."""
    frame_samples = rate_hz // 50
    whole = samples[: len(samples) // frame_samples * frame_samples]
    frames = whole.reshape(-1, frame_samples) if whole.size else samples.reshape(1, -1)
    rms = np.sqrt(np.mean(frames**2, axis=1))
    spoken_rms = float(np.sqrt(np.mean(rms[rms > 0.05 * rms.max()] ** 2)))
    return min(_SPEECH_RMS / spoken_rms, _PEAK_LIMIT / float(np.max(np.abs(samples))))


def _noise_floor(seed: str, count: int) -> Samples:
    """Return `count` samples of repeatable noise, so that no two 20 ms of any speech are equal."""
    noise = np.frombuffer(hashlib.shake_256(seed.encode("utf-8", "replace")).digest(count), np.uint8)
    return ((noise - 127.5) * (_NOISE_RMS * 12**0.5 / 255)).astype(np.float32)


def _time_words(
    tokens: Sequence[str], marks: Sequence[tuple[int, int]], samples: Samples, rate_hz: int
) -> tuple[Word, ...]:
    """Give each token its start and end.

    espeak marks several spoken words in one token ("10:30") and sometimes one mark for several tokens
    ("of the"); tokens without a mark share the time of the marked one before them by their letters.
    """
    starts = _mark_tokens(tokens, marks)
    words: list[Word] = []
    index = 0
    while index < len(tokens):
        following = next((i for i in range(index + 1, len(tokens)) if starts[i] is not None), len(tokens))
        start = starts[index] or 0
        limit = len(samples) if following == len(tokens) else starts[following] or 0
        end = _sound_end(samples, start, limit, rate_hz)
        words += _share(tokens[index:following], start / rate_hz, end / rate_hz)
        index = following
    return tuple(words)


def _mark_tokens(tokens: Sequence[str], marks: Sequence[tuple[int, int]]) -> list[int | None]:
    """Return the first sample of each token that has a mark of its own, never going backwards."""
    token_of: list[int] = []
    for index, token in enumerate(tokens):
        token_of += [index] * (len(token) + 1)
    starts: list[int | None] = [None] * len(tokens)
    latest = 0
    for at, sample in marks:
        index = token_of[min(max(at, 0), len(token_of) - 1)]
        if starts[index] is None and all(start is None for start in starts[index + 1 :]):
            latest = max(latest, sample)
            starts[index] = latest
    return starts


def _sound_end(samples: Samples, start: int, limit: int, rate_hz: int) -> int:
    """Return where the sound between `start` and `limit` ends, so that pauses belong to no word."""
    _, last = _audible_span(samples[start:limit], rate_hz)
    return min(start + last, limit)


def _share(tokens: Sequence[str], start_s: float, end_s: float) -> list[Word]:
    letters = [sum(char.isalnum() for char in token) for token in tokens]
    total = sum(letters) or 1
    words: list[Word] = []
    at_s = start_s
    for token, count in zip(tokens, letters, strict=True):
        until_s = at_s + (end_s - start_s) * count / total
        words.append(Word(token, round(at_s, 4), round(until_s, 4)))
        at_s = until_s
    return words


# --- The library


class _Event(ctypes.Structure):
    """`espeak_EVENT`. Source: espeak-ng's speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_int64),
    )


_SynthCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))
_EVENT_END_OF_LIST = 0
_EVENT_WORD = 1
_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_PARAMETER_RATE = 1
_POSITION_IS_CHARACTER = 1
_TEXT_IS_UTF8 = 1

_espeak_lock = threading.Lock()
"""espeak keeps its state in the library's globals: one utterance at a time in a process."""


def _run_espeak(text: str, voice: _Voice) -> _RawSpeech:
    """Speak `text`, one space between tokens, in a freshly loaded library.

    espeak's globals (wave phase, flutter) survive even `espeak_Terminate` and colour the next utterance,
    so the library is loaded anew each time; that costs about 2 ms.

    Raises:
        RuntimeError: If the library or its voices cannot be used.
    """
    with _espeak_lock:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        try:
            return _speak_once(library, text, voice)
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)


def _speak_once(library: ctypes.CDLL, text: str, voice: _Voice) -> _RawSpeech:
    data_path = os.fsencode(espeakng_loader.get_data_path())
    rate_hz = int(library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 200, data_path, _DONT_EXIT))
    if rate_hz <= 0:
        raise RuntimeError(f"espeak_Initialize failed with {rate_hz}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # seeded by the clock otherwise
    blocks: list[bytes] = []
    marks: list[tuple[int, int]] = []
    callback = _SynthCallback(_collector(blocks, marks))
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.espeak_name.encode()) != 0:
        raise RuntimeError(f"espeak has no voice {voice.espeak_name!r}")
    library.espeak_SetParameter(_PARAMETER_RATE, voice.words_per_minute, 0)
    encoded = text.encode("utf-8", "replace") + b"\0"
    size = ctypes.c_size_t(len(encoded))
    status = library.espeak_Synth(encoded, size, 0, _POSITION_IS_CHARACTER, 0, _TEXT_IS_UTF8, None, None)
    if status != 0:
        raise RuntimeError(f"espeak_Synth failed with {status}")
    samples = np.frombuffer(b"".join(blocks), np.int16).astype(np.float32)
    return _RawSpeech(rate_hz, samples, marks)


def _collector(blocks: list[bytes], marks: list[tuple[int, int]]) -> Callable[[int | None, int, Any], int]:
    """Return espeak's callback; it gets a block of s16 samples and the events within it."""

    def collect(block: int | None, count: int, events: Any) -> int:
        if block and count > 0:
            blocks.append(ctypes.string_at(block, count * 2))
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            if events[index].type == _EVENT_WORD:
                marks.append((events[index].text_position - 1, events[index].sample))
            index += 1
        return 0

    return collect


# --- Kept between runs


class _SpeechFolder:
    """A bounded folder of spoken texts: one JSON line of words, then the pcm. A bad file is a miss."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._total_bytes = sum(size for _, size, _ in self._files())

    def read(self, text: str, voice: str, rate_hz: int) -> Speech | None:
        try:
            head, _, pcm = self._file(text, voice, rate_hz).read_bytes().partition(b"\n")
            known = orjson.loads(head)
            if known["pcm_bytes"] != len(pcm):
                return None
            words = tuple(Word(*word) for word in known["words"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("a file of the speech cache is unreadable: {}", error)
            return None
        return Speech(text, voice, rate_hz, pcm, words)

    def write(self, speech: Speech) -> None:
        words = [(word.text, word.start_s, word.end_s) for word in speech.words]
        content = orjson.dumps({"pcm_bytes": len(speech.pcm), "words": words}) + b"\n" + speech.pcm
        try:
            with tempfile.NamedTemporaryFile(dir=self._path, suffix=".part", delete=False) as part:
                part.write(content)
            # Atomic: another process sees the whole file or none.
            Path(part.name).replace(self._file(speech.text, speech.voice, speech.rate_hz))
            self._make_room(len(content))
        except OSError as error:
            logger.warning("the speech cache cannot be written: {}", error)

    def _make_room(self, added_bytes: int) -> None:
        with self._lock:
            self._total_bytes += added_bytes
            if self._total_bytes <= self._limit_bytes:
                return
            files = sorted(self._files())
            self._total_bytes = sum(size for _, size, _ in files)
            for _, size, path in files:
                if self._total_bytes <= self._limit_bytes * 0.8:
                    return
                path.unlink(missing_ok=True)
                self._total_bytes -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        found: list[tuple[float, int, Path]] = []
        for path in self._path.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process made room meanwhile
                continue
            found.append((stat.st_mtime, stat.st_size, path))
        return found

    def _file(self, text: str, voice: str, rate_hz: int) -> Path:
        key = f"{_FORMAT_VERSION}\0{voice}\0{rate_hz}\0{text}".encode("utf-8", "replace")
        return self._path / f"{hashlib.blake2b(key, digest_size=16).hexdigest()}.speech"
