"""What the listening side knows about a language: small words, half sentences, digits, questions.

Plain data from `processors/languages/<language>.yaml` and pure functions over text; used by barge-in, by the end
of a turn and by repair. Never decides anything about a call, and never guesses beyond its lists.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml
from num2words import num2words
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

_FOLDER = Path(__file__).with_name("languages")
_DASHES = re.compile(r"[-\u2010-\u2015\u2212_/]")
_NOT_A_WORD = re.compile(r"[^\w\s']|(?<!\w)'|'(?!\w)")
_STRETCHED = re.compile(r"([^\W\d_])\1{2,}")
_SENTENCE_END = re.compile(r"(?<=[.?!\u2026])\s+")
_TRAILS_OFF = (",", "-", "\u2013", "\u2014", "...", "\u2026", ":", ";")
_MOST_WORDS_AROUND_HOLD_ON = 1
_MOST_WORDS_OF_A_NUMERAL = 4
"""Words of the longest numeral below 100: "quatre-vingt-dix-neuf"."""


class UnknownLanguageError(ValueError):
    """There is no data for a language."""


class LanguageDataError(ValueError):
    """A language's file is not as it must be."""


class Backchannels(Protocol):
    """Tells "uh-huh" from words that want to be answered. A model can take the word list's place."""

    def is_backchannel(self, text: str, *, is_answer_possible: bool, is_final: bool = True) -> bool:
        """Say whether a listener's words ask for nothing.

        Args:
            text: What the caller said while the agent was speaking.
            is_answer_possible: The agent is asking something, so that "yes" may be the answer.
            is_final: False for words that may go on: the beginning of such a phrase counts too.
        """
        ...


# --- Text


def normalise(text: str) -> str:
    """Return text as it is compared: lower case, no punctuation, hyphens as spaces, one space between words.

    Apostrophes inside words stay; a letter stretched in speech ("hmmmm") is written twice.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").casefold()
    text = _NOT_A_WORD.sub(" ", _DASHES.sub(" ", text))
    return " ".join(_STRETCHED.sub(r"\1\1", text).split())


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, with their punctuation."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


@dataclass(frozen=True)
class Phrases:
    """A set of phrases, each a tuple of normalised words."""

    whole: frozenset[tuple[str, ...]]
    beginnings: frozenset[tuple[str, ...]]
    """What a phrase begins with, the phrase itself left out."""
    longest: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Phrases":
        """Make a set of texts, in any spelling that `normalise` makes equal."""
        whole = frozenset(tuple(normalise(text).split()) for text in texts) - {()}
        beginnings = frozenset(phrase[:count] for phrase in whole for count in range(1, len(phrase)))
        return cls(whole, beginnings, max((len(phrase) for phrase in whole), default=0))

    def __or__(self, other: "Phrases") -> "Phrases":
        return Phrases(
            self.whole | other.whole, self.beginnings | other.beginnings, max(self.longest, other.longest)
        )

    def cover(self, words: Sequence[str], *, may_go_on: bool = False) -> bool:
        """Say whether words are nothing but these phrases, one after the other; no words are nothing.

        Args:
            words: Normalised words.
            may_go_on: The last phrase may be unfinished.
        """
        reached = [True] + [False] * len(words)
        for start, is_reached in enumerate(reached):
            if not is_reached:
                continue
            rest = tuple(words[start : start + self.longest])
            if may_go_on and start + len(rest) == len(words) and rest in self.beginnings:
                return True
            for count in range(1, len(rest) + 1):
                if rest[:count] in self.whole:
                    reached[start + count] = True
        return bool(words) and reached[-1]

    def end(self, words: Sequence[str]) -> bool:
        """Say whether words end with one of these phrases."""
        return any(
            tuple(words[-count:]) in self.whole for count in range(1, min(self.longest, len(words)) + 1)
        )


# --- The language


@dataclass(frozen=True)
class Language:
    """One language; get it from `load_language`. The default `Backchannels`."""

    tag: str
    """Language subtag, e.g. "en"."""
    backchannels: Phrases
    """Never an answer: "uh-huh", and filled pauses."""
    acknowledgements: Phrases
    """Backchannels too, unless something was asked: "okay". Contains `backchannels`."""
    filled_pauses: Phrases
    promises_more: Phrases
    """Never the last words of a sentence: "and"."""
    leads_on: Phrases
    """Not the last words of a sentence that the recogniser has not ended: "to"."""
    hold_on: re.Pattern[str]
    digits: Mapping[tuple[str, ...], str]
    """Words of one digit, and of the pairs that numbers are dictated in ("twenty-one"), with their figures."""
    weak_digits: frozenset[tuple[str, ...]]
    """Digits only beside other digits: "oh"."""
    repeats: Mapping[tuple[str, ...], int]
    """"double" and how often the digit behind it counts."""
    number_questions: re.Pattern[str]
    yes_no_questions: re.Pattern[str]
    choice_questions: re.Pattern[str]
    open_questions: re.Pattern[str]
    """Not answered by an acknowledgement: "how can I help you?"."""
    nudges: Phrases
    frustration: re.Pattern[str]
    never_echo: frozenset[str]
    """Words that are the caller's own even when the agent has just said them."""

    def is_backchannel(self, text: str, *, is_answer_possible: bool, is_final: bool = True) -> bool:
        """See `Backchannels`; no words are no backchannel."""
        phrases = self.backchannels if is_answer_possible else self.acknowledgements
        words = normalise(text).split()
        # "No" is not waited with because it may become "no problem".
        may_go_on = not is_final and self.never_echo.isdisjoint(words[-1:])
        return phrases.cover(words, may_go_on=may_go_on)

    def ends_open(self, text: str) -> bool:
        """Say whether the words so far promise more: "um", "and", "my number is", a comma, a dash."""
        words = normalise(text).split()
        if not words:
            return False
        written = text.rstrip()
        if written.endswith(_TRAILS_OFF) or self.filled_pauses.end(words):
            return True
        if self.acknowledgements.cover(words) or written.endswith(("?", "!")):
            return False
        return self.promises_more.end(words) or (not written.endswith(".") and self.leads_on.end(words))

    def ends_filled(self, text: str) -> bool:
        """Say whether the words so far end in a filled pause: "well, um"."""
        return self.filled_pauses.end(normalise(text).split())

    def spoken_digits(self, text: str) -> str:
        """Return all digits of a text in figures, said as words or written: "double five 12" is "5512"."""
        found = self._numerals(normalise(text).split())
        return "".join(
            figures for index, (figures, is_weak) in enumerate(found) if self._counts(found, index, is_weak)
        )

    def wants_time(self, text: str) -> bool:
        """Say whether the caller asks to be waited for, and says nothing else: "hold on a second"."""
        rest, count = self.hold_on.subn(" ", normalise(text))
        words = rest.split()
        return count > 0 and (len(words) <= _MOST_WORDS_AROUND_HOLD_ON or self.acknowledgements.cover(words))

    def is_nudge(self, text: str, *, is_final: bool = True) -> bool:
        """Say whether the caller only wonders whether anybody is there: "hello?".

        Args:
            text: Their words.
            is_final: Otherwise words that may become such a phrase are one: "hello, are you".
        """
        words = normalise(text).split()
        may_go_on = not is_final
        return any(self.nudges.cover(words[start:], may_go_on=may_go_on) for start in range(len(words))) and (
            self.nudges | self.acknowledgements
        ).cover(words, may_go_on=may_go_on)

    def is_frustrated(self, text: str) -> bool:
        """Say whether the caller says in strong words that they have had enough."""
        return self.frustration.search(normalise(text)) is not None

    # What the agent says

    def asks_number(self, agent_text: str) -> bool:
        """Say whether the agent's last sentences ask for something that is dictated in digits."""
        return any(
            self.number_questions.search(normalise(sentence)) is not None
            for sentence in sentences(agent_text)[-2:]
            if _is_question(sentence) or not re.search(r"\d", sentence)
        )

    def asks_yes_no(self, agent_text: str) -> bool:
        """Say whether the agent's last sentence is answered by yes or no."""
        last = "".join(sentences(agent_text)[-1:])
        text = normalise(last)
        return (
            _is_question(last)
            and self.yes_no_questions.search(text) is not None
            and self.choice_questions.search(text) is None
        )

    def asks_something(self, agent_text: str) -> bool:
        """Say whether the agent's last sentence is a question of any kind."""
        return _is_question("".join(sentences(agent_text)[-1:]))

    def asks_openly(self, agent_text: str) -> bool:
        """Say whether the agent's last sentence is a question that "right" and "okay" are no answer to."""
        last = "".join(sentences(agent_text)[-1:])
        return _is_question(last) and self.open_questions.search(normalise(last)) is not None

    # Inside

    def _numerals(self, words: Sequence[str]) -> list[tuple[str, bool]]:
        """Return each word's figures, "" for none, and whether they count only beside others."""
        found: list[tuple[str, bool]] = []
        times = 1
        at = 0
        while at < len(words):
            if words[at].isdecimal():
                found.append((words[at] * times, False))
                times, at = 1, at + 1
                continue
            phrase = self._longest(words[at:])
            if phrase in self.repeats:
                times = self.repeats[phrase]
            elif phrase in self.digits:
                found.append((self.digits[phrase] * times, phrase in self.weak_digits and times == 1))
                times = 1
            else:
                found.append(("", False))
                times = 1
            at += max(len(phrase), 1)
        return found

    def _longest(self, words: Sequence[str]) -> tuple[str, ...]:
        for count in range(min(_MOST_WORDS_OF_A_NUMERAL, len(words)), 0, -1):
            phrase = tuple(words[:count])
            if phrase in self.repeats or phrase in self.digits:
                return phrase
        return ()

    def _counts(self, found: Sequence[tuple[str, bool]], index: int, is_weak: bool) -> bool:
        if not is_weak:
            return True
        beside = [found[at][0] for at in (index - 1, index + 1) if 0 <= at < len(found)]
        return any(beside)


def _is_question(sentence: str) -> bool:
    return sentence.rstrip("\"'\u201d\u2019\u00bb) ").endswith("?")


# --- Files


class _LanguageFile(BaseModel):
    """`processors/languages/<language>.yaml`; `en.yaml` explains the keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    backchannels: list[list[str]]
    acknowledgements: list[list[str]]
    filled_pauses: list[str]
    promises_more: list[list[str]]
    leads_on: list[list[str]]
    hold_on: list[str]
    digits: dict[str, int]
    weak_digits: list[str]
    number_locales: list[str]
    repeats: dict[str, int]
    number_questions: list[str]
    yes_no_questions: list[str]
    choice_questions: list[str]
    open_questions: list[str]
    nudges: list[list[str]]
    frustration: list[str]
    never_echo: list[str]

    @field_validator(
        "hold_on", "frustration", "number_questions", "yes_no_questions", "choice_questions", "open_questions"
    )
    @classmethod
    def _compiles(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns


def known_languages() -> list[str]:
    """Return the languages there is data for, e.g. ["de", "en"]."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def has_language(tag: str) -> bool:
    """Say whether there is data for a language tag such as "en-US"."""
    return _subtag(tag) in known_languages()


def load_language(tag: str) -> Language:
    """Return a language; read from its file once per process.

    Args:
        tag: BCP 47; only the language counts: "en-US" is "en".

    Raises:
        UnknownLanguageError: If there is no data for it.
        LanguageDataError: If its file is not as it must be.
    """
    language = _subtag(tag)
    if language not in known_languages():
        raise UnknownLanguageError(f"no data for language {tag!r}; there is: {', '.join(known_languages())}")
    return _read(_FOLDER / f"{language}.yaml")


def _subtag(tag: str) -> str:
    return re.split(r"[-_]", tag.strip())[0].lower()


@functools.cache
def _read(path: Path) -> Language:
    try:
        file = _LanguageFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise LanguageDataError(f"{path.name}: {error}") from error
    filled = Phrases.of(file.filled_pauses)
    backchannels = Phrases.of(_flat(file.backchannels)) | filled
    return Language(
        tag=path.stem,
        backchannels=backchannels,
        acknowledgements=Phrases.of(_flat(file.acknowledgements)) | backchannels,
        filled_pauses=filled,
        promises_more=Phrases.of(_flat(file.promises_more)),
        leads_on=Phrases.of(_flat(file.leads_on)),
        hold_on=re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in file.hold_on)),
        digits=_digits(file),
        weak_digits=frozenset(tuple(normalise(word).split()) for word in file.weak_digits),
        repeats={tuple(normalise(word).split()): times for word, times in file.repeats.items()},
        number_questions=_any_of(file.number_questions),
        yes_no_questions=_any_of(file.yes_no_questions),
        choice_questions=_any_of(file.choice_questions),
        open_questions=_any_of(file.open_questions),
        nudges=Phrases.of(_flat(file.nudges)),
        frustration=_any_of(file.frustration),
        never_echo=frozenset(normalise(word) for word in file.never_echo),
    )


def _digits(file: _LanguageFile) -> dict[tuple[str, ...], str]:
    words = {
        tuple(normalise(num2words(number, lang=locale)).split()): str(number)
        for locale in file.number_locales
        for number in range(10, 100)
    }
    return words | {tuple(normalise(word).split()): str(digit) for word, digit in file.digits.items()}


def _flat(rows: Iterable[Iterable[str]]) -> list[str]:
    return [text for row in rows for text in row]


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
