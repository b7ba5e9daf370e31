"""The caller hears nothing while we owe them a word: see that they hear something, whatever the reason.

Place directly before the user aggregator: only words that are understood make a turn that is answered, and from here
the model can be asked again. The agent, turns and tools reach it upstream; of the model's text it is told by
`SpokenTextTap`, of heard replies by the playout, and of the line it asks when a deadline comes: what was *heard*
counts, not what was made. What is due decides `SilenceWatch`; this is its shell.

    owed, and nothing heard --filler--> --filler--> --apology, the model is asked again--> --given up-->
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    LLMRunFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from processors.audio_cache import CachedSpeech
from processors.deadline_timer import DeadlineTimer
from processors.frames import AnswerDroppedFrame, CallerStoppedFrame, WordsDelayedFrame
from processors.silence_watchdog_table import Rung, SilenceWatch, SilenceWatchParams, Step
from processors.stall_filler import Fillers

DROP_LIMIT_S = 0.5
"""For the pipeline to drop an answer that is asked for again; a part that hangs must not stop what follows."""
RETRY_NOTE = (
    "(Your answer broke off on the line after the words above. "
    "Say the rest of it now, and do not repeat what was heard.)"
)
"""Tells the model why it is asked again, when some of its answer was heard."""


class LineSound(Protocol):
    """What the watchdog needs of the playout."""

    @property
    def sounds_until_s(self) -> float:
        """Until when the caller hears us, as far as was sent; the past when they do not."""
        ...

    @property
    def has_unsent_audio(self) -> bool:
        """Whether audio waits."""
        ...

    def speak_filler(self, text: str, speech: CachedSpeech) -> bool:
        """Say a rendered line that is no answer; False when there is something else to be heard."""
        ...


class NudgeListener(Protocol):
    """Told of words of the caller's that make no turn. Times are those of the event loop's clock, in seconds."""

    def nudged(self, text: str, now_s: float) -> None:
        """They asked whether anybody is there."""
        ...


@dataclass(frozen=True)
class WatchedLine:
    """How the watchdog knows the line."""

    sound: LineSound
    caller_quiet_s: Callable[[], float]
    """Returns how long the caller has made no sound."""


@dataclass(frozen=True)
class Apology:
    """Said when an answer is asked for again."""

    text: str
    lookup: Callable[[str], CachedSpeech | None]
    """Returns its sound if it is in memory, at once."""


class SilenceWatchdogProcessor(FrameProcessor):
    """The shell of `SilenceWatch`, in direct mode; forwards everything, holds nothing.

    There are no event handlers: `give_up` is called once, in a task, and then nothing is watched any more.
    """

    def __init__(
        self,
        line: WatchedLine,
        fillers: Fillers,
        apology: Apology,
        *,
        give_up: Callable[[str], Awaitable[None]],
        listener: NudgeListener | None = None,
        on_step: Callable[[Step], None] | None = None,
        params: SilenceWatchParams | None = None,
    ) -> None:
        """Create the watchdog; nothing is owed before `line_up` or a turn.

        Args:
            line: Tells what is heard.
            fillers: What is said.
            apology: What is said before the model is asked again.
            give_up: Called with a reason when nothing helped: the call must be taken over or ended.
            listener: Told of nudges.
            on_step: Told of each thing that is done about a silence, before it is done.
            params: How long to be silent.
        """
        super().__init__(enable_direct_mode=True)
        self._watch = SilenceWatch(params)
        self._line = line
        self._fillers = fillers
        self._apology = apology
        self._give_up = give_up
        self._listener = listener
        self._on_step = on_step
        self._timer = DeadlineTimer(lambda: self._watch.deadline_s, self._on_deadline)
        self._acting: asyncio.Task[None] | None = None
        self._has_turn_words = False
        self._were_words_late = False
        self._speech_end_s: float | None = None
        """The caller's last sound in this turn, if they spoke."""

    # For others

    @property
    def owes(self) -> bool:
        """Whether the next word is ours."""
        return not self._timer.is_stopped and self._watch.owes

    @property
    def is_thinking(self) -> bool:
        """Whether it is, and the caller has heard nothing of the answer."""
        return not self._timer.is_stopped and self._watch.is_thinking

    def line_up(self) -> None:
        """The caller is on the line: call once, when it is."""
        self._watch.line_up(self._now_s())
        self._timer.follow()

    def stop(self) -> None:
        """The call is to end: nothing is owed any more."""
        self._timer.stop()

    def nudged(self, text: str) -> None:
        """The caller asked whether anybody is there: they hear that somebody is, and their answer is still made."""
        now_s = self._now_s()
        if self._listener is not None:
            self._listener.nudged(text, now_s)
        self._look(now_s)
        step = None if self._timer.is_stopped else self._watch.nudged(now_s)
        if step is not None:
            self._act(step)
        self._timer.follow()

    def reply_started(self, now_s: float, *, is_ahead: bool) -> None:
        """See `AnswerListener`."""
        self._watch.reply_started(now_s, is_ahead=is_ahead)
        self._timer.follow()

    def reply_text(self, now_s: float, *, needs_voice: bool) -> None:
        """See `AnswerListener`."""
        self._watch.reply_text(now_s, needs_voice=needs_voice)
        self._timer.follow()

    def reply_withdrawn(self, now_s: float) -> None:
        """See `AnswerListener`."""
        self._watch.reply_withdrawn(now_s)
        self._timer.follow()

    def voice_came(self, now_s: float) -> None:
        """See `ReplyAudioListener`."""
        self._watch.voice_came(now_s)

    def reply_heard(self, now_s: float) -> None:
        """See `ReplyAudioListener`."""
        self._watch.reply_heard(now_s)
        self._timer.follow()

    # Frame processor

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note who does what; forward everything."""
        await super().process_frame(frame, direction)
        if self._note(frame, self._now_s()):
            self._timer.follow()
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Stop watching, and whatever is being done."""
        self.stop()
        acting, self._acting = self._acting, None
        if acting is not None:
            await self.cancel_task(acting)
        await super().cleanup()

    def _note(self, frame: Frame, now_s: float) -> bool:
        """Tell the table; returns whether it was told anything."""
        watch = self._watch
        match frame:
            case TranscriptionFrame():
                self._has_turn_words |= bool(frame.text.strip())
                return False
            case CallerStoppedFrame():
                self._speech_end_s = frame.at_s
                return False
            case WordsDelayedFrame():
                self._were_words_late = True
                self._look(now_s)
                watch.words_late(are_late=frame.until_s is not None)
            case UserStartedSpeakingFrame():
                watch.turn_opened(now_s)
            case UserStoppedSpeakingFrame():
                end_s, self._speech_end_s = self._speech_end_s, None
                has_words, self._has_turn_words = self._has_turn_words, False
                were_late, self._were_words_late = self._were_words_late, False
                watch.turn_ended(
                    now_s,
                    speech_end_s=now_s if end_s is None else end_s,
                    has_words=has_words,
                    were_late=were_late,
                )
            case AnswerDroppedFrame():
                return False
            case InterruptionFrame():
                watch.interrupted(now_s)
            case BotStartedSpeakingFrame():
                watch.answer_started(now_s)
            case BotStoppedSpeakingFrame():
                watch.answer_stopped(now_s)
            case _:
                return self._note_tool(frame, now_s)
        return True

    def _note_tool(self, frame: Frame, now_s: float) -> bool:
        match frame:
            case FunctionCallsStartedFrame():
                for _ in frame.function_calls:
                    self._watch.tool_started(now_s)
            case FunctionCallResultFrame(properties=properties) if properties and not properties.is_final:
                return False  # it goes on
            case FunctionCallResultFrame():
                said = frame.properties.run_llm if frame.properties else None
                wanted = frame.run_llm if said is None else said
                self._watch.tool_ended(now_s, model_follows=wanted is not False)
            case FunctionCallCancelFrame():
                self._watch.tool_ended(now_s, model_follows=frame.run_llm)
            case _:
                return False
        return True

    # Time

    def _look(self, now_s: float) -> None:
        sound = self._line.sound
        self._watch.sounded(
            heard_until_s=sound.sounds_until_s,
            caller_until_s=now_s - self._line.caller_quiet_s(),
            audio_waits=sound.has_unsent_audio,
        )

    def _on_deadline(self, now_s: float) -> None:
        self._look(now_s)
        step = self._watch.step(now_s)
        if step is not None:
            self._act(step)

    # What is done

    def _act(self, step: Step) -> None:
        logger.warning(
            "silence: cause={} rung={} silence_s={:.2f}{}",
            step.cause.value,
            step.rung.value.replace(" ", "_"),
            step.silence_s,
            " nudged" if step.is_nudge else "",
        )
        if self._on_step is not None:
            self._on_step(step)
        if step.rung is Rung.FILLER:
            self._fill()
        else:
            self._start(self._retry(step) if step.rung is Rung.RETRY else self._end(step))

    def _start(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do one thing in place of the one before: what is given up must not be asked for again."""
        acting, self._acting = self._acting, None
        if acting is not None:
            acting.cancel()
        self._acting = self.create_task(doing, "silence")

    def _fill(self) -> None:
        filler = self._fillers.next()
        if filler is None:
            logger.warning("silence: no filler is in memory")
        elif not self._line.sound.speak_filler(*filler):
            logger.warning("silence: something else is to be heard, and the line does not play it")

    async def _retry(self, step: Step) -> None:
        await self._drop_answer(asks_again=True)
        speech = self._apology.lookup(self._apology.text)
        if speech is None:
            logger.warning("silence: the apology is not in memory")
            self._fill()
        else:
            self._line.sound.speak_filler(self._apology.text, speech)
        ask: Frame = LLMRunFrame()
        if step.heard_some:
            ask = LLMMessagesAppendFrame(
                messages=[{"role": "developer", "content": RETRY_NOTE}], run_llm=True
            )
        ask.interruptible = False  # what was dropped before it must not take it along
        await self.push_frame(ask)

    async def _end(self, step: Step) -> None:
        self.stop()
        await self._drop_answer(asks_again=False)
        await self._give_up(step.cause.value)

    async def _drop_answer(self, *, asks_again: bool) -> None:
        done = asyncio.Event()
        await self.broadcast_frame(AnswerDroppedFrame, asks_again=asks_again, done=done)
        try:
            async with asyncio.timeout(DROP_LIMIT_S):
                await done.wait()
        except TimeoutError:
            logger.error("silence: the answer could not be dropped in {} s", DROP_LIMIT_S)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
