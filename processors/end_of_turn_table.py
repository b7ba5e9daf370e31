"""When is it our turn, and when is it worth to think ahead? The pure core of `end_of_turn`: no clock, no I/O.

Told what the caller's voice, the recogniser and the turn model say, each with its time in seconds of one clock; says
what to do. Silence counts from the caller's last sound.

    TALKING --pause--> QUIET --silence allowed for these words is over--> (END)
    QUIET --caller goes on--> TALKING
    QUIET --words are there and leave it open--> JUDGE, once a pause

Speculation runs beside it: NONE --SPECULATE--> RUNNING --WITHDRAW | END--> NONE.
"""

import enum
import re
import unicodedata
from dataclasses import dataclass
from typing import Protocol

TEXT_LIMIT_S = 0.6
"""Silence after which the text counts as whole, whatever the recogniser has not said."""
DICTATED_DIGITS = 3
"""So many digits at the end of what is said are a number being dictated."""
_WORDS_BETWEEN_DIGITS = 2
"""That part no number: "double", or "oh one", which are digits only beside others."""
_SHORT_ANSWER_WORDS = 4
_LEAD_IN_WORDS = 5
"""Of "my number is" and the like, in front of a number."""
STORY_WORDS = 40
"""Who has said so much and heard nothing in between is telling something: a sentence's end is not the end of it."""
MOST_DIGITS = 15
"""No telephone number is longer (E.164)."""


class Expects(enum.Enum):
    """What the agent has just asked for."""

    ANYTHING = "anything"
    NUMBER = "number"
    YES_OR_NO = "yes_or_no"


class TurnLanguage(Protocol):
    """What must be known of the caller's language."""

    def ends_open(self, text: str) -> bool:
        """Whether `text` ends in a word or mark that promises more."""
        ...

    def spoken_digits(self, text: str) -> str:
        """Return the digits that `text` spells or shows."""
        ...

    def asks_number(self, agent_text: str) -> bool:
        """Whether the agent asked for a number."""
        ...

    def asks_yes_no(self, agent_text: str) -> bool:
        """Whether the agent asked a question to be answered with yes or no."""
        ...


@dataclass(frozen=True)
class Patience:
    """Silence, in seconds, that ends a turn; see docs/turn-taking.md."""

    pause_s: float = 0.2
    """The least that can be told from a breath."""
    sure_s: float = 0.3
    """After a question, and after the answer to one, when it is whole."""
    max_pause_s: float = 0.5
    utterance_end_s: float = 1.0
    open_s: float = 1.2
    dictation_s: float = 1.5
    number_digits: int = 10
    """Of a whole telephone number where the agent works."""

    def __post_init__(self) -> None:
        """Check the order.

        Raises:
            ValueError: If the silences are not in order.
        """
        if not 0 < self.pause_s <= self.max_pause_s <= self.utterance_end_s:
            raise ValueError(
                "need 0 < pause_s <= max_pause_s <= utterance_end_s, "
                f"got {self.pause_s}, {self.max_pause_s}, {self.utterance_end_s}"
            )


@dataclass(frozen=True)
class Speculate:
    """Start to answer `text`, behind the gate."""

    text: str


@dataclass(frozen=True)
class Withdraw:
    """Drop what was thought ahead."""


@dataclass(frozen=True)
class Judge:
    """Ask the turn model about this pause: the words alone do not tell whether the turn is over."""


@dataclass(frozen=True)
class End:
    """The turn is over; `confirms` if what was thought ahead answers it."""

    confirms: bool


Action = Speculate | Withdraw | End
TurnAction = Action | Judge

_APOSTROPHES = re.compile(r"['\u2019\u02bc]")
_NO_WORD = re.compile(r"[^\w\s]", re.UNICODE)


def normalised(text: str) -> str:
    """Return what of a text makes it another: its words, without case and marks."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_NO_WORD.sub(" ", _APOSTROPHES.sub("", plain)).split())


class TurnEndTable:
    """One call's turns, one after the other."""

    def __init__(self, language: TurnLanguage, patience: Patience, *, threshold: float = 0.5) -> None:
        """Start before the first turn.

        Args:
            language: The caller's.
            patience: Silences.
            threshold: Probability from which the turn model calls a turn finished.
        """
        self._language = language
        self.patience = patience
        """Silences; may change from turn to turn."""
        self._threshold = threshold
        self.expects = Expects.ANYTHING
        self._agent_text = ""
        self._told_words = 0
        """In earlier turns, since the agent was last heard."""
        self.may_speculate = False
        """Whether thinking ahead is wanted and paid for now."""
        self.speculated: str | None = None
        """The text that is being answered ahead."""
        self._finals: list[str] = []
        self._interim = ""
        self._is_sounding = False
        self._had_voice = False
        self._quiet_since: float | None = None
        self._is_pause_sure = False
        self._is_whole = False
        self._is_judged = False
        """The turn model was asked about this pause, or has no sound to judge by."""
        self._verdict: float | None = None
        self._held_until_s: float | None = None
        """Until when words are on their way that were said already."""
        self._is_unlikely_over = False
        """An answer to this turn was thought of, and not wanted for long."""

    @property
    def text(self) -> str:
        """Words of this turn that are final."""
        return " ".join(self._finals)

    def asked(self, agent_text: str) -> None:
        """Take note of what the agent said last."""
        if agent_text != self._agent_text:
            self._agent_text, self._told_words = agent_text, 0
        if self._language.asks_number(agent_text):
            self.expects = Expects.NUMBER
        elif self._language.asks_yes_no(agent_text):
            self.expects = Expects.YES_OR_NO
        else:
            self.expects = Expects.ANYTHING

    def begin(self) -> None:
        """A turn begins: what was said before belongs to another, but for what is being said right now."""
        self._finals.clear()
        self._interim = ""
        self._verdict = None
        self.speculated = None
        self._is_unlikely_over = False

    # What happens

    def started(self, now_s: float) -> list[TurnAction]:
        """The caller begins to speak, or goes on."""
        self._is_sounding = self._had_voice = True
        self._quiet_since, self._is_pause_sure, self._is_whole = None, False, False
        self._is_judged = False
        self._verdict = None
        return self._withdraw()

    def paused(self, at_s: float, now_s: float) -> list[TurnAction]:
        """The caller has been quiet for a moment, since `at_s`."""
        self._is_sounding = False
        self._quiet_since = at_s
        return self._evaluate(now_s)

    def stopped(self, at_s: float, now_s: float) -> list[TurnAction]:
        """The caller has been quiet, since `at_s`, for long enough to call it a pause."""
        self._is_sounding, self._had_voice = False, True
        self._quiet_since, self._is_pause_sure = at_s, True
        return self._evaluate(now_s)

    def transcript(self, text: str, *, final: bool, now_s: float) -> list[TurnAction]:
        """Words came."""
        if not text.strip():
            return []
        if final:
            self._finals.append(text.strip())
            self._interim = ""
        else:
            self._interim = text
        if not self._had_voice and final:  # the voice model missed it: silence counts from the words
            self._quiet_since, self._is_pause_sure, self._is_whole = now_s, True, True
            self._is_judged = True
        return self._evaluate(now_s)

    def typed(self, text: str, now_s: float) -> list[TurnAction]:
        """A whole entry came by the keypad."""
        self._finals.append(text.strip())
        if self._is_sounding:
            return []
        return [*self._withdraw(), *self._end(confirms=False)]

    def flushed(self, now_s: float) -> list[TurnAction]:
        """The recogniser has no more words for the sound so far."""
        if self._is_sounding:
            return []
        self._is_whole = True
        return self._evaluate(now_s)

    def delayed(self, until_s: float | None, now_s: float) -> list[TurnAction]:
        """Words are late, and waited for until then; None: they are there."""
        self._held_until_s = until_s
        return self._evaluate(now_s)

    def judged(self, probability: float | None, now_s: float) -> list[TurnAction]:
        """The turn model says how finished the caller sounds; None: it does not know."""
        if self._is_sounding:
            return []
        self._verdict = probability
        return self._evaluate(now_s)

    def tick(self, now_s: float) -> list[TurnAction]:
        """Time has passed."""
        return self._evaluate(now_s)

    def ended(self) -> list[TurnAction]:
        """The turn was ended by somebody else."""
        actions = self._withdraw()
        self._end(confirms=False)
        return actions

    def given_up(self) -> bool:
        """The answer thought of waited too long: no other is begun in this turn. Tell whether there was one."""
        was_speculating, self.speculated = self.speculated is not None, None
        self._is_unlikely_over |= was_speculating
        return was_speculating

    def next_due_s(self) -> float | None:
        """Return when `tick` will end the turn if nothing happens, None if it will not."""
        if self._quiet_since is None or not self._is_pause_sure or not self.text:
            return None
        due_s = self._quiet_since + self.allowed_silence_s()
        due_s = due_s if self._is_whole else max(due_s, self._quiet_since + TEXT_LIMIT_S)
        return due_s if self._held_until_s is None else max(due_s, self._held_until_s)

    def allowed_silence_s(self) -> float:
        """Return the silence that ends a turn with these words."""
        text, patience = self.text, self.patience
        if (words_s := self._silence_by_words_s(text)) is not None:
            return words_s
        if self._verdict is not None and self._verdict >= self._threshold:
            return patience.pause_s
        is_blind = self._verdict is None
        return patience.max_pause_s if is_blind or _reads_finished(text) else patience.utterance_end_s

    # Inside

    def _silence_by_words_s(self, text: str) -> float | None:
        """Return the silence that ends a turn with these words however they sound, None if that matters."""
        patience = self.patience
        if (digits_s := self.dictation_s(text)) is not None:
            return digits_s
        if self._language.ends_open(text):
            return patience.open_s
        is_answer = self.expects is Expects.YES_OR_NO and len(text.split()) <= _SHORT_ANSWER_WORDS
        if _reads_finished(text) and (is_answer or text.endswith("?")):
            return min(patience.sure_s, patience.max_pause_s)
        return patience.utterance_end_s if self._tells_a_story(text) else None

    def _tells_a_story(self, text: str) -> bool:
        return self._told_words + len(text.split()) >= STORY_WORDS

    def dictation_s(self, text: str) -> float | None:
        """Return the silence allowed to who dictates a number, None if nobody does."""
        patience = self.patience
        digits = self._trailing_digits(text)
        is_asked = self.expects is Expects.NUMBER
        if not digits:
            is_lead_in = is_asked and not _reads_finished(text) and len(text.split()) <= _LEAD_IN_WORDS
            return patience.open_s if is_lead_in else None
        if not is_asked and len(digits) < DICTATED_DIGITS:
            return None
        if patience.number_digits <= len(digits) <= MOST_DIGITS:
            return min(patience.sure_s, patience.max_pause_s) if is_asked else patience.max_pause_s
        return patience.dictation_s

    def _trailing_digits(self, text: str) -> str:
        """Return the digits that `text` ends with; a word or two between them do not part them."""
        tail: list[str] = []
        others = 0
        for word in reversed(text.split()):
            others = 0 if self._language.spoken_digits(word) else others + 1
            if others > _WORDS_BETWEEN_DIGITS:
                break
            tail.insert(0, word)
        return self._language.spoken_digits(" ".join(tail))

    def _evaluate(self, now_s: float) -> list[TurnAction]:
        actions: list[TurnAction] = []
        if self._is_sounding or self._quiet_since is None or not self.text:
            return actions
        if self.speculated is not None and normalised(self.speculated) != normalised(self.text):
            actions += self._withdraw()
        if self._is_verdict_wanted():
            self._is_judged = True
            actions.append(Judge())
        if self._is_worth_it():
            self.speculated = self.text
            actions.append(Speculate(self.text))
        due_s = self.next_due_s()
        if due_s is not None and now_s >= due_s - 1e-6:
            actions += self._end(confirms=self.speculated is not None)
        return actions

    def _is_verdict_wanted(self) -> bool:
        # A verdict costs CPU: not for a breath, nor while words are on their way that may settle it.
        is_due = self._is_whole or (self._is_pause_sure and not self._interim)
        return is_due and not self._is_judged and self._silence_by_words_s(self.text) is None

    def _is_worth_it(self) -> bool:
        """Whether the turn is likely over, and its text whole."""
        is_wanted = self.may_speculate and not self._is_unlikely_over
        if not is_wanted or not self._is_whole or self._interim or self.speculated is not None:
            return False
        if self._held_until_s is not None:
            return False
        if self.allowed_silence_s() > self.patience.max_pause_s:
            return False
        return _reads_finished(self.text) or (self._verdict or 0.0) >= self._threshold

    def _withdraw(self) -> list[TurnAction]:
        if self.speculated is None:
            return []
        self.speculated = None
        return [Withdraw()]

    def _end(self, *, confirms: bool) -> list[Action]:
        self._told_words += len(self.text.split())
        self.begin()
        self._had_voice = self._is_sounding
        self._quiet_since, self._is_pause_sure, self._is_whole = None, False, False
        self._is_judged = False
        return [End(confirms)]


def _reads_finished(text: str) -> bool:
    return text.rstrip().endswith((".", "?", "!"))
