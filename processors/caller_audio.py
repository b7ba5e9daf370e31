"""The caller's audio, once: level, voice activity, the end-of-turn model, the recorder and the recogniser.

First in the pipeline on a phone call (the media socket feeds it directly), right behind the transport's input
in a browser call. One listener instead of a frame's walk through many processors: what goes on is only what the
recogniser needs, and the edges of speech.

Never decides about a turn: it says when the caller starts and pauses, and asks the turn model when it is told to.
"""

import asyncio
import math
from typing import Protocol

import numpy as np
from loguru import logger
from numpy.typing import NDArray
from pipecat.frames.frames import Frame, InputAudioRawFrame, StartFrame, VADUserStartedSpeakingFrame
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup

from processors.frames import CallerPausedFrame, CallerResumedFrame, CallerStoppedFrame
from processors.speech_models import SpeechModels, VoiceStream
from processors.voice_activity import WINDOW_S, Edge, Voice, VoiceActivity, VoiceActivityParams

_SILENT_DB = -100.0
_SPEECH_FORWARD_S = 0.02
_QUIET_FORWARD_S = 0.08
"""The recogniser gets pieces of this length at least: the end of a word does not wait for company, silence may."""
_TURN_AUDIO_S = 8.0
_PRE_SPEECH_S = 0.5
_FORGET_AFTER_S = 2.0
"""Quiet after which the voice model's memory is cleared: long line noise leaves it deaf to what follows."""
_MAX_WAITING_WINDOWS = 64
VERDICT_LIMIT_S = 0.25
"""A turn model that is slower than this is not waited for; silence has nearly decided by then."""


class CallerAudioSink(Protocol):
    """Gets everything the caller says, to record it."""

    def caller_audio(self, pcm: bytes) -> None:
        """Take the next audio, s16le mono at the call's rate."""
        ...


class CallerSoundListener(Protocol):
    """Told at once of every sound that may be the caller's voice. Must not wait."""

    def onset(self, now_s: float) -> None:
        """A sound begins."""
        ...

    def noise(self, now_s: float, *, may_be_word: bool) -> None:
        """It was over before it could be speech for sure.

        Args:
            now_s: When that is known.
            may_be_word: Whether it was voiced for long enough to be a short word.
        """
        ...


class AudioGate(Protocol):
    """Silences what is noise."""

    async def start(self, sample_rate: int) -> None:
        """Begin, with a rate in Hz."""
        ...

    def apply(self, pcm: bytes) -> bytes:
        """Return the audio, or silence of the same length. s16le mono, whole samples."""
        ...


class WindowWatch(Protocol):
    """Looks at every window of the caller's audio."""

    def caller_window(
        self, samples: NDArray[np.float32], level_db: float, probability: float, now_s: float
    ) -> None:
        """Take a window of 32 ms, -1..1, with its level in dBFS and its probability of voice."""
        ...


class CallerListener(Protocol):
    """Told when the caller speaks. Times are those of the event loop's clock, in seconds."""

    def caller_started(self, now_s: float) -> None:
        """The caller has begun to speak."""
        ...

    def caller_stopped(self, speech_end_s: float, now_s: float) -> None:
        """The caller has stopped, the last sound was at `speech_end_s`."""
        ...


class CallerAudioProcessor(FrameProcessor):
    """Turns the caller's audio into edges of speech and feeds the recogniser.

    One task takes windows in order; `feed` never waits.
    """

    def __init__(
        self,
        models: SpeechModels,
        *,
        rate_hz: int,
        params: VoiceActivityParams,
        listener: CallerListener | None = None,
        gate: AudioGate | None = None,
        sounds: CallerSoundListener | None = None,
        watch: WindowWatch | None = None,
        sink: CallerAudioSink | None = None,
    ) -> None:
        """Create the processor.

        Args:
            models: The process's shared models.
            rate_hz: Rate of the caller's audio, 8000 or 16000.
            params: When sound counts as speech.
            listener: Told of speech edges.
            gate: Silences noise for the models and the recogniser; the recorder hears all.
            sounds: Told of sounds before they are known to be speech.
            watch: Gets every window, for what is on the line besides speech.
            sink: Gets a copy of all audio.
        """
        super().__init__()
        self._models = models
        self._rate_hz = rate_hz
        self._stream = VoiceStream(rate_hz)
        self._activity = VoiceActivity(params)
        self._listener = listener
        self._gate = gate
        self._sounds = sounds
        self._watch = watch
        self._sink = sink
        self._last_voice_s = -math.inf
        self._speech_forward_bytes = round(_SPEECH_FORWARD_S * rate_hz) * 2
        self._quiet_forward_bytes = round(_QUIET_FORWARD_S * rate_hz) * 2
        self._window_bytes = self._stream.window_samples * 2
        self._turn_bytes = round(_TURN_AUDIO_S * rate_hz) * 2
        self._pre_speech_bytes = round(_PRE_SPEECH_S * rate_hz) * 2
        self._unforwarded = bytearray()
        self._unscored = bytearray()
        self._turn_audio = bytearray()
        self._windows: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING_WINDOWS)
        self._listening: asyncio.Task[None] | None = None
        self._started = False
        self._in_turn = False
        self._quiet_s = 0.0
        self.windows_dropped = 0
        """Windows thrown away because the models could not keep up."""

    @property
    def is_caller_speaking(self) -> bool:
        """Whether the caller is speaking, short pauses included."""
        return self._activity.state in (Voice.SPEAKING, Voice.PAUSING)

    def quiet_s(self) -> float:
        """Return how long no voice of the caller has been heard, in seconds."""
        return asyncio.get_running_loop().time() - self._last_voice_s

    async def feed(self, pcm: bytes, *, is_recorded: bool = False) -> None:
        """Take the next audio of the caller.

        Args:
            pcm: s16le mono at the call's rate, any length; 20 ms on a phone.
            is_recorded: Whether the recorder has it already: it was said before the pipeline was there.
        """
        if not self._started:
            return
        if self._sink and not is_recorded:
            self._sink.caller_audio(pcm)
        if self._gate:
            pcm = self._gate.apply(pcm)
        self._unscored += pcm
        while len(self._unscored) >= self._window_bytes:
            window = bytes(self._unscored[: self._window_bytes])
            del self._unscored[: self._window_bytes]
            self._queue_window(window)
        self._unforwarded += pcm
        is_quiet = self._activity.state is Voice.QUIET
        if len(self._unforwarded) >= (self._quiet_forward_bytes if is_quiet else self._speech_forward_bytes):
            await self._forward()

    async def caught_up(self) -> None:
        """Wait until the models have heard all that was fed, and whoever listens was told of it."""
        await self._windows.join()

    async def turn_verdict(self) -> float | None:
        """Return how finished the caller's words sound, 0..1, or None if that is not known in time."""
        pcm = bytes(self._turn_audio[-self._turn_bytes :])
        try:
            async with asyncio.timeout(VERDICT_LIMIT_S):
                return await self._models.turn_probability(pcm, self._rate_hz)
        except TimeoutError:  # what waits in the model's queue is taken out of it, too
            return None
        except Exception as error:  # noqa: BLE001 - without the model, silence decides
            logger.error("{} turn model failed: {}", self, error)
            return None

    def end_turn(self) -> None:
        """Forget the audio of the caller's turn: the next one is judged by itself."""
        self._in_turn = False
        del self._turn_audio[: -self._pre_speech_bytes]

    # Frame processor

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Start listening."""
        await super().setup(setup)
        if self._gate:
            await self._gate.start(self._rate_hz)
        self._listening = self.create_task(self._listen(), "caller_audio")

    async def cleanup(self) -> None:
        """Stop listening; called once when the call ends, however it ends."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await self.cancel_task(listening)
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take audio that comes as frames (a browser's), pass everything else."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self.feed(frame.audio)
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._started = True

    # Inside

    def _queue_window(self, window: bytes) -> None:
        if self._windows.full():
            self._windows.get_nowait()
            self._windows.task_done()
            self.windows_dropped += 1
        self._windows.put_nowait(window)

    async def _forward(self) -> None:
        pcm = bytes(self._unforwarded)
        self._unforwarded.clear()
        if pcm:
            await self.push_frame(InputAudioRawFrame(audio=pcm, sample_rate=self._rate_hz, num_channels=1))

    async def _listen(self) -> None:
        while True:
            await self._listen_to(await self._windows.get())
            self._windows.task_done()

    async def _listen_to(self, window: bytes) -> None:
        samples = np.frombuffer(window, dtype=np.int16).astype(np.float32) / 32768.0
        level_db = _level_db(samples)
        probability = await self._probability(samples, level_db)
        if self._watch:
            self._watch.caller_window(samples, level_db, probability, self.get_event_loop().time())
        self._keep(window)
        for edge in self._activity.step(probability, level_db):
            await self._on_edge(edge)
        if self._activity.state in (Voice.STARTING, Voice.SPEAKING):
            self._last_voice_s = self.get_event_loop().time()

    async def _probability(self, samples: NDArray[np.float32], level_db: float) -> float:
        if not self._activity.wants_probability(level_db):
            self._quiet_s += WINDOW_S
            if self._quiet_s >= _FORGET_AFTER_S and not self.is_caller_speaking:
                self._quiet_s = 0.0
                self._stream.forget()
            return 0.0
        self._quiet_s = 0.0
        try:
            return await self._models.voice_probability(self._stream, samples)
        except Exception as error:  # noqa: BLE001 - a deaf window is better than a dead call
            logger.error("{} voice model failed: {}", self, error)
            return 0.0

    def _keep(self, window: bytes) -> None:
        self._turn_audio += window
        limit = self._turn_bytes if self._in_turn else self._pre_speech_bytes
        if len(self._turn_audio) > limit + self._rate_hz:  # cut half a second at a time, not every window
            del self._turn_audio[:-limit]

    async def _on_edge(self, edge: Edge) -> None:
        now_s = self.get_event_loop().time()
        if edge is Edge.ONSET:
            if self._sounds:
                self._sounds.onset(now_s)
            await self._forward()
        elif edge in (Edge.NOISE, Edge.SHORT):
            if self._sounds:
                self._sounds.noise(now_s, may_be_word=edge is Edge.SHORT)
            if edge is Edge.SHORT:  # the recogniser knows whether it was a word
                await self._pause(now_s)
        elif edge is Edge.STARTED:
            self._in_turn = True
            if self._listener:
                self._listener.caller_started(now_s)
            await self.push_frame(VADUserStartedSpeakingFrame(start_secs=self._activity.params.min_speech_s))
        elif edge is Edge.PAUSED:
            await self._pause(now_s)
        elif edge is Edge.RESUMED:
            await self.push_frame(CallerResumedFrame())
        else:
            at_s = now_s - self._activity.unvoiced_s
            if self._listener:
                self._listener.caller_stopped(at_s, now_s)
            await self._forward()
            await self.push_frame(CallerStoppedFrame(stop_secs=self._activity.params.pause_s, at_s=at_s))

    async def _pause(self, now_s: float) -> None:
        await self._forward()  # the recogniser may be asked to finalize: it must have everything
        await self.push_frame(CallerPausedFrame(at_s=now_s - self._activity.unvoiced_s))


def _level_db(samples: NDArray[np.float32]) -> float:
    power = float(np.dot(samples, samples)) / len(samples)
    return 10.0 * math.log10(power) if power > 1e-10 else _SILENT_DB
