"""When a caller's turn could not be heard, and what is asked then.

Pure: reads no clock, does no I/O. `processors/repair.py` is its shell. Times are seconds of one clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from processors.confidence import Trust
from processors.repair_lines import RepairLines

_ROUNDING_S = 1e-6


@dataclass(frozen=True)
class RepairParams:
    """Times of a turn that brings no words. In seconds."""

    min_speech_s: float = 0.4
    """Sound shorter than this, without words, is no turn: a cough."""
    quiet_s: float = 1.0
    """Silence after the caller's last sound until they are asked, when no words are on their way."""
    text_limit_s: float = 1.4
    """The same when the recogniser has not said so: from then on its words would come too late."""
    settle_s: float = 0.2
    """The least to wait after being told that the sound ended: that can be late, and its words come behind it."""
    reply_limit_s: float = 10.0
    """How long an answer that was asked of the model keeps us from asking the caller."""

    def __post_init__(self) -> None:
        """Raise ValueError if the waits are not in order."""
        if not 0 < self.quiet_s <= self.text_limit_s:
            raise ValueError(f"need 0 < quiet_s <= text_limit_s, got {self.quiet_s}, {self.text_limit_s}")


@dataclass(frozen=True)
class Unheard:
    """The caller has stopped, and nothing was understood: the turn is to be closed."""

    line: str | None
    """What to ask; None if it was only a noise, or somebody else is about to speak."""


class RepairPolicy:
    """One per call.

    What happens in a turn, until it ends or is found to be unheard:

    | state | event | next | done |
    |---|---|---|---|
    | QUIET | sound | SOUNDING | |
    | SOUNDING | sound ends | SETTLING | |
    | SETTLING | sound | SOUNDING | |
    | SETTLING | quiet for long enough | QUIET | `Unheard`: close the turn; ask, if it was speech or unclear words |
    | SETTLING | turn ended by others, with unclear words | QUIET | the same, at once |
    | any but HEARD | understood words | HEARD | |
    | HEARD | unclear words | HEARD | the model is told that it misses some |
    | HEARD | turn ended | QUIET | no failed turn any more |

    Unclear words in QUIET, for the voice model can miss a caller, lead to SETTLING. Nobody is asked while the agent
    speaks or is about to; but who has cut the agent off is, even by a noise: somebody has to speak.
    """

    def __init__(self, lines: RepairLines, params: RepairParams | None = None) -> None:
        """Start QUIET."""
        self._lines = lines
        self._params = params or RepairParams()
        self._asked = 0
        self.failed_turns = 0
        """Turns in a row that could not be heard."""
        self._is_agent_speaking = False
        self._reply_until_s: float | None = None
        self._held_until_s: float | None = None
        self._is_sounding = False
        self._sound_began_s = 0.0
        self._not_before_s = 0.0
        self._is_over_agent = False
        self._forget_turn()

    # The caller

    def sound_started(self, began_s: float) -> None:
        """The caller makes a sound, since `began_s`."""
        self._is_sounding = True
        self._sound_began_s = began_s
        self._last_sound_s = None
        self._is_flushed = False
        self._is_over_agent |= self._is_agent_speaking

    def sound_ended(self, last_sound_s: float, now_s: float) -> None:
        """The caller has been quiet since `last_sound_s`."""
        if self._is_sounding:
            self._is_sounding = False
            self._not_before_s = now_s + self._params.settle_s
            self._longest_s = max(self._longest_s, last_sound_s - self._sound_began_s)
            self._last_sound_s = last_sound_s
            self._is_flushed = False

    def flushed(self) -> None:
        """The recogniser has no more words for the sound so far."""
        self._is_flushed = True

    def delayed(self, until_s: float | None, now_s: float) -> None:
        """Words are late, and waited for until then; None: they are there, if there were any."""
        self._held_until_s = until_s
        self._not_before_s = max(self._not_before_s, now_s + self._params.settle_s)

    def words(self, trust: Trust, now_s: float) -> bool:
        """Take a final transcript.

        Returns:
            Whether the model is to be told now that it misses words of this turn.
        """
        if trust is Trust.UNHEARD:
            self._has_unheard = True
            if not self._is_sounding and self._last_sound_s is None:
                self._last_sound_s = now_s
        else:
            self._has_understood = True
        if self._is_missing_told or not (self._has_unheard and self._has_understood):
            return False
        self._is_missing_told = True
        return True

    # Turns, and the agent

    def turn_started(self, now_s: float) -> None:
        """The caller has the floor."""
        self._cut_off(now_s)

    def turn_ended(self, now_s: float) -> None:
        """The turn is over, whoever ended it."""
        if self._has_understood:
            self.failed_turns = 0
            self._forget_turn()
        elif self._has_unheard and self._last_sound_s is not None:
            self._last_sound_s = min(self._last_sound_s, now_s - self._params.text_limit_s)
            self._not_before_s = now_s

    def reply_expected(self, now_s: float) -> None:
        """The model was asked, or a tool runs."""
        self._reply_until_s = now_s + self._params.reply_limit_s

    def agent_started(self) -> None:
        """The agent is heard."""
        self._is_agent_speaking = True
        self._reply_until_s = None
        self._is_over_agent |= self._is_sounding or self._last_sound_s is not None

    def agent_stopped(self) -> None:
        """The agent is no longer heard; what a tool found meanwhile is still to be said."""
        self._is_agent_speaking = False

    def interrupted(self, now_s: float) -> None:
        """What the agent was saying, or about to say, was dropped."""
        self._cut_off(now_s)
        self._is_agent_speaking = False

    # What comes of it

    def due_s(self) -> float | None:
        """Return when `decide` has something to say if nothing happens, None if it has not."""
        if self._is_sounding or self._has_understood or self._last_sound_s is None:
            return None
        wait_s = self._params.quiet_s if self._is_flushed else self._params.text_limit_s
        return max(self._last_sound_s + wait_s, self._not_before_s, self._held_until_s or 0.0)

    def decide(self, now_s: float) -> Unheard | None:
        """Return what is to be done about a turn without understood words, once it is due."""
        due_s = self.due_s()
        if due_s is None or now_s < due_s - _ROUNDING_S:
            return None
        is_speech = self._longest_s >= self._params.min_speech_s - _ROUNDING_S and not self._is_over_agent
        wants_answer = self._has_unheard or self._has_cut_off or is_speech
        self._forget_turn()
        if not wants_answer or self._is_agent_busy(now_s):
            return Unheard(None)
        self.failed_turns += 1
        return Unheard(self._next_line())

    # Inside

    def _forget_turn(self) -> None:
        self._last_sound_s: float | None = None
        self._longest_s = 0.0
        self._is_flushed = False
        self._has_understood = False
        self._has_unheard = False
        self._is_missing_told = False
        self._has_cut_off = False
        self._is_over_agent = self._is_agent_speaking and self._is_sounding

    def _cut_off(self, now_s: float) -> None:
        self._has_cut_off |= self._is_agent_busy(now_s)
        self._reply_until_s = None

    def _is_agent_busy(self, now_s: float) -> bool:
        return self._is_agent_speaking or (self._reply_until_s is not None and now_s < self._reply_until_s)

    def _next_line(self) -> str:
        lines: Sequence[str] = self._lines.first if self.failed_turns == 1 else self._lines.again
        self._asked += 1
        return lines[(self._asked - 1) % len(lines)]
