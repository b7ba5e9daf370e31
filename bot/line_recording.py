"""Puts both sides of a call on one time line for the recorder.

The line's clock is the caller's audio: it never stops while the line is up. Feeds nothing but the recorder.
"""

from processors.recorder import StereoRecorder

_BYTES_PER_SAMPLE = 2


class LineRecording:
    """The tap of `CallerAudioProcessor` and `PlayoutProcessor`; hears nothing until the line is up."""

    def __init__(self, *, rate_hz: int) -> None:
        """Wait for the line; both sides of the call have `rate_hz`."""
        self._recorder: StereoRecorder | None = None
        self._rate_hz = rate_hz
        self._now = 0
        """Samples of the caller's audio so far."""
        self._agent_end = 0

    @property
    def now_samples(self) -> int:
        """The line's time: samples of the caller's audio so far."""
        return self._now

    def begin(self, recorder: StereoRecorder) -> None:
        """The line is up: record what comes from now on."""
        self._recorder = recorder

    async def close(self, *, timeout_s: float) -> None:
        """End the recording where the caller's audio ends; wait for the disk at most `timeout_s` seconds."""
        if self._recorder is not None:
            await self._recorder.close(end_samples=self._now, timeout_s=timeout_s)

    def caller_audio(self, pcm: bytes) -> None:
        """Take the caller's next audio, s16le mono."""
        if self._recorder is None:
            return
        self._recorder.caller(pcm, self._now)
        self._now += len(pcm) // _BYTES_PER_SAMPLE

    def agent_audio(self, pcm: bytes, ahead_s: float) -> None:
        """Take agent audio that will be heard `ahead_s` seconds from now."""
        if self._recorder is None:
            return
        at = self._now + round(ahead_s * self._rate_hz)
        # A piece that follows another must not overlap it or leave a crack: our estimate of "now" jitters.
        if abs(at - self._agent_end) < self._rate_hz // 5:
            at = self._agent_end
        self._recorder.agent(pcm, at)
        self._agent_end = at + len(pcm) // _BYTES_PER_SAMPLE

    def agent_dropped(self) -> None:
        """What has not been heard by now never will be."""
        if self._recorder is None:
            return
        self._recorder.cut_agent(self._now)
        self._agent_end = self._now
