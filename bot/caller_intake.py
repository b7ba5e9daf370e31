"""Takes what a line brings of the caller, audio and keys, to the call's pipeline, or keeps it until there is one."""

import asyncio
import contextlib
from typing import Final

from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import InputDTMFFrame

from bot.call_pipeline import CallPipeline
from bot.early_caller import EarlyCaller
from bot.line_recording import LineRecording

HAND_OVER_LIMIT_S: Final = 1.0
"""For what was kept to be heard as fast as the models go; what is left then goes in at once."""
_KEYS: Final = frozenset(entry.value for entry in KeypadEntry)


class CallerIntake:
    """One call's. What comes before `hand_over` is kept and goes in with it, in its order."""

    def __init__(self, pipeline: CallPipeline, *, rate_hz: int, recording: LineRecording | None) -> None:
        """Begin to keep what comes.

        Args:
            pipeline: Where it goes.
            rate_hz: Of the caller's audio.
            recording: Gets at once what the pipeline gets later, and otherwise gets it there.
        """
        self._pipeline = pipeline
        self._recording = recording
        self._early: EarlyCaller | None = EarlyCaller(rate_hz=rate_hz)

    @property
    def is_keeping(self) -> bool:
        """Whether the pipeline does not hear the caller yet."""
        return self._early is not None

    async def hear(self, pcm: bytes) -> None:
        """Take the caller's next audio: s16le mono at the call's rate."""
        if self._early is not None:
            if self._recording is not None:
                self._recording.caller_audio(pcm)
            self._early.hear(pcm)
        elif self._pipeline.graph is not None:
            await self._pipeline.graph.caller.feed(pcm)

    async def press(self, digit: str) -> None:
        """The caller pressed a key: one of 0-9, *, #, A-D (which Pipecat does not know)."""
        if digit not in _KEYS:
            return
        if self._early is not None:
            self._early.press(digit)
        elif self._pipeline.graph is not None:
            await self._pipeline.graph.caller.push_frame(InputDTMFFrame(KeypadEntry(digit)))

    async def hand_over(self) -> None:
        """The pipeline runs: give it what was kept; what comes from here on goes to it directly.

        No faster than its models hear: where speech begins is told by how much of the line was heard when they say so.
        """
        early = self._early
        if early is None:
            return
        caller = self._pipeline.require().caller
        until_s = asyncio.get_running_loop().time() + HAND_OVER_LIMIT_S
        for pcm in early.take_audio():
            await caller.feed(pcm, is_recorded=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until_s):
                    await caller.caught_up()
        if self._early is early:  # otherwise nothing is wanted any more
            self._early = None
            for digit in early.take_keys():
                await self.press(digit)

    def close(self) -> None:
        """Take nothing any more."""
        self._early = None
