"""What a caller says and presses while there is no pipeline yet to hear it. Bounded; the oldest goes first."""

from collections import deque
from collections.abc import Iterator
from typing import Final

KEPT_S: Final = 6.0
"""Longer than a pipeline waits to be built: no call is let in for which that would take more than four seconds."""
KEPT_KEYS: Final = 32
_BYTES_PER_SAMPLE = 2


class EarlyCaller:
    """Keeps audio and keys in their order until they are taken."""

    def __init__(self, *, rate_hz: int) -> None:
        """Begin with nothing.

        Args:
            rate_hz: Of the caller's audio.
        """
        self._limit_bytes = round(KEPT_S * rate_hz) * _BYTES_PER_SAMPLE
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._keys: deque[str] = deque(maxlen=KEPT_KEYS)

    def hear(self, pcm: bytes) -> None:
        """Keep the next audio, s16le mono, any length."""
        self._pieces.append(pcm)
        self._bytes += len(pcm)
        while self._bytes > self._limit_bytes:
            self._bytes -= len(self._pieces.popleft())

    def press(self, digit: str) -> None:
        """Keep a key."""
        self._keys.append(digit)

    def take_audio(self) -> Iterator[bytes]:
        """Yield the audio that was kept, also what comes meanwhile, and forget it."""
        while self._pieces:
            piece = self._pieces.popleft()
            self._bytes -= len(piece)
            yield piece

    def take_keys(self) -> Iterator[str]:
        """Yield the keys that were kept, and forget them."""
        while self._keys:
            yield self._keys.popleft()
