"""The parts of a call that speak and react, around a conversation on a virtual clock: see `tests.fakes.conversation`.

Real are the call's own parts and its whole pipeline; stand-ins are the vendors, the far end and the audio cache.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

from bot.build_queue import BuildQueue
from bot.call_life import EndReason
from bot.call_pipeline import CallPipeline
from bot.call_speech import CallSpeech
from bot.farewell import Farewell
from bot.pipeline import CallGraph
from bot.pipeline_events import PipelineEvents, Reactions
from bot.ready_lines import ReadyLines
from bot.resources import Resources
from bot.voice_lines import speech_key
from processors.audio_cache import CachedSpeech, SpeechKey
from processors.familiar_lines import FamiliarLines
from tests.fakes.conversation import RATE, Conversation, Reply, bare, front_desk

LINE_S = 1.0
"""Length of every rendered line."""


class RenderedLines:
    """`Resources`, as far as `ReadyLines` needs them: lines in memory, and a list of those that are to be rendered."""

    def __init__(self, *texts: str) -> None:
        self.asked: list[str] = []
        """Lines to be rendered, in their order."""
        self.audio = self
        self.renderer = SimpleNamespace(ask=lambda _, text, __: self.asked.append(text))
        self._familiar = FamiliarLines()
        self._sounds: dict[SpeechKey, CachedSpeech] = {}
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        loud = (5000).to_bytes(2, "little", signed=True) * round(LINE_S * RATE)
        self._sounds[speech_key(front_desk(), text, RATE)] = CachedSpeech(loud, RATE)

    async def get(self, key: SpeechKey) -> CachedSpeech | None:
        return self.get_now(key)

    def get_now(self, key: SpeechKey) -> CachedSpeech | None:
        return self._sounds.get(key)

    def services(self, *_: object) -> None:
        return None

    def familiar_lines(self, _: object) -> FamiliarLines:
        return self._familiar

    def lines(self, call_sid: str = "CA1") -> ReadyLines:
        """Return a call's view of them."""
        return ReadyLines(front_desk(), cast(Resources, self), rate_hz=RATE, call_sid=call_sid)


class CallRig:
    """Make it, then use it within `running`."""

    def __init__(self, *rendered: str) -> None:
        """`rendered` are the lines whose sound there is."""
        self.talk = Conversation(random.Random(1))
        self.pipeline = CallPipeline(self.talk.graph.playout, BuildQueue())
        self.pipeline.graph = self.talk.graph
        self.pipeline._built.set()
        self.rendered = RenderedLines(*rendered)
        self.over = asyncio.Event()
        self.ends: list[EndReason] = []
        """What the parts ended the call for."""
        self.happened: list[tuple[str, Any]] = []
        """What the pipeline told: the reaction's name, and what came with it."""
        self.speech = CallSpeech(self.rendered.lines(), self.pipeline, language="en-US", over=self.over)
        self.farewell = Farewell(self.speech, self.pipeline, language="en-US", end=self.end)

    @property
    def graph(self) -> CallGraph:
        return self.talk.graph

    def end(self, reason: EndReason) -> None:
        self.ends.append(reason)
        self.over.set()

    def teach_voice(self, text: str) -> None:
        """The voice only knows words that somebody said: let it know these."""
        for word in text.split():
            self.talk.book.of_word[bare(word)] = Reply(0)

    def heard(self) -> str:
        """Return what the caller has heard."""
        running = self.talk.turns.snapshot()
        turns = [*self.talk.turns.turns(), *([running] if running else [])]
        return " ".join(turn.agent_text for turn in turns if turn.agent_text)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the pipeline, and note what it tells, for as long as the block lasts."""
        PipelineEvents(self._reactions()).listen_to(self.graph)
        async with self.talk.running():
            yield

    def _reactions(self) -> Reactions:
        def note(name: str) -> Callable[..., None]:
            return lambda *told: self.happened.append((name, told[0] if told else None))

        def note_later(name: str) -> Callable[..., Awaitable[None]]:
            async def reaction(*told: Any) -> None:
                note(name)(*told)

            return reaction

        return Reactions(
            started=note_later("started"),
            turn_started=note("turn_started"),
            turn_stopped=note("turn_stopped"),
            reply_over=note("reply_over"),
            caller_silent=note_later("caller_silent"),
            last_word_heard=note("last_word_heard"),
            used=note("used"),
            voice_failed=note("voice_failed"),
            voices_failed=note_later("voices_failed"),
            recogniser_failed=note("recogniser_failed"),
            recognisers_failed=note_later("recognisers_failed"),
        )
