"""Finds out, token by token, whether a reply begins with one of the lines whose sound is already there.

Used by `speech_text`. Holds text back only while it can still become an opener, and never changes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_ALIKE = str.maketrans({"\u2019": "'", "!": "."})
"""One character for one, so that places stay places: "Great!" is the opener "Great."."""
_COMMA = ","


@dataclass(frozen=True)
class ReplyStart:
    """How a reply begins."""

    opener: str | None
    """The opener as it stands in the list, None if the reply begins otherwise."""
    said: str
    """The opener as the model wrote it, with the white space in front of it; empty without one."""
    rest: str
    """The text behind it."""


class OpenerMatcher:
    """Compares the beginning of one reply with a list of openers.

    An opener that ends in a comma ("Sure,") is certain at once, and another may follow it as its sentence goes on:
    "Sure, let me look." is "Sure," and "Let me look."

    HOLDING --an opener and no longer one in sight, or one token later | no opener--> DECIDED
    HOLDING --an opener that ends in a comma, the first time--> HOLDING
    """

    def __init__(self, openers: Iterable[str]) -> None:
        """Look for `openers`, e.g. "Sure."; a reply that ends in "!" instead of "." is the same."""
        self.look_for(openers)

    def look_for(self, openers: Iterable[str]) -> None:
        """Look for other openers; begins another reply."""
        self._first = {opener.translate(_ALIKE): opener for opener in openers}
        whole = {text: opener for text, opener in self._first.items() if not text.endswith(_COMMA)}
        self._second = {text[:1].lower() + text[1:]: opener for text, opener in whole.items()} | whole
        self.reset()

    def reset(self) -> None:
        """Begin another reply."""
        self._openers = self._first
        self._held = ""
        self._has_waited = False
        self._is_decided = not self._openers

    def feed(self, text: str) -> Sequence[ReplyStart]:
        """Take the next text.

        Returns:
            What to say now, in order; nothing while it is held.
        """
        if self._is_decided:
            return [ReplyStart(None, "", text)]
        self._held += text
        head = self._held.lstrip().translate(_ALIKE)
        found = self._longest_in(head)
        is_certain = found is not None and (self._has_waited or found.endswith(_COMMA))
        may_grow = any(len(opener) > len(head) and opener.startswith(head) for opener in self._openers)
        if may_grow and not is_certain:  # one that is whole waits for one more token, no longer
            self._has_waited = found is not None
            return []
        return self._decide(found)

    def flush(self) -> Sequence[ReplyStart]:
        """Decide with what there is: something else comes, or the reply is over."""
        if self._is_decided or not self._held:
            return []
        starts = self._decide(self._longest_in(self._held.lstrip().translate(_ALIKE)))
        return [*starts, *self.flush()]

    def _longest_in(self, head: str) -> str | None:
        whole = (
            opener
            for opener in self._openers
            if head.startswith(opener) and (len(head) == len(opener) or head[len(opener)].isspace())
        )
        return max(whole, key=len, default=None)

    def _decide(self, found: str | None) -> Sequence[ReplyStart]:
        held, self._held = self._held, ""
        if found is None:
            self._is_decided = True
            return [ReplyStart(None, "", held)]
        end = len(held) - len(held.lstrip()) + len(found)
        opener, said, rest = self._openers[found], held[:end], held[end:]
        if self._openers is self._second or not found.endswith(_COMMA):
            self._is_decided = True
            return [ReplyStart(opener, said, rest)]
        self._openers, self._has_waited = self._second, False
        return [ReplyStart(opener, said, ""), *(self.feed(rest) if rest else ())]
