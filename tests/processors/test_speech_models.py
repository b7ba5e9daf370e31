import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from processors import speech_models
from processors.speech_models import SpeechModels, VoiceStream
from sims.speech import SpeechSynthesizer

pytestmark = pytest.mark.real_time


@pytest.fixture(scope="module")
def models() -> Iterator[SpeechModels]:
    made = SpeechModels()
    yield made
    made.close()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    synthesizer = SpeechSynthesizer()
    said = synthesizer.synthesize("Yes, that's right.", voice="caller-1", rate_hz=8000)
    synthesizer.close()
    return np.frombuffer(said.pcm, dtype=np.int16).astype(np.float32) / 32768.0


async def probabilities(models: SpeechModels, samples: np.ndarray, stream: VoiceStream) -> list[float]:
    size = stream.window_samples
    starts = range(0, len(samples) - size, size)
    return [await models.voice_probability(stream, samples[start : start + size]) for start in starts]


async def test_speech_is_voice_and_silence_is_not(models: SpeechModels, speech: np.ndarray) -> None:
    said = await probabilities(models, speech, VoiceStream(8000))
    silent = await probabilities(models, np.zeros(8000, np.float32), VoiceStream(8000))
    assert max(said) > 0.9
    assert np.mean(said) > 0.5
    assert max(silent) < 0.3


def test_blas_has_one_thread_whoever_imported_numpy_first(models: SpeechModels) -> None:
    threads = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert threads <= {1}


async def test_a_batch_of_streams_scores_as_each_alone(models: SpeechModels, speech: np.ndarray) -> None:
    alone = await probabilities(models, speech, VoiceStream(8000))
    together = await asyncio.gather(
        *(probabilities(models, speech, VoiceStream(8000)) for _ in range(5)),
        probabilities(models, np.zeros_like(speech), VoiceStream(8000)),
    )
    for scored in together[:5]:
        assert scored == pytest.approx(alone, abs=1e-3)
    assert max(together[5]) < 0.3


async def test_streams_of_both_rates_share_the_model(models: SpeechModels) -> None:
    phone, browser = VoiceStream(8000), VoiceStream(16000)
    scores = await asyncio.gather(
        models.voice_probability(phone, np.zeros(phone.window_samples, np.float32)),
        models.voice_probability(browser, np.zeros(browser.window_samples, np.float32)),
    )
    assert all(0.0 <= score <= 1.0 for score in scores)


async def test_a_broken_window_is_an_error_and_the_model_goes_on(models: SpeechModels) -> None:
    with pytest.raises(ValueError, match="dimension"):
        await models.voice_probability(VoiceStream(8000), np.zeros((2, 2), np.float32))
    stream = VoiceStream(8000)
    assert 0.0 <= await models.voice_probability(stream, np.zeros(256, np.float32)) <= 1.0


async def test_the_turn_model_answers_for_any_length(models: SpeechModels) -> None:
    for seconds in (0.1, 3.0, 20.0):
        probability = await models.turn_probability(bytes(round(seconds * 8000) * 2), 8000)
        assert probability is not None
        assert 0.0 <= probability <= 1.0


async def test_too_many_questions_are_not_known(
    models: SpeechModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_models, "MAX_WAITING_TURNS", 1)
    first, second = await asyncio.gather(
        models.turn_probability(bytes(16000), 8000), models.turn_probability(bytes(16000), 8000)
    )
    assert first is not None
    assert second is None


def test_only_the_model_s_rates_are_taken() -> None:
    with pytest.raises(ValueError, match="24000"):
        VoiceStream(24000)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("module", ["server", "bench.plain_bot"])
def test_the_models_run_without_telemetry(module: str, tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)  # ours
    script = f"import sys, {module}; assert 'onnxruntime' in sys.modules"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=80)  # noqa: S603 - our own
    assert list(tmp_path.rglob("*onnx*")) == [], "it keeps an identifier and what it has yet to report there"
