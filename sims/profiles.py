"""How fast and how reliable the vendors behave; data, no behaviour but drawing a delay.

`realistic` is the profile that every published figure uses.
"""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Timing of all vendors. All durations in seconds."""

    name: str
    stt_final_s: float
    """Speech end to the final transcript being available."""
    stt_interim_s: float
    """Audio time between two interim transcripts."""
    llm_first_token_s: float
    """Request complete to the first content event."""
    llm_tokens_per_s: float
    """Rate of the tokens after the first; 0 means all at once."""
    tts_first_audio_s: float
    """Text complete to the first audio message."""
    tts_speed: float
    """Audio produced per second of wall clock after the first message; 0 means all at once."""
    rest_s: float
    """Time a REST request takes."""
    stt_speed: float = 0.0
    """Audio that a recogniser listens to in a second; 0 means all at once."""
    tail_sigma: float = 0.0
    """Sigma of a log-normal factor of median 1 applied to each delay; 0 is exact."""
    error_rate: float = 0.0
    """Share of requests or sessions that fail with a random fault of their vendor."""

    def delay(self, median_s: float, rng: random.Random) -> float:
        """Draw one delay around `median_s`, in seconds."""
        if self.tail_sigma == 0.0 or median_s == 0.0:
            return median_s
        return median_s * math.exp(rng.gauss(0.0, self.tail_sigma))


PROFILES = {
    p.name: p
    for p in (
        Profile("instant", 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0),
        Profile("realistic", 0.15, 0.25, 0.30, 80.0, 0.15, 4.0, 0.03, stt_speed=1.25),
        Profile(
            "bad-day", 0.25, 0.5, 0.60, 40.0, 0.30, 2.0, 0.15, stt_speed=1.25, tail_sigma=0.6, error_rate=0.05
        ),
    )
}
