"""An answer that broke off and goes on by another request: no word of it twice. Pure.

A model that is asked to go on does so in one of three ways: with the next word, with the last word or words once more,
or from the start. `Continuation` finds out which by comparing words, and lets through only what was not said.

    HOLDING --the words can be nothing else--> PASSING
"""

import re
from collections.abc import Sequence

from pipecat.processors.aggregators.llm_context import LLMContext

NOTE = (
    "<note>Your last message broke off on its way. What stands there was heard. Go on exactly where it ends: begin "
    "with its last word once more, so that no word is lost, and then say the rest. Do not begin again, do not "
    "apologise and do not mention this note.</note>"
)
_CLOSES = tuple(".,;:!?…)]}%'\u2019\u201d\"")
_ENDS = re.compile(r"[.!?…][\"'\u201d\u2019)\]]*\s*$")


def continued(context: LLMContext, said: str) -> LLMContext:
    """Return a context of its own that asks for the rest of an answer.

    Its beginning is that of `context`, so that a vendor's prompt cache holds.

    Args:
        context: What was asked.
        said: What of the answer has gone out; if it is blank, `context` is asked once more.
    """
    if not said.strip():
        return context
    messages = [
        *context.messages,
        {"role": "assistant", "content": said.strip()},
        {"role": "developer", "content": NOTE},
    ]
    return LLMContext(messages, tools=context.tools, tool_choice=context.tool_choice)  # pyright: ignore[reportArgumentType] - its own list of messages and more


def ends_sentence(said: str) -> bool:
    """Whether text could be a whole answer."""
    return bool(_ENDS.search(said))


class Continuation:
    """Takes the rest of an answer piece by piece."""

    def __init__(self, said: str) -> None:
        """Go on behind `said`."""
        self._said = said
        self._words = said.split()
        self._held = ""
        self._is_passing = not self._words

    def feed(self, text: str) -> str:
        """Take text; return what of it is new and certain."""
        if self._is_passing:
            return text
        self._held += text
        return self._decide(is_last=False)

    def flush(self) -> str:
        """The answer is over: return what was held."""
        return "" if self._is_passing else self._decide(is_last=True)

    def _decide(self, *, is_last: bool) -> str:
        spans = [match.span() for match in re.finditer(r"\S+", self._held)]
        if not is_last and spans and spans[-1][1] == len(self._held):
            spans.pop()  # a word that may go on
        new = [self._held[start:end] for start, end in spans]
        if not new and not is_last:
            return ""
        alive = [at for at in range(len(self._words)) if self._matches(self._words[at:], new)]
        lengths = [len(self._words) - at for at in alive]
        if not is_last and any(length > len(new) for length in lengths):
            return ""  # it may still be a repetition
        self._is_passing = True
        held, self._held = self._held, ""
        repeated = max((length for length in lengths if length <= len(new)), default=0)
        if repeated:
            start, end = spans[repeated - 1]
            held = self._rest_of(held[start:end]) + held[end:]
            return held if self._is_open else held.lstrip()
        return "" if 0 in alive else self._joined(held)  # from the start, and not even as far

    def _matches(self, said: Sequence[str], new: Sequence[str]) -> bool:
        return all(
            _is_same(old, word, is_last=self._is_open and number == len(said) - 1)
            for number, (old, word) in enumerate(zip(said, new, strict=False))
        )

    @property
    def _is_open(self) -> bool:
        """Whether the last word may have been cut in two."""
        return not self._said[-1:].isspace()

    def _rest_of(self, word: str) -> str:
        """Return what of a word follows the said beginning of it."""
        last = self._words[-1]
        return word[len(last) :] if self._is_open and word.casefold().startswith(last.casefold()) else ""

    def _joined(self, text: str) -> str:
        if not self._is_open:
            return text.lstrip()
        return text if not text or text[0].isspace() or text.startswith(_CLOSES) else f" {text}"


def _is_same(old: str, new: str, *, is_last: bool) -> bool:
    old, new = (word.strip("".join(_CLOSES)).casefold() for word in (old, new))
    return new == old or (is_last and old != "" and new.startswith(old))
