"""A stereo WAV of one call, written while it lasts: caller left, agent right, one time line.

Memory stays flat; the file is valid once closed. Knows nothing of calls.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sims.mulaw import RATE_HZ, decode_samples

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_FLUSH_BYTES = RATE_HZ
"""One second of each side is held back, so that the disk is touched once a second."""


class StereoWav:
    """Takes both sides in equal pieces of 8 kHz mu-law, stores s16."""

    def __init__(self, path: Path) -> None:
        """Create the file, its folder too.

        Raises:
            OSError: If it cannot be created.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file: BinaryIO = path.open("wb")
        self._file.write(_header(0))
        self._left = bytearray()
        self._right = bytearray()
        self._samples = 0

    def add(self, left: bytes, right: bytes) -> None:
        """Append the same stretch of time of both sides.

        Raises:
            ValueError: If the two are not of the same length.
        """
        if len(left) != len(right):
            raise ValueError(f"both sides must have the same length, got {len(left)} and {len(right)}")
        self._left += left
        self._right += right
        if len(self._left) >= _FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left and the final header; closing twice is harmless."""
        if self._file.closed:
            return
        self._flush()
        self._file.seek(0)
        self._file.write(_header(self._samples))
        self._file.close()

    def _flush(self) -> None:
        both = np.empty((len(self._left), 2), dtype="<i2")
        both[:, 0] = decode_samples(bytes(self._left))
        both[:, 1] = decode_samples(bytes(self._right))
        self._file.write(both.tobytes())
        self._samples += len(self._left)
        self._left.clear()
        self._right.clear()


def mono_wav(ulaw: bytes) -> bytes:
    """Return a whole mono WAV file of `ulaw`."""
    pcm = decode_samples(ulaw).astype("<i2").tobytes()
    return _header(len(ulaw), channels=1) + pcm


def _header(samples: int, channels: int = 2) -> bytes:
    size = samples * channels * 2
    rate_bytes = RATE_HZ * channels * 2
    fields = (b"WAVE", b"fmt ", 16, 1, channels, RATE_HZ, rate_bytes, channels * 2, 16, b"data", size)
    return _HEADER.pack(b"RIFF", 36 + size, *fields)
