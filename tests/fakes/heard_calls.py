"""What was heard in a whole call, and whether it is what the model remembers and the timeline says."""

import difflib
from collections.abc import Iterable

from bench.special_calls import words_of
from processors.playout import CUT_MARK
from processors.turn_record import TurnRecord
from tests.fakes.whole_calls import WholeCall


def turns_of(call: WholeCall) -> tuple[TurnRecord, ...]:
    return call.call.turns.turns()


def heard_from(call: WholeCall) -> str:
    """Return the agent's words as they came out of the caller's phone."""
    return " ".join(word for word, _, _ in call.measures.agent_words)


def differences(kept: Iterable[tuple[str, bool]], heard: str) -> list[str]:
    """Compare what was kept of the agent's words with what was heard; one word at a cut may differ.

    Args:
        kept: Texts in order, and whether each was cut.
        heard: All that was heard.
    """
    remembered: list[str] = []
    cuts: set[int] = set()
    for text, is_cut in kept:
        remembered += words_of(text)
        if is_cut:
            cuts.add(len(remembered))
    played = words_of(heard)
    matcher = difflib.SequenceMatcher(None, remembered, played, autojunk=False)
    return [
        f"kept {remembered[a_from:a_to]}, heard {played[b_from:b_to]}"
        for tag, a_from, a_to, b_from, b_to in matcher.get_opcodes()
        if tag != "equal" and not (cuts & {a_from, a_to} and max(a_to - a_from, b_to - b_from) <= 1)
    ]


def assert_model_knows_what_was_heard(call: WholeCall) -> None:
    remembered = [(text, text.rstrip().endswith(CUT_MARK)) for text in call.said("assistant")]
    assert differences(remembered, heard_from(call)) == [], (remembered, call.measures.agent_words)


def assert_heard_is_kept(call: WholeCall) -> None:
    """What the model remembers, what the timeline says, and what the caller heard are the same words."""
    assert_model_knows_what_was_heard(call)
    noted = [(turn.agent_text, turn.cut) for turn in turns_of(call)]
    assert differences(noted, heard_from(call)) == [], noted
