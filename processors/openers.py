"""Finds out, token by token, whether a reply begins with one of the lines whose sound is already there.

Used by `speech_text`. Holds text back only while it can still become an opener, and never changes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_ALIKE = str.maketrans({"\u2019": "'", "!": "."})
"""One character for one, so that places stay places: "Great!" is the opener "Great."."""


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

    HOLDING --an opener and no longer one in sight, or one token later | no opener--> DECIDED
    """

    def __init__(self, openers: Iterable[str]) -> None:
        """Look for `openers`, e.g. "Sure."; a reply that ends in "!" instead of "." is the same."""
        self._openers = {opener.translate(_ALIKE): opener for opener in openers}
        self._held = ""
        self._has_waited = False
        self._is_decided = not self._openers

    def reset(self) -> None:
        """Begin another reply."""
        self._held = ""
        self._has_waited = False
        self._is_decided = not self._openers

    def feed(self, text: str) -> ReplyStart | None:
        """Take the next text.

        Returns:
            What to say now, None while it is held.
        """
        if self._is_decided:
            return ReplyStart(None, "", text)
        self._held += text
        head = self._held.lstrip().translate(_ALIKE)
        found = self._longest_in(head)
        may_grow = any(len(opener) > len(head) and opener.startswith(head) for opener in self._openers)
        if may_grow and not (
            found and self._has_waited
        ):  # one that is whole waits for one more token, no longer
            self._has_waited = found is not None
            return None
        return self._decide(found)

    def flush(self) -> ReplyStart:
        """Decide with what there is: something else comes, or the reply is over."""
        if self._is_decided or not self._held:
            return ReplyStart(None, "", "")
        return self._decide(self._longest_in(self._held.lstrip().translate(_ALIKE)))

    def _longest_in(self, head: str) -> str | None:
        whole = (
            opener
            for opener in self._openers
            if head.startswith(opener) and (len(head) == len(opener) or head[len(opener)].isspace())
        )
        return max(whole, key=len, default=None)

    def _decide(self, found: str | None) -> ReplyStart:
        self._is_decided = True
        held, self._held = self._held, ""
        if found is None:
            return ReplyStart(None, "", held)
        end = len(held) - len(held.lstrip()) + len(found)
        return ReplyStart(self._openers[found], held[:end], held[end:])
