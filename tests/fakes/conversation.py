"""A whole call on a virtual clock: the product's own graph between a scripted caller and vendors that keep books.

Real are all processors of `bot.pipeline.build_graph`, in its order, and Pipecat's own parts; stand-ins are the
recogniser, the model, the voice, the models that listen, and the far end. Every sample the voice makes tells its place
in all that was ever said, so what the phone played is known to the sample, whatever the playout believes.
"""

import asyncio
import contextlib
import dataclasses
import functools
import math
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    EagerEndOfTurnCancelFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    UserStoppedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings, TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.workers.runner import WorkerRunner

from bot.agent import Agent
from bot.flow_check import load_checked_agents
from bot.pipeline import CallGraph, GraphParts, build_graph, build_playout
from bot.services import ServiceContext
from bot.vendor_clients import VendorClients
from processors.anchored_speech import AnchoredSpeech
from processors.clause_aggregator import ClauseAggregator
from processors.confidence import Trust
from processors.frames import CallerPausedFrame, TranscriptFlushedFrame
from processors.playout import SpokenWord
from processors.speculation import SpeculativeLLM, SpeculativeTTS
from processors.speech_models import SpeechModels
from processors.stt_failover import FailoverSTT
from processors.turn_record import TurnLedger
from tests.fakes.far_end import FarEnd

RATE = 8000
BLOCK = 8
"""Samples that share a value, 1 ms: so long a stretch is a place."""
_LOUDEST = 32_700
_SOFTEST = 200
"""Above the level at which the playout takes a sample for silence."""
_PLACES = 2 * (_LOUDEST - _SOFTEST)
_WINDOW_S = 0.032
_AFTER_SOUND_S = 0.5
"""Quiet fed behind a sound, until nothing more can come of it."""
_SYLLABLES = [a + b for a in "bdfgklmnprtvz" for b in "aeiou"]
_STRIDE = 104_729
"""Between the numbers of two words, so that neighbours are not alike: an echo is judged by likeness."""
FLOWS = Path(__file__).parent.parent.parent / "flows"


def invented_word(number: int) -> str:
    """Return a word of its own for every number, which no list of the product's knows."""
    word, number = "", (number + 1) * _STRIDE
    for _ in range(3):
        number, rest = divmod(number, len(_SYLLABLES))
        word = _SYLLABLES[rest] + word
    return word


# What the agent says


@dataclass
class Word:
    """A word, and where in all that was ever said it is."""

    text: str
    start: int
    end: int
    is_followed: bool
    """Whether the voice told with it what comes behind it, so that its end was known."""
    closed_s: float = math.inf
    """When the voice told that nothing comes behind it."""


@dataclass(eq=False)
class Reply:
    """An answer of the model's, or a fixed line."""

    epoch: int
    """Interruptions that came before it: by the next one it is over."""
    is_protected: bool = False
    asked: str | None = None
    """What the caller said that it answers; None for a fixed line."""
    is_ahead: bool = False
    """Begun before the turn was over."""
    verdict: str | None = None
    """What became of the turn it was begun ahead of: "confirmed" or "withdrawn"."""
    verdict_s: float = 0.0
    texts: list[str] = field(default_factory=list[str])
    """Its words as far as the model has told them."""
    words: list[Word] = field(default_factory=list[Word])
    """Its words as far as the voice has spoken them."""
    asked_s: float = 0.0


class Book:
    """All that was said, by whom, and when the agent was interrupted."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.of_word: dict[str, Reply] = {}
        self.interrupted_s: list[float] = []
        """When each interruption was behind the playout."""
        self.withdrawn_s: list[float] = []
        """When the model was told that the turn it answers ahead is not over."""
        self._places = 0
        self._words = 0

    def new_words(self, reply: Reply, count: int) -> list[str]:
        """Invent words of a reply."""
        words = [invented_word(self._words + place) for place in range(count)]
        self._words += count
        for word in words:
            self.of_word[word] = reply
        return words

    def speak(self, words: Sequence[str], dice: random.Random) -> tuple[bytes, list[Word]]:
        """Return the sound of words and their places."""
        first = self._places
        spoken: list[Word] = []
        for text in words:
            start, self._places = self._places, self._places + dice.randrange(90, 420)
            spoken.append(Word(text, start, self._places, is_followed=True))
        assert self._places < _PLACES, "more was said than there are places"
        places = np.arange(first, self._places)
        values = np.where(places % 2 == 0, _SOFTEST + places // 2, -(_SOFTEST + places // 2))
        return np.repeat(values, BLOCK).astype("<i2").tobytes(), spoken


def places_of(samples: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return the place of each sample, -1 where nothing of the agent's was played."""
    values = samples.astype(np.int64)
    places = np.where(values > 0, (values - _SOFTEST) * 2, (-values - _SOFTEST) * 2 + 1)
    return np.where(np.abs(values) >= _SOFTEST, places, -1)


def bare(text: str) -> str:
    """Return a word without its marks."""
    return text.strip(" .,?!—").lower()


# Vendors


@dataclass
class Pace:
    """How fast the vendors are, in seconds."""

    first_token_s: float = 0.1
    token_s: float = 0.02
    first_audio_s: float = 0.1
    voice_speed: float = 5.0
    """Of the voice: seconds of audio per second; below 1 the wire runs dry."""
    verdict: float | None = 0.9
    """What the turn model thinks."""


class Recogniser(FrameProcessor):
    """Ends the caller's audio; says what it is told to, and answers when asked whether that was all."""

    def __init__(self) -> None:
        super().__init__()
        self.proposes_turns = False
        self.flush_s: float | None = 0.05
        """How long it takes to answer, None: it does not."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            return
        await self.push_frame(frame, direction)
        if isinstance(frame, CallerPausedFrame | VADUserStoppedSpeakingFrame) and self.flush_s is not None:
            asyncio.get_running_loop().call_later(self.flush_s, self.flushed)

    def flushed(self) -> None:
        """Say that this was all."""
        self.create_task(self.push_frame(TranscriptFlushedFrame()), "flushed")

    def understood(self, text: str, *, final: bool) -> None:
        """Push a transcript."""
        frame = (
            TranscriptionFrame(text, "caller", "", result=object())
            if final
            else InterimTranscriptionFrame(text, "caller", "")
        )
        self.create_task(self.push_frame(frame), "understood")


def _no_settings() -> LLMSettings:
    settings = LLMSettings()
    for one in dataclasses.fields(settings):
        if one.name != "extra":
            setattr(settings, one.name, None)
    return settings


class _ModelService(LLMService[Any]):
    """Answers whatever it is asked with a few sentences of new words."""

    def __init__(self, book: Book, pace: Pace, dice: random.Random) -> None:
        super().__init__(settings=_no_settings())
        self._book = book
        self._pace = pace
        self._dice = dice
        self._interruptions = 0
        self._ahead: Reply | None = None
        """The answer whose turn may not be over."""
        self.is_answering = False

    def can_generate_metrics(self) -> bool:
        return False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self._follow(frame)
        if isinstance(frame, LLMContextFrame):
            await self._answer(frame)
        else:
            await self.push_frame(frame, direction)

    def _follow(self, frame: Frame) -> None:
        if isinstance(frame, InterruptionFrame):
            self._interruptions += 1
        elif isinstance(frame, EagerEndOfTurnCancelFrame):
            self._book.withdrawn_s.append(asyncio.get_running_loop().time())
        if isinstance(frame, InterruptionFrame | EagerEndOfTurnCancelFrame):
            self._judge("withdrawn")
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._judge("confirmed")

    def _judge(self, verdict: str) -> None:
        if self._ahead is not None:
            self._ahead.verdict_s = asyncio.get_running_loop().time()
            self._ahead.verdict, self._ahead = verdict, None

    async def _answer(self, frame: LLMContextFrame) -> None:
        self._judge("withdrawn")  # by another in its place
        messages = [cast("dict[str, Any]", message) for message in frame.context.messages]
        asked = [str(message["content"]) for message in messages if message["role"] == "user"][-1]
        reply = Reply(
            self._interruptions,
            asked=asked,
            is_ahead=frame.speculation,
            asked_s=asyncio.get_running_loop().time(),
        )
        if frame.speculation:
            if self._speculation_gate.is_speculating:
                self._ahead = reply
            else:
                reply.verdict = "confirmed"  # before it was begun
        self._book.replies.append(reply)
        self.is_answering = True
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            await asyncio.sleep(self._pace.first_token_s)
            for token in self._tokens(reply):
                await self._say(token, reply)
                await asyncio.sleep(self._pace.token_s)
        except asyncio.CancelledError:
            # What the vendor had sent by then is read to its end.
            await self._say(f" {self._book.new_words(reply, 1)[0]}", reply)
            raise
        finally:
            self.is_answering = False
            await self.push_frame(LLMFullResponseEndFrame())

    async def _say(self, token: str, reply: Reply) -> None:
        reply.texts.append(bare(token))
        await self.push_frame(LLMTextFrame(token))

    def _tokens(self, reply: Reply) -> Iterator[str]:
        for _ in range(self._dice.randint(1, 3)):
            words = self._book.new_words(reply, self._dice.randint(1, 5))
            for word in words:
                end = self._dice.choice([".", ".", "?"]) if word is words[-1] else ""
                yield f" {word.capitalize() if word is words[0] else word}{end}"


class Model(SpeculativeLLM, _ModelService):
    """The model, with what the product mixes into its vendors'."""


class _VoiceService(TTSService):
    """A vendor on a socket: one context a reply, audio in pieces, each with the times of its words.

    It never hears that it was interrupted: whatever it was given it speaks to the end.
    """

    def __init__(self, book: Book, pace: Pace, dice: random.Random) -> None:
        super().__init__(
            sample_rate=RATE,
            push_text_frames=False,
            push_stop_frames=False,
            pause_frame_processing=dice.random() < 0.5,
            append_trailing_space=True,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self._text_aggregator = ClauseAggregator(language="en-US")
        self._book = book
        self._pace = pace
        self._dice = dice
        self._texts: dict[str, asyncio.Queue[str | None]] = {}
        self._speaking: set[asyncio.Task[None]] = set()

    @property
    def is_working(self) -> bool:
        """Whether anything was given to it that it has not spoken."""
        return bool(self._speaking)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        if not self.audio_context_available(context_id):
            await self.create_audio_context(context_id)
            yield TTSStartedFrame(context_id=context_id)
        if context_id not in self._texts:
            self._texts[context_id] = asyncio.Queue()
            task = self.create_task(self._speak_context(context_id), "vendor")
            self._speaking.add(task)
            task.add_done_callback(self._speaking.discard)
        self._texts[context_id].put_nowait(text)
        await self.start_tts_usage_metrics(text)
        yield None

    async def on_turn_context_completed(self) -> None:
        context_id = self._turn_context_id
        await super().on_turn_context_completed()
        if context_id in self._texts:
            self._texts[context_id].put_nowait(None)

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        await super().on_audio_context_interrupted(context_id)
        if context_id in self._texts:
            self._texts[context_id].put_nowait(None)

    async def cleanup(self) -> None:
        for task in tuple(self._speaking):
            await self.cancel_task(task)
        await super().cleanup()

    async def _speak_context(self, context_id: str) -> None:
        spoken_s = 0.0
        last: Word | None = None
        await asyncio.sleep(self._pace.first_audio_s)
        while (text := await self._texts[context_id].get()) is not None:
            words = text.split()
            while words:
                count = self._dice.randint(1, 4)
                piece, words = words[:count], words[count:]
                spoken_s, last = await self._speak_piece(piece, spoken_s, context_id)
        if self.audio_context_available(context_id):
            await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
            await self.remove_audio_context(context_id)
            if last is not None:
                last.closed_s = asyncio.get_running_loop().time()
        del self._texts[context_id]

    async def _speak_piece(self, words: list[str], spoken_s: float, context_id: str) -> tuple[float, Word]:
        pcm, spoken = self._book.speak([bare(word) for word in words], self._dice)
        length_s = len(pcm) / 2 / RATE
        await asyncio.sleep(length_s / self._pace.voice_speed)
        if self.audio_context_available(context_id):
            spoken[-1].is_followed = False
            for word in spoken:
                self._book.of_word[word.text].words.append(word)
            audio = TTSAudioRawFrame(pcm, RATE, 1, context_id=context_id)
            await self.append_to_audio_context(context_id, audio)
            first = spoken[0].start
            times = [
                (text, spoken_s + (word.start - first) * BLOCK / RATE)
                for text, word in zip(words, spoken, strict=True)
            ]
            await self.add_word_timestamps(times, context_id)
        return spoken_s + length_s, spoken[-1]


class Voice(SpeculativeTTS, AnchoredSpeech, _VoiceService):
    """The voice, with what the product mixes into its vendors'; it never fails, so that no other stands in for it."""

    def follow_playout(
        self, buffered_s: Callable[[], float | None], *, unsent_s: Callable[[], float]
    ) -> None:
        """Do without what only a voice that fails must know."""


class ListeningModels:
    """Says that what is loud is a voice, and always the same about a turn."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def voice_probability(self, stream: object, window: NDArray[np.float32]) -> float:
        return 0.95 if float(np.abs(window).max()) > 0.01 else 0.0

    async def turn_probability(self, pcm: bytes, rate_hz: int) -> float | None:
        await asyncio.sleep(0.03)
        return self._pace.verdict


class Listener(TurnLedger):
    """The turn ledger; it notes when the agent was paused, too."""

    def __init__(self) -> None:
        super().__init__(started_s=0.0)
        self.pauses: list[tuple[float, float]] = []
        """Each time the agent fell silent in mid-speech, and when that was over."""
        self._paused_s: float | None = None

    def agent_paused(self, now_s: float) -> None:
        super().agent_paused(now_s)
        self._paused_s = now_s

    def agent_resumed(self, now_s: float) -> None:
        super().agent_resumed(now_s)
        self._pause_over(now_s)

    def agent_stopped(self, cut: bool, now_s: float) -> None:
        super().agent_stopped(cut, now_s)
        self._pause_over(now_s)

    @property
    def is_paused(self) -> bool:
        return self._paused_s is not None

    def _pause_over(self, now_s: float) -> None:
        paused_s, self._paused_s = self._paused_s, None
        if paused_s is not None:
            self.pauses.append((paused_s, now_s))


class BehindPlayout(FrameProcessor):
    """Stands where a browser's output would: sees an interruption when the playout has done its part."""

    def __init__(self, book: Book) -> None:
        super().__init__(enable_direct_mode=True)
        self._book = book

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame) and direction is FrameDirection.DOWNSTREAM:
            self._book.interrupted_s.append(asyncio.get_running_loop().time())
        await self.push_frame(frame, direction)


# The call


@functools.cache
def front_desk() -> Agent:
    """Return the shipped receptionist."""
    return load_checked_agents(FLOWS)["reception"].agent


class Conversation:
    """One call. The caller is moved by methods; what came of it stands in `book`, `messages` and `far_end`."""

    def __init__(
        self,
        dice: random.Random,
        *,
        pace: Pace | None = None,
        delay_s: float = 0.02,
        lost_marks: float = 0.0,
        late_marks_s: float = 0.0,
    ) -> None:
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        pace = pace or Pace()
        self.book = Book()
        self.turns = Listener()
        self.recogniser = Recogniser()
        self.model = Model(self.book, pace, dice)
        self.voice = Voice(self.book, pace, dice)
        self.sounds: list[tuple[float, float]] = []
        """When the caller made a sound."""
        with (
            patch("bot.pipeline.build_hearing", lambda *_: cast(FailoverSTT, self.recogniser)),
            patch("bot.pipeline.build_models", lambda *_, **__: self.model),
            patch("bot.pipeline.build_voice", lambda *_: self.voice),
        ):
            self.graph = self._build(pace)
        self.far_end = FarEnd(
            self.graph.playout.mark_played, dice, lost_marks=lost_marks, late_marks_s=late_marks_s
        )
        self.far_end.delay_s = delay_s
        self._voice_until_s = 0.0
        self._noise = (np.random.default_rng(1).uniform(-0.3, 0.3, 256) * 32_767).astype("<i2").tobytes()

    def _build(self, pace: Pace) -> CallGraph:
        agent = front_desk()
        return build_graph(
            GraphParts(
                agent,
                ServiceContext(cast(VendorClients, None), RATE, RATE, "en-US", agent.config.voices),
                cast(SpeechModels, ListeningModels(pace)),
                self.turns,
                build_playout(agent.config, rate_hz=RATE, turns=self.turns, recording=None),
                recording=None,
                opener=lambda _: None,
                opener_missing=lambda _: None,
                openers=tuple,
                on_sentence=lambda _: None,
                on_line_sound=lambda _: None,
                flow_node=lambda: None,
                ask=self._ask,
                give_up=self._ask,
                repair_listener=self,
                transport_out=(BehindPlayout(self.book),),
            )
        )

    def failed_turn(self, count: int) -> bool:
        """The caller is asked again."""
        return True

    def heard(self, trust: Trust) -> None:
        """Words were understood."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the call for as long as the block lasts."""
        runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
        await runner.add_workers(self.graph.worker)
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0.1)
        self.graph.playout.connect(self.far_end)
        microphone = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            microphone.cancel()
            await self.graph.worker.cancel()
            await running

    def messages(self, role: str) -> list[str]:
        """Return what stands in the model's memory of one side."""
        messages = [cast("dict[str, Any]", message) for message in self.graph.context.get_messages()]
        return [str(message["content"]) for message in messages if message["role"] == role]

    # The caller

    def sound(self, seconds: float) -> None:
        """Make a sound, or go on with one."""
        now_s = self._loop.time()
        self._voice_until_s = max(self._voice_until_s, now_s + seconds)
        self.sounds.append((now_s, now_s + seconds))

    @property
    def is_sounding(self) -> bool:
        """Whether the caller makes a sound."""
        return self._loop.time() < self._voice_until_s

    async def press(self, key: str) -> None:
        """Press a key."""
        await self.graph.caller.push_frame(InputDTMFFrame(KeypadEntry(key)))

    async def _listen(self) -> None:
        while True:
            now_s = self._loop.time()
            if now_s < self._voice_until_s:
                await self.graph.caller.feed(self._noise)
            elif now_s < self._voice_until_s + _AFTER_SOUND_S:
                await self.graph.caller.feed(bytes(len(self._noise)))
            await asyncio.sleep(_WINDOW_S)

    # The agent

    async def _ask(self, line: str) -> None:
        self.say(3)

    def say(self, count: int, *, is_protected: bool = False) -> Reply:
        """Say a fixed line of new words, behind whatever is being said."""
        reply = Reply(len(self.book.interrupted_s), is_protected=is_protected, asked_s=self._loop.time())
        self.book.replies.append(reply)
        reply.texts = self.book.new_words(reply, count)
        pcm, reply.words = self.book.speak(reply.texts, self._dice)
        first = reply.words[0].start
        words = [SpokenWord(word.text, (word.start - first) * BLOCK / RATE) for word in reply.words]
        self.graph.playout.speak(pcm, words, is_interruptible=not is_protected)
        return reply

    @property
    def is_idle(self) -> bool:
        """Whether nothing is going on that could change what is heard."""
        playout = self.graph.playout
        return (
            not self.is_sounding
            and not self.model.is_answering
            and not self.voice.is_working
            and not playout.is_speaking
            and playout.remaining_s == 0.0
        )
