"""Silences the line while only noise is on it, so that neither voice activity nor the recogniser hears it.

First thing the caller's audio meets, before `CallerAudioProcessor` takes it apart. Without delay, and without any
change to the audio while the gate is open; what is gated is digital silence. A gate, no noise reduction: it never
tries to clean speech.
"""

import math

import numpy as np
from numpy.typing import NDArray
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame, FilterEnableFrame

_BLOCK_S = 0.01
_FADE_S = 0.005
_HOLD_BLOCKS = 20
"""200 ms: longer than the pauses inside words, and no end of a word is cut."""
_FLOOR_BLOCKS = 400
"""The last 4 s."""
_FLOOR_STEP_BLOCKS = 10
"""How often the floor is looked at: every 100 ms."""
_FLOOR_RISE_DB = 0.3
"""By each look. Slow, so that somebody who talks without a pause does not become the noise; down it goes at once."""
_QUIETEST_SHARE = 0.1
_MARGIN_DB = 9.0
"""Above the floor: noise of an even level stays below it in every block."""
_HYSTERESIS_DB = 3.0
_HIGHEST_DB = -30.0
"""The noise of the line never lifts the gate above this: speech comes through any noise."""
_FULL_SCALE_DB = 20.0 * math.log10(32768.0)


class NoiseGate(BaseAudioFilter):
    """A gate for one call's incoming audio.

    CLOSED --block at least as loud as the threshold--> OPEN
    OPEN --no block within 3 dB of the threshold for 200 ms--> CLOSED
    """

    def __init__(self, *, noise_gate_db: float = -42.0) -> None:
        """Create a closed gate.

        Args:
            noise_gate_db: Level in dBFS below which nothing is speech, however quiet the line is.
        """
        self._least_db = noise_gate_db
        self._highest_db = max(noise_gate_db, _HIGHEST_DB)
        self._enabled = True
        self.is_open = False
        self.floor_db = noise_gate_db - _MARGIN_DB
        """Level of the line's noise in dBFS, as far as it matters."""
        self._configure(8000)

    @property
    def threshold_db(self) -> float:
        """Level in dBFS from which the gate opens."""
        return min(self.floor_db + _MARGIN_DB, self._highest_db)

    # BaseAudioFilter

    async def start(self, sample_rate: int) -> None:
        """Begin with a rate in Hz."""
        self._configure(sample_rate)

    async def stop(self) -> None:
        """Nothing to end."""

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Switch the gate off or on."""
        if isinstance(frame, FilterEnableFrame):
            self._enabled = frame.enable

    async def filter(self, audio: bytes) -> bytes:
        """Do as `apply`."""
        return self.apply(audio)

    # The gate

    def apply(self, pcm: bytes) -> bytes:
        """Return the audio, or silence of the same length.

        Args:
            pcm: s16le mono, whole samples, any length; 20 ms on a phone.
        """
        if not self._enabled or not pcm:
            return pcm
        samples = np.frombuffer(pcm, dtype=np.int16)
        levels_db = self._block_levels(samples)
        threshold_db = self.threshold_db
        if not self.is_open and max(levels_db) < threshold_db:
            gated = bytes(len(pcm))
        elif self.is_open and min(levels_db) >= threshold_db - _HYSTERESIS_DB:
            self._quiet_blocks = 0
            gated = pcm
        else:
            gated = self._gate(samples, levels_db, threshold_db)
        self._remember(levels_db)
        return gated

    def _configure(self, rate_hz: int) -> None:
        self._block_samples = round(_BLOCK_S * rate_hz)
        self._fade_in = np.linspace(0.0, 1.0, round(_FADE_S * rate_hz), dtype=np.float32)
        self._fade_out = self._fade_in[::-1].copy()
        self._quiet_blocks = 0
        self._levels_db = np.zeros(_FLOOR_BLOCKS, dtype=np.float32)
        self._known = 0
        """Blocks measured so far; the last of them are in `_levels_db`, which is a ring."""

    def _block_levels(self, samples: NDArray[np.int16]) -> list[float]:
        """Return each block's level; a last, shorter block counts as one."""
        wide = samples.astype(np.float32)
        blocks = [
            wide[start : start + self._block_samples] for start in range(0, len(wide), self._block_samples)
        ]
        return [
            10.0 * math.log10(float(np.vdot(block, block)) / len(block) + 0.1) - _FULL_SCALE_DB
            for block in blocks
        ]

    def _gate(self, samples: NDArray[np.int16], levels_db: list[float], threshold_db: float) -> bytes:
        gated = samples.copy()
        for index, level_db in enumerate(levels_db):
            block = gated[index * self._block_samples : (index + 1) * self._block_samples]
            was_open = self.is_open
            self._step(level_db, threshold_db)
            if self.is_open and not was_open:
                _scale(block, self._fade_in)
            elif was_open and not self.is_open:
                _scale(block, self._fade_out)
                block[len(self._fade_out) :] = 0
            elif not self.is_open:
                block[:] = 0
        return gated.tobytes()

    def _step(self, level_db: float, threshold_db: float) -> None:
        if not self.is_open:
            self.is_open = level_db >= threshold_db
            self._quiet_blocks = 0
            return
        self._quiet_blocks = 0 if level_db >= threshold_db - _HYSTERESIS_DB else self._quiet_blocks + 1
        self.is_open = self._quiet_blocks <= _HOLD_BLOCKS

    def _remember(self, levels_db: list[float]) -> None:
        before = self._known
        for level_db in levels_db:
            self._levels_db[self._known % _FLOOR_BLOCKS] = level_db
            self._known += 1
        steps = self._known // _FLOOR_STEP_BLOCKS - before // _FLOOR_STEP_BLOCKS
        if steps == 0:
            return
        known_db = self._levels_db[: self._known]
        place = int(len(known_db) * _QUIETEST_SHARE)
        quietest_db = float(np.partition(known_db, place)[place])
        rising_db = self.floor_db + _FLOOR_RISE_DB * steps
        self.floor_db = max(min(quietest_db, rising_db), self._least_db - _MARGIN_DB)


def _scale(block: NDArray[np.int16], fade: NDArray[np.float32]) -> None:
    faded = block[: len(fade)]
    faded[:] = np.rint(faded * fade[: len(faded)]).astype(np.int16)
