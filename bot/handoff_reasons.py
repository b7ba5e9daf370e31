"""Why a caller goes to a person, and when that is so: small policies over what is heard.

Pure: no clock, no I/O; `bot/person_watch.py` tells them what happens, `bot/handoff.py` acts on what they say. Whoever
is told a reason decides whether anybody can be rung.
"""

import enum
from collections import deque
from dataclasses import dataclass

from rapidfuzz import fuzz

from processors.confidence import Trust
from processors.language import Language, normalise


class HandoffReason(enum.StrEnum):
    """Why the caller goes to a person."""

    ASKED = "asked"
    """They want to talk to one."""
    FAILED_TURNS = "failed_turns"
    """They could not be understood, several times in a row."""
    UNSURE = "unsure"
    """They were understood with doubt only, several times in a row."""
    FRUSTRATED = "frustrated"
    """They said so."""
    REPEATED = "repeated"
    """They said the same thing again and again."""
    MODEL = "model"
    """No model answers."""
    VOICE = "voice"
    """No voice speaks."""
    RECOGNISER = "recogniser"
    """No recogniser hears."""
    STUCK = "stuck"
    """The caller waited and nothing helped, whatever it was."""

    @property
    def can_agent_talk(self) -> bool:
        """Whether the agent could go on with the caller if nobody comes."""
        return self in _AGENT_WORKS

    @property
    def is_ours(self) -> bool:
        """Whether something of ours is broken."""
        return self in (self.MODEL, self.VOICE, self.RECOGNISER, self.STUCK)


_AGENT_WORKS = frozenset(
    {HandoffReason.ASKED, HandoffReason.UNSURE, HandoffReason.FRUSTRATED, HandoffReason.REPEATED}
)
_REASON_OF_CAUSE = {
    "llm_failed": HandoffReason.MODEL,
    "model": HandoffReason.MODEL,
    "voice": HandoffReason.VOICE,
    "stt": HandoffReason.RECOGNISER,
    "hearing": HandoffReason.RECOGNISER,
    "recogniser": HandoffReason.RECOGNISER,
}


def reason_of(cause: str) -> HandoffReason:
    """Return what it means that a call was given up because of `cause`."""
    return _REASON_OF_CAUSE.get(cause, HandoffReason.STUCK)


@dataclass(frozen=True)
class Patience:
    """How much a caller puts up with before they are put through."""

    failed_turns: int = 2
    """Turns in a row that could not be heard."""
    doubtful_turns: int = 4
    """Turns in a row that were heard with doubt."""
    same_requests: int = 3
    """Times the same thing is said."""

    def __post_init__(self) -> None:
        """Raise ValueError if one of them is not at least 1."""
        if min(self.failed_turns, self.doubtful_turns, self.same_requests) < 1:
            raise ValueError(
                "failed_turns, doubtful_turns and same_requests must be >= 1, "
                f"got {self.failed_turns}, {self.doubtful_turns}, {self.same_requests}"
            )


class CallerPatience:
    """Counts, per call, what tries a caller's patience; says the reason when it is at its end."""

    RECENT_TURNS = 6
    """In which the same request counts as the same."""
    LEAST_WORDS = 3
    """A request has at least so many words: "yes" may be said again and again."""
    SAME = 88.0
    """Similarity of two turns, 0 to 100, from which on they are the same request."""

    def __init__(self, language: Language, patience: Patience | None = None) -> None:
        """Start with all of it.

        Args:
            language: Knows words of frustration.
            patience: The limits.
        """
        self._language = language
        self._patience = patience or Patience()
        self._recent: deque[str] = deque(maxlen=self.RECENT_TURNS)
        self._doubtful = 0
        self._worst = Trust.CLEAR

    def failed_turn(self, count: int) -> HandoffReason | None:
        """Take note of a turn that could not be heard, the `count`-th in a row."""
        return HandoffReason.FAILED_TURNS if count >= self._patience.failed_turns else None

    def heard(self, trust: Trust) -> None:
        """Take note of how well some words of the present turn were heard."""
        if trust is Trust.DOUBTFUL:
            self._worst = trust

    def turn_over(self, text: str) -> HandoffReason | None:
        """Take note of a whole turn of the caller's that was understood.

        Args:
            text: Its words.
        """
        words = normalise(text)
        if not words:
            return None
        worst, self._worst = self._worst, Trust.CLEAR
        self._doubtful = self._doubtful + 1 if worst is Trust.DOUBTFUL else 0
        same = 1 + sum(self._is_same(words, earlier) for earlier in self._recent)
        self._recent.append(words)
        if self._language.is_frustrated(text):
            return HandoffReason.FRUSTRATED
        if same >= self._patience.same_requests:
            return HandoffReason.REPEATED
        if self._doubtful >= self._patience.doubtful_turns:
            return HandoffReason.UNSURE
        return None

    def _is_same(self, words: str, earlier: str) -> bool:
        if min(len(words.split()), len(earlier.split())) < self.LEAST_WORDS:
            return False
        return fuzz.token_sort_ratio(words, earlier) >= self.SAME
