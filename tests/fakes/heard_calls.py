"""What was heard in a whole call, and whether it is what the model remembers and the timeline says."""

from bench.chaos.verdict import Kept, differences
from processors.playout import CUT_MARK
from processors.turn_record import TurnRecord
from tests.fakes.whole_calls import WholeCall


def turns_of(call: WholeCall) -> tuple[TurnRecord, ...]:
    return call.call.turns.turns()


def heard_from(call: WholeCall) -> str:
    """Return the agent's words as they came out of the caller's phone."""
    return " ".join(word for word, _, _ in call.measures.agent_words)


def assert_model_knows_what_was_heard(call: WholeCall) -> None:
    remembered = [Kept(text, is_cut=text.rstrip().endswith(CUT_MARK)) for text in call.said("assistant")]
    assert differences(remembered, heard_from(call), passing=()) == [], (
        remembered,
        call.measures.agent_words,
    )


def assert_heard_is_kept(call: WholeCall) -> None:
    """What the model remembers, what the timeline says, and what the caller heard are the same words."""
    assert_model_knows_what_was_heard(call)
    noted = [Kept(turn.agent_text, is_cut=turn.cut) for turn in turns_of(call)]
    assert differences(noted, heard_from(call), passing=()) == [], noted
