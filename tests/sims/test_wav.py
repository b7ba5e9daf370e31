import io
import wave
from pathlib import Path

import numpy as np
import pytest

from sims.mulaw import decode_samples
from sims.wav import StereoWav, mono_wav


def test_both_sides_stand_sample_for_sample_beside_each_other(tmp_path: Path) -> None:
    left, right = bytes(range(256)) * 100, bytes(reversed(range(256))) * 100
    wav = StereoWav(tmp_path / "deep" / "call.wav")
    for at in range(0, len(left), 160):
        wav.add(left[at : at + 160], right[at : at + 160])
    wav.close()
    wav.close()

    with wave.open(str(tmp_path / "deep" / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, 8000, 2)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.array_equal(both[:, 0], decode_samples(left))
    assert np.array_equal(both[:, 1], decode_samples(right))


def test_sides_of_different_length_are_refused(tmp_path: Path) -> None:
    wav = StereoWav(tmp_path / "call.wav")
    with pytest.raises(ValueError, match="same length"):
        wav.add(b"\xff", b"")
    wav.close()


def test_mono_file() -> None:
    with wave.open(io.BytesIO(mono_wav(b"\x10" * 800))) as file:
        assert (file.getnchannels(), file.getnframes()) == (1, 800)
