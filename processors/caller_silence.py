"""The caller says nothing: when to ask, when to wait longer, when to give up.

`CallerSilence` is the table: it reads no clock, every event carries its own time, and `deadline_s` says when `step` is
to be asked. `CallerSilenceProcessor` is its shell and the only owner of the caller's silence: Pipecat's idle timer is
to be off (`user_idle_timeout=0`). That one starts only when the agent was heard, so a reprompt that a dead voice never
speaks would be the last; it forgets who asked for time; and each cough starts it anew.

Decides nothing about what is said or how the call ends.

| state | event | next | deadline |
|---|---|---|---|
| LISTENING, WAITING | agent starts | LISTENING | none while it is heard |
| LISTENING | agent stops | WAITING | `no_speech_after_s`, or the end of the time asked for |
| LISTENING, WAITING | words | LISTENING, reprompts 0 | `answer_limit_s`: a word is owed to the caller |
| WAITING | sound without words | WAITING | put off while it lasts, by `sound_limit_s` at most |
| any | tool starts | the same | none while it runs |
| any | tool ends | the same | `answer_limit_s` |
| LISTENING, WAITING | deadline, time was asked for | WAITING, **STILL_THERE** | `answer_limit_s` |
| LISTENING, WAITING | deadline | WAITING, **REPROMPT** n + 1 | `answer_limit_s`, should it not be heard |
| LISTENING, WAITING | deadline, `reprompts` are used up | GIVEN_UP, **NO_SPEECH** | none |
| any | deadline, but the agent owes a word | the same | `answer_limit_s` |
| GIVEN_UP | words, or the flow goes on | LISTENING, reprompts 0 | `answer_limit_s` |
"""

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InputDTMFFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from processors.deadline_timer import DeadlineTimer


class Silence(enum.Enum):
    """Where the caller's silence has got to."""

    LISTENING = "listening"
    """The agent speaks, or owes a word."""
    WAITING = "waiting"
    """The caller is to speak."""
    GIVEN_UP = "given_up"
    """Nobody answered; the agent's goodbye does not change that."""


class Ask(enum.Enum):
    """What the agent is to do about it."""

    REPROMPT = "reprompt"
    """Ask whether the caller is there."""
    STILL_THERE = "still_there"
    """The time that the caller asked for is over: ask, but softly."""
    NO_SPEECH = "no_speech"
    """Give up."""


@dataclass(frozen=True)
class SilenceAction:
    """One thing to do, once."""

    ask: Ask
    number: int = 0
    """Which reprompt, from 1; 0 for what is none."""


@dataclass(frozen=True)
class CallerSilenceParams:
    """How patient the agent is. All times in seconds, > 0."""

    no_speech_after_s: float = 7.0
    """Silence after the agent was heard."""
    reprompts: int = 2
    """How often the agent asks before it gives up; 0 gives up at once."""
    hold_on_s: float = 45.0
    """Time given to a caller who asks for it."""
    hold_ons: int = 3
    """Requests for time in a row that are granted."""
    back_words: int = 3
    """A turn of so many words without such a request ends the time asked for: the caller is back. "Thanks" does not."""
    answer_limit_s: float = 15.0
    """Longest wait for a word that the agent owes: an answer, or a reprompt."""
    sound_grace_s: float = 2.5
    """After a sound its words may still come."""
    sound_limit_s: float = 15.0
    """Sound in which nobody finds words puts a reprompt off by so much at most."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If a time is not > 0 or a count is negative.
        """
        times = ("no_speech_after_s", "hold_on_s", "answer_limit_s", "sound_grace_s", "sound_limit_s")
        for name in times:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("reprompts", "hold_ons"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


class CallerSilence:
    """The state table, one per call. Drawn in the module's docstring.

    Events may come twice, late or not at all; times are seconds of one clock and never go back.
    """

    def __init__(self, params: CallerSilenceParams) -> None:
        """Start LISTENING, without a deadline."""
        self.params = params
        self.state = Silence.LISTENING
        self.reprompts = 0
        """Reprompts since the caller's last word."""
        self.given_up = 0
        """How often it was given up since the caller's last word: a flow that went on once ends the next time."""
        self.last_words_s: float | None = None
        """When the caller's last word was understood."""
        self._is_agent_audible = False
        self._is_caller_sounding = False
        self._tools = 0
        self._due_s: float | None = None
        self._latest_s = 0.0  # sound cannot put `_due_s` off beyond this
        self._is_answer_owed = False
        self._hold_until_s: float | None = None
        self._holds = 0
        self._turn_words = 0
        self._turn_asks_for_time = False

    @property
    def deadline_s(self) -> float | None:
        """When `step` is to be asked next, None when nothing is waited for."""
        if self._due_s is None or self.state is Silence.GIVEN_UP or self._is_agent_audible or self._tools:
            return None
        return self._latest_s if self._is_caller_sounding else self._due_s

    # The line

    def line_up(self, now_s: float) -> None:
        """The caller is on the line and owed a greeting."""
        self._arm(now_s + self.params.answer_limit_s)

    def go_on(self, now_s: float) -> None:
        """Something is tried although nobody answered: a word is owed to the caller, and all is asked anew."""
        self.reprompts = 0
        self._arm(now_s + self.params.answer_limit_s)
        self.state = Silence.LISTENING

    def owed(self, now_s: float) -> None:
        """The silence is not the caller's: the agent still owes its word."""
        self._arm(now_s + self.params.answer_limit_s)

    # The agent

    def agent_started(self, now_s: float) -> None:
        """The caller begins to hear the agent."""
        self._is_agent_audible = True
        self._end_turn()
        self._is_answer_owed = False
        self._move(Silence.LISTENING)

    def agent_stopped(self, now_s: float) -> None:
        """The caller has heard the last of what the agent said."""
        self._is_agent_audible = False
        due_s = now_s + self.params.no_speech_after_s
        if self._hold_until_s is not None:
            due_s = max(due_s, self._hold_until_s)
        if self._is_answer_owed:  # it was interrupted, by words that it has to answer
            self._arm(max(due_s, self._due_s or 0.0))
            return
        self._arm(due_s)
        self._move(Silence.WAITING)

    def tool_started(self, now_s: float) -> None:
        """A tool runs: the caller is to wait, not to speak."""
        self._tools += 1

    def tool_ended(self, now_s: float) -> None:
        """A tool has answered, failed or was given up."""
        self._tools = max(0, self._tools - 1)
        if self._tools == 0:
            self._arm(now_s + self.params.answer_limit_s)

    # The caller

    def caller_started(self, now_s: float) -> None:
        """The caller begins to sound, whatever it is."""
        self._is_caller_sounding = True

    def caller_stopped(self, now_s: float) -> None:
        """The caller's sound has ended; its words may not be known yet."""
        if self._is_caller_sounding and self._due_s is not None:
            self._due_s = min(max(self._due_s, now_s + self.params.sound_grace_s), self._latest_s)
        self._is_caller_sounding = False

    def caller_said(self, now_s: float, *, words: int, wants_time: bool = False, final: bool = True) -> None:
        """Words of the caller were understood, or keys were pressed.

        Args:
            now_s: When.
            words: How many; 0 is ignored.
            wants_time: They ask for time ("just a second").
            final: They will not change any more; only then are they counted and may they ask for time.
        """
        if words <= 0:
            return
        self.reprompts = self.given_up = 0
        self.last_words_s = now_s
        self._is_answer_owed = True
        if final:
            self._count(words, now_s, wants_time=wants_time)
        self._arm(max(now_s + self.params.answer_limit_s, self._hold_until_s or 0.0))
        self.state = Silence.LISTENING

    def turn_ended(self, now_s: float) -> None:
        """The caller's turn is decided: what they say next is another."""
        self._end_turn()

    # Time

    def step(self, now_s: float) -> SilenceAction | None:
        """Return what is to be done at `now_s`, None before the deadline."""
        deadline_s = self.deadline_s
        if deadline_s is None or now_s < deadline_s:
            return None
        self._is_answer_owed = False
        # Should the agent's next words not be heard, then the wait for them is the next silence.
        self._arm(now_s + self.params.answer_limit_s)
        if self._hold_until_s is not None:
            self._hold_until_s = None
            self.state = Silence.WAITING
            return SilenceAction(Ask.STILL_THERE)
        if self.reprompts >= self.params.reprompts:
            self.state = Silence.GIVEN_UP
            self.given_up += 1
            return SilenceAction(Ask.NO_SPEECH)
        self.reprompts += 1
        self.state = Silence.WAITING
        return SilenceAction(Ask.REPROMPT, self.reprompts)

    # Inside

    def _arm(self, due_s: float) -> None:
        self._due_s = due_s
        self._latest_s = due_s + self.params.sound_limit_s

    def _count(self, words: int, now_s: float, *, wants_time: bool) -> None:
        self._turn_words += words
        if wants_time and not self._turn_asks_for_time:
            self._turn_asks_for_time = True
            if self._holds < self.params.hold_ons:
                self._holds += 1
                self._hold_until_s = now_s + self.params.hold_on_s
        if not self._turn_asks_for_time and self._turn_words >= self.params.back_words:
            self._hold_until_s = None
            self._holds = 0

    def _end_turn(self) -> None:
        self._turn_words = 0
        self._turn_asks_for_time = False

    def _move(self, state: Silence) -> None:
        """Go to `state` because of the agent: what it says while it gives up is its goodbye."""
        if self.state is not Silence.GIVEN_UP:
            self.state = state


class CallerSilenceProcessor(FrameProcessor):
    """Asks about the caller's silence; place directly behind barge-in: an echo of a reprompt is no answer to it.

    Agent, turns and tools reach it upstream. Runs in direct mode, forwards everything, changes nothing.

    Event handlers available:

    - on_caller_silent(processor, action: SilenceAction): something is to be said now.
    """

    def __init__(
        self,
        params: CallerSilenceParams,
        *,
        wants_time: Callable[[str], bool],
        is_owed: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create the processor.

        Args:
            params: How patient to be.
            wants_time: Whether a final text asks for time, in the agent's language.
            is_owed: Whether the agent owes the next word: then nobody is asked whether they are there.
        """
        super().__init__(enable_direct_mode=True)
        self.silence = CallerSilence(params)
        self._wants_time = wants_time
        self._is_owed = is_owed
        self._timer = DeadlineTimer(lambda: self.silence.deadline_s, self._on_deadline)
        self._register_event_handler("on_caller_silent")

    @property
    def has_given_up(self) -> bool:
        """Whether nobody has answered, up to now: a caller who speaks into the goodbye is back."""
        return self.silence.state is Silence.GIVEN_UP

    def line_up(self) -> None:
        """The caller is on the line: call once, when it is."""
        self.silence.line_up(self._now_s())
        self._timer.follow()

    def go_on(self) -> None:
        """The flow goes on although nobody answered."""
        self.silence.go_on(self._now_s())
        self._timer.follow()

    def stop(self) -> None:
        """The call is to end: ask nothing any more."""
        self._timer.stop()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Note who does what; forward everything."""
        await super().process_frame(frame, direction)
        self._note(frame, self._now_s())
        self._timer.follow()
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Stop the timer."""
        self.stop()
        await super().cleanup()

    def _note(self, frame: Frame, now_s: float) -> None:
        silence = self.silence
        match frame:
            case BotStartedSpeakingFrame():
                silence.agent_started(now_s)
            case BotStoppedSpeakingFrame():
                silence.agent_stopped(now_s)
            case VADUserStartedSpeakingFrame():
                silence.caller_started(now_s)
            case VADUserStoppedSpeakingFrame():
                silence.caller_stopped(now_s)
            case TranscriptionFrame():
                wants_time = self._wants_time(frame.text)
                silence.caller_said(now_s, words=len(frame.text.split()), wants_time=wants_time)
            case InterimTranscriptionFrame():
                silence.caller_said(now_s, words=len(frame.text.split()), final=False)
            case InputDTMFFrame():
                silence.caller_said(now_s, words=1)
            case UserStoppedSpeakingFrame():
                silence.turn_ended(now_s)
            case FunctionCallsStartedFrame():
                for _ in frame.function_calls:
                    silence.tool_started(now_s)
            case FunctionCallResultFrame() | FunctionCallCancelFrame():
                silence.tool_ended(now_s)
            case _:
                pass

    def _on_deadline(self, now_s: float) -> None:
        if self._is_owed():
            self.silence.owed(now_s)
            return
        action = self.silence.step(now_s)
        if action is not None:
            logger.debug("{} the caller is silent: {} {}", self, action.ask.value, action.number or "")
            self.create_task(self._call_event_handler("on_caller_silent", action), "caller_silent")

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()  # the line may be up before the pipeline is
