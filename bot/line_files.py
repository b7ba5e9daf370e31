"""The files that one line of a call leaves in the call's folder: what they are called, and the recording.

The first line's have plain names, `audio.wav`; those of a line on which the call went on bear its number,
`audio-2.wav`. What stands in the others is `bot/call_files.py`'s business.
"""

from pathlib import Path
from typing import Final

from bot.line_recording import LineRecording
from processors.recorder import DiskThread, StereoRecorder

AUDIO_FILE: Final = "audio.wav"
MAX_PARTS: Final = 99
"""Lines of one call that have files of their own."""


class LineFiles:
    """Of one line; the folder comes into being with the recording."""

    def __init__(self, folder: Path | None, *, part: int, rate_hz: int) -> None:
        """Write nothing yet.

        Args:
            folder: The call's; None leaves nothing.
            part: Which line of the call this is, from 1.
            rate_hz: Of both sides of the recording.
        """
        self._folder = folder
        self._rate_hz = rate_hz
        self.part = part
        self.recording = None if folder is None else LineRecording(rate_hz=rate_hz)
        """Takes both sides; None when nothing is recorded."""

    def name(self, name: str) -> str:
        """Return what the file that a first line calls `name` is called here."""
        stem, dot, suffix = name.rpartition(".")
        return name if self.part == 1 else f"{stem}-{self.part}{dot}{suffix}"

    def begin(self, disk: DiskThread) -> None:
        """The line is up: record it.

        Not before: until then another worker may have the call and its folder.

        Args:
            disk: Writes.
        """
        if self.recording is None or self._folder is None:
            return
        while 1 < self.part < MAX_PARTS and (self._folder / self.name(AUDIO_FILE)).exists():
            self.part += 1  # one more line that was not counted: Twilio asked twice
        path = self._folder / self.name(AUDIO_FILE)
        self.recording.begin(StereoRecorder(path, rate_hz=self._rate_hz, disk=disk))

    async def close(self, *, timeout_s: float) -> None:
        """End the recording; wait for the disk at most `timeout_s` seconds."""
        if self.recording is not None:
            await self.recording.close(timeout_s=timeout_s)
