"""How sure the recogniser was of what it heard, and what the model is told about it.

Pure: a vendor's raw result in, a judgement and a note out. Never trusts a result's shape: what is missing or makes
no sense is unknown, and unknown is fine, for most vendors tell nothing.
"""

import enum
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from processors.language import Language, normalise

_MAX_WORDS = 200
"""Words of one result that are looked at."""
_MAX_NAMED_WORDS = 6
_MAX_NAMED_CHARS = 60
_MIN_DIGITS = 3
"""Fewer digits are no number to read back."""

NOTE_TAG = "<heard>"
"""How every note begins: nothing that a caller could say."""
MISSED_NOTE = (
    f"{NOTE_TAG}The line was poor; part of what the caller says next was not understood. "
    "Ask for it if it matters.</heard>"
)
"""Told when some words of a turn were too unclear to pass on."""


class Trust(enum.Enum):
    """What the words are good for."""

    CLEAR = "clear"
    DOUBTFUL = "doubtful"
    """They go to the model, and the doubt with them."""
    UNHEARD = "unheard"
    """They do not count as understood."""


@dataclass(frozen=True)
class HeardWord:
    """One word; `confidence` is 0 to 1, None if unknown."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True)
class Heard:
    """One final transcript; `confidence` is 0 to 1, None if unknown."""

    text: str
    confidence: float | None = None
    words: tuple[HeardWord, ...] = ()


@dataclass(frozen=True)
class Thresholds:
    """From which confidence on words count. `0 <= doubt <= clear <= 1`."""

    clear: float = 0.75
    doubt: float = 0.5

    def __post_init__(self) -> None:
        """Raise ValueError if the two are not in order."""
        if not 0 <= self.doubt <= self.clear <= 1:
            raise ValueError(f"need 0 <= doubt <= clear <= 1, got {self.doubt}, {self.clear}")


def read_result(text: str, result: object) -> Heard:
    """Read a recogniser's raw result: Deepgram's (`channel.alternatives[0]`), AssemblyAI's, or any with `words`.

    Args:
        text: The transcript.
        result: Pydantic object, mapping, or whatever a vendor's service passes on.
    """
    alternative = next(iter(_items(_part(_part(result, "channel"), "alternatives"))), None)
    source = result if alternative is None else alternative
    words = tuple(_words(_part(source, "words")))
    confidence = _probability(_part(source, "confidence"))
    known = [word.confidence for word in words if word.confidence is not None]
    if known and confidence is None:
        confidence = sum(known) / len(known)
    if confidence == 0 and not known:  # what a model without confidences reports
        confidence = None
    return Heard(text, confidence, words)


def judge(heard: Heard, thresholds: Thresholds, language: Language) -> Trust:
    """Say what the words are good for. A filled pause is nothing that could be misheard."""
    if heard.confidence is None or heard.confidence >= thresholds.clear:
        return Trust.CLEAR
    if language.backchannels.cover(normalise(heard.text).split()):
        return Trust.CLEAR
    return Trust.DOUBTFUL if heard.confidence >= thresholds.doubt else Trust.UNHEARD


def doubts(heard: Heard, thresholds: Thresholds, language: Language, question: str) -> str | None:
    """Return the note that tells the model which words may be misheard, None if there is nothing to tell.

    A number with an unsure digit is always named; other words only when all of the transcript is doubtful.

    Args:
        heard: What is passed on.
        thresholds: What counts as unsure.
        language: Knows the words for digits.
        question: How to ask, with `{words}`.
    """
    numbers = list(_unsure_numbers(heard.words, thresholds.clear, language))
    told = [
        f'the digits "{figures}" may be misheard (confidence {confidence:.2f}). Read them back one by one and ask '
        "whether they are right before acting on them."
        for figures, confidence in numbers
    ]
    if not numbers and judge(heard, thresholds, language) is not Trust.CLEAR:
        words, confidence = _least_sure(heard, thresholds.clear)
        asked = question.format(words=words)
        told.append(
            f'"{words}" may be misheard (confidence {confidence:.2f}). Ask "{asked}" before acting on it.'
        )
    return f"{NOTE_TAG}The line was poor; {' Also, '.join(told)}</heard>" if told else None


# Inside


def _part(whole: object, name: str) -> object:
    if isinstance(whole, Mapping):
        return whole.get(name)
    return getattr(whole, name, None)


def _items(part: object) -> Iterable[object]:
    return part[:_MAX_WORDS] if isinstance(part, list | tuple) else ()


def _probability(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) if 0 <= value <= 1 else None


def _words(part: object) -> Iterator[HeardWord]:
    for item in _items(part):
        text = _part(item, "punctuated_word") or _part(item, "word") or _part(item, "text")
        if isinstance(text, str) and text.strip():
            yield HeardWord(text.strip(), _probability(_part(item, "confidence")))


def _unsure_numbers(
    words: Sequence[HeardWord], clear: float, language: Language
) -> Iterator[tuple[str, float]]:
    """Each run of digit words with an unsure one among them: its figures and the lowest confidence."""
    for is_number, group in groupby(words, key=lambda word: _is_of_a_number(word.text, language)):
        run = list(group)
        figures = language.spoken_digits(" ".join(word.text for word in run)) if is_number else ""
        confidence = min((word.confidence for word in run if word.confidence is not None), default=1.0)
        if len(figures) >= _MIN_DIGITS and confidence < clear:
            yield figures, confidence


def _is_of_a_number(word: str, language: Language) -> bool:
    """Whether a word adds a digit beside another one, as "oh" does, or repeats one."""
    return len(language.spoken_digits(f"1 {word}")) > 1 or tuple(normalise(word).split()) in language.repeats


def _least_sure(heard: Heard, clear: float) -> tuple[str, float]:
    """The run of unsure words with the least sure one, as it may be quoted, and its confidence."""
    total = 1.0 if heard.confidence is None else heard.confidence
    runs = [
        list(group)
        for is_unsure, group in groupby(
            heard.words, key=lambda word: word.confidence is not None and word.confidence < clear
        )
        if is_unsure
    ]
    if not runs:
        return _quotable(heard.text.split()), total
    least = min(runs, key=lambda run: min(word.confidence or 0.0 for word in run))
    return _quotable([word.text for word in least]), min(word.confidence or 0.0 for word in least)


def _quotable(words: Sequence[str]) -> str:
    """Few words without anything that could end the quotation or the note: they are the caller's."""
    text = re.sub(r'[<>{}"\s]+', " ", " ".join(words[:_MAX_NAMED_WORDS])).strip(" .,;:!?")
    return text[:_MAX_NAMED_CHARS]
