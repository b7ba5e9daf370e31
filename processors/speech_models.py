"""The models that listen, loaded once per process and shared by all its calls.

Silero says how likely a window of audio is voice; Smart Turn says whether what was said sounds finished. Both
come with Pipecat. Inference never runs on the event loop: one thread for each model, and the voice windows of
all calls that are waiting go through the model in one batch.
"""

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
import onnxruntime
import soxr
from numpy.typing import NDArray
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from threadpoolctl import threadpool_limits

_CONTEXT_SAMPLES_8K = 32
_STATE_SHAPE = (2, 1, 128)
_TURN_RATE_HZ = 16000
_TURN_SECONDS = 8
MAX_WAITING_TURNS = 64
"""End-of-turn questions that may wait for the model; one more is answered "not known"."""


@dataclass
class VoiceStream:
    """One caller's place in the voice model. The model's memory, carried from window to window."""

    rate_hz: int
    state: NDArray[np.float32] = field(init=False)
    context: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        """Start with an empty memory.

        Raises:
            ValueError: If the model does not take this rate.
        """
        if self.rate_hz not in (8000, 16000):
            raise ValueError(f"the voice model takes 8000 or 16000 Hz, got {self.rate_hz}")
        self.forget()

    @property
    def window_samples(self) -> int:
        """Samples per window: 32 ms."""
        return self.rate_hz * 32 // 1000

    def forget(self) -> None:
        """Clear the memory, as at the start of a call."""
        self.state = np.zeros(_STATE_SHAPE, dtype=np.float32)
        self.context = np.zeros(_CONTEXT_SAMPLES_8K * self.rate_hz // 8000, dtype=np.float32)


@dataclass
class _Job:
    stream: VoiceStream
    window: NDArray[np.float32]
    answer: asyncio.Future[float]


class SpeechModels:
    """Both models. Make one per process before the first call; `close` ends its threads."""

    def __init__(self) -> None:
        """Load the models; blocks for about half a second. Keeps the process's BLAS to one thread."""
        threadpool_limits(limits=1, user_api="blas")  # a second one only spins while the turn model runs
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        path = files("pipecat.audio.vad.data").joinpath("silero_vad.onnx")
        self._voice = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"], sess_options=options
        )
        self._turn = _SmartTurn()
        self._jobs: deque[_Job] = deque()
        self._jobs_there = threading.Event()
        self._closing = False
        self._voice_thread = threading.Thread(target=self._score_voice, name="voice-model", daemon=True)
        self._voice_thread.start()
        self._turn_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="turn-model")
        self._waiting_turns = 0
        self._warm_up()

    def close(self) -> None:
        """End the threads."""
        self._closing = True
        self._jobs_there.set()
        self._voice_thread.join(timeout=2.0)
        self._turn_thread.shutdown(wait=False, cancel_futures=True)

    def voice_probability(self, stream: VoiceStream, window: NDArray[np.float32]) -> "asyncio.Future[float]":
        """Score one window of a stream; windows of a stream must be asked for one after the other.

        Args:
            stream: The caller's place in the model.
            window: `stream.window_samples` samples, -1..1.

        Returns:
            A future of the probability of voice, 0..1.
        """
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(stream, window, answer))
        self._jobs_there.set()
        return answer

    async def turn_probability(self, pcm: bytes, rate_hz: int) -> float | None:
        """Say how finished the caller's words sound.

        Args:
            pcm: s16le mono, what the caller said including the pause; the last 8 s count.
            rate_hz: Its sample rate.

        Returns:
            Probability that the turn is over, 0..1, or None if too many callers are waiting for an answer.
        """
        if self._waiting_turns >= MAX_WAITING_TURNS:
            return None
        self._waiting_turns += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._turn_thread, self._turn.probability, pcm, rate_hz)
        finally:
            self._waiting_turns -= 1

    # The voice model's thread

    def _score_voice(self) -> None:
        while True:
            self._jobs_there.wait()
            self._jobs_there.clear()
            if self._closing:
                return
            while self._jobs:
                self._score_batch([self._jobs.popleft() for _ in range(len(self._jobs))])

    def _score_batch(self, jobs: list[_Job]) -> None:
        for rate_hz in {job.stream.rate_hz for job in jobs}:
            batch = [job for job in jobs if job.stream.rate_hz == rate_hz]
            try:
                self._score(batch, rate_hz)
            except Exception as error:  # noqa: BLE001 - a caller's window must not end everybody's ears
                for job in batch:
                    _answer(job.answer, error)

    def _score(self, jobs: list[_Job], rate_hz: int) -> None:
        audio = np.stack([np.concatenate((job.stream.context, job.window)) for job in jobs])
        state = np.concatenate([job.stream.state for job in jobs], axis=1)
        inputs = {"input": audio, "state": state, "sr": np.array(rate_hz, dtype=np.int64)}
        probabilities, states = (np.asarray(output) for output in self._voice.run(None, inputs))
        for index, job in enumerate(jobs):
            job.stream.state = states[:, index : index + 1, :]
            job.stream.context = audio[index, -len(job.stream.context) :]
            _answer(job.answer, float(probabilities[index][0]))

    def _warm_up(self) -> None:
        stream = VoiceStream(8000)
        inputs = {
            "input": np.zeros((1, 32 + 256), dtype=np.float32),
            "state": stream.state,
            "sr": np.array(8000, dtype=np.int64),
        }
        self._voice.run(None, inputs)
        self._turn.probability(bytes(2 * 8000), 8000)


def _answer(future: asyncio.Future[float], result: float | Exception) -> None:
    def settle() -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    loop = future.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)


class _SmartTurn(LocalSmartTurnAnalyzerV3):
    """Pipecat's Smart Turn without a call attached: audio in, probability out."""

    def __init__(self) -> None:
        super().__init__(cpu_count=1)
        self.set_sample_rate(_TURN_RATE_HZ)

    def probability(self, pcm: bytes, rate_hz: int) -> float:
        samples = np.frombuffer(pcm, dtype=np.int16)[-_TURN_SECONDS * rate_hz :]
        audio = samples.astype(np.float32) / 32768.0
        if rate_hz != _TURN_RATE_HZ:
            audio = soxr.resample(audio, rate_hz, _TURN_RATE_HZ, quality="HQ")
        return float(self._predict_endpoint(audio)["probability"])
