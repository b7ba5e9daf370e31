"""What scripted callers sound like: speech and noises as mu-law, ready to be cut into 20 ms frames.

Rendered at run time and registered in the `SpokenIndex`, so that a speech-to-text sim knows the words.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sims import mulaw
from sims.scenario import Noise, NoiseKind
from sims.speech import Speech, SpeechSynthesizer
from sims.spoken import SpokenIndex


class Synthesizer(Protocol):
    """The one thing needed of `SpeechSynthesizer`."""

    async def speak(self, text: str, *, voice: str, rate_hz: int) -> Speech:
        """Speak `text`."""
        ...


@dataclass(frozen=True)
class Sound:
    """A whole number of 20 ms frames, and where in them something is audible (sample offsets)."""

    text: str
    ulaw: bytes
    first: int
    last: int


class CallerVoice:
    """Renders what one caller says, keeping it for the call."""

    def __init__(
        self, synthesizer: "Synthesizer | SpeechSynthesizer", index: SpokenIndex, voice: str
    ) -> None:
        """Create the voice.

        Args:
            synthesizer: Makes the speech.
            index: Learns each utterance before it is spoken.
            voice: `caller-1` to `caller-3`.
        """
        self._synthesizer = synthesizer
        self._index = index
        self._voice = voice
        self._sounds: dict[str, Sound] = {}

    def get(self, text: str) -> Sound | None:
        """Return what `prepare` has rendered."""
        return self._sounds.get(text)

    async def prepare(self, text: str) -> Sound:
        """Render and register `text`."""
        sound = self._sounds.get(text)
        if sound is None:
            speech = await self._synthesizer.speak(text, voice=self._voice, rate_hz=mulaw.RATE_HZ)
            ulaw = mulaw.pad_to_frames(mulaw.encode(speech.pcm))
            self._index.add(ulaw, speech.words)
            sound = self._sounds[text] = _sound(text, ulaw)
        return sound

    def noise(self, noise: Noise, seed: int) -> Sound:
        """Render a noise; it is registered as sound without words."""
        samples = _NOISES[noise.kind](int(noise.ms * mulaw.RATE_HZ / 1000), np.random.default_rng(seed))
        pcm = np.clip(samples, -32768, 32767).astype("<i2").tobytes()
        ulaw = mulaw.pad_to_frames(mulaw.encode(pcm))
        self._index.add(ulaw, ())
        return _sound("", ulaw)


def tone(length_s: float, *, hz: float = 440.0) -> bytes:
    """Return a tone as mu-law, e.g. the beep of a voicemail."""
    time_s = np.arange(int(length_s * mulaw.RATE_HZ)) / mulaw.RATE_HZ
    return mulaw.encode((6000 * np.sin(2 * np.pi * hz * time_s)).astype("<i2").tobytes())


def _sound(text: str, ulaw: bytes) -> Sound:
    first, last = mulaw.audible_range(ulaw) or (0, 0)
    return Sound(text, ulaw, first, last)


def _cough(count: int, rng: np.random.Generator) -> np.ndarray:
    """Two bursts of noise that fade, the second weaker."""
    half = max(count // 2, 1)
    fade = np.exp(-np.arange(half) / (0.25 * half))
    envelope = np.concatenate([fade, 0.6 * fade])
    return rng.normal(0.0, 6000.0, len(envelope)) * envelope


def _click(count: int, rng: np.random.Generator) -> np.ndarray:
    """One impulse of about 3 ms, then the room's faint noise."""
    samples = rng.normal(0.0, 8.0, count)
    burst = min(24, count)
    samples[:burst] += rng.normal(0.0, 12000.0, burst) * np.exp(-np.arange(burst) / 8)
    return samples


def _hum(count: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum with harmonics."""
    time_s = np.arange(count) / mulaw.RATE_HZ
    tones = sum(np.sin(2 * np.pi * 60 * harmonic * time_s) / harmonic for harmonic in (1, 2, 3, 5))
    return 1500.0 * tones + rng.normal(0.0, 12.0, count)


_NOISES = {NoiseKind.COUGH: _cough, NoiseKind.CLICK: _click, NoiseKind.HUM: _hum}
