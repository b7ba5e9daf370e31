"""We owe the caller a word: when the silence is filled, and what follows when nothing helps.

The pure core of `silence_watchdog`: no clock, no I/O; every event carries its own time, and `deadline_s` says when
`step` is to be asked. It counts what the caller *hears*: what the line has played, from whatever source.

A debt begins when the caller's turn is decided (or the line comes up, or the model is asked for another reason), is
counted from the caller's last sound, and is paid when all of the answer was heard. While the caller has the floor
nothing is owed. A tool that runs keeps a debt open, and so does its result until the model has spoken of it.

| the wait so far | next, when nobody is heard | due |
|---|---|---|
| nothing said, no text yet | FILLER | `stall_after_s` from the last sound, `grace_s` from the decision; by `limit_s` |
| nothing said, there is text | FILLER | `limit_s` of silence: the voice or the line is stuck |
| one filler | FILLER | `second_after_s` from the first, or `limit_s` of silence, whichever is first |
| two fillers, or some of the answer was heard | RETRY | `limit_s` of silence |
| a tool runs | FILLER | as above; after `tool_limit_s` as if it did not run |
| RETRY was done, or there is nothing to ask again | GIVE_UP | `limit_s` of silence |
| the caller nudges ("hello?") | FILLER | at once, beside the ladder |
| the caller's words are late: a recogniser failed | FILLER, once | `limit_s` of silence, with the turn still open |

`limit_s` is `stall_after_s + slack_s`. There is no grace when the decision had to wait for late words.
Nothing is due while the caller sounds.
"""

import enum
from dataclasses import dataclass


class Rung(enum.Enum):
    """What is done about a silence of ours."""

    FILLER = "filler"
    """Say a line that means nothing but "wait"."""
    RETRY = "retry"
    """Apologise, throw away what was being made, and ask the model again."""
    GIVE_UP = "give up"
    """Nothing helps: somebody else must take the call, or it ends."""


class Cause(enum.Enum):
    """What the caller waits for."""

    GREETING = "greeting"
    WORDS = "words"
    """What the caller said is being heard again."""
    MODEL = "model"
    TOOL = "tool"
    VOICE = "voice"
    PLAYOUT = "playout"
    """There is audio, and the line does not play it."""


@dataclass(frozen=True)
class Step:
    """One thing to do, once."""

    rung: Rung
    cause: Cause
    silence_s: float
    """How long nothing has been heard."""
    is_nudge: bool = False
    """The caller asked whether anybody is there."""
    heard_some: bool = False
    """Some of the answer was heard before it stopped."""


@dataclass(frozen=True)
class SilenceWatchParams:
    """How long we may be silent. All times in seconds."""

    stall_after_s: float = 2.0
    """Without any text of an answer."""
    slack_s: float = 0.8
    """More than that, whatever there is: `limit_s` is both, and what is said then is heard within 3 s."""
    second_after_s: float = 5.0
    """Between the beginnings of two fillers."""
    grace_s: float = 1.0
    """For the model, when the turn was decided late; never more than half of `stall_after_s`."""
    caller_quiet_s: float = 0.3
    """A caller who has been quiet for less still speaks."""
    tool_limit_s: float = 15.0
    """A tool that runs longer is not waited for any more."""
    nudge_every_s: float = 3.0
    """A filler this young answers the caller's "hello?" too."""
    nudges: int = 4
    """Answered in one wait; more of them change nothing."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: If a time is not > 0 or a count is negative.
        """
        for name in ("stall_after_s", "slack_s", "second_after_s", "tool_limit_s", "nudge_every_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        for name in ("grace_s", "caller_quiet_s", "nudges"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")

    @property
    def limit_s(self) -> float:
        """The longest silence of ours that nothing is done about."""
        return self.stall_after_s + self.slack_s


@dataclass
class _Reply:
    """One reply of the model's on its way to the ear."""

    text_s: float | None = None
    """When its first text came that can be spoken."""
    needs_voice: bool = False
    """The voice was given text."""
    has_voice: bool = False
    """It has made audio of some."""

    @property
    def is_lost(self) -> bool:
        """Whether the voice, asked for the last time, has made nothing of it."""
        return self.needs_voice and not self.has_voice

    def add_text(self, now_s: float, *, needs_voice: bool) -> None:
        self.text_s = now_s if self.text_s is None else self.text_s
        self.needs_voice |= needs_voice


FILLERS = 2
"""In one wait, before it is taken for a failure."""


class SilenceWatch:
    """The table, one per call. Drawn in the module's docstring.

    Events may come twice, late or not at all; times are seconds of one clock and never go back.
    """

    def __init__(self, params: SilenceWatchParams | None = None) -> None:
        """Start with nothing owed."""
        self.params = params or SilenceWatchParams()
        self._owes = False
        self._has_floor = False
        """Whether the caller has it."""
        self._are_words_late = False
        """What the caller said is being heard again: they have the floor, and wait all the same."""
        self._bridged_s: float | None = None
        """When that wait was filled."""
        self._is_greeting = False
        self._since_s = 0.0
        """The caller's last sound, or what else the debt began with."""
        self._decided_s = 0.0
        self._heard_until_s = float("-inf")
        self._caller_until_s = float("-inf")
        self._audio_waits = False
        self._asked_s: float | None = None
        """When something was last said about this wait."""
        self._filler_s = float("-inf")
        self._steps = 0
        """Fillers said in this wait, nudges apart."""
        self._nudges = 0
        self._is_retried = False
        self._has_given_up = False
        self._tools = 0
        self._tool_s = 0.0
        self._is_follow_up_due = False
        """A tool has answered, and the model has not spoken of it."""
        self._reply: _Reply | None = None
        """What the model is saying, or has said and was not heard."""
        self._ahead: _Reply | None = None
        """What it says to a turn that may not be over."""
        self._is_answer_heard = False
        self._is_lost = False
        """The voice made nothing of a reply."""

    # State

    @property
    def owes(self) -> bool:
        """Whether the next word is ours."""
        return self._owes and not self._has_floor and not self._has_given_up

    @property
    def is_thinking(self) -> bool:
        """Whether it is, and the caller has heard nothing of it."""
        return self.owes and self._may_fill

    @property
    def deadline_s(self) -> float | None:
        """When `step` is to be asked next, as far as is known; None when nothing is owed."""
        if self._waits_for_words:
            return max(self._caller_until_s, self._heard_until_s) + self.params.limit_s
        if not self.owes:
            return None
        return max(self._due_s(), self._caller_until_s + self.params.caller_quiet_s)

    @property
    def cause(self) -> Cause:
        """What the caller waits for now."""
        if self._waits_for_words:
            return Cause.WORDS
        if self._audio_waits:
            return Cause.PLAYOUT
        if self._is_greeting:
            return Cause.GREETING
        if self._tools:
            return Cause.TOOL
        is_voice = self._text_s is not None or self._is_answer_heard or self._is_lost
        return Cause.VOICE if is_voice else Cause.MODEL

    @property
    def _waits_for_words(self) -> bool:
        return self._has_floor and self._are_words_late and self._bridged_s is None and not self._has_given_up

    @property
    def _text_s(self) -> float | None:
        return None if self._reply is None else self._reply.text_s

    # The line and the turns

    def line_up(self, now_s: float) -> None:
        """The caller is on the line and owed a greeting."""
        self._begin(now_s, now_s)
        self._is_greeting = True

    def turn_opened(self, now_s: float) -> None:
        """The caller has the floor."""
        self._has_floor = True
        self._bridged_s = None

    def words_late(self, *, are_late: bool) -> None:
        """What the caller said is being heard again, because a recogniser failed; or that is over."""
        self._are_words_late = are_late

    def turn_ended(
        self, now_s: float, *, speech_end_s: float, has_words: bool, were_late: bool = False
    ) -> None:
        """The caller's turn is over; without words in it nobody answers, and what was owed before still is.

        Args:
            now_s: Now.
            speech_end_s: When the caller's last sound was.
            has_words: Whether words were understood.
            were_late: Whether they were waited for because a recogniser failed: then the model gets no grace.
        """
        self._has_floor = False
        speech_end_s = min(speech_end_s, now_s)
        ahead, self._ahead = self._ahead, None
        if has_words:
            self._begin(speech_end_s, speech_end_s if were_late else now_s)
            self._reply = ahead
            if self._bridged_s is not None:
                self._asked_s, self._steps = self._bridged_s, 1

    def interrupted(self, now_s: float) -> None:
        """What was being made or said is dropped: by the caller, who has their say."""
        self._owes = self._is_follow_up_due = self._is_lost = False
        self._reply = self._ahead = None

    # The answer

    def reply_started(self, now_s: float, *, is_ahead: bool) -> None:
        """The model was asked; `is_ahead` when the caller's turn may not be over."""
        if is_ahead and (self._has_floor or not self._owes):
            self._ahead = _Reply()
            return
        if not self._owes:
            self._begin(now_s, now_s)
        if self._is_follow_up_due:
            self._is_follow_up_due = self._is_answer_heard = False
        self._reply, self._is_lost = _Reply(), False

    def reply_text(self, now_s: float, *, needs_voice: bool) -> None:
        """Text came that can be spoken; `needs_voice` when its sound is not there yet."""
        reply = self._ahead or self._reply
        if reply is not None:
            reply.add_text(now_s, needs_voice=needs_voice)

    def reply_withdrawn(self, now_s: float) -> None:
        """What was made ahead is dropped."""
        if self._ahead is None:
            self._reply = None
        self._ahead = None

    def voice_came(self, now_s: float) -> None:
        """The voice has made audio of a reply."""
        self._is_lost = False
        if self._reply is not None:
            self._reply.has_voice = True

    def reply_heard(self, now_s: float) -> None:
        """All that became audio of the model's reply was heard, should it be nothing."""
        reply, self._reply = self._reply, None
        if reply is not None:
            self._is_lost |= reply.is_lost
            # Right behind another line nobody tells that the agent began.
            self._is_answer_heard |= reply.text_s is not None and not reply.is_lost
        self._settle()

    def answer_started(self, now_s: float) -> None:
        """The caller begins to hear the agent, a filler apart."""
        self._is_answer_heard = True
        self._heard_until_s = max(self._heard_until_s, now_s)

    def answer_stopped(self, now_s: float) -> None:
        """The caller has heard the last of what there is."""
        self._settle()

    # Tools

    def tool_started(self, now_s: float) -> None:
        """A tool runs: what was said before it is not the answer."""
        if self._tools == 0:
            self._tool_s = now_s
        self._tools += 1
        if self._reply is not None:
            self._reply.text_s = None
        if not self._owes:
            self._begin(now_s, now_s)

    def tool_ended(self, now_s: float, *, model_follows: bool) -> None:
        """A tool has answered, failed or was given up.

        Args:
            now_s: When.
            model_follows: The model is asked about it.
        """
        if self._tools == 0:
            return
        self._tools -= 1
        if model_follows and self._owes:
            self._is_follow_up_due = True
        self._settle()

    # What was heard

    def sounded(self, *, heard_until_s: float, caller_until_s: float, audio_waits: bool) -> None:
        """Tell how far the line is; to be told before `deadline_s` is relied upon.

        Args:
            heard_until_s: Until when the caller has heard us, or will have heard what was sent.
            caller_until_s: The caller's last sound.
            audio_waits: Whether there is audio that was not sent.
        """
        self._heard_until_s = max(self._heard_until_s, heard_until_s)
        self._caller_until_s = max(self._caller_until_s, caller_until_s)
        self._audio_waits = audio_waits

    # What is done

    def nudged(self, now_s: float) -> Step | None:
        """The caller asks whether anybody is there; returns how that is answered."""
        params = self.params
        is_answered = now_s < self._heard_until_s or now_s - self._filler_s < params.nudge_every_s
        is_near = self._text_s is not None and now_s - self._text_s < params.slack_s
        if not self.is_thinking or is_answered or is_near or self._nudges >= params.nudges:
            return None
        self._nudges += 1
        return self._said(Rung.FILLER, now_s, is_nudge=True)

    def step(self, now_s: float) -> Step | None:
        """Return what is to be done at `now_s`, None before the deadline."""
        deadline_s = self.deadline_s
        if deadline_s is None or now_s < deadline_s:
            return None
        if self._waits_for_words:
            silence_s = now_s - max(self._caller_until_s, self._heard_until_s)
            step = Step(Rung.FILLER, self.cause, silence_s)
            self._bridged_s = self._filler_s = now_s
            return step
        rung = self._next_rung(now_s)
        step = self._said(rung, now_s)
        if rung is Rung.FILLER:
            self._steps += 1
        elif rung is Rung.RETRY:
            self._is_retried = True
            self._is_follow_up_due = self._is_answer_heard = self._is_lost = False
            self._reply = None
        else:
            self._has_given_up = True
        return step

    # Inside

    @property
    def _may_fill(self) -> bool:
        """Whether the answer has not begun: who runs a tool has not begun to tell what it found."""
        return not self._is_answer_heard or self._tools > 0 or self._is_follow_up_due

    def _next_rung(self, now_s: float) -> Rung:
        if self._tools and now_s - self._tool_s < self.params.tool_limit_s:
            return Rung.FILLER
        if self._steps < FILLERS and self._may_fill and not self._is_retried:
            return Rung.FILLER
        return Rung.GIVE_UP if self._is_retried or self._is_greeting or self._tools else Rung.RETRY

    def _due_s(self) -> float:
        params = self.params
        quiet_s = max(self._since_s, self._heard_until_s)
        fills = self._may_fill and self._text_s is None and not self._is_retried
        if self._asked_s is None:
            if not fills:
                return quiet_s + params.limit_s
            grace_s = min(params.grace_s, params.stall_after_s / 2)
            late_s = min(self._decided_s + grace_s, quiet_s + params.limit_s)
            return max(quiet_s + params.stall_after_s, late_s)
        quiet_s = max(quiet_s, self._asked_s)
        due_s = quiet_s + params.limit_s
        if fills and (self._steps < FILLERS or self._tools):
            due_s = max(min(due_s, self._asked_s + params.second_after_s), quiet_s)
        return due_s

    def _said(self, rung: Rung, now_s: float, *, is_nudge: bool = False) -> Step:
        silence_s = max(0.0, now_s - max(self._since_s, self._heard_until_s))
        step = Step(rung, self.cause, silence_s, is_nudge=is_nudge, heard_some=self._is_answer_heard)
        self._asked_s = now_s
        if rung is Rung.FILLER:
            self._filler_s = now_s
        return step

    def _begin(self, since_s: float, decided_s: float) -> None:
        self._owes = True
        self._since_s, self._decided_s = since_s, decided_s
        self._asked_s = None
        self._steps = self._nudges = 0
        self._is_retried = self._is_greeting = self._is_answer_heard = False
        self._is_follow_up_due = self._is_lost = False
        self._reply = None

    def _settle(self) -> None:
        is_more_due = self._reply is not None or self._is_lost or self._tools or self._is_follow_up_due
        if self._is_answer_heard and not is_more_due:
            self._owes = False
            self._is_greeting = False
