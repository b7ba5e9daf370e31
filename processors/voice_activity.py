"""Is the caller speaking? Decided from the voice probability of each 32 ms of audio.

Pure: windows in, edges out; no model, no clock. Time is counted in windows of the caller's audio.

    QUIET --sounds--> STARTING --voiced for min_speech--> SPEAKING --unvoiced--> PAUSING --unvoiced for pause--> QUIET
    STARTING --no sound twice, or no voice for 128 ms--> QUIET          PAUSING --voiced--> SPEAKING

A window "sounds" from a lower probability than it is "voiced", and while it gets loud out of quiet: an "s" has no voice
for its first tenth of a second. That is a guess, which is soon taken back.
"""

import enum
from dataclasses import dataclass

WINDOW_S = 0.032
"""Audio per decision; the only window length the Silero model takes, at any rate."""
_WEAK_WINDOWS = 4
"""Windows in a row that only sound, none of them voiced, after which a sound is given up as no speech."""


class Voice(enum.Enum):
    """What the caller's side of the line sounds like."""

    QUIET = "quiet"
    STARTING = "starting"
    SPEAKING = "speaking"
    PAUSING = "pausing"


class Edge(enum.Enum):
    """A change worth telling."""

    ONSET = "onset"
    """A sound that may become speech: told 32 to 96 ms into it, and followed by STARTED, SHORT or NOISE."""
    NOISE = "noise"
    """The sound that ONSET told of was no speech."""
    SHORT = "short"
    """The sound that ONSET told of was voiced, but too short to be speech for sure: a short word, or a cough."""
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
    early_pause_s: float = 0.096
    confidence: float = 0.6
    """Probability from which a window is voiced, 0..1."""
    min_level_db: float = -45.0
    """Level in dBFS below which a window is never voiced, nor sounds."""
    onset_confidence: float = 0.4
    """Probability from which a window sounds like the beginning of speech, 0..1; at most `confidence` counts."""
    onset_windows: int = 1
    """Windows in a row that must sound before ONSET is told."""
    rise_windows: int = 2
    """Loud windows in a row, out of quiet, of which the last sounds though nothing is voiced yet."""
    short_word_s: float = 0.1
    """Voice of this length is SHORT, where less is NOISE."""


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
        self._short_windows = windows(params.short_word_s)
        self._onset_confidence = min(params.onset_confidence, params.confidence)
        self._loud = 0
        """Windows in a row that are not too soft to be speech."""
        self._voiced_in_sound = 0
        """Windows that were voiced since ONSET."""
        self._voiced = 0
        self._unvoiced = 0
        self._sounding = 0
        self._soundless = 0
        self._weak = 0
        """Windows since the last voiced one, while STARTING."""

    @property
    def unvoiced_s(self) -> float:
        """How long the caller has been quiet, in seconds of audio, as far as it is counted."""
        return self._unvoiced * WINDOW_S

    def wants_probability(self, level_db: float) -> bool:
        """Whether the model's verdict on a window of this level can change anything."""
        return level_db >= self.params.min_level_db

    def step(self, probability: float, level_db: float) -> list[Edge]:
        """Take one window and return the edges it makes, in order."""
        is_loud = level_db >= self.params.min_level_db
        voiced = is_loud and probability >= self.params.confidence
        self._loud = self._loud + 1 if is_loud else 0
        if self.state in (Voice.QUIET, Voice.STARTING):
            sounds = is_loud and (probability >= self._onset_confidence or self._is_rising)
            return self._before_speech(voiced, sounds)
        return self._during_speech(voiced)

    @property
    def _is_rising(self) -> bool:
        """Whether it has just got loud; noise that stays is no longer the beginning of anything."""
        first = self.params.rise_windows
        return first <= self._loud < first + _WEAK_WINDOWS

    def _before_speech(self, voiced: bool, sounds: bool) -> list[Edge]:
        self._count(voiced, sounds)
        if self.state is Voice.QUIET:
            if self._sounding < self.params.onset_windows and self._voiced < self._start_windows:
                return []
            self.state = Voice.STARTING
            self._weak = self._voiced_in_sound = 0
            return [Edge.ONSET, *self._while_starting(voiced)]
        return self._while_starting(voiced)

    def _count(self, voiced: bool, sounds: bool) -> None:
        if voiced:
            self._voiced += 1
            self._unvoiced = 0
        else:
            self._unvoiced += 1
            # One weak window inside an onset (a plosive's closure) does not start the count again.
            if self._unvoiced >= 2:
                self._voiced = 0
        if sounds:
            self._sounding += 1
            self._soundless = 0
        else:
            self._soundless += 1
            if self.state is Voice.QUIET:
                self._sounding = 0

    def _while_starting(self, voiced: bool) -> list[Edge]:
        if self._voiced >= self._start_windows:
            self._enter(Voice.SPEAKING)
            return [Edge.STARTED]
        self._weak = 0 if voiced else self._weak + 1
        self._voiced_in_sound += voiced
        if self._soundless >= 2 or self._weak >= _WEAK_WINDOWS:
            self._enter(Voice.QUIET)
            return [Edge.SHORT if self._voiced_in_sound >= self._short_windows else Edge.NOISE]
        return []

    def _enter(self, state: Voice) -> None:
        self.state = state
        self._voiced = 0
        self._sounding = 0

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
            self._enter(Voice.QUIET)
            edges.append(Edge.STOPPED)
        return edges
