"""Rendered lines of an agent: how each is keyed, and how one is rendered when the cache has none.

Rendering runs the agent's own voice service in a pipeline of two, so that what is cached is what a call would
have said, word times included.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from loguru import logger
from pipecat.frames.frames import (
    ControlFrame,
    Frame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from bot.agent import Agent, ServiceChoice
from bot.lines import cacheable_lines
from bot.services import HoldsSocket, ServiceContext, build_tts
from processors.audio_cache import (
    SAMPLE_BYTES,
    AudioCache,
    CachedSpeech,
    CachedWord,
    SpeechKey,
    digest_settings,
)
from processors.frames import SpeechAnchorFrame
from processors.hosted_voice import HostedVoice

RENDER_LIMIT_S = 15.0
"""Longest time to render one line."""
RELEASE_LIMIT_S = 2.0
"""Longest time to end the pipeline that rendered a line."""
MAX_RENDERINGS = 4
"""At a time; the smallest plans of the voice vendors allow two to five."""
MAX_FAILURES_IN_A_ROW = 3
"""A voice that fails so often is down: the other lines are not tried, each of which would take its time to fail."""
_NS_PER_S = 1_000_000_000
_SILENT_OPTIONS = frozenset({"concurrency"})
"""Options that change nothing of how a voice sounds."""


def speech_key(agent: Agent, text: str, rate_hz: int, choice: ServiceChoice | None = None) -> SpeechKey:
    """Return the cache key of a line in the voice that the agent's calls start with, or in that of `choice`."""
    choice = choice or agent.config.services.tts[0]
    options = {name: option for name, option in choice.options.items() if name not in _SILENT_OPTIONS}
    return SpeechKey.of(
        vendor=choice.name,
        voice=agent.config.voices[choice.name],
        model=str(choice.options.get("model", "default")),
        rate_hz=rate_hz,
        text=text,
        settings_digest=digest_settings({"language": agent.config.language, **options}),
    )


async def render(
    agent: Agent, text: str, services: ServiceContext, choice: ServiceChoice | None = None
) -> CachedSpeech | None:
    """Have the agent's first voice say a line, or that of `choice`.

    Returns:
        The line, or None if the voice failed, did not say all of it, or took longer than `RENDER_LIMIT_S`.
    """
    choice = choice or agent.config.services.tts[0]
    collector = _Collector()
    voice = build_tts(choice.name, choice.options, services)
    worker = PipelineWorker(
        Pipeline([voice, collector]),
        params=PipelineParams(
            audio_in_sample_rate=services.audio_in_hz,
            audio_out_sample_rate=services.audio_out_hz,
            send_initial_empty_metrics=False,
        ),
        enable_rtvi=False,
        enable_turn_tracking=False,
        idle_timeout_secs=None,
        cancel_timeout_secs=1.0,
        check_dangling_tasks=False,
    )
    runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
    await runner.add_workers(worker)
    # Not an EndFrame: what cancels would have to wait behind it.
    await worker.queue_frames([TTSSpeakFrame(text), _LineOverFrame()])
    running = asyncio.create_task(runner.run())
    over = asyncio.create_task(collector.over.wait())
    try:
        done, _ = await asyncio.wait(
            {running, over}, timeout=RENDER_LIMIT_S, return_when=asyncio.FIRST_COMPLETED
        )
    finally:  # also when nobody waits for the line any more
        over.cancel()
        await worker.cancel()
        await asyncio.wait({running}, timeout=RELEASE_LIMIT_S)
        if isinstance(voice, HoldsSocket):
            voice.drop_socket()
    if not done:
        logger.warning("rendering a line took longer than {} s", RENDER_LIMIT_S)
        return None
    return collector.speech(services.audio_out_hz)


def line_in_memory(cache: AudioCache, agent: Agent, text: str, rate_hz: int) -> CachedSpeech | None:
    """Return a line if it is in memory; never waits."""
    return cache.get_now(speech_key(agent, text, rate_hz))


async def warm(agent: Agent, services: ServiceContext, cache: AudioCache, *, more: Iterable[str] = ()) -> int:
    """Render every line of an agent, and `more`, that the cache does not have; `MAX_RENDERINGS` at a time.

    Returns:
        How many lines could not be rendered.
    """
    missing = iter(dict.fromkeys((*cacheable_lines(agent.config), *more)))
    failed = failed_in_a_row = 0

    async def render_on() -> None:
        nonlocal failed, failed_in_a_row
        for text in missing:
            key = speech_key(agent, text, services.audio_out_hz)
            if await cache.get(key) is not None:
                continue
            is_tried = failed_in_a_row < MAX_FAILURES_IN_A_ROW
            speech = await render(agent, text, services) if is_tried else None
            if speech is None:
                failed += 1
                failed_in_a_row += 1
            else:
                failed_in_a_row = 0
                await cache.put(key, speech)

    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_RENDERINGS):
            group.create_task(render_on())
    return failed


async def measure_voices(agent: Agent, services: ServiceContext, cache: AudioCache) -> None:
    """Find out how loud each of the agent's voices is, from its greeting; rendered once, like any line.

    Takes `RENDER_LIMIT_S` for each voice that hangs.
    """
    rate_hz, text = services.audio_out_hz, agent.config.greeting
    choices = agent.config.services.tts
    for choice in choices if len(choices) > 1 else ():
        key = speech_key(agent, text, rate_hz, choice)
        speech = await cache.get(key)
        if speech is None and (speech := await render(agent, text, services, choice)) is not None:
            await cache.put(key, speech)
        if speech is None:
            logger.warning("it is not known how loud the voice of {} is", choice.name)
            continue
        voice = build_tts(choice.name, choice.options, services)
        if isinstance(voice, HostedVoice):
            services.loudness.hear(voice.sound, speech.pcm, rate_hz)


class LineRenderer:
    """Renders lines that a call had to say without the cache, so that the next call has them.

    Each line once, at most `MAX_RENDERINGS` at a time; one more is left for another call to ask for.
    """

    def __init__(self, cache: AudioCache) -> None:
        """Render into `cache`."""
        self._cache = cache
        self._running: dict[SpeechKey, asyncio.Task[None]] = {}

    def ask(self, agent: Agent, text: str, services: ServiceContext) -> None:
        """Render a line in the background. Returns at once."""
        key = speech_key(agent, text, services.audio_out_hz)
        if key in self._running or len(self._running) >= MAX_RENDERINGS:
            return
        task = asyncio.create_task(self._render(key, agent, text, services), name="render_line")
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))

    async def close(self) -> None:
        """Stop what is being rendered."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _render(self, key: SpeechKey, agent: Agent, text: str, services: ServiceContext) -> None:
        if await self._cache.get(key) is not None:  # who asks may have looked in memory only
            return
        speech = await render(agent, text, services)
        if speech is not None:
            await self._cache.put(key, speech)


@dataclass
class _LineOverFrame(ControlFrame):
    """Travels behind a line: comes out when the voice is done with it, whether it said all of it or not."""


class _Collector(FrameProcessor):
    """Keeps the audio and the words of one utterance.

    When the voice's socket drops, Pipecat ends the utterance with what has come, without an error and without a
    `TTSStoppedFrame`; Cartesia's errors do come with one. The rest of the text gets the time of the last word, as the
    last word of a whole line does when ElevenLabs streams tokens. Source: `TTSService._end_audio_context`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.over = asyncio.Event()
        """Set when nothing more comes."""
        self._pcm = bytearray()
        self._starts: list[tuple[str, float]] = []
        self._anchor_ns = 0
        self._last_pts = 0
        self._untimed_words = 0
        """How many words at the end were never timed."""
        self._is_ended = False
        """Whether the voice said so itself."""

    def speech(self, rate_hz: int) -> CachedSpeech | None:
        """Return what was said, or None if that is nothing or only a part."""
        if not self._pcm:
            return None
        if not self._is_ended or self._untimed_words > 1 or len(self._pcm) % SAMPLE_BYTES:
            logger.warning("a rendered line is not whole and is not kept")
            return None
        length_s = len(self._pcm) / (SAMPLE_BYTES * rate_hz)
        ends = [start for _, start in self._starts[1:]] + [length_s]
        words = tuple(
            CachedWord(text, start, max(start, end))
            for (text, start), end in zip(self._starts, ends, strict=True)
        )
        return CachedSpeech(bytes(self._pcm), rate_hz, words)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, SpeechAnchorFrame):
            self._anchor_ns = frame.anchor_ns
        elif isinstance(frame, TTSAudioRawFrame):
            self._pcm += frame.audio
        elif isinstance(frame, TTSTextFrame):
            self._take_word(frame.text, frame.pts or self._last_pts)
        elif isinstance(frame, TTSStoppedFrame):
            self._is_ended = True
        elif isinstance(frame, _LineOverFrame):
            self.over.set()
        await self.push_frame(frame, direction)

    def _take_word(self, text: str, pts: int) -> None:
        is_timed = pts != self._last_pts
        self._last_pts = pts
        if is_timed:
            self._untimed_words = 0
        else:
            self._untimed_words += sum(any(map(str.isalnum, word)) for word in text.split())
        self._starts.append((text, max(0.0, (pts - self._anchor_ns) / _NS_PER_S)))
