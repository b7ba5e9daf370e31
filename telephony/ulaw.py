"""G.711 mu-law codec on whole buffers, by table.

The standard library's `audioop` is gone in Python 3.13; two tables give the same bytes on every version.
Never resamples and never changes the number of samples.

Source: ITU-T G.711, table 2a/2b; the encoder truncates to 14 bits first, as `audioop.lin2ulaw` does.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ: Final = 8000
"""Rate of every mu-law stream on the telephone network; one byte is one sample."""

SILENCE: Final = 0xFF
"""The code of sample value 0."""

_PATTERN = np.dtype("<u2")  # one sample as the index of its code
_BIAS = 33  # moves the segment borders onto powers of two, in 14-bit units
_LARGEST = 8191  # biased magnitude at the end of the last segment: louder samples are clipped


def decode(ulaw: bytes) -> bytes:
    """Expand mu-law to linear PCM.

    Args:
        ulaw: n bytes, one sample each, 8 kHz mono.

    Returns:
        s16le mono, 2n bytes.
    """
    return _DECODED.take(np.frombuffer(ulaw, np.uint8)).tobytes()


def encode(pcm: bytes) -> bytes:
    """Compress linear PCM to mu-law.

    Args:
        pcm: s16le mono, 2n bytes.

    Returns:
        n bytes of mu-law.

    Raises:
        ValueError: If `pcm` is not a whole number of samples.
    """
    if len(pcm) % 2:
        raise ValueError(f"pcm must hold whole 2-byte samples, got {len(pcm)} bytes")
    return _ENCODED.take(np.frombuffer(pcm, _PATTERN)).tobytes()


def _decoding_table() -> NDArray[np.int16]:
    """Return the sample value of each of the 256 codes."""
    inverted = ~np.arange(256, dtype=np.int32) & 0xFF
    segment = (inverted >> 4) & 0x7
    step = inverted & 0xF
    magnitude = (((2 * step + _BIAS) << segment) - _BIAS) << 2
    return np.where(inverted & 0x80, -magnitude, magnitude).astype("<i2")


def _encoding_table() -> NDArray[np.uint8]:
    """Return the code of each sample value, indexed by the value's unsigned 16-bit pattern."""
    samples = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 2
    biased = np.minimum(np.abs(samples) + _BIAS, _LARGEST)
    segment = np.digitize(biased, [64 << n for n in range(7)])
    step = (biased >> (segment + 1)) & 0xF
    sign = np.where(samples < 0, 0x80, 0)
    return (~(sign | (segment << 4) | step) & 0xFF).astype(np.uint8)


_DECODED = _decoding_table()
_ENCODED = _encoding_table()
