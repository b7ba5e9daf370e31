import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.frames.frames import FilterEnableFrame

from processors.noise_gate import NoiseGate
from sims.speech import SpeechSynthesizer

RATE = 8000
FRAME = 160
SAYING = "My number is eight five oh, five five five. Stop, that's fifty-six, thanks."

Samples = np.ndarray


def noise(seconds: float, level_db: float, seed: int = 1) -> Samples:
    return np.random.default_rng(seed).normal(0.0, 32768 * 10 ** (level_db / 20), round(seconds * RATE))


def speech(synthesizer: SpeechSynthesizer, voice: str, level_db: float) -> Samples:
    samples = np.frombuffer(synthesizer.synthesize(SAYING, voice=voice, rate_hz=RATE).pcm, np.int16)
    return samples * 10 ** ((level_db + 20.0) / 20)  # the sims speak at -20 dBFS


def pcm_of(samples: Samples) -> Samples:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def gated(gate: NoiseGate, samples: Samples, frame: int = FRAME) -> Samples:
    parts = [gate.apply(samples[at : at + frame].tobytes()) for at in range(0, len(samples), frame)]
    return np.frombuffer(b"".join(parts), np.int16)


def block_levels_db(samples: Samples) -> Samples:
    blocks = samples[: len(samples) // 80 * 80].astype(np.float64).reshape(-1, 80)
    return 10 * np.log10(np.mean(blocks**2, axis=1) / 32768**2 + 1e-12)


@pytest.mark.parametrize("level_db", [-50.0, -60.0])
def test_noise_below_the_gate_is_silence_from_the_start(level_db: float) -> None:
    assert not gated(NoiseGate(noise_gate_db=-42.0), pcm_of(noise(3.0, level_db))).any()


@pytest.mark.parametrize("level_db", [-41.0, -44.0])
def test_even_noise_above_the_gate_is_learnt(level_db: float) -> None:
    gate = NoiseGate(noise_gate_db=-45.0)
    passed = gated(gate, pcm_of(noise(20.0, level_db)))
    assert not passed[-5 * RATE :].any()
    assert gate.floor_db == pytest.approx(level_db, abs=2.0)


def test_the_floor_rises_slowly_and_falls_at_once() -> None:
    gate = NoiseGate(noise_gate_db=-60.0)
    gated(gate, pcm_of(noise(2.0, -40.0)))
    assert gate.floor_db < -60.0
    gated(gate, pcm_of(noise(20.0, -40.0)))
    assert gate.floor_db > -43.0
    gated(gate, pcm_of(noise(0.7, -70.0)))
    assert gate.floor_db < -60.0


@pytest.mark.parametrize("voice", ["caller-1", "caller-2", "caller-3"])
@pytest.mark.parametrize("level_db", [-30.0, -25.0, -20.0])
def test_speech_over_noise_comes_through(synthesizer: SpeechSynthesizer, voice: str, level_db: float) -> None:
    spoken = speech(synthesizer, voice, level_db)
    line = noise(4.0 + len(spoken) / RATE, -50.0)
    line[4 * RATE :] += spoken
    pcm = pcm_of(line)
    passed = gated(NoiseGate(), pcm)
    assert not passed[: 4 * RATE].any()
    said, heard = pcm[4 * RATE :], passed[4 * RATE :]
    is_silenced = block_levels_db(heard) < -100.0
    # What is lost is no louder than the threshold: the line's own noise and the softest breath.
    assert np.max(block_levels_db(said)[is_silenced], initial=-100.0) < -40.9
    assert np.sum(heard.astype(np.int64) ** 2) > 0.995 * np.sum(said.astype(np.int64) ** 2)


@pytest.mark.parametrize("voice", ["caller-1", "caller-2", "caller-3"])
def test_an_open_gate_changes_nothing(synthesizer: SpeechSynthesizer, voice: str) -> None:
    spoken = speech(synthesizer, voice, -20.0)
    line = noise(len(spoken) / RATE, -40.0)
    pcm = pcm_of(line + spoken)
    gate = NoiseGate()
    for at in range(0, len(pcm), FRAME):
        was_open = gate.is_open
        frame = pcm[at : at + FRAME].tobytes()
        passed = gate.apply(frame)
        if was_open and gate.is_open:
            assert passed == frame


@pytest.mark.parametrize("voice", ["caller-1", "caller-2", "caller-3"])
def test_two_minutes_of_talk_do_not_become_the_noise(synthesizer: SpeechSynthesizer, voice: str) -> None:
    spoken = speech(synthesizer, voice, -30.0)
    times = 120 * RATE // len(spoken)
    gate = NoiseGate()
    pcm = pcm_of(np.tile(spoken, times) + noise(times * len(spoken) / RATE, -55.0)[: times * len(spoken)])
    heard = gated(gate, pcm)[-len(spoken) :]
    said = pcm[-len(spoken) :]
    assert np.sum(heard.astype(np.int64) ** 2) > 0.99 * np.sum(said.astype(np.int64) ** 2)


def test_the_gate_opens_and_closes_without_a_click() -> None:
    tone = 8000.0 * np.sin(2 * np.pi * 200 * np.arange(RATE // 2) / RATE)
    quiet = np.full(RATE // 2, 30.0)  # an offset below the gate: a cut would show as a step
    passed = gated(NoiseGate(), pcm_of(np.concatenate((quiet, tone, quiet, quiet)))).astype(np.int64)
    steps = np.abs(np.diff(passed))
    assert np.max(steps) < 2 * 8000 * 2 * np.pi * 200 / RATE
    closing = np.flatnonzero(passed)[-1]
    assert RATE + 0.19 * RATE < closing < RATE + 0.25 * RATE
    assert np.max(steps[closing - 60 :]) <= 2


def test_a_pause_inside_a_sentence_is_not_cut() -> None:
    loud, soft = noise(0.3, -20.0), noise(0.15, -60.0)
    pcm = pcm_of(np.concatenate((loud, soft, loud)))
    passed = gated(NoiseGate(), pcm)
    assert (passed[FRAME:] == pcm[FRAME:]).all()


async def test_as_a_filter_it_can_be_switched_off_and_on_at_any_rate() -> None:
    gate = NoiseGate()
    await gate.start(16000)
    soft = pcm_of(noise(0.02, -60.0)).tobytes()
    assert await gate.filter(soft) == bytes(len(soft))
    await gate.process_frame(FilterEnableFrame(enable=False))
    assert await gate.filter(soft) == soft
    await gate.process_frame(FilterEnableFrame(enable=True))
    assert await gate.filter(soft) == bytes(len(soft))
    await gate.stop()


@given(
    st.lists(st.tuples(st.integers(0, 500), st.floats(-90.0, 0.0)), max_size=30),
    st.sampled_from([8000, 16000]),
)
def test_what_comes_out_is_as_long_and_no_louder(parts: list[tuple[int, float]], rate_hz: int) -> None:
    gate = NoiseGate()
    gate._configure(rate_hz)
    for index, (count, level_db) in enumerate(parts):
        pcm = pcm_of(noise(count / RATE, level_db, index))
        passed = np.frombuffer(gate.apply(pcm.tobytes()), np.int16)
        assert len(passed) == len(pcm)
        assert (np.abs(passed.astype(np.int32)) <= np.abs(pcm.astype(np.int32))).all()
        assert -51.0 <= gate.floor_db <= 0.0
        assert gate.threshold_db <= -30.0
