import numpy as np
import pytest

from sims.mulaw import FRAME_SAMPLES
from sims.noises import Samples, loop_samples, render
from sims.scenario import NoiseKind

STEADY = (NoiseKind.MUSIC, NoiseKind.FAX, NoiseKind.FAX_ANSWER)


def make(kind: NoiseKind, seconds: float, seed: int = 1) -> Samples:
    return render(kind, int(seconds * 8000), np.random.default_rng(seed))


def dbfs(samples: Samples) -> float:
    return 20 * float(np.log10(np.sqrt(np.mean(samples**2)) / 32768 + 1e-9))


def windows(samples: Samples, length: int = 80) -> list[float]:
    return [dbfs(samples[at : at + length]) for at in range(0, len(samples) - length + 1, length)]


def loudest_hz(samples: Samples) -> float:
    return float(np.fft.rfftfreq(len(samples), 1 / 8000)[np.argmax(np.abs(np.fft.rfft(samples)))])


@pytest.mark.parametrize("kind", NoiseKind)
@pytest.mark.parametrize("seconds", [0.015, 0.3, 2.0])
def test_levels_are_those_of_a_telephone(kind: NoiseKind, seconds: float) -> None:
    samples = make(kind, seconds)
    assert len(samples) == int(seconds * 8000)
    assert np.max(np.abs(samples)) < 32767
    assert -31 <= max(windows(samples)) <= -13


@pytest.mark.parametrize("kind", NoiseKind)
@pytest.mark.parametrize("count", [1, 2, 79])
def test_any_length_can_be_had(kind: NoiseKind, count: int) -> None:
    samples = render(kind, count, np.random.default_rng(1))
    assert len(samples) == count
    assert np.all(np.isfinite(samples))


@pytest.mark.parametrize("kind", NoiseKind)
def test_the_seed_decides(kind: NoiseKind) -> None:
    assert np.array_equal(make(kind, 0.3), make(kind, 0.3))
    assert np.array_equal(make(kind, 0.3), make(kind, 0.3, seed=2)) == (kind in STEADY)


def test_a_cough_has_two_bursts_the_second_weaker() -> None:
    levels = windows(make(NoiseKind.COUGH, 0.5), 200)
    first, gap, second = max(levels[:8]), min(levels[9:13]), max(levels[13:])
    assert first > second + 3
    assert second > gap + 12


def test_a_click_is_over_after_20_ms_and_a_breath_swells() -> None:
    click = make(NoiseKind.CLICK, 0.3)
    assert 80 <= int(np.flatnonzero(np.abs(click) >= 184)[-1]) + 1 <= 160
    breath = windows(make(NoiseKind.BREATH, 0.6), 800)
    assert max(breath[2:4]) > breath[0] + 10
    assert max(breath[2:4]) > breath[-1] + 10


def test_a_door_is_low_and_short_and_a_hum_stays() -> None:
    door, hum = make(NoiseKind.DOOR, 0.5), make(NoiseKind.HUM, 0.5)
    assert loudest_hz(door) < 400
    assert windows(door, 400)[0] > windows(door, 400)[6] + 15
    assert loudest_hz(hum) == pytest.approx(60, abs=3)
    assert max(windows(hum, 800)) - min(windows(hum, 800)) < 3


@pytest.mark.parametrize(
    ("kind", "hz", "on_s", "round_s"),
    [(NoiseKind.FAX, 1100, 0.5, 3.5), (NoiseKind.FAX_ANSWER, 2100, 3.0, 4.0)],
)
def test_a_fax_beeps_as_the_standard_says(kind: NoiseKind, hz: float, on_s: float, round_s: float) -> None:
    samples = make(kind, 2 * round_s)
    on, whole = int(on_s * 8000), int(round_s * 8000)
    assert loudest_hz(samples[:on]) == pytest.approx(hz, abs=2)
    assert not samples[on:whole].any()
    assert np.allclose(samples[:whole], samples[whole:], atol=0.01)
    assert loop_samples(kind) == whole


def test_music_goes_round_in_whole_frames_and_never_stops() -> None:
    length = loop_samples(NoiseKind.MUSIC)
    assert length
    assert length % FRAME_SAMPLES == 0
    samples = make(NoiseKind.MUSIC, 2 * length / 8000)
    assert np.array_equal(samples[:length], samples[length:])
    assert min(windows(samples, 4000)) > -30
    assert loop_samples(NoiseKind.COUGH) is None


def test_a_hum_goes_round_without_a_click() -> None:
    length = loop_samples(NoiseKind.HUM)
    assert length
    hum = make(NoiseKind.HUM, length / 8000)
    assert abs(hum[0] - hum[-1]) < 4 * float(np.std(np.diff(hum)))
