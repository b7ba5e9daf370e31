"""Whether a voice keeps up with its listener. Pure: no clock, times are arguments, in seconds of one clock.

    IDLE --text--> WAITING --audible audio--> FLOWING --all made--> IDLE
    FLOWING --it begins the next text--> WAITING

WAITING fails after `first_audio_s`. FLOWING fails when the listener is about to run dry: what is buffered, less what is
played until the next audio comes at the voice's own pace, is used up before another voice could answer. A voice that
gives its text no sound at all fails, however much of it comes.
"""

import enum
from dataclasses import dataclass

from processors.voices import FailureKind


@dataclass(frozen=True)
class WatchLimits:
    """When a voice has failed. All in seconds."""

    first_audio_s: float = 1.5
    """From a text to its first audible audio."""
    stall_s: float = 1.5
    """Without any audio, while nobody listens yet."""
    quiet_s: float = 0.2
    """Without any audio, while the listener is about to run dry."""
    reserve_s: float = 0.32
    """Audio buffered that another voice needs to begin in time."""
    measure_s: float = 0.6
    """What a voice's pace is measured over, at least."""
    leading_silence_s: float = 0.8
    """Of silence before the first sound."""
    silence_s: float = 2.0
    """Of silence inside: no pause in speech is as long."""


class Pace(enum.StrEnum):
    """What is awaited of a voice."""

    IDLE = "idle"
    WAITING = "waiting"
    FLOWING = "flowing"


class VoiceWatch:
    """Watches one voice say one utterance, or a part of it."""

    def __init__(self, limits: WatchLimits | None = None) -> None:
        """Create an idle watch."""
        self.limits = limits or WatchLimits()
        self.state = Pace.IDLE
        self.since_s = 0.0
        """When the text that is waited for was given, or its turn came."""
        self._first_s = 0.0
        self._last_s = 0.0
        self._received_s = 0.0
        self.has_flowed = False
        """Whether any of it was heard."""

    def asked(self, now_s: float) -> None:
        """Text was given."""
        if self.state is Pace.IDLE:
            self.state, self.since_s = Pace.WAITING, now_s

    def audio(self, audio_s: float, now_s: float, *, is_audible: bool) -> None:
        """Audio of this length came."""
        self._last_s = now_s
        self._received_s += audio_s
        if self.state is Pace.WAITING and is_audible:
            self.state, self._first_s, self._received_s = Pace.FLOWING, now_s, audio_s
            self.has_flowed = True

    def next_text(self, now_s: float) -> None:
        """One text is made, and the next was given already."""
        if self.state is Pace.FLOWING:
            self.state, self.since_s = Pace.WAITING, now_s

    def all_made(self) -> None:
        """Everything that was given is made."""
        self.state = Pace.IDLE

    @property
    def last_s(self) -> float:
        """When the last audio came, or text was given."""
        return max(self._last_s, self.since_s)

    def verdict(
        self,
        now_s: float,
        *,
        buffered_s: float | None,
        owed_s: float,
        silence_s: float,
        has_sound: bool,
    ) -> FailureKind | None:
        """Say whether the voice has failed.

        Args:
            now_s: Now.
            buffered_s: Audio that waits to be heard; None if nobody is listening yet, or the listener is paused.
            owed_s: Estimate of the audio that is still to come.
            silence_s: Silence at the end of what has come.
            has_sound: Whether any of it was audible.
        """
        limits = self.limits
        if self.state is Pace.IDLE:
            return None
        if silence_s >= (limits.silence_s if has_sound else limits.leading_silence_s):
            return FailureKind.SILENT
        if self.state is Pace.WAITING:
            return FailureKind.LATE if now_s - self.since_s >= limits.first_audio_s else None
        quiet_s = now_s - self._last_s
        if buffered_s is None:
            return FailureKind.STARVING if quiet_s >= limits.stall_s else None
        if owed_s > 0 and quiet_s >= limits.quiet_s and buffered_s <= limits.reserve_s:
            return FailureKind.STARVING
        return FailureKind.STARVING if self._runs_dry(now_s, buffered_s, owed_s) else None

    def _runs_dry(self, now_s: float, buffered_s: float, owed_s: float) -> bool:
        """Whether at the voice's pace the listener runs dry soon, and before all is there."""
        took_s = now_s - self._first_s
        if took_s < self.limits.measure_s:
            return False
        pace = self._received_s / took_s
        if pace >= 1.0:
            return False
        dry_in_s = buffered_s / (1.0 - pace)
        return dry_in_s <= self.limits.reserve_s and dry_in_s * pace < owed_s
