"""Which sentences an agent says again and again, call after call: worth having their sound ready. Pure.

What a model says is its own, but a front desk asks its questions in the same words all day. Such a sentence becomes a
line like the fixed ones: rendered once, then played from memory, at once and at no cost. Only what is said of nobody
is learnt, as rendered lines are kept: no digits, no names, and never what one call alone has heard.
"""

import re
from collections import OrderedDict

CALLS_NEEDED = 2
"""Different calls that must have said a sentence."""
LEAST_WORDS, MOST_WORDS = 3, 14
MOST_LINES = 48
"""Familiar lines of one agent; the one not said for longest is forgotten first."""
MOST_WATCHED = 256
"""Sentences that one call has said, and another may."""

_FIRST_PERSON = re.compile(r"^I(?:\W|$)")
_WHOLE = (".", "?", "!")


def is_impersonal(sentence: str) -> bool:
    """Whether a sentence is short and whole, and shows no digit and no name: no capital but at its head and in "I"."""
    words = sentence.split()
    if not LEAST_WORDS <= len(words) <= MOST_WORDS or not sentence.endswith(_WHOLE):
        return False
    if any(char.isdigit() for char in sentence):
        return False
    return not any(
        any(char.isupper() for char in word) for word in words[1:] if not _FIRST_PERSON.match(word)
    )


class FamiliarLines:
    """Of one agent; shared by all its calls in a process."""

    def __init__(self) -> None:
        """Know no line."""
        self._watched: OrderedDict[str, set[str]] = OrderedDict()
        """Calls by the sentence that they have said."""
        self._familiar: OrderedDict[str, None] = OrderedDict()
        self.lines: tuple[str, ...] = ()
        """What is familiar; another tuple whenever it is something else."""

    def said(self, sentence: str, call_sid: str) -> bool:
        """Take note that a call has said a sentence.

        Returns:
            Whether it has become familiar by that.
        """
        sentence = " ".join(sentence.split())
        if sentence in self._familiar:
            self._familiar.move_to_end(sentence)
            return False
        if not is_impersonal(sentence):
            return False
        calls = self._watched.setdefault(sentence, set())
        self._watched.move_to_end(sentence)
        calls.add(call_sid)
        if len(calls) < CALLS_NEEDED:
            if len(self._watched) > MOST_WATCHED:
                self._watched.popitem(last=False)
            return False
        del self._watched[sentence]
        self._familiar[sentence] = None
        if len(self._familiar) > MOST_LINES:
            self._familiar.popitem(last=False)
        self.lines = tuple(self._familiar)
        return True
