"""Puts both sides of a call on one time line for the recorder.

The line's clock is the caller's audio: it never stops while the line is up. Feeds nothing but the recorder.
"""

from processors.recorder import StereoRecorder

_BYTES_PER_SAMPLE = 2


class LineRecording:
    """The tap of `CallerAudioProcessor` and `PlayoutProcessor`."""

    def __init__(self, recorder: StereoRecorder, *, rate_hz: int) -> None:
        """Wrap a recorder; both sides of the call have `rate_hz`."""
        self._recorder = recorder
        self._rate_hz = rate_hz
        self._now = 0
        """Samples of the caller's audio so far."""
        self._agent_end = 0

    @property
    def now_samples(self) -> int:
        """The line's time: samples of the caller's audio so far."""
        return self._now

    def caller_audio(self, pcm: bytes) -> None:
        """Take the caller's next audio, s16le mono."""
        self._recorder.caller(pcm, self._now)
        self._now += len(pcm) // _BYTES_PER_SAMPLE

    def agent_audio(self, pcm: bytes, ahead_s: float) -> None:
        """Take agent audio that will be heard `ahead_s` seconds from now."""
        at = self._now + round(ahead_s * self._rate_hz)
        # A piece that follows another must not overlap it or leave a crack: our estimate of "now" jitters.
        if abs(at - self._agent_end) < self._rate_hz // 5:
            at = self._agent_end
        self._recorder.agent(pcm, at)
        self._agent_end = at + len(pcm) // _BYTES_PER_SAMPLE

    def agent_dropped(self) -> None:
        """What has not been heard by now never will be."""
        self._recorder.cut_agent(self._now)
        self._agent_end = self._now
