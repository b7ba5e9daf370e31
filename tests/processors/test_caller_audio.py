import asyncio
from typing import Any

import numpy as np
import pytest
from pipecat.frames.frames import (
    InputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)

from processors.caller_audio import CallerAudioProcessor
from processors.frames import CallerPausedFrame, CallerResumedFrame, CallerStoppedFrame
from processors.speech_models import VoiceStream
from processors.voice_activity import VoiceActivityParams
from tests.fakes.pipeline_rig import PipelineRig

RATE = 8000
FRAME_SAMPLES = 160


class FakeModels:
    """Calls what is loud voice; has an opinion on turns, or hangs, or fails."""

    def __init__(self) -> None:
        self.turns: list[bytes] = []
        self.verdict: float | None = 0.9
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails = False
        self.scored = 0

    def voice_probability(self, stream: VoiceStream, window: np.ndarray) -> "asyncio.Future[float]":
        self.scored += 1
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if self.fails:
            future.set_exception(RuntimeError("no model"))
        else:
            future.set_result(0.95 if float(np.abs(window).max()) > 0.1 else 0.05)
        return future

    async def turn_probability(self, pcm: bytes, rate_hz: int) -> float | None:
        self.turns.append(pcm)
        await self.answers.wait()
        if self.fails:
            raise RuntimeError("no model")
        return self.verdict


class Sink:
    def __init__(self) -> None:
        self.pcm = b""

    def caller_audio(self, pcm: bytes) -> None:
        self.pcm += pcm


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[str, float]] = []

    def caller_started(self, now_s: float) -> None:
        self.events.append(("started", now_s))

    def caller_stopped(self, speech_end_s: float, now_s: float) -> None:
        self.events.append(("stopped", speech_end_s))


class Sounds:
    def __init__(self) -> None:
        self.events: list[tuple[str, float]] = []

    def onset(self, now_s: float) -> None:
        self.events.append(("onset", now_s))

    def noise(self, now_s: float, *, may_be_word: bool) -> None:
        self.events.append(("short" if may_be_word else "noise", now_s))


class Rig(PipelineRig):
    """A `CallerAudioProcessor` fed 20 ms at a time on virtual time."""

    def __init__(self) -> None:
        self.models = FakeModels()
        self.sink, self.listener, self.sounds = Sink(), Listener(), Sounds()
        models: Any = self.models
        self.caller = CallerAudioProcessor(
            models,
            rate_hz=RATE,
            params=VoiceActivityParams(),
            listener=self.listener,
            sounds=self.sounds,
            sink=self.sink,
        )
        super().__init__(self.caller, rate_hz=RATE)

    async def __aexit__(self, *_: object) -> None:
        self.models.answers.set()
        await super().__aexit__()

    def audio(self) -> bytes:
        return b"".join(frame.audio for frame in self.tail.of(InputAudioRawFrame))

    async def play(self, seconds: float, level: float) -> None:
        samples = (np.sin(np.arange(FRAME_SAMPLES) * 0.7) * level * 32767).astype(np.int16)
        for _ in range(round(seconds / 0.02)):
            await self.caller.feed(samples.tobytes())
            await asyncio.sleep(0.02)

    async def speak(self, seconds: float) -> None:
        await self.play(seconds, 0.3)

    async def keep_quiet(self, seconds: float) -> None:
        await self.play(seconds, 0.0)


async def test_edges_of_speech_are_told_where_they_are() -> None:
    async with Rig() as rig:
        began_s = asyncio.get_running_loop().time()
        await rig.keep_quiet(1.0)
        await rig.speak(1.0)
        await rig.keep_quiet(1.0)
        started = rig.tail.times(VADUserStartedSpeakingFrame)
        stopped = rig.tail.times(VADUserStoppedSpeakingFrame)
        assert [at_s - began_s for at_s in started] == [pytest.approx(1.2, abs=0.06)]
        assert [at_s - began_s for at_s in stopped] == [pytest.approx(2.2, abs=0.06)]
        kinds = [kind for kind, _ in rig.listener.events]
        assert kinds == ["started", "stopped"]
        assert rig.listener.events[1][1] - began_s == pytest.approx(2.0, abs=0.05)


async def test_the_recogniser_and_the_recorder_get_every_sample() -> None:
    async with Rig() as rig:
        await rig.speak(0.5)
        await rig.keep_quiet(0.5)
        assert len(rig.sink.pcm) == RATE * 2
        sent = rig.audio()
        assert rig.sink.pcm[: len(sent)] == sent
        assert len(rig.sink.pcm) - len(sent) < 0.08 * RATE * 2  # silence waits for company


async def test_the_recogniser_gets_speech_as_it_comes_and_silence_in_larger_pieces() -> None:
    async with Rig() as rig:
        await rig.keep_quiet(1.6)
        quiet = len(rig.tail.of(InputAudioRawFrame))
        await rig.speak(0.5)
        sent = rig.audio()
        assert quiet == 20
        assert len(rig.tail.of(InputAudioRawFrame)) - quiet > 20
        assert len(rig.sink.pcm) - len(sent) < 0.02 * RATE * 2


async def test_the_recogniser_has_all_audio_before_it_is_told_that_the_caller_stopped() -> None:
    async with Rig() as rig:
        await rig.speak(0.5)
        await rig.play(0.3, 0.0)
        kinds = rig.tail.kinds()
        until_stop = kinds[: kinds.index(CallerStoppedFrame)]
        heard_s = sum(
            len(f.audio) for f in rig.tail.frames[: len(until_stop)] if isinstance(f, InputAudioRawFrame)
        )
        assert heard_s / 2 / RATE >= 0.5 + 0.19


async def test_silence_costs_no_inference() -> None:
    async with Rig() as rig:
        await rig.keep_quiet(5.0)
        assert rig.models.scored == 0


async def test_the_turn_model_is_asked_only_on_demand() -> None:
    async with Rig() as rig:
        await rig.speak(0.6)
        await rig.play(0.3, 0.0)
        assert rig.models.turns == []
        assert await rig.caller.turn_verdict() == 0.9
        assert len(rig.models.turns) == 1


async def test_whoever_waits_for_a_verdict_gets_it_though_the_caller_goes_on() -> None:
    async with Rig() as rig:
        rig.models.answers.clear()
        await rig.speak(0.6)
        await rig.play(0.16, 0.0)
        waiting = asyncio.create_task(rig.caller.turn_verdict())
        await rig.speak(0.2)
        rig.models.answers.set()
        assert await asyncio.wait_for(waiting, 1.0) == 0.9


async def test_each_turn_is_judged_by_its_own_audio_and_at_most_eight_seconds_of_it() -> None:
    async with Rig() as rig:
        await rig.speak(12.0)
        await rig.play(0.3, 0.0)
        await rig.caller.turn_verdict()
        assert len(rig.models.turns[-1]) / 2 / RATE == pytest.approx(8.0, abs=0.1)
        rig.caller.end_turn()
        await rig.speak(0.6)
        await rig.play(0.3, 0.0)
        await rig.caller.turn_verdict()
        assert len(rig.models.turns[-1]) / 2 / RATE < 2.0


async def test_a_model_that_hangs_is_not_waited_for() -> None:
    async with Rig() as rig:
        rig.models.answers.clear()
        await rig.speak(0.6)
        await rig.play(0.3, 0.0)
        assert await asyncio.wait_for(rig.caller.turn_verdict(), 0.5) is None


async def test_models_that_fail_leave_the_call_alive() -> None:
    async with Rig() as rig:
        rig.models.fails = True
        await rig.speak(0.6)
        await rig.keep_quiet(0.4)
        assert await rig.caller.turn_verdict() is None
        rig.models.fails = False
        await rig.speak(0.6)
        assert len(rig.tail.of(VADUserStartedSpeakingFrame)) == 1


async def test_windows_that_a_slow_voice_model_has_no_time_for_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Rig() as rig:
        never: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(rig.models, "voice_probability", lambda *_: never)
        await rig.speak(4.0)
        assert rig.caller.windows_dropped == pytest.approx((4.0 - 65 * 0.032) / 0.032, abs=2)
        assert len(rig.audio()) == RATE * 4 * 2, "the recogniser gets everything all the same"


async def test_every_sound_is_told_at_once_and_noise_is_told_apart() -> None:
    async with Rig() as rig:
        await rig.keep_quiet(0.5)
        began_s = asyncio.get_running_loop().time()
        await rig.speak(0.04)
        await rig.keep_quiet(0.5)
        assert [kind for kind, _ in rig.sounds.events] == ["onset", "noise"]
        assert rig.sounds.events[0][1] - began_s <= 0.07
        assert rig.tail.of(CallerPausedFrame) == []
        assert rig.tail.of(VADUserStartedSpeakingFrame) == []
        await rig.speak(0.5)
        assert [kind for kind, _ in rig.sounds.events] == ["onset", "noise", "onset"]


async def test_the_recogniser_is_asked_about_what_may_be_a_short_word() -> None:
    async with Rig() as rig:
        await rig.keep_quiet(0.5)
        await rig.speak(0.14)
        await rig.keep_quiet(0.5)
        assert [kind for kind, _ in rig.sounds.events] == ["onset", "short"]
        assert len(rig.tail.of(CallerPausedFrame)) == 1
        assert rig.tail.of(VADUserStartedSpeakingFrame) == []


async def test_a_short_pause_is_told_and_taken_back() -> None:
    async with Rig() as rig:
        began_s = asyncio.get_running_loop().time()
        await rig.speak(0.6)
        await rig.play(0.16, 0.0)
        (paused,) = rig.tail.of(CallerPausedFrame)
        assert paused.at_s - began_s == pytest.approx(0.6, abs=0.05)
        await rig.speak(0.3)
        assert len(rig.tail.of(CallerResumedFrame)) == 1
        await rig.play(0.3, 0.0)
        (stopped,) = rig.tail.of(CallerStoppedFrame)
        assert stopped.at_s - began_s == pytest.approx(1.06, abs=0.05)


async def test_how_long_the_caller_has_been_quiet() -> None:
    async with Rig() as rig:
        assert rig.caller.quiet_s() > 1e6
        await rig.speak(0.5)
        assert rig.caller.quiet_s() < 0.05
        await rig.keep_quiet(0.4)
        assert rig.caller.quiet_s() == pytest.approx(0.4, abs=0.06)


async def test_audio_that_comes_as_frames_is_taken_too() -> None:
    async with Rig() as rig:
        await rig.caller.queue_frame(InputAudioRawFrame(bytes(1280), RATE, 1))
        await asyncio.sleep(0.01)
        assert rig.audio() == bytes(1280)
