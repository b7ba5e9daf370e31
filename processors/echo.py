"""Did the caller speak, or did the line send the agent's own voice back?

Pure: compares words with what the agent has just said. It knows no times: whoever asks knows for how long an echo
can last.
"""

from collections.abc import Collection, Sequence
from itertools import groupby

from rapidfuzz import fuzz

from processors.language import normalise

_LEAST_SCORE = 88.0
_LAST_WORDS = 8
"""Of a single word only the last of the agent's words are the source: about one second on either side of the ear."""
_LEAST_LETTERS = 4


def is_echo(
    text: str,
    agent_words: Sequence[str],
    never_echo: Collection[str] = (),
    *,
    is_final: bool = True,
    is_answer_possible: bool = True,
) -> bool:
    """Say whether a text is the agent's own words, perhaps misheard.

    Two words or more are an echo when a stretch of the agent's words reads nearly the same; one word when it is
    long enough to be no accident and one of the last the agent said.

    Args:
        text: What the recogniser understood.
        agent_words: What the agent said in the last seconds and is about to be heard saying, in order.
        never_echo: Normalised words that callers stop an agent with ("what"). Final, or with a question or
            exclamation mark, one alone is the caller's own; among others they may be an echo, but only if the
            agent said them.
        is_final: False for words that may go on: then one short word is enough.
        is_answer_possible: False when nothing is being asked that one short word ("two") could answer: then it is
            enough, too.
    """
    # A word that was cut and said again comes back twice.
    words = _without_repeats(text)
    agent = _without_repeats(" ".join(agent_words))
    if not words or not agent:
        return False
    if len(words) == 1:
        is_long = len(words[0]) >= _LEAST_LETTERS or not is_final or not is_answer_possible
        # "What?" is the caller's own; a "what" that may go on may be the agent's "What else?".
        is_own = words[0] in never_echo and (is_final or text.rstrip().endswith(("?", "!")))
        return is_long and not is_own and words[0] in agent[-_LAST_WORDS:]
    if not set(words).intersection(never_echo) <= set(agent):
        return False
    return _is_stretch(words, agent)


def _without_repeats(text: str) -> list[str]:
    return [word for word, _ in groupby(normalise(text).split())]


def _is_stretch(words: Sequence[str], agent: Sequence[str]) -> bool:
    said, heard = " ".join(words), " ".join(agent)
    # One wrong letter is allowed however short the text is.
    least = min(_LEAST_SCORE, 100.0 * (1.0 - 1.0 / len(said)) - 0.1)
    for count in (len(words), len(words) - 1, len(words) + 1):
        for start in range(len(agent) - count + 1):
            if fuzz.ratio(said, " ".join(agent[start : start + count]), score_cutoff=least) > 0:
                return True
    # From the middle of a word on; short texts would fit anywhere by accident.
    return len(words) > 2 and len(said) <= len(heard) and fuzz.partial_ratio(said, heard) >= _LEAST_SCORE
