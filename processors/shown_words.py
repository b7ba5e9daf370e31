"""What stands of words that were shown and never became final, when the connection that showed them is lost. Pure.

Vendors listen to 1.25 s of audio in a second (Deepgram promises no more), so whoever hears all of a long sentence
again understands it late. Recognisers rewrite the end of what they show, hardly its beginning: all but the last words
stand, and the rest is heard again from the gap between the two. What stands keeps the vendor's confidence, for others
to doubt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

UNSURE_WORDS = 2
"""At the end of what is shown: a recogniser rewrites them when more is said."""


@dataclass(frozen=True, slots=True)
class ShownWord:
    """A word that is not final. Seconds of the connection's audio."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None


def standing(words: Sequence[ShownWord]) -> tuple[tuple[ShownWord, ...], float]:
    """Return the words that stand, and where the rest is to be heard again, in seconds of the connection's audio.

    Args:
        words: What was shown last; their times may be nonsense.
    """
    kept = tuple(words[:-UNSURE_WORDS])
    if not kept:
        return (), 0.0
    next_s = words[len(kept)].start_s
    return kept, (kept[-1].end_s + max(next_s, kept[-1].end_s)) / 2
