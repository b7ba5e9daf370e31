"""Is the caller speaking? Decided from the voice probability of each 32 ms of audio.

Pure: windows in, edges out; no model, no clock. Time is counted in windows of the caller's audio.

    QUIET --voiced--> STARTING --voiced for min_speech--> SPEAKING --unvoiced--> PAUSING --unvoiced for pause--> QUIET
    STARTING --unvoiced twice--> QUIET          PAUSING --voiced--> SPEAKING
"""

import enum
from dataclasses import dataclass

WINDOW_S = 0.032
"""Audio per decision; the only window length the Silero model takes, at any rate."""


class Voice(enum.Enum):
    """What the caller's side of the line sounds like."""

    QUIET = "quiet"
    STARTING = "starting"
    SPEAKING = "speaking"
    PAUSING = "pausing"


class Edge(enum.Enum):
    """A change worth telling."""

    STARTED = "started"
    """The caller has spoken for `min_speech_s`."""
    PAUSED = "paused"
    """The caller has been quiet for `early_pause_s`: time to ask whether the turn may be over."""
    RESUMED = "resumed"
    """The caller went on speaking after PAUSED, before STOPPED."""
    STOPPED = "stopped"
    """The caller has been quiet for `pause_s`."""


@dataclass(frozen=True)
class VoiceActivityParams:
    """When sound counts as speech. Durations are rounded to whole windows, at least one."""

    min_speech_s: float = 0.2
    pause_s: float = 0.2
    early_pause_s: float = 0.128
    confidence: float = 0.6
    """Probability from which a window is voiced, 0..1."""
    min_level_db: float = -45.0
    """Level in dBFS below which a window is never voiced."""


def windows(duration_s: float) -> int:
    """Return the windows nearest to a duration, at least one."""
    return max(1, round(duration_s / WINDOW_S))


class VoiceActivity:
    """The state table, one per call."""

    def __init__(self, params: VoiceActivityParams) -> None:
        """Start QUIET."""
        self.params = params
        self.state = Voice.QUIET
        self._start_windows = windows(params.min_speech_s)
        self._stop_windows = windows(params.pause_s)
        self._early_windows = min(windows(params.early_pause_s), self._stop_windows)
        self._voiced = 0
        self._unvoiced = 0

    @property
    def unvoiced_s(self) -> float:
        """How long the caller has been quiet, in seconds of audio, as far as it is counted."""
        return self._unvoiced * WINDOW_S

    def wants_probability(self, level_db: float) -> bool:
        """Whether the model's verdict on a window of this level can change anything."""
        return level_db >= self.params.min_level_db

    def step(self, probability: float, level_db: float) -> list[Edge]:
        """Take one window and return the edges it makes, in order."""
        voiced = probability >= self.params.confidence and level_db >= self.params.min_level_db
        if self.state in (Voice.QUIET, Voice.STARTING):
            return self._before_speech(voiced)
        return self._during_speech(voiced)

    def _before_speech(self, voiced: bool) -> list[Edge]:
        if voiced:
            self._voiced += 1
            self._unvoiced = 0
            self.state = Voice.STARTING
            if self._voiced >= self._start_windows:
                self.state = Voice.SPEAKING
                self._voiced = 0
                return [Edge.STARTED]
            return []
        self._unvoiced += 1
        # One weak window inside an onset (a plosive's closure) does not start the count again.
        if self.state is Voice.STARTING and self._unvoiced >= 2:
            self.state = Voice.QUIET
            self._voiced = 0
        return []

    def _during_speech(self, voiced: bool) -> list[Edge]:
        if voiced:
            was_early = self.state is Voice.PAUSING and self._unvoiced >= self._early_windows
            self.state = Voice.SPEAKING
            self._unvoiced = 0
            return [Edge.RESUMED] if was_early else []
        if self.state is Voice.SPEAKING:
            self.state = Voice.PAUSING
            self._unvoiced = 0
        self._unvoiced += 1
        edges: list[Edge] = []
        if self._unvoiced == self._early_windows:
            edges.append(Edge.PAUSED)
        if self._unvoiced >= self._stop_windows:
            self.state = Voice.QUIET
            self._voiced = 0
            edges.append(Edge.STOPPED)
        return edges
