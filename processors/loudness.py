"""How loud voices are, and by how much one must be turned up or down to be as loud as another. Pure.

Measured from what they say: the mean power of the 20 ms stretches in which there is speech. One book for all calls of a
process; a voice that has not been heard for long enough is left as it is.
"""

import math
from dataclasses import dataclass

import numpy as np

_STRETCH_S = 0.02
_SPEECH_POWER = 10 ** (-45 / 10)
"""Of full scale: below it a stretch is a pause."""
LEAST_HEARD_S = 0.5
"""Of speech, before a voice's level counts."""
_MEMORY_S = 60.0
"""Of speech; what is older fades, so that a vendor's change is followed."""
LARGEST_GAIN_DB = 6.0
SMALLEST_GAIN_DB = 1.0
"""A smaller difference is not heard; the audio stays as it is, to the bit."""


@dataclass
class _Level:
    power: float = 0.0
    """Sum over all stretches of speech."""
    stretches: float = 0.0


class LoudnessBook:
    """Levels by `Voice.sound`."""

    def __init__(self) -> None:
        """Open an empty book."""
        self._levels: dict[str, _Level] = {}

    def hear(self, sound: str, pcm: bytes, rate_hz: int) -> None:
        """Measure s16le mono audio of a voice; a rest shorter than 20 ms is left out."""
        length = round(_STRETCH_S * rate_hz)
        samples = np.frombuffer(pcm, "<i2")
        count = samples.size // length
        if not count:
            return
        stretches = samples[: count * length].astype(np.float32).reshape(count, length) / 32768
        power = np.square(stretches).mean(axis=1)
        speech = power[power > _SPEECH_POWER]
        level = self._levels.setdefault(sound, _Level())
        level.power += float(speech.sum())
        level.stretches += speech.size
        if level.stretches * _STRETCH_S > _MEMORY_S:
            level.power /= 2
            level.stretches /= 2

    def level_db(self, sound: str) -> float | None:
        """Return a voice's level in dBFS, None if it was not heard for long enough."""
        level = self._levels.get(sound)
        if level is None or level.stretches * _STRETCH_S < LEAST_HEARD_S:
            return None
        return 10 * math.log10(level.power / level.stretches)

    def gain(self, sound: str, reference: str) -> float:
        """Return the factor that makes a voice as loud as another, within `LARGEST_GAIN_DB`; 1 if that is not known."""
        level, wanted = self.level_db(sound), self.level_db(reference)
        if sound == reference or level is None or wanted is None:
            return 1.0
        gain_db = max(-LARGEST_GAIN_DB, min(LARGEST_GAIN_DB, wanted - level))
        return 1.0 if abs(gain_db) < SMALLEST_GAIN_DB else 10 ** (gain_db / 20)


def amplify(pcm: bytes, gain: float) -> bytes:
    """Return s16le audio at another level; peaks beyond full scale are clipped."""
    if gain == 1.0:
        return pcm
    louder = np.frombuffer(pcm, "<i2").astype(np.float32) * gain
    return np.clip(np.rint(louder), -32768, 32767).astype("<i2").tobytes()
