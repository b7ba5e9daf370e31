"""Sounds of callers that are no speech: coughs, clicks, a door, music on hold, a fax machine.

Pure: each is a function of its length and a random generator, and gives samples at 8 kHz as the phone line carries
them (300 to 3400 Hz). The loudest 10 ms of each lie between -30 and -15 dBFS.
"""

import functools
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from sims.mulaw import FRAME_SAMPLES, RATE_HZ
from sims.scenario import NoiseKind

Samples = npt.NDArray[np.float64]

FRAME_S = FRAME_SAMPLES / RATE_HZ
_FULL_SCALE = 32768.0
_ROOM_RMS = 8.0
"""The room behind a sound: -72 dBFS."""
_TUNE = (
    (261.6, 329.6, 392.0),
    (293.7, 349.2, 440.0),
    (246.9, 293.7, 392.0),
    (261.6, 329.6, 523.3),
    (349.2, 440.0, 523.3),
    (329.6, 392.0, 523.3),
    (293.7, 349.2, 493.9),
    (261.6, 329.6, 392.0),
)
"""Chords of the tune on hold."""
_NOTE_S = 0.5
_CNG_HZ, _CNG_ON_S, _CNG_OFF_S = 1100.0, 0.5, 3.0
_CED_HZ, _CED_ON_S, _CED_OFF_S = 2100.0, 3.0, 1.0


def render(kind: NoiseKind, count: int, rng: np.random.Generator) -> Samples:
    """Return `count` samples of a sound; the same generator state gives the same ones."""
    return _SHAPES[kind](count, rng)


def loop_samples(kind: NoiseKind) -> int | None:
    """Return the samples after which a sound is the same again, whole frames; None when it never is."""
    length_s = _LOOPS_S.get(kind)
    return None if length_s is None else round(length_s / FRAME_S) * FRAME_SAMPLES


def _cough(count: int, rng: np.random.Generator) -> Samples:
    """Two bursts of breath through the mouth: a sharp beginning, a long end, the second weaker."""
    first = max(int(0.55 * count), 1)
    gap = int(0.12 * count)
    second = max(count - first - gap, 1)
    bursts = [_burst(length, rng) * share for length, share in ((first, 1.0), (second, 0.6))]
    return np.concatenate([bursts[0], _room(gap, rng), bursts[1]])[:count]


def _burst(count: int, rng: np.random.Generator) -> Samples:
    formants = ((550.0, 180.0, 1.0), (1450.0, 250.0, 0.7), (2500.0, 350.0, 0.4))
    return _level(_coloured(count, formants, rng) * _envelope(count, attack_s=0.006), -15.0)


def _click(count: int, rng: np.random.Generator) -> Samples:
    """A dull knock of 10 to 20 ms, as of a tongue or a key, then the room."""
    samples = _room(count, rng)
    length = min(int(rng.uniform(0.010, 0.020) * RATE_HZ), count)
    knock = _coloured(length, ((1200.0, 500.0, 1.0), (2600.0, 500.0, 0.6)), rng)
    samples[:length] += _level(knock * np.exp(-np.arange(length) / (0.35 * max(length, 1))), -15.0)
    return samples


def _hum(count: int, rng: np.random.Generator) -> Samples:
    """Mains hum with harmonics."""
    time_s = np.arange(count) / RATE_HZ
    tones = np.sum([np.sin(2 * np.pi * 60 * n * time_s) / n for n in (1, 2, 3, 5)], axis=0)
    return 1500.0 * tones + rng.normal(0.0, 12.0, count)


def _breath(count: int, rng: np.random.Generator) -> Samples:
    """Air on the microphone, swelling and fading."""
    swell = np.sin(np.pi * (np.arange(count) + 0.5) / max(count, 1)) ** 2
    air = _coloured(count, ((900.0, 600.0, 1.0), (2200.0, 800.0, 0.8)), rng)
    return _level(air * swell, -26.0) + _room(count, rng)


def _door(count: int, rng: np.random.Generator) -> Samples:
    """A thump: low wood that rings out, and the latch on top of it."""
    time_s = np.arange(count) / RATE_HZ
    ringing = ((110.0, 0.06), (310.0, 0.04))
    wood = np.sum(
        [np.sin(2 * np.pi * hz * time_s) * np.exp(-time_s / fade_s) for hz, fade_s in ringing], axis=0
    )
    latch = _coloured(count, ((1800.0, 700.0, 1.0),), rng) * np.exp(-time_s / 0.015)
    thump = wood + 0.5 * latch / max(float(np.max(np.abs(latch), initial=0.0)), 1e-9)
    return _level(thump, -15.0) + _room(count, rng)


def _music(count: int, _rng: np.random.Generator) -> Samples:
    return np.resize(_bars(), count)


@functools.cache
def _bars() -> Samples:
    """Return the tune, plucked."""
    time_s = np.arange(int(_NOTE_S * RATE_HZ)) / RATE_HZ
    return np.concatenate([_chord(chord, time_s) for chord in _TUNE])


def _chord(chord: tuple[float, ...], time_s: Samples) -> Samples:
    partials = ((1.0, 1.0), (2.0, 0.4), (3.0, 0.2))
    tones = [level * np.sin(2 * np.pi * hz * order * time_s) for hz in chord for order, level in partials]
    edge = np.minimum(np.arange(len(time_s)) / 40.0, 1.0)
    return _level(np.sum(tones, axis=0) * edge * np.exp(-time_s / 0.35), -18.0)


def _fax(count: int, _rng: np.random.Generator) -> Samples:
    """The calling tone. Source: ITU-T T.30, 4.2.1 (1100 Hz, 0.5 s on, 3 s off)."""
    return _beeps(count, _CNG_HZ, _CNG_ON_S, _CNG_OFF_S)


def _fax_answer(count: int, _rng: np.random.Generator) -> Samples:
    """The tone of a called station. Source: ITU-T T.30, 4.2.2 (2100 Hz, 2.6 to 4 s)."""
    return _beeps(count, _CED_HZ, _CED_ON_S, _CED_OFF_S)


def _beeps(count: int, hz: float, on_s: float, off_s: float) -> Samples:
    at_s = np.arange(count) / RATE_HZ % (on_s + off_s)
    return np.where(at_s < on_s, 0.14 * _FULL_SCALE * np.sin(2 * np.pi * hz * at_s), 0.0)


def _coloured(
    count: int, formants: tuple[tuple[float, float, float], ...], rng: np.random.Generator
) -> Samples:
    """Return noise shaped by resonances: (middle Hz, width Hz, level)."""
    length = max(count, 2)
    spectrum = np.fft.rfft(rng.normal(0.0, 1.0, length))
    hz = np.fft.rfftfreq(length, 1 / RATE_HZ)
    shape = np.full(len(hz), 0.02)
    for middle, width, level in formants:
        shape += level * np.exp(-(((hz - middle) / width) ** 2))
    return np.fft.irfft(spectrum * shape * ((hz > 100) & (hz < 3600)), length)[:count]


def _envelope(count: int, *, attack_s: float) -> Samples:
    at = np.arange(count)
    return np.minimum(at / max(attack_s * RATE_HZ, 1.0), 1.0) * np.exp(-at / (0.3 * max(count, 1)))


def _level(samples: Samples, dbfs: float) -> Samples:
    """Bring the loudest 10 ms to `dbfs` RMS."""
    window = min(RATE_HZ // 100, max(len(samples), 1))
    power = np.convolve(samples**2, np.ones(window) / window, mode="valid") if len(samples) else np.zeros(1)
    loudest = float(np.sqrt(np.max(power, initial=0.0)))
    return samples * (_FULL_SCALE * 10 ** (dbfs / 20) / loudest) if loudest > 0 else samples


def _room(count: int, rng: np.random.Generator) -> Samples:
    return rng.normal(0.0, _ROOM_RMS, count)


_SHAPES: Mapping[NoiseKind, Callable[[int, np.random.Generator], Samples]] = {
    NoiseKind.COUGH: _cough,
    NoiseKind.CLICK: _click,
    NoiseKind.HUM: _hum,
    NoiseKind.BREATH: _breath,
    NoiseKind.DOOR: _door,
    NoiseKind.MUSIC: _music,
    NoiseKind.FAX: _fax,
    NoiseKind.FAX_ANSWER: _fax_answer,
}

_LOOPS_S = {
    NoiseKind.HUM: 4.0,
    NoiseKind.MUSIC: len(_TUNE) * _NOTE_S,
    NoiseKind.FAX: _CNG_ON_S + _CNG_OFF_S,
    NoiseKind.FAX_ANSWER: _CED_ON_S + _CED_OFF_S,
}
