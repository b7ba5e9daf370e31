"""Is that an interruption? The table of barge-in, without a clock and without I/O.

    CLEAR --sound--> SUSPECT: pause             SUSPECT --noise--> JUDGING, for a syllable; later ones: CLEAR: resume
    CLEAR --sound, and resuming has made the last ones--> SUSPECT: doubt
    SUSPECT --words | sound for too long--> CLEAR: interrupt
    SUSPECT --stopped | may have been a word--> JUDGING         JUDGING --sound--> SUSPECT
    SUSPECT --stopped, flushed before--> CLEAR: resume
    JUDGING --words--> CLEAR: interrupt         JUDGING --flushed | time is up--> CLEAR: resume
    JUDGING --they will go on | flushed at a comma--> JUDGING, for longer
    CLEAR --words--> CLEAR: interrupt           any --agent no longer busy--> CLEAR: let go

"Words" are those that mean something; whoever asks says which do. Once they have come, the rest of that speech
passes. While the agent is not busy, everything passes.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Suspicion(enum.Enum):
    """Whether the caller may be interrupting."""

    CLEAR = "clear"
    SUSPECT = "suspect"
    JUDGING = "judging"


class Action(enum.Enum):
    """What is to be done, in this order."""

    PAUSE = "pause"
    """The agent falls silent, or does not start; followed by one of the next three."""
    DOUBT = "doubt"
    """In place of PAUSE: the agent goes on while it is found out what the sound was."""
    RESUME = "resume"
    """The agent goes on, and what was held is dropped."""
    INTERRUPT = "interrupt"
    """What was held goes on to the turn, which interrupts the agent. Also comes without PAUSE."""
    LET_GO = "let go"
    """There is nothing left to interrupt: what was held goes on."""
    HOLD = "hold"
    """The event's own frame is held."""
    PASS = "pass"  # noqa: S105 - no password
    """The event's own frame goes on, behind what was held."""
    DROP = "drop"
    """The event's own frame is dropped."""


class MeansSomething(Protocol):
    """Judges words."""

    def __call__(self, text: str, *, is_final: bool, can_be_echo: bool) -> bool:
        """Say whether words are more than a backchannel or, if that can be, an echo of the agent."""
        ...


class IsPatient(Protocol):
    """Knows words that need no turn, however long they take."""

    def __call__(self, text: str) -> bool:
        """Say whether a caller who waits for an answer may only be asking whether anybody is there."""
        ...


@dataclass(frozen=True)
class BargeInParams:
    """How long to wait for what."""

    no_words_limit_s: float = 1.0
    """Sound without any word for this long is an interruption."""
    vague_words_limit_s: float = 1.5
    """Sound for this long with no word that means something is one, too; not when it asks whether anybody is there."""
    syllable_limit_s: float = 0.1
    """Quiet behind the first noise of a pause in which another sound belongs to it: "ex" and "cuse me"."""
    judge_limit_s: float = 0.35
    """The recogniser's time to understand a sound that has ended."""
    go_on_limit_s: float = 1.2
    """Quiet for which who says that they will go on is waited for."""
    comma_limit_s: float = 0.4
    """Quiet for which more is waited for behind words that the recogniser ends with a comma, having told them all."""
    pause_limit_s: float = 3.0
    """The agent is silent for no longer than this, whatever sounds come and go."""
    echo_limit_s: float = 0.6
    """The line returns the agent's voice for no longer than this after the agent has paused."""
    quiet_s: float = 0.2
    """Quiet after which a sound counts as ended."""
    pauses_in_a_row: int = 2
    """A sound that begins within `echo_limit_s` of resuming, so many times, is the agent's own voice: pausing again
    would only make it stutter."""


class BargeInTable:
    """The table, one per call. Times are those of the event loop's clock, in seconds."""

    def __init__(
        self,
        means_something: MeansSomething,
        params: BargeInParams | None = None,
        *,
        goes_on: Callable[[str], bool] = lambda _: False,
        is_patient: IsPatient | None = None,
    ) -> None:
        """Start CLEAR, with an agent that is not busy.

        Args:
            means_something: Judges words.
            params: How long to wait for what.
            goes_on: Says whether words that mean nothing so far promise more, with nothing heard of the agent yet.
            is_patient: Knows words that may take longer.
        """
        self.params = params or BargeInParams()
        self.state = Suspicion.CLEAR
        self.reason = ""
        """Why the last PAUSE, DOUBT, RESUME, INTERRUPT or LET_GO was decided."""
        self._means_something = means_something
        self._goes_on = goes_on
        self._is_patient = is_patient
        self._is_busy = False
        self._paused_s = 0.0
        self._resumed_s = float("-inf")
        self._pauses = 0
        """Pauses, each but the first right behind the end of the one before."""
        self._onset_s = 0.0
        self._sound_paused_s: float | None = None
        """When the sound paused, None while it goes on."""
        self._sound_s = 0.0
        """Length of the longest sound since the pause that has ended."""
        self._quiet_from_s = 0.0
        """When the last sound ended."""
        self._text = ""
        """The last words, if they do not mean anything so far."""
        self._text_is_final = False
        self._is_reconsidered = False
        self._judge_until_s: float | None = None
        self._is_noise = False
        """What is judged was noise, and is only waited behind for another syllable."""
        self._has_waited_for_syllable = False
        """In this pause: noises that keep coming must not hold the agent."""
        self._is_flushed = False
        """The recogniser has told all there was, and no sound has come since."""
        self._is_interruption = False
        """The present speech is one: all of it passes."""
        self._interruption_until_s: float | None = None

    @property
    def next_due_s(self) -> float | None:
        """When `due` is to be called next, None if only an event can change anything."""
        if self.state is Suspicion.JUDGING:
            return self._judge_until_s
        if self.state is Suspicion.SUSPECT:
            limit_s = self._sound_limit_s()
            return limit_s if self._is_reconsidered or not self._text else min(self._reconsider_s(), limit_s)
        return None

    # Events without a frame

    def agent_busy(self, busy: bool, now_s: float) -> list[Action]:
        """The agent is heard or about to be, and may be interrupted; or that is over."""
        self._is_busy = busy
        if busy:
            return []
        self._is_interruption = False
        if self.state is Suspicion.CLEAR:
            return []
        return [self._clear(Action.LET_GO, "agent done", now_s)]

    def onset(self, now_s: float) -> list[Action]:
        """A sound has begun."""
        if not self._is_busy:
            return []
        self._is_interruption = False
        return self._sound_began(now_s)

    def noise(self, now_s: float, *, may_be_word: bool = False) -> list[Action]:
        """The sound was no speech; `may_be_word` if it was long enough for the recogniser to find a word in it."""
        if self.state is not Suspicion.SUSPECT:
            return []
        self._sound_ended(now_s, self.params.quiet_s)
        if may_be_word:
            self._is_noise = False
            self._judge_until_s = max(self._judge_until_s or now_s, now_s + self.params.judge_limit_s)
        elif not self._has_waited_for_syllable:
            self._has_waited_for_syllable = True
            self._is_noise = self._judge_until_s is None
            self._judge_until_s = max(self._judge_until_s or now_s, now_s + self.params.syllable_limit_s)
        if self._judge_until_s is not None and now_s < self._judge_until_s:
            self.state = Suspicion.JUDGING  # the words of an earlier sound may still come
            return []
        return [self._clear(Action.RESUME, "noise", now_s)]

    def due(self, now_s: float) -> list[Action]:
        """Time has passed."""
        if self.state is Suspicion.SUSPECT:
            if now_s >= self._reconsider_s():
                self._is_reconsidered = True
            if self._meant_something(now_s):
                return [self._interrupt("words", now_s)]
            if now_s >= self._sound_limit_s():
                return [self._interrupt("long sound", now_s)]
        elif (
            self.state is Suspicion.JUDGING
            and self._judge_until_s is not None
            and now_s >= self._judge_until_s
        ):
            return [self._clear(Action.RESUME, "noise" if self._is_noise else "nothing said", now_s)]
        return []

    # Events with a frame: the last action says what becomes of it

    def started(self, now_s: float) -> list[Action]:
        """The sound is speech. A sound whose beginning was not told begins now."""
        if not self._is_busy or self._is_interruption:
            return [Action.PASS]
        if self.state is Suspicion.SUSPECT:
            return [Action.HOLD]
        return [*self._sound_began(now_s), Action.HOLD]

    def proposed(self) -> list[Action]:
        """The recogniser believes that a turn begins. It says so late: a sound is what the voice model hears."""
        if not self._is_busy or self._is_interruption:
            return [Action.PASS]
        return [Action.DROP if self.state is Suspicion.CLEAR else Action.HOLD]

    def stopped(self, now_s: float, quiet_s: float = 0.0) -> list[Action]:
        """The speech has ended, `quiet_s` ago."""
        if self.state is Suspicion.CLEAR:
            self._interruption_until_s = now_s + self.params.judge_limit_s
            return [Action.PASS]
        if self.state is Suspicion.SUSPECT:
            self._sound_ended(now_s, quiet_s)
            self.state = Suspicion.JUDGING
            self._is_noise = False
            self._judge_until_s = now_s + self.params.judge_limit_s
            if self._meant_something(now_s):
                return [self._interrupt("words", now_s), Action.PASS]
            if self._waits_for_more():
                return [Action.HOLD]
            if self._is_flushed and not self._waits_at_comma(now_s):
                return [self._clear(Action.RESUME, "nothing said", now_s), Action.DROP]
        return [Action.HOLD]

    def words(self, text: str, *, is_final: bool, now_s: float) -> list[Action]:
        """The recogniser understood something."""
        if not self._is_busy or self._passes(now_s):
            return [Action.PASS]
        if text.strip() and self._means_something(
            text, is_final=is_final, can_be_echo=self._can_be_echo(now_s)
        ):
            return [self._interrupt("words", now_s), Action.PASS]
        if self.state is Suspicion.CLEAR:
            return [Action.DROP]
        if text.strip():
            self._text, self._text_is_final = text, is_final
            if self.state is Suspicion.JUDGING:
                self._waits_for_more()
        return [Action.HOLD]

    def flushed(self, now_s: float) -> list[Action]:
        """The recogniser has said all it understood."""
        if self.state is Suspicion.JUDGING:
            if self._waits_for_more() or self._waits_at_comma(now_s):
                return [Action.HOLD]
            return [self._clear(Action.RESUME, "nothing said", now_s), Action.DROP]
        if self.state is Suspicion.SUSPECT:
            self._judge_until_s = None
            self._is_flushed = True
            return [Action.HOLD]
        if self._interruption_until_s is not None:
            self._is_interruption = False
        return [Action.PASS]

    def paused(self, now_s: float) -> list[Action]:
        """The sound has paused for a moment and may have ended: the recogniser is asked for what it has not told."""
        self._is_flushed = False
        self._sound_paused_s = now_s
        return self.other()

    def resumed(self, now_s: float) -> list[Action]:
        """The sound goes on: what the recogniser told so far was not all."""
        self._is_flushed = False
        self._sound_paused_s = None
        if self.state is Suspicion.SUSPECT and now_s >= self._sound_limit_s():
            return [self._interrupt("long sound", now_s), Action.PASS]
        return self.other()

    def other(self) -> list[Action]:
        """Something else that belongs to the caller's speech came."""
        return [Action.PASS if self.state is Suspicion.CLEAR else Action.HOLD]

    # Inside

    def _reconsider_s(self) -> float:
        """When the sound has surely lasted longer than an echo."""
        return self._onset_s + self.params.echo_limit_s + self.params.quiet_s

    def _meant_something(self, now_s: float) -> bool:
        """Judge the last words again: what could be an echo at first is none when the sound goes on."""
        return bool(self._text) and self._means_something(
            self._text, is_final=self._text_is_final, can_be_echo=self._can_be_echo(now_s)
        )

    def _waits_for_more(self) -> bool:
        """Tell whether the caller has said that they will go on; if so, wait for longer."""
        if not self._text or not self._goes_on(self._text):
            return False
        self._judge_until_s = self._quiet_from_s + self.params.go_on_limit_s
        return True

    def _waits_at_comma(self, now_s: float) -> bool:
        """Tell whether the recogniser has told all, and expects more; if so, wait a little."""
        until_s = self._quiet_from_s + self.params.comma_limit_s
        if not self._text.rstrip().endswith(",") or now_s >= until_s:
            return False
        self._judge_until_s = until_s
        return True

    def _can_be_echo(self, now_s: float) -> bool:
        sound_s = self._sound_s
        if self.state is Suspicion.SUSPECT:
            # It may have ended up to `quiet_s` ago.
            sound_s = max(sound_s, now_s - self._onset_s - self.params.quiet_s)
        return sound_s < self.params.echo_limit_s - 1e-6

    def _passes(self, now_s: float) -> bool:
        if self._interruption_until_s is not None and now_s >= self._interruption_until_s:
            self._is_interruption = False
            self._interruption_until_s = None
        return self._is_interruption

    def _sound_limit_s(self) -> float:
        limit_s = self.params.vague_words_limit_s if self._text else self.params.no_words_limit_s
        if self._text and self._is_patient is not None and self._is_patient(self._text):
            limit_s = self.params.pause_limit_s
        long_s = self._onset_s + limit_s
        if self._sound_paused_s is not None:  # whether it is over is told in a moment
            long_s = max(long_s, self._sound_paused_s + self.params.quiet_s)
        return min(long_s, self._paused_s + self.params.pause_limit_s)

    def _sound_began(self, now_s: float) -> list[Action]:
        was_clear = self.state is Suspicion.CLEAR
        if self.state is not Suspicion.SUSPECT:
            self.state = Suspicion.SUSPECT
            self._onset_s = now_s
            self._is_reconsidered = False
            self._is_flushed = False
            self._sound_paused_s = None
        if not was_clear:
            return []
        self._paused_s = now_s
        self._sound_s = 0.0
        self._text = ""
        self._judge_until_s = None
        self._has_waited_for_syllable = False
        self._pauses = self._pauses + 1 if now_s - self._resumed_s <= self.params.echo_limit_s else 1
        if self._pauses > self.params.pauses_in_a_row:
            self.reason = "the agent's own voice"
            return [Action.DOUBT]
        self.reason = "sound"
        return [Action.PAUSE]

    def _sound_ended(self, now_s: float, quiet_s: float) -> None:
        self._quiet_from_s = now_s - quiet_s
        self._sound_s = max(self._sound_s, self._quiet_from_s - self._onset_s)

    def _interrupt(self, reason: str, now_s: float) -> Action:
        self._is_interruption = True
        self._interruption_until_s = self._judge_until_s if self.state is Suspicion.JUDGING else None
        return self._clear(Action.INTERRUPT, reason, now_s)

    def _clear(self, action: Action, reason: str, now_s: float) -> Action:
        self.state = Suspicion.CLEAR
        self.reason = reason
        self._resumed_s = now_s if action is Action.RESUME else float("-inf")
        self._text = ""
        self._judge_until_s = None
        return action
