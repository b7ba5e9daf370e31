"""G.711 mu-law, the only sound on the phone line: 8 kHz mono, one byte per sample.

Pure tables. Never resamples and never mixes.

Source: ITU-T G.711; the rounding is that of Python's `audioop.lin2ulaw`, which Pipecat uses.
"""

import numpy as np
import numpy.typing as npt

RATE_HZ = 8000
FRAME_SAMPLES = 160
"""20 ms, the size Twilio sends."""
SILENCE = b"\xff"
"""One sample of digital silence."""
SILENT_FRAME = SILENCE * FRAME_SAMPLES

AUDIBLE_LEVEL = 184
"""Absolute sample value from which a sample counts as audible: -45 dBFS.

Above the noise floor of synthetic voices (-66 dBFS RMS), far below any speech sound.
"""


def _encode_table() -> npt.NDArray[np.uint8]:
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 2
    mask = np.where(sample < 0, 0x7F, 0xFF)
    biased = np.minimum(np.abs(sample), 8159) + 33
    segment = np.searchsorted(np.array([0x3F, 0x7F, 0xFF, 0x1FF, 0x3FF, 0x7FF, 0xFFF, 0x1FFF]), biased)
    code = (segment << 4) | ((biased >> (segment + 1)) & 0x0F)
    return (np.where(segment >= 8, 0x7F, code) ^ mask).astype(np.uint8)


def _decode_table() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = ((((code & 0x0F).astype(np.int32) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


_ENCODE = _encode_table()
_DECODE = _decode_table()
_AUDIBLE = (np.abs(_DECODE.astype(np.int32)) >= AUDIBLE_LEVEL).astype(np.uint8).tobytes()


def encode(pcm: bytes) -> bytes:
    """Return the mu-law bytes of `pcm` (s16le mono)."""
    return _ENCODE[np.frombuffer(pcm, dtype="<u2")].tobytes()


def decode(ulaw: bytes) -> bytes:
    """Return `ulaw` as s16le mono."""
    return _DECODE[np.frombuffer(ulaw, dtype=np.uint8)].astype("<i2").tobytes()


def decode_samples(ulaw: bytes) -> npt.NDArray[np.int16]:
    """Return `ulaw` as an array of samples."""
    return _DECODE[np.frombuffer(ulaw, dtype=np.uint8)]


def audible_range(ulaw: bytes) -> tuple[int, int] | None:
    """Return the offsets of the first and the last audible sample, None when nothing is audible."""
    flags = ulaw.translate(_AUDIBLE)
    first = flags.find(1)
    return None if first < 0 else (first, flags.rfind(1))


def pad_to_frames(ulaw: bytes) -> bytes:
    """Return `ulaw` with silence appended up to a whole number of 20 ms frames."""
    return ulaw + SILENCE * (-len(ulaw) % FRAME_SAMPLES)
