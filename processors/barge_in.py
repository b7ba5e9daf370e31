"""The caller makes a sound while the agent speaks: fall silent at once, then find out what it was.

Place directly behind the recogniser, in front of the keypad and the user aggregator. Onsets come by direct calls
from `CallerAudioProcessor`, not by frames; while it is not known what a sound was, the frames that belong to it
are held back here, so that nothing behind it starts a turn. What is decided is `BargeInTable`; this is its shell.

Never interrupts by itself what the aggregator interrupts: held frames that go on start the caller's turn there, and
that broadcasts the interruption. Only when a turn is open already, or nothing comes of it, is it done here.
"""

import asyncio
import enum
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EagerEndOfTurnCancelFrame,
    EagerTranscriptionFrame,
    Frame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    LLMContextUserTurnFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
    UserBackchannelFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.utils.time import time_now_iso8601

from processors.barge_in_table import Action, BargeInParams, BargeInTable, Suspicion
from processors.echo import is_echo
from processors.frames import CallerPausedFrame, CallerResumedFrame, TranscriptFlushedFrame, WordsDelayedFrame
from processors.language import Backchannels, Language

MAX_HELD = 64
"""Frames held back at most; interims go first."""
REPLY_LIMIT_S = 10.0
"""The agent counts as about to speak for this long after the caller's turn, or after a tool's answer."""
ANSWER_WINDOW_S = 1.5
"""A question with no more than this left to be heard can be answered by "yes"."""
INTERRUPTION_LIMIT_S = 0.25
"""The aggregator's time to broadcast an interruption, and the playout's to fall silent after one."""


class PlayoutControl(Protocol):
    """What barge-in does to the agent's audio, and needs to know of it."""

    @property
    def is_audible(self) -> bool:
        """Whether the caller hears the agent, or would if it were not paused."""
        ...

    @property
    def is_interruptible(self) -> bool:
        """False while a line is heard that plays to its end whatever the caller says."""
        ...

    @property
    def remaining_s(self) -> float:
        """Seconds of audio that the caller has not heard yet, as far as it is known."""
        ...

    def pause(self) -> None:
        """Fall silent, and let nothing start. Does nothing when paused."""
        ...

    def resume(self) -> None:
        """Go on. Does nothing when not paused, or when an interruption has dropped what was paused."""
        ...

    def recent_words(self) -> Sequence[str]:
        """Return the words heard in the last 6 s or so, and those of the next second, in order."""
        ...

    def current_text(self) -> str:
        """Return the present utterance as far as it is known: what was heard and what remains."""
        ...


class BargeInListener(Protocol):
    """Told what was decided. Times are those of the event loop's clock, in seconds."""

    def barge_in(self, kind: str, reason: str, now_s: float) -> None:
        """Something was decided.

        Args:
            kind: "pause", "doubt", "resume", "interrupt" or "let go".
            reason: Why, e.g. "noise", "words", "long sound".
            now_s: When.
        """
        ...


class WaitingCaller(Protocol):
    """What barge-in needs to know of a caller who waits for an answer."""

    @property
    def owes(self) -> bool:
        """Whether the agent owes the next word."""
        ...

    @property
    def is_thinking(self) -> bool:
        """Whether it does, and nothing of the answer was heard: then "hello?" is no interruption."""
        ...

    def nudged(self, text: str) -> None:
        """The caller asked whether anybody is there."""
        ...


class _Signal(enum.Enum):
    INTERRUPT = enum.auto()


_Speech = (
    VADUserStartedSpeakingFrame
    | VADUserStoppedSpeakingFrame
    | CallerPausedFrame
    | CallerResumedFrame
    | InterimTranscriptionFrame
    | TranscriptionFrame
    | TranscriptFlushedFrame
    | ProposedUserStartedSpeakingFrame
    | ProposedUserStoppedSpeakingFrame
    | EagerTranscriptionFrame
    | EagerEndOfTurnCancelFrame
)
_Reply = LLMContextUserTurnFrame | FunctionCallInProgressFrame | FunctionCallResultFrame
"""After these the agent speaks."""


class BargeInProcessor(FrameProcessor):
    """Decides whether a sound of the caller's interrupts the agent.

    In direct mode: frames come from several tasks (the recogniser's, the keypad's) and leave one at a time, in the
    order in which they were let through; no interruption can drop a frame that waits here.
    """

    def __init__(
        self,
        playout: PlayoutControl,
        language: Language,
        *,
        backchannels: Backchannels | None = None,
        enabled: bool = True,
        waiting: WaitingCaller | None = None,
        listener: BargeInListener | None = None,
        params: BargeInParams | None = None,
    ) -> None:
        """Create the processor.

        Args:
            playout: The agent's audio.
            language: What is known about the caller's language.
            backchannels: Takes the place of the language's word lists.
            enabled: Whether anything may be interrupted at all.
            waiting: Knows whether an answer is owed, and is told of nudges.
            listener: Told what was decided.
            params: How long to wait for what.
        """
        super().__init__(enable_direct_mode=True)
        self._playout = playout
        self._language = language
        self._backchannels = backchannels or language
        self._enabled = enabled
        self._listener = listener
        self._waiting = waiting
        self._table = BargeInTable(
            self._means_something, params, goes_on=self._goes_on, is_patient=self._may_be_nudge
        )
        self._held: deque[Frame] = deque()
        self._out: deque[Frame | _Signal] = deque()
        self._sending = asyncio.Lock()
        self._changed = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None
        self._is_paused = False
        self._is_turn_open = False
        self._has_turn_words = False
        self._are_words_late = False
        """Whether words are told of what the caller said before, for a recogniser failed."""
        self._is_backchannel_told = False
        self._is_own_voice = False
        """Whether the present sound is most likely the agent's, who went on: then its words are, however late."""
        self._reply_until_s: float | None = None
        """Until when the agent counts as about to speak."""
        self._silent_until_s: float | None = None
        """Until when audio that is still there counts as dropped: an interruption is on its way to it."""
        self._interrupt_until_s: float | None = None
        """Until when the aggregator may take to interrupt."""

    # For the call

    @property
    def may_interrupt(self) -> bool:
        """Whether a turn that starts now may interrupt the agent; the start strategies ask."""
        return self._enabled and self._playout.is_interruptible

    def onset(self, now_s: float) -> None:
        """The caller makes a sound. Pauses the agent before it returns, if it is to be paused."""
        self._is_backchannel_told = False
        self._follow_agent(now_s)
        if self._table.state is Suspicion.CLEAR:  # else it belongs to the sound that is in doubt already
            self._is_own_voice = False
        self._act(self._table.onset(now_s), None, now_s)
        self._changed.set()

    def noise(self, now_s: float, *, may_be_word: bool = False) -> None:
        """The caller's sound was no speech, or too short to be speech for sure."""
        self._follow_agent(now_s)
        self._act(self._table.noise(now_s, may_be_word=may_be_word), None, now_s)
        self._changed.set()

    # Frame processor

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Start the task that knows the time."""
        await super().setup(setup)
        self._clock = self.create_task(self._run(), "barge_in")

    async def cleanup(self) -> None:
        """Stop the task; called once when the call ends, however it ends."""
        clock, self._clock = self._clock, None
        if clock is not None:
            await self.cancel_task(clock)
        await super().cleanup()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Judge what belongs to the caller's speech, follow the turns, pass the rest."""
        await super().process_frame(frame, direction)
        now_s = self._now_s()
        if direction is FrameDirection.DOWNSTREAM and isinstance(frame, _Speech):
            self._follow_agent(now_s)
            self._act(self._decide(frame, now_s), frame, now_s)
            await self._send()
        else:
            self._follow(frame, now_s)
            await self._send()
            await self.push_frame(frame, direction)
        self._changed.set()

    # Who is busy

    def _follow(self, frame: Frame, now_s: float) -> None:
        """Note what the frame says about the turn; each comes once, from whichever side."""
        if isinstance(frame, UserStartedSpeakingFrame):
            self._is_turn_open = True
            self._reply_until_s = None
        elif isinstance(frame, UserStoppedSpeakingFrame):
            self._is_turn_open = False
            if self._has_turn_words:  # nobody answers a cough
                self._has_turn_words = False
                self._reply_until_s = now_s + REPLY_LIMIT_S
        elif isinstance(frame, WordsDelayedFrame):
            self._are_words_late = frame.until_s is not None
        elif isinstance(frame, _Reply):
            self._reply_until_s = now_s + REPLY_LIMIT_S
        elif isinstance(frame, InterruptionFrame):
            self._interrupted(now_s)
        elif isinstance(frame, BotStartedSpeakingFrame):
            self._silent_until_s = None
        elif isinstance(frame, BotStoppedSpeakingFrame):
            self._reply_until_s = None
            self._silent_until_s = None
        else:
            return
        self._follow_agent(now_s)

    def _interrupted(self, now_s: float) -> None:
        self._reply_until_s = None
        self._interrupt_until_s = None
        self._silent_until_s = now_s + INTERRUPTION_LIMIT_S
        self._is_paused = False  # what was paused is dropped

    def _follow_agent(self, now_s: float) -> None:
        self._act(self._table.agent_busy(self._is_agent_busy(now_s), now_s), None, now_s)

    def _is_agent_busy(self, now_s: float) -> bool:
        if self._reply_until_s is not None and now_s >= self._reply_until_s:
            self._reply_until_s = None
        if self._silent_until_s is not None and (
            now_s >= self._silent_until_s or not self._playout.is_audible
        ):
            self._silent_until_s = None
        is_audible = self._playout.is_audible and self._silent_until_s is None
        if self._is_turn_open:  # the caller has the floor; only what can still be interrupted is
            return is_audible and self.may_interrupt
        is_owed = self._waiting is not None and self._waiting.owes
        return is_audible or self._reply_until_s is not None or is_owed

    # What words mean

    def _means_something(self, text: str, *, is_final: bool, can_be_echo: bool) -> bool:
        if self._may_be_nudge(text):
            return False
        # A line that goes on while it is judged keeps echoing.
        can_be_echo = self._playout.is_audible and (can_be_echo or not self._is_paused)
        is_answer_possible = self._is_answer_possible()
        if can_be_echo and is_echo(
            text,
            self._playout.recent_words(),
            self._language.never_echo,
            is_final=is_final,
            is_answer_possible=is_answer_possible,
        ):
            return False
        if is_answer_possible and self._playout.is_audible:
            is_answer_possible = not self._language.asks_openly(self._playout.current_text())
        try:
            return not self._backchannels.is_backchannel(
                text, is_answer_possible=is_answer_possible, is_final=is_final
            )
        except Exception as error:  # noqa: BLE001 - a model that fails must not make the agent deaf
            logger.error("{} cannot judge words: {}", self, error)
            return True

    def _goes_on(self, text: str) -> bool:
        """Whether the caller, who seemed to be done, says "um": over an agent that is heard it asks for nothing."""
        return not self._playout.is_audible and self._language.ends_filled(text)

    def _is_nudge(self, text: str, *, is_final: bool) -> bool:
        """Whether the caller only asks whether anybody is there while the answer is being made."""
        is_thinking = self._waiting is not None and self._waiting.is_thinking
        return is_thinking and self._language.is_nudge(text, is_final=is_final)

    def _may_be_nudge(self, text: str) -> bool:
        """Whether they do, by all they have said in this breath: final words come in pieces, "are you" and "there"."""
        said = [frame.text.strip() for frame in self._held if isinstance(frame, TranscriptionFrame)]
        if said[-1:] != [text.strip()]:
            said.append(text)
        return self._is_nudge(" ".join(said), is_final=False)

    def _is_answer_possible(self) -> bool:
        if not self._playout.is_audible:
            return True
        is_nearly_said = self._playout.remaining_s < ANSWER_WINDOW_S
        return is_nearly_said and self._language.asks_something(self._playout.current_text())

    # What is done

    def _decide(self, frame: Frame, now_s: float) -> list[Action]:
        if isinstance(frame, TranscriptionFrame):
            # The words that make an interruption must not be dropped by it.
            frame.interruptible = False
        is_words = isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame | EagerTranscriptionFrame)
        if is_words and self._are_words_late and self._is_turn_open and self._table.state is Suspicion.CLEAR:
            return [Action.PASS]  # said before the line that bridges the wait for them, and not into it
        if isinstance(frame, TranscriptionFrame):
            return self._table.words(frame.text, is_final=True, now_s=now_s)
        if isinstance(frame, InterimTranscriptionFrame | EagerTranscriptionFrame):
            return self._table.words(frame.text, is_final=False, now_s=now_s)
        if isinstance(frame, VADUserStartedSpeakingFrame):
            return self._table.started(now_s)
        if isinstance(frame, ProposedUserStartedSpeakingFrame):
            return self._table.proposed()
        if isinstance(frame, VADUserStoppedSpeakingFrame):
            return self._table.stopped(now_s, frame.stop_secs)
        if isinstance(frame, TranscriptFlushedFrame):
            return self._table.flushed(now_s)
        if isinstance(frame, CallerPausedFrame):
            return self._table.paused(now_s)
        if isinstance(frame, CallerResumedFrame):
            return self._table.resumed(now_s)
        return self._table.other()

    def _act(self, actions: list[Action], frame: Frame | None, now_s: float) -> None:
        for action in actions:
            if action is Action.PAUSE:
                self._pause()
            elif action is Action.DOUBT:
                self._is_own_voice = True
            elif action is Action.RESUME:
                self._resume()
                self._drop_held()
            elif action is Action.INTERRUPT:
                self._interrupt(now_s)
            elif action is Action.LET_GO:
                self._resume()
                self._held = deque(held for held in self._held if not self._is_late_echo(held))
                self._let_go()
            elif frame is not None:
                self._settle(action, frame)
                continue
            if self._listener:
                self._listener.barge_in(action.value, self._table.reason, now_s)

    def _pause(self) -> None:
        if self.may_interrupt:
            self._is_paused = True
            self._playout.pause()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._playout.resume()

    def _interrupt(self, now_s: float) -> None:
        self._is_own_voice = False
        if not self.may_interrupt:
            self._resume()
        elif self._is_turn_open:
            self._out.append(_Signal.INTERRUPT)  # before the words: they belong to what comes after
        else:
            self._interrupt_until_s = now_s + INTERRUPTION_LIMIT_S
        self._let_go()

    def _let_go(self) -> None:
        self._out.extend(self._held)
        self._held.clear()

    def _drop_held(self) -> None:
        texts = [frame for frame in self._held if isinstance(frame, TranscriptionFrame)] or [
            frame for frame in self._held if isinstance(frame, InterimTranscriptionFrame)
        ][-1:]
        self._held.clear()
        if texts:
            self._tell_backchannel(" ".join(frame.text.strip() for frame in texts), texts[-1].user_id)

    def _is_late_echo(self, frame: Frame) -> bool:
        """Whether words came when the agent was done that are its own. One alone may be the answer."""
        return (
            self._is_own_voice
            and isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame)
            and len(frame.text.split()) > 1
            and is_echo(frame.text, self._playout.recent_words(), self._language.never_echo)
        )

    def _settle(self, action: Action, frame: Frame) -> None:
        if action is Action.PASS:
            if not self._is_late_echo(frame):
                self._out.append(frame)
        elif action is Action.HOLD:
            self._hold(frame)
        elif isinstance(frame, TranscriptionFrame):
            self._tell_backchannel(frame.text.strip(), frame.user_id)

    def _hold(self, frame: Frame) -> None:
        if len(self._held) >= MAX_HELD:
            # What is final and held means nothing so far, so the oldest of those may go when there is no interim.
            interim = next((held for held in self._held if isinstance(held, InterimTranscriptionFrame)), None)
            self._held.remove(interim or self._held[0])
        self._held.append(frame)

    def _tell_backchannel(self, text: str, user_id: str) -> None:
        if text and not self._is_backchannel_told:
            self._is_backchannel_told = True
            if self._waiting is not None and self._is_nudge(text, is_final=True):
                self._waiting.nudged(text)
            self._out.append(UserBackchannelFrame(text=text, user_id=user_id, timestamp=time_now_iso8601()))

    async def _send(self) -> None:
        async with self._sending:
            while self._out:
                item = self._out.popleft()
                if isinstance(item, Frame):
                    self._has_turn_words |= isinstance(item, TranscriptionFrame) and bool(item.text.strip())
                    await self.push_frame(item)
                else:
                    await self._broadcast_interruption()

    async def _broadcast_interruption(self) -> None:
        self._interrupted(self._now_s())
        await self.broadcast_interruption()

    # The task

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            now_s = self._now_s()
            self._follow_agent(now_s)
            self._act(self._table.due(now_s), None, now_s)
            if self._interrupt_until_s is not None and now_s >= self._interrupt_until_s:
                self._interrupt_until_s = None
                logger.warning("{} nothing came of an interruption, so it is broadcast here", self)
                self._out.append(_Signal.INTERRUPT)
            await self._send()
            await self._sleep_until_due()

    async def _sleep_until_due(self) -> None:
        times = [self._table.next_due_s, self._reply_until_s, self._interrupt_until_s]
        due_s = min((time_s for time_s in times if time_s is not None), default=None)
        if due_s is None:
            await self._changed.wait()
            return
        # The loop's timers are a millisecond coarse: a wait of less would spin.
        timer = self.get_event_loop().call_later(max(due_s - self._now_s(), 0.002), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
