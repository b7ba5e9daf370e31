"""The agent's audio between the voice and the wire: sent at real time with a lead, said once it was heard.

Place directly before the assistant aggregator, which should run in direct mode. Audio ends here: it goes to
the `PlayoutWire`, not down the pipeline. All that comes with it (a word's text, the end of a reply, tool
results) is held and pushed on when the caller has *heard* what stands before it, so the model's context holds
heard text only and "bot stopped speaking" means that the caller's ear is free. Behind words that were cut stands
`CUT_MARK`.

What was said, sent and heard is decided by `PlayoutLedger`; this is its shell: one task sends and releases. Who may
pause it decides `barge_in`; left paused it goes on by itself.
"""

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    Frame,
    InterruptionFrame,
    LLMAssistantPushAggregationFrame,
    LLMFullResponseEndFrame,
    StartFrame,
    SystemFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.utils.text.base_text_aggregator import TextType

from processors.frames import CachedSpeechFrame, SpeechAnchorFrame
from processors.playout_ledger import PlayoutLedger, SendAudio

CUT_MARK = "—"
"""Behind the heard words of an utterance that was cut, in the model's context."""
LONGEST_PAUSE_S = 5.0
"""A playout that nobody resumes goes on."""
LONGEST_GATE_S = 1.0
"""A reply waits no longer than this for the caller to be quiet: noise is not speech."""
RECENT_S = 6.0
"""Words heard this long ago may still come back as an echo."""
SOON_S = 1.0
"""Words that will be heard within this time may be on the line already."""
_NS_PER_S = 1_000_000_000


class PlayoutWire(Protocol):
    """Where the agent's audio goes: a phone's media stream, a browser's audio track.

    The wire calls `PlayoutProcessor.mark_played` when what was sent before a mark has been played.
    """

    async def send_audio(self, pcm: bytes) -> None:
        """Give audio to the far end. s16le mono at the call's rate; may be ahead of real time."""
        ...

    async def send_mark(self, name: str) -> None:
        """Ask for a sign when all audio sent so far has been played."""
        ...

    async def clear(self) -> None:
        """Throw away what was sent and not played."""
        ...


class PlayoutListener(Protocol):
    """Told what the caller hears. All times are those of the event loop's clock, in seconds."""

    def tts_first_audio(self, now_s: float) -> None:
        """The first audio of an utterance came from the voice."""
        ...

    def audio_sent(self, now_s: float) -> None:
        """Audio left for the wire."""
        ...

    def heard_started(self, now_s: float) -> None:
        """The agent became audible."""
        ...

    def heard_word(self, text: str, now_s: float) -> None:
        """The caller heard a word."""
        ...

    def agent_stopped(self, cut: bool, now_s: float) -> None:
        """The agent is no longer audible; `cut` if audio was thrown away."""
        ...

    def agent_paused(self, now_s: float) -> None:
        """What the agent says was stopped, for the time being."""
        ...

    def agent_resumed(self, now_s: float) -> None:
        """It goes on where it was stopped."""
        ...


class AgentAudioSink(Protocol):
    """Gets the agent's audio on the line's time, to record it."""

    def agent_audio(self, pcm: bytes, ahead_s: float) -> None:
        """Audio that will be heard from `ahead_s` seconds from now on."""
        ...

    def agent_dropped(self) -> None:
        """What has not been heard by now never will be."""
        ...


@dataclass(frozen=True)
class SpokenWord:
    """A word and where it starts in its utterance's audio."""

    text: str
    start_s: float


class PlayoutProcessor(FrameProcessor):
    """Plays the agent's utterances and tells the pipeline what was heard.

    SILENT --audio sent--> SPEAKING --everything heard and nothing open | interruption--> SILENT

    `pause` and `resume` change nothing of this: who is paused has not finished.
    """

    def __init__(
        self,
        *,
        rate_hz: int,
        lead_s: float = 0.25,
        gate_s: float = 0.0,
        caller_quiet_s: Callable[[], float] | None = None,
        listener: PlayoutListener | None = None,
        sink: AgentAudioSink | None = None,
    ) -> None:
        """Create the processor; nothing is sent before `connect`.

        Args:
            rate_hz: Sample rate of the agent's audio, that of the pipeline.
            lead_s: How far ahead of real time audio is sent.
            gate_s: The agent begins to speak only when the caller has been quiet for this long.
            caller_quiet_s: Tells how long that is, in seconds.
            listener: Told what is heard.
            sink: Gets a copy of the audio on the line's time.
        """
        super().__init__()
        self._ledger: PlayoutLedger[Frame] = PlayoutLedger(rate_hz=rate_hz, lead_s=lead_s)
        self._gate_s = gate_s
        self._caller_quiet_s = caller_quiet_s
        self._gated_since_s: float | None = None
        self._listener = listener
        self._sink = sink
        self._wire: PlayoutWire | None = None
        self._clear_due = False
        self._released_due: list[Frame] = []
        """Heard, and not yet pushed on: a pause takes them from the ledger and must not wait."""
        self._unpause: asyncio.TimerHandle | None = None
        self._recent: deque[tuple[float, str]] = deque(maxlen=64)
        """Words heard, with their times."""
        self._utterance_words: list[str] = []
        """Words heard since the agent began to speak."""
        self._is_text_open = False
        """Whether the assistant aggregator holds words that an interruption would commit."""
        self._is_interrupting = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._changed = asyncio.Event()
        self._push_lock = asyncio.Lock()
        self._runner: asyncio.Task[None] | None = None
        self._is_speaking = False
        self._context_id: str | None = None
        """Context of the utterance whose audio is coming in, None between utterances."""
        self._context_start = 0
        self._context_has_audio = False
        self._anchor_ns: int | None = None
        self._last_word_pts: int | None = None

    # For the call

    def connect(self, wire: PlayoutWire) -> None:
        """Open the wire: from now on audio is sent."""
        self._wire = wire
        self._changed.set()

    def mark_played(self, name: str) -> None:
        """The wire says that everything before mark `name` was played (or dropped: then it is ignored)."""
        self._ledger.mark_returned(name, self._now_s())
        self._changed.set()

    @property
    def is_speaking(self) -> bool:
        """Whether the caller hears the agent, or is about to."""
        return self._is_speaking

    @property
    def marks_lost(self) -> int:
        """Marks that never came back."""
        return self._ledger.marks_lost

    @property
    def underruns(self) -> int:
        """Times the wire ran dry inside an utterance."""
        return self._ledger.underruns

    @property
    def is_settled(self) -> bool:
        """Whether all that the caller heard is in the model's context."""
        return self._settled.is_set()

    async def wait_until_settled(self, timeout_s: float) -> None:
        """Wait, no longer than `timeout_s` seconds, until that is so: some milliseconds after an interruption."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()

    def speak(
        self,
        pcm: bytes,
        words: Sequence[SpokenWord],
        *,
        append_to_context: bool = True,
        is_interruptible: bool = True,
    ) -> None:
        """Say rendered audio behind whatever is being said, without a voice vendor.

        Args:
            pcm: s16le mono at the call's rate.
            words: Its words, in order.
            append_to_context: Whether the model is to know that it was said.
            is_interruptible: Whether the caller may stop it; if not, it plays to its end.
        """
        self._say(pcm, words, append_to_context=append_to_context, is_interruptible=is_interruptible)
        if append_to_context:
            self._hold(LLMAssistantPushAggregationFrame())
        self._changed.set()

    # For the barge-in decision

    @property
    def is_audible(self) -> bool:
        """Whether the caller hears the agent, or would if it were not paused."""
        return self._is_speaking

    @property
    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self._ledger.is_paused

    @property
    def is_interruptible(self) -> bool:
        """Whether what is being heard may be stopped."""
        return not self._ledger.is_protected(self._now_s())

    @property
    def remaining_s(self) -> float:
        """Seconds of audio, as far as it is there, that have not been heard."""
        return (self._ledger.appended - self._ledger.played(self._now_s())) / self._ledger.rate_hz

    def recent_words(self) -> list[str]:
        """Return the words that the caller's line may be sending back to us."""
        now_s = self._now_s()
        soon = self._ledger.played(now_s) + round(SOON_S * self._ledger.rate_hz)
        heard = [text for at_s, text in self._recent if now_s - at_s <= RECENT_S]
        return heard + [text for position, text in self._waiting_words() if position <= soon]

    def current_text(self) -> str:
        """Return what the agent is saying: words heard since it began to speak, and those that wait."""
        return " ".join([*self._utterance_words, *(text for _, text in self._waiting_words())])

    def pause(self) -> None:
        """Stop at once, to go on later; in silence, let nothing begin. A line that may not be stopped goes on."""
        pause = self._ledger.pause(self._now_s())
        if pause is None:
            return
        self._released_due += pause.heard
        self._clear_due = self._clear_due or pause.clear
        if self._sink:
            self._sink.agent_dropped()
        if self._listener and self._is_speaking:
            self._listener.agent_paused(self._now_s())
        self._stop_unpause()
        self._unpause = asyncio.get_running_loop().call_later(LONGEST_PAUSE_S, self._forgotten)
        self._changed.set()

    def resume(self) -> None:
        """Go on from the start of the word that was cut."""
        self._stop_unpause()
        if not self._ledger.is_paused:
            return
        self._ledger.resume()
        if self._listener and self._is_speaking:
            self._listener.agent_resumed(self._now_s())
        self._changed.set()

    # Frame processor

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Start the task that sends and releases."""
        await super().setup(setup)
        self._runner = self.create_task(self._run(), "playout")

    async def cleanup(self) -> None:
        """Stop the task; called once when the call ends, however it ends."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await self.cancel_task(runner)
        self._stop_unpause()
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Keep audio, hold what belongs to it, pass the rest."""
        await super().process_frame(frame, direction)
        if direction is FrameDirection.UPSTREAM or isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt(frame)
        elif isinstance(frame, CancelFrame):
            await self._drop()
            await self.push_frame(frame, direction)
        elif isinstance(frame, SystemFrame):
            await self.push_frame(frame, direction)
        else:
            self._take(frame)
            self._changed.set()

    def _take(self, frame: Frame) -> None:
        """Put a data or control frame where it belongs on the line's time."""
        if isinstance(frame, TTSAudioRawFrame):
            self._take_audio(frame)
        elif isinstance(frame, CachedSpeechFrame):
            words = [SpokenWord(text, start_s) for text, start_s in frame.words]
            self._say(frame.pcm, words, append_to_context=True, is_interruptible=True)
        elif isinstance(frame, SpeechAnchorFrame):
            self._anchor_ns = frame.anchor_ns
            self._context_start = self._ledger.appended
        elif isinstance(frame, TTSTextFrame):
            self._hold(frame, word_start=self._word_start(frame))
        else:
            if isinstance(frame, TTSStartedFrame):
                self._begin_utterance(is_interruptible=frame.interruptible)
                self._context_id = frame.context_id
            elif isinstance(frame, TTSStoppedFrame):
                self._ledger.close_utterance()
                self._context_id = None
            self._hold(frame)

    def _take_audio(self, frame: TTSAudioRawFrame) -> None:
        if frame.sample_rate != self._ledger.rate_hz:
            logger.error(
                "{} got audio at {} Hz, the call has {} Hz", self, frame.sample_rate, self._ledger.rate_hz
            )
            return
        if self._context_id is None:
            self._begin_utterance()
            self._context_id = frame.context_id
        self._ledger.append_audio(frame.audio)
        self._audio_came()

    def _say(
        self, pcm: bytes, words: Sequence[SpokenWord], *, append_to_context: bool, is_interruptible: bool
    ) -> None:
        """Put a whole rendered utterance behind all other audio."""
        context_id = f"cached-{uuid.uuid4().hex[:8]}"
        start = self._ledger.appended
        self._begin_utterance(is_interruptible=is_interruptible)
        self._hold(TTSStartedFrame(context_id=context_id, append_to_context=append_to_context))
        self._ledger.append_audio(pcm)
        self._audio_came()
        for word in words:
            frame = TTSTextFrame(word.text, text_type=TextType.WORD, context_id=context_id)
            frame.append_to_context = append_to_context
            self._hold(frame, word_start=start + round(word.start_s * self._ledger.rate_hz))
        self._ledger.close_utterance()
        self._hold(TTSStoppedFrame(context_id=context_id))

    def _begin_utterance(self, *, is_interruptible: bool = True) -> None:
        self._ledger.open_utterance(protected=not is_interruptible)
        self._context_has_audio = False
        self._context_start = self._ledger.appended
        self._anchor_ns = None

    def _audio_came(self) -> None:
        if not self._context_has_audio:
            self._context_has_audio = True
            if self._listener:
                self._listener.tts_first_audio(self._now_s())

    def _word_start(self, frame: TTSTextFrame) -> int | None:
        # A word with the time of the one before it was never timed by the vendor: it is heard with the last audio.
        if frame.pts is None or self._anchor_ns is None or frame.pts == self._last_word_pts:
            return None
        self._last_word_pts = frame.pts
        offset_s = (frame.pts - self._anchor_ns) / _NS_PER_S
        return self._context_start + round(offset_s * self._ledger.rate_hz)

    def _hold(self, frame: Frame, *, word_start: int | None = None) -> None:
        frame.pts = None  # its time is its place in the ledger
        keep = not frame.interruptible
        if word_start is None:
            self._ledger.append_item(frame, keep=keep)
        else:
            self._ledger.append_word(frame, start=word_start, keep=keep)

    def _waiting_words(self) -> list[tuple[int, str]]:
        return [
            (position, frame.text)
            for position, frame in self._ledger.waiting()
            if isinstance(frame, TTSTextFrame)
        ]

    # The task

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            await self._clear_wire()
            await self._send_due()
            await self._release_heard()
            await self._follow_speaking()
            self._settle()
            await self._sleep_until_due()

    async def _sleep_until_due(self) -> None:
        now_s = self._now_s()
        due_s = self._ledger.next_due_s(now_s)
        if self._wire is None or due_s is None:
            await self._changed.wait()
            return
        due_s = max(due_s, now_s + self._gate_left_s(now_s))
        # The loop's timers are a millisecond coarse: a wait of less would spin.
        timer = asyncio.get_running_loop().call_later(max(due_s - now_s, 0.002), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    async def _clear_wire(self) -> None:
        if self._clear_due and self._wire is not None:
            self._clear_due = False
            await self._wire.clear()

    def _gate_left_s(self, now_s: float) -> float:
        """Return how long the agent must not begin to speak yet, because the caller is not quiet."""
        waits = self._ledger.appended > self._ledger.sent and not self._ledger.is_paused
        if self._is_speaking or self._caller_quiet_s is None or not waits:
            self._gated_since_s = None
            return 0.0
        left_s = self._gate_s - self._caller_quiet_s()
        if left_s <= 0:
            return 0.0
        if self._gated_since_s is None:
            self._gated_since_s = now_s
        return min(left_s, max(self._gated_since_s + LONGEST_GATE_S - now_s, 0.0))

    async def _send_due(self) -> None:
        if self._wire is None or self._gate_left_s(self._now_s()) > 0:
            return
        epoch = self._ledger.epoch
        for command in self._ledger.due(self._now_s()):
            if self._ledger.epoch != epoch:
                return  # a pause or an interruption came while the wire took the last one
            if isinstance(command, SendAudio):
                if self._sink:
                    ahead = command.position - self._ledger.played(self._now_s())
                    self._sink.agent_audio(command.pcm, ahead / self._ledger.rate_hz)
                await self._wire.send_audio(command.pcm)
                if self._ledger.epoch == epoch:
                    await self._sent()
            else:
                await self._wire.send_mark(command.name)

    async def _sent(self) -> None:
        now_s = self._now_s()
        if self._listener:
            self._listener.audio_sent(now_s)
        if not self._is_speaking:
            self._is_speaking = True
            self._settled.clear()
            self._gated_since_s = None
            self._utterance_words.clear()
            if self._listener:
                self._listener.heard_started(now_s)
            await self.broadcast_frame(BotStartedSpeakingFrame)

    async def _release_heard(self) -> None:
        # Without a wire nothing plays, and what needs no playing must not wait for it.
        async with self._push_lock:
            for frame in self._take_heard():
                await self._release(frame)

    def _take_heard(self) -> list[Frame]:
        due, self._released_due = self._released_due, []
        return due + self._ledger.take_heard(self._now_s())

    async def _release(self, frame: Frame) -> None:
        if isinstance(frame, TTSTextFrame):
            self._recent.append((self._now_s(), frame.text))
            self._utterance_words.append(frame.text)
            self._is_text_open = self._is_text_open or frame.append_to_context
            self._settled.clear()
            if self._listener:
                self._listener.heard_word(frame.text, self._now_s())
        elif isinstance(frame, LLMAssistantPushAggregationFrame | LLMFullResponseEndFrame):
            self._is_text_open = False
        await self.push_frame(frame)

    async def _follow_speaking(self) -> None:
        if not self._ledger.is_idle(self._now_s()):
            return
        await self._stopped(cut=False)

    async def _stopped(self, *, cut: bool) -> None:
        if self._is_speaking:
            self._is_speaking = False
            if self._listener:
                self._listener.agent_stopped(cut, self._now_s())
            await self.broadcast_frame(BotStoppedSpeakingFrame)

    # Interruption

    async def _interrupt(self, frame: InterruptionFrame) -> None:
        # What was heard must be in the aggregator before the interruption closes the agent's turn, and what
        # must not be lost comes behind it, as it would in a queue.
        self._is_interrupting = True
        heard, kept, was_cut = await self._drop()
        async with self._push_lock:
            for one in heard:
                await self._release(one)
            if was_cut and self._is_text_open:
                await self.push_frame(TTSTextFrame(CUT_MARK, text_type=TextType.WORD))
            self._is_text_open = False
            await self.push_frame(frame)
            for one in kept:
                await self.push_frame(one)
        self._is_interrupting = False
        self._settle()
        self._changed.set()

    def _settle(self) -> None:
        if not (self._is_speaking or self._is_text_open or self._is_interrupting):
            self._settled.set()

    async def _drop(self) -> tuple[list[Frame], tuple[Frame, ...], bool]:
        """Throw away what was not heard; return what was, what must not be lost, and whether anything was cut."""
        dropped = self._ledger.drop(self._now_s())
        due, self._released_due = self._released_due, []
        was_cut = dropped.unheard_samples > 0 and not dropped.protected_samples  # what plays on is not cut
        self._context_id = None
        self._stop_unpause()
        if self._sink and not dropped.protected_samples:
            self._sink.agent_dropped()
        self._clear_due = self._clear_due or dropped.clear
        await self._clear_wire()
        if not dropped.protected_samples:
            await self._stopped(cut=was_cut)
        return due + list(dropped.heard), dropped.kept, was_cut

    def _forgotten(self) -> None:
        logger.error("{} was paused for {} s: it goes on", self, LONGEST_PAUSE_S)
        self.resume()

    def _stop_unpause(self) -> None:
        timer, self._unpause = self._unpause, None
        if timer is not None:
            timer.cancel()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
