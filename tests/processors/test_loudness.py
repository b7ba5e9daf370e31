import numpy as np
import pytest

from processors.loudness import LARGEST_GAIN_DB, LoudnessBook, amplify

RATE = 8000


def tone(level_db: float, seconds: float = 1.0) -> bytes:
    """A tone of this mean power."""
    times = np.arange(round(seconds * RATE)) / RATE
    peak = 32768 * 10 ** (level_db / 20) * 2**0.5
    return (peak * np.sin(2 * np.pi * 200 * times)).astype("<i2").tobytes()


def test_a_level_is_that_of_the_speech_without_its_pauses() -> None:
    book = LoudnessBook()
    assert book.level_db("a") is None
    book.hear("a", tone(-20) + bytes(4 * RATE) + tone(-20), RATE)
    assert book.level_db("a") == pytest.approx(-20, abs=0.1)


def test_a_voice_is_not_judged_by_a_word() -> None:
    book = LoudnessBook()
    book.hear("a", tone(-20, 0.4), RATE)
    book.hear("b", tone(-30, 2.0), RATE)
    assert book.level_db("a") is None
    assert book.gain("b", "a") == 1.0
    book.hear("a", bytes(100), RATE)  # shorter than a stretch


@pytest.mark.parametrize(("level_db", "gain_db"), [(-24, 4), (-17, -3), (-20.5, 0), (-35, 6), (-2, -6)])
def test_another_voice_is_made_as_loud_within_bounds(level_db: float, gain_db: float) -> None:
    book = LoudnessBook()
    book.hear("first", tone(-20), RATE)
    book.hear("other", tone(level_db), RATE)
    gain = book.gain("other", "first")
    assert 20 * np.log10(gain) == pytest.approx(gain_db, abs=0.1)
    assert abs(20 * np.log10(gain)) <= LARGEST_GAIN_DB + 1e-6
    assert book.gain("first", "first") == 1.0


def test_a_vendor_that_changes_is_followed() -> None:
    book = LoudnessBook()
    for level_db, count in ((-20, 60), (-26, 300)):
        for _ in range(count):
            book.hear("a", tone(level_db), RATE)
    assert book.level_db("a") == pytest.approx(-26, abs=0.5)


def test_louder_audio_is_clipped_and_unchanged_audio_is_the_same_bytes() -> None:
    pcm = np.array([100, -100, 30000, -30000], "<i2").tobytes()
    assert amplify(pcm, 1.0) is pcm
    assert np.frombuffer(amplify(pcm, 2.0), "<i2").tolist() == [200, -200, 32767, -32768]
    assert np.frombuffer(amplify(pcm, 0.5), "<i2").tolist() == [50, -50, 15000, -15000]
