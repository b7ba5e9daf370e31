"""The agent's audio between the voice and the wire: sent at real time with a lead, said once it was heard.

Place directly before the assistant aggregator, which should run in direct mode. Audio ends here: it goes to
the `PlayoutWire`, not down the pipeline. All that comes with it (a word's text, the end of a reply, tool
results) is held and pushed on when the caller has *heard* what stands before it, so the model's context holds
heard text only and "bot stopped speaking" means that the caller's ear is free. Behind words that were cut stands
`CUT_MARK`.

What was said, sent and heard is decided by `PlayoutLedger`; this is its shell: one task sends and releases. Beside it
stand `VoiceIntake` (where a voice's frames belong), `AudibleAgent` and `PlayoutFiller` (what was told of what is
heard), `HeardWords` and `AssistantTurn` (whose words those are). Who may pause it decides `barge_in`; left paused it
goes on by itself.

A greeting need not wait for the pipeline: after `play_ahead` audio is sent at once, and what is to be told of it is
kept until `let_through`.

A filler is heard, and may be stopped, like all else. But it is no turn of the agent's: "bot started speaking" comes
with what follows it, and the model does not know of it.
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
    AggregatedTextProgressFrame,
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

from processors.audible_agent import AudibleAgent
from processors.audio_cache import CachedSpeech
from processors.frames import (
    AnswerDroppedFrame,
    CachedSpeechFrame,
    FillerTextFrame,
    SpeechAnchorFrame,
    SpeechCutFrame,
)
from processors.heard_words import AssistantTurn, HeardWords
from processors.playout_filler import PlayoutFiller
from processors.playout_intake import VoiceIntake
from processors.playout_ledger import PlayoutLedger, SendAudio

CUT_MARK = "—"
"""Behind the heard words of an utterance that was cut, in the model's context."""
LONGEST_PAUSE_S = 5.0
"""A playout that nobody resumes goes on."""
LONGEST_GATE_S = 1.0
"""A reply waits no longer than this for the caller to be quiet: noise is not speech."""
SOON_S = 1.0
"""Words that will be heard within this time may be on the line already."""


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

    def agent_gap(self, began_s: float, now_s: float) -> None:
        """The agent was not heard since `began_s`, in the middle of what it says, and not for the caller's sake."""
        ...

    def filler_started(self, text: str, now_s: float) -> None:
        """A line became audible that only breaks a silence; what follows it starts later."""
        ...

    def filler_stopped(self, now_s: float) -> None:
        """It was heard to its end, or was stopped."""
        ...

    def agent_paused(self, now_s: float) -> None:
        """What the agent says was stopped, for the time being."""
        ...

    def agent_resumed(self, now_s: float) -> None:
        """It goes on where it was stopped."""
        ...


class ReplyAudioListener(Protocol):
    """Told what became of the model's replies. Times are those of the event loop's clock, in seconds."""

    def voice_came(self, now_s: float) -> None:
        """The voice has made the first audio of an utterance."""
        ...

    def reply_heard(self, now_s: float) -> None:
        """All audio that came of a reply was heard, should it be none."""
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


_Speech = (
    TTSAudioRawFrame
    | CachedSpeechFrame
    | SpeechAnchorFrame
    | TTSStartedFrame
    | TTSStoppedFrame
    | TTSTextFrame
)


class PlayoutProcessor(FrameProcessor):
    """Plays the agent's utterances and tells the pipeline what was heard.

    SILENT --audio sent--> SPEAKING --everything heard and nothing open | interruption--> SILENT
    SILENT --filler sent--> FILLING --other audio behind it is heard--> SPEAKING
    FILLING --filler heard and nothing open | interruption--> SILENT

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
        # Direct mode: in a queue, an interruption would overtake audio that came before it.
        super().__init__(enable_direct_mode=True)
        self._ledger: PlayoutLedger[Frame] = PlayoutLedger(rate_hz=rate_hz, lead_s=lead_s)
        self._intake = VoiceIntake(rate_hz)
        self._agent = AudibleAgent()
        self._filler = PlayoutFiller()
        self._words = HeardWords()
        self._assistant = AssistantTurn()
        self._gate_s = gate_s
        self._caller_quiet_s = caller_quiet_s
        self._gated_since_s: float | None = None
        self._listener = listener
        self._sink = sink
        self._reply_listener: ReplyAudioListener | None = None
        self._wire: PlayoutWire | None = None
        self._clear_due = False
        self._released_due: list[Frame] = []
        """Heard, and not yet pushed on: a pause takes them from the ledger and must not wait."""
        self._unpause: asyncio.TimerHandle | None = None
        self._is_interrupting = False
        self._says_no_more = False
        self._settled = asyncio.Event()
        self._settled.set()
        self._changed = asyncio.Event()
        self._push_lock = asyncio.Lock()
        self._runner: asyncio.Task[None] | None = None
        self._ahead: asyncio.Task[None] | None = None
        """Sends until the pipeline's own task does."""
        self._is_set_up = False
        self._is_holding = False
        """Whether what the pipeline is to be told is kept until it can take it."""
        self._is_through = False
        self._held: deque[tuple[Frame, FrameDirection]] = deque()

    # For the call

    def tell_replies(self, listener: ReplyAudioListener) -> None:
        """Tell `listener` what becomes of the model's replies: it may need the playout to be made."""
        self._reply_listener = listener

    def follow_caller(self, quiet_s: Callable[[], float]) -> None:
        """Learn how long the caller has been quiet, in seconds: whoever listens to them may be made later."""
        self._caller_quiet_s = quiet_s

    def connect(self, wire: PlayoutWire) -> None:
        """Open the wire: from now on audio is sent."""
        self._wire = wire
        self._changed.set()

    def play_ahead(self) -> None:
        """Send what is said from now on though there is no pipeline yet; `let_through` must follow when there is."""
        if self._is_through:
            return
        self._is_holding = True
        if self._runner is None and self._ahead is None:
            self._ahead = asyncio.create_task(self._run_ahead(), name="playout_ahead")

    async def let_through(self) -> None:
        """The pipeline has started: tell it what was kept, and from now on all at once."""
        self._is_through = True
        while self._held:
            frame, direction = self._held.popleft()
            await self.push_frame(frame, direction)
        self._is_holding = False

    async def stop_ahead(self) -> None:
        """The pipeline will never be there: send no more."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.wait({ahead})

    def mark_played(self, name: str) -> None:
        """The wire says that everything before mark `name` was played (or dropped: then it is ignored)."""
        self._ledger.mark_returned(name, self._now_s())
        self._changed.set()

    @property
    def is_speaking(self) -> bool:
        """Whether the caller hears the agent, or is about to."""
        return self._agent.is_audible

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
        if self._says_no_more:
            return
        self._say(pcm, words, append_to_context=append_to_context, is_interruptible=is_interruptible)
        if append_to_context:
            self._hold(LLMAssistantPushAggregationFrame())
        self._changed.set()

    def say_no_more(self) -> None:
        """Throw away all speech that is still to come: the last word has been given."""
        self._says_no_more = True

    def speak_filler(self, text: str, speech: CachedSpeech) -> bool:
        """Say a line that only breaks a silence; what comes next follows it without a gap.

        Args:
            text: The line.
            speech: Its sound, at the call's rate.

        Returns:
            False, and nothing is said, when there is something else to be heard.
        """
        if self._ledger.appended > self._ledger.played(self._now_s()):
            return False
        words = [SpokenWord(word.text, word.start_s) for word in speech.words] or [SpokenWord(text, 0.0)]
        self._end_filler()  # an earlier one, which was heard to its end just now
        self._say(speech.pcm, words, append_to_context=False, is_interruptible=True, is_filler=True)
        self._filler.said(text, end=self._ledger.appended)
        self._changed.set()
        return True

    # For the silence watchdog

    @property
    def sounds_until_s(self) -> float:
        """Until when the caller hears the agent, by what was sent; the past when they do not.

        A pause in what they hear is for the caller's sake, and no silence of ours.
        """
        if self._ledger.is_paused and self._agent.is_audible:
            return self._now_s()
        return self._agent.sounds_until_s

    @property
    def has_unsent_audio(self) -> bool:
        """Whether audio waits to be sent."""
        return self._ledger.appended > self._ledger.sent

    # For the barge-in decision

    @property
    def is_audible(self) -> bool:
        """Whether the caller hears the agent, or would if it were not paused."""
        return self._agent.is_audible

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

    @property
    def unsent_s(self) -> float:
        """Seconds of audio that have not been sent, and so can be taken back."""
        return (self._ledger.appended - self._ledger.sent) / self._ledger.rate_hz

    def recent_words(self) -> list[str]:
        """Return the words that the caller's line may be sending back to us."""
        now_s = self._now_s()
        soon = self._ledger.played(now_s) + round(SOON_S * self._ledger.rate_hz)
        waiting = [text for position, text in self._waiting_words() if position <= soon]
        return self._words.recent(now_s) + waiting

    def current_text(self) -> str:
        """Return what the agent is saying: words heard since it began to speak, and those that wait."""
        return " ".join([*self._words.since_it_began, *(text for _, text in self._waiting_words())])

    def pause(self) -> None:
        """Stop at once, to go on later; in silence, let nothing begin. A line that may not be stopped goes on."""
        pause = self._ledger.pause(self._now_s())
        if pause is None:
            return
        self._released_due += pause.heard
        self._clear_due = self._clear_due or pause.clear
        self._agent.hush()
        if self._sink:
            self._sink.agent_dropped()
        if self._listener and self._agent.is_audible:
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
        if self._listener and self._agent.is_audible:
            self._listener.agent_resumed(self._now_s())
        self._changed.set()

    # Frame processor

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Start the task that sends and releases."""
        await super().setup(setup)
        self._is_set_up = True
        self._changed.set()
        self._runner = self.create_task(self._run(), "playout")

    async def cleanup(self) -> None:
        """Stop the task; called once when the call ends, however it ends."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await self.cancel_task(runner)
        await self.stop_ahead()
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
        if self._says_no_more and isinstance(frame, _Speech):
            return
        if isinstance(frame, TTSAudioRawFrame):
            self._take_audio(frame)
        elif isinstance(frame, CachedSpeechFrame):
            words = [SpokenWord(text, start_s) for text, start_s in frame.words]
            self._say(frame.pcm, words, append_to_context=True, is_interruptible=True)
        elif isinstance(frame, SpeechAnchorFrame):
            self._intake.anchor(frame.anchor_ns, at=self._ledger.appended)
        elif isinstance(frame, SpeechCutFrame):
            if frame.context_id == self._intake.context_id:
                # What could not be taken back is heard before the other voice: its words come so much later.
                self._intake.shift(self._ledger.cut_back(self._intake.start + frame.keep))
        elif isinstance(frame, TTSTextFrame):
            self._hold(frame, word_start=self._intake.word_start(frame.pts))
        elif isinstance(frame, AggregatedTextProgressFrame):
            self._hold(frame, with_word=True)
        else:
            if isinstance(frame, TTSStartedFrame):
                self._begin_utterance(frame.context_id, is_protected=not frame.interruptible)
            elif isinstance(frame, TTSStoppedFrame):
                self._ledger.close_utterance()
                self._intake.end()
            self._hold(frame)

    def _take_audio(self, frame: TTSAudioRawFrame) -> None:
        if frame.sample_rate != self._ledger.rate_hz:
            logger.error(
                "{} got audio at {} Hz, the call has {} Hz", self, frame.sample_rate, self._ledger.rate_hz
            )
            return
        if self._intake.context_id is None:
            self._begin_utterance(frame.context_id)
        self._ledger.append_audio(frame.audio)
        if self._intake.audio_came():
            now_s = self._now_s()
            if self._reply_listener:
                self._reply_listener.voice_came(now_s)
            if self._listener:
                self._listener.tts_first_audio(now_s)

    def _say(
        self,
        pcm: bytes,
        words: Sequence[SpokenWord],
        *,
        append_to_context: bool,
        is_interruptible: bool,
        is_filler: bool = False,
    ) -> None:
        """Put a whole rendered utterance behind all other audio."""
        context_id = f"cached-{uuid.uuid4().hex[:8]}"
        start = self._ledger.appended
        self._ledger.open_utterance(protected=not is_interruptible)
        self._hold(TTSStartedFrame(context_id=context_id, append_to_context=append_to_context))
        self._ledger.append_audio(pcm)
        if self._listener and not is_filler:
            self._listener.tts_first_audio(self._now_s())
        word_frame = FillerTextFrame if is_filler else TTSTextFrame
        for word in words:
            frame = word_frame(word.text, text_type=TextType.WORD, context_id=context_id)
            frame.append_to_context = append_to_context
            self._hold(frame, word_start=start + round(word.start_s * self._ledger.rate_hz))
        self._ledger.close_utterance()
        self._hold(TTSStoppedFrame(context_id=context_id))
        if self._intake.context_id is not None:  # it came in the middle of what the voice says
            self._ledger.open_utterance(protected=self._intake.is_protected)
            self._intake.shift(self._ledger.appended - start)

    def _begin_utterance(self, context_id: str | None, *, is_protected: bool = False) -> None:
        self._ledger.open_utterance(protected=is_protected)
        self._intake.begin(context_id, at=self._ledger.appended, is_protected=is_protected)

    def _hold(self, frame: Frame, *, word_start: int | None = None, with_word: bool = False) -> None:
        frame.pts = None  # its time is its place in the ledger
        keep = not frame.interruptible
        if word_start is None:
            self._ledger.append_item(frame, with_word=with_word, keep=keep)
        else:
            self._ledger.append_word(frame, start=word_start, keep=keep)

    def _waiting_words(self) -> list[tuple[int, str]]:
        return [
            (position, frame.text)
            for position, frame in self._ledger.waiting()
            if isinstance(frame, TTSTextFrame)
        ]

    # The task

    async def _run_ahead(self) -> None:
        while not self._is_set_up:
            await self._play()

    async def _run(self) -> None:
        if self._ahead is not None:  # perhaps in the middle of a round: nothing is sent out of order
            await asyncio.wait({self._ahead})
        while True:
            await self._play()

    async def _play(self) -> None:
        """Do what is due, and wait until more is."""
        self._changed.clear()
        await self._clear_wire()
        await self._send_due(self._now_s())
        now_s = self._now_s()  # the wire may have taken its time
        await self._release_heard(now_s)
        await self._follow_filler(now_s)
        await self._follow_speaking(now_s)
        self._settle()
        await self._sleep_until_due(self._now_s())

    async def _sleep_until_due(self, now_s: float) -> None:
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
        if self._agent.is_audible or self._caller_quiet_s is None or not waits:
            self._gated_since_s = None
            return 0.0
        left_s = self._gate_s - self._caller_quiet_s()
        if left_s <= 0:
            return 0.0
        if self._gated_since_s is None:
            self._gated_since_s = now_s
        return min(left_s, max(self._gated_since_s + LONGEST_GATE_S - now_s, 0.0))

    async def _send_due(self, now_s: float) -> None:
        if self._wire is None or self._gate_left_s(now_s) > 0:
            return
        epoch = self._ledger.epoch
        for command in self._ledger.due(now_s):
            if self._ledger.epoch != epoch:
                return  # a pause or an interruption came while the wire took the last one
            if isinstance(command, SendAudio):
                if self._sink:
                    ahead = command.position - self._ledger.played(self._now_s())
                    self._sink.agent_audio(command.pcm, ahead / self._ledger.rate_hz)
                await self._wire.send_audio(command.pcm)
                if self._ledger.epoch == epoch:
                    await self._sent(command)
            else:
                await self._wire.send_mark(command.name)

    async def _sent(self, command: SendAudio) -> None:
        now_s = self._now_s()
        self._tell_gap(now_s)
        if self._agent.sent(len(command.pcm) / 2 / self._ledger.rate_hz, now_s):
            self._settled.clear()
            self._gated_since_s = None
            self._words.begin()
        if self._filler.has(command.position):
            if self._filler.sent() and self._listener:
                self._listener.filler_started(self._filler.text, now_s)
            return
        if self._listener:
            self._listener.audio_sent(now_s)
        if not self._filler.text:
            await self._tell_turn()

    async def _tell_turn(self) -> None:
        """The caller begins to hear what is no filler."""
        if self._agent.begin_turn():
            if self._listener:
                self._listener.heard_started(self._now_s())
            await self._tell_both_ways(BotStartedSpeakingFrame)

    async def _follow_filler(self, now_s: float) -> None:
        """A filler was heard to its end: what comes behind it begins."""
        if self._filler.text and self._filler.is_heard(self._ledger.heard(now_s)):
            self._end_filler()
            if self._ledger.sent > self._filler.end:
                await self._tell_turn()

    def _end_filler(self) -> None:
        if self._filler.over() and self._listener:
            self._listener.filler_stopped(self._now_s())

    def _tell_gap(self, now_s: float) -> None:
        began_s = self._agent.gap_began_s(now_s)
        if self._listener and began_s is not None:
            self._listener.agent_gap(began_s, now_s)

    async def _release_heard(self, now_s: float) -> None:
        # Without a wire nothing plays, and what needs no playing must not wait for it.
        async with self._push_lock:
            due, self._released_due = self._released_due, []
            for frame in due + self._ledger.take_heard(now_s):
                await self._release(frame)

    async def _release(self, frame: Frame) -> None:
        if isinstance(frame, TTSTextFrame):
            if self._assistant.loses(frame):
                # A fixed line in the middle of a reply, or an interruption in front of a line that plays on, closed it.
                await self._give(TTSStartedFrame(context_id=frame.context_id))
            self._words.heard(frame.text, self._now_s())
            self._settled.clear()
            if self._listener and not isinstance(frame, FillerTextFrame):
                self._listener.heard_word(frame.text, self._now_s())
        elif isinstance(frame, LLMFullResponseEndFrame) and self._reply_listener:
            self._reply_listener.reply_heard(self._now_s())
        await self._give(frame)

    async def _give(self, frame: Frame) -> None:
        self._assistant.give(frame)
        await self._tell(frame)

    async def _tell(self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM) -> None:
        """Push a frame of our own, or keep it until the pipeline can take it."""
        if self._is_holding:
            self._held.append((frame, direction))
        else:
            await self.push_frame(frame, direction)

    async def _tell_both_ways(self, kind: type[Frame]) -> None:
        if not self._is_holding:
            await self.broadcast_frame(kind)
            return
        down, up = kind(), kind()
        down.broadcast_sibling_id, up.broadcast_sibling_id = up.id, down.id
        self._held += [(down, FrameDirection.DOWNSTREAM), (up, FrameDirection.UPSTREAM)]

    async def _follow_speaking(self, now_s: float) -> None:
        if self._ledger.is_idle(now_s):
            await self._stopped(cut=False)

    async def _stopped(self, *, cut: bool) -> None:
        if not self._agent.is_audible:
            return
        now_s = self._now_s()
        self._end_filler()
        self._tell_gap(now_s)
        if self._agent.stop():
            if self._listener:
                self._listener.agent_stopped(cut, now_s)
            await self._tell_both_ways(BotStoppedSpeakingFrame)

    # Interruption

    async def _interrupt(self, frame: InterruptionFrame) -> None:
        # What was heard must be in the aggregator before the interruption closes the agent's turn, and what
        # must not be lost comes behind it, as it would in a queue.
        self._is_interrupting = True
        await self.let_through()
        heard, kept, goes_on = await self._drop()
        async with self._push_lock:
            for one in heard:
                await self._release(one)
            if self._assistant.has_words and not goes_on:  # the end of the reply was not heard
                await self.push_frame(TTSTextFrame(CUT_MARK, text_type=TextType.WORD))
            self._assistant.close()
            await self.push_frame(frame)
            for one in kept:
                await self.push_frame(one)
        if isinstance(frame, AnswerDroppedFrame):
            frame.done.set()
        self._is_interrupting = False
        self._settle()
        self._changed.set()

    def _settle(self) -> None:
        if not (self._agent.is_audible or self._assistant.has_words or self._is_interrupting):
            self._settled.set()

    async def _drop(self) -> tuple[list[Frame], tuple[Frame, ...], bool]:
        """Throw away what was not heard; return what was, what must not be lost, and whether the line goes on."""
        was_paused = self._ledger.is_paused
        dropped = self._ledger.drop(self._now_s())
        due, self._released_due = self._released_due, []
        self._intake.end()
        self._stop_unpause()
        if self._sink and not dropped.protected_samples:
            self._sink.agent_dropped()
        self._clear_due = self._clear_due or dropped.clear
        await self._clear_wire()
        self._filler.cut(self._ledger.sent)  # other audio may play on in its place
        if not dropped.protected_samples:
            await self._stopped(cut=dropped.unheard_samples > 0)
            self._filler.over()
            self._agent.hush()
        elif was_paused and self._listener and self._agent.is_audible:
            self._listener.agent_resumed(self._now_s())
        return due + list(dropped.heard), dropped.kept, dropped.goes_on

    def _forgotten(self) -> None:
        logger.error("{} was paused for {} s: it goes on", self, LONGEST_PAUSE_S)
        self.resume()

    def _stop_unpause(self) -> None:
        timer, self._unpause = self._unpause, None
        if timer is not None:
            timer.cancel()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
