import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipecat.processors.aggregators import async_tool_messages

from processors.confidence import MISSED_NOTE
from processors.model_tiers import (
    LONG_WORDS,
    ROUTINE,
    FlowTiers,
    Tier,
    TierChoice,
    TierReason,
    TierRule,
    ToolMark,
)
from processors.repair_lines import repair_lines

MARKS = FlowTiers(
    nodes={"booking": Tier.STRONG, "smalltalk": Tier.LIGHT},
    tools={
        "find_slots": ToolMark(Tier.STRONG),
        "book": ToolMark(Tier.STRONG, "status", {"booked": Tier.LIGHT, "unavailable": Tier.LIGHT}),
        "take_message": ToolMark(Tier.LIGHT),
        "look_up": ToolMark(None, "found", {"True": Tier.STRONG}),
    },
)
RULE = TierRule(MARKS, repair_lines=repair_lines("en-US"))
OPENING = {"role": "developer", "content": "<call>Today: Monday.</call>"}


def caller(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def agent(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def note(text: str = MISSED_NOTE) -> dict[str, Any]:
    return {"role": "developer", "content": text}


def tool(name: str, result: Any, call_id: str = "t1") -> list[dict[str, Any]]:
    """A tool that was called, and what came of it; None while it runs."""
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}
    content = "IN_PROGRESS" if result is None else json.dumps(result)
    return [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": content, "tool_call_id": call_id},
    ]


def chosen(*messages: Any, node: str | None = None) -> tuple[str, str]:
    choice = RULE.choose([OPENING, *messages], node)
    return choice.tier.value, choice.reason.value


LONG = "I wanted to ask whether you are open on Saturday because my son has a toothache. " + (
    "And I would also like to move my own appointment to some other day if that can be done."
)


@pytest.mark.parametrize(
    ("messages", "choice"),
    [
        ([], ("light", "routine")),
        ([caller("When are you open?")], ("light", "routine")),
        ([caller("Yes."), agent("Fine."), caller("And the address?")], ("light", "routine")),
        # A repair goes on, by a fixed line or by the model's own.
        (
            [
                agent("Which day?"),
                agent("Sorry, I didn't catch that. Could you say it again?"),
                caller("Thursday."),
            ],
            ("strong", "repair"),
        ),
        ([agent("Sorry, I didn't catch that. Which day would suit you?"), caller("A")], ("strong", "repair")),
        ([agent("Sorry, I didn't catch that. Could—"), caller("Thursday.")], ("strong", "repair")),
        ([agent("Okay. I'm sorry, could you say that once more?"), caller("Hm.")], ("strong", "repair")),
        # It is over with the turn that answered.
        (
            [agent("Sorry, I didn't catch that."), caller("A"), agent("Fine. When?"), caller("Friday.")],
            ("light", "routine"),
        ),
        ([agent("I'm sorry, that time has just been taken."), caller("Oh.")], ("light", "routine")),
        # Doubt is of this turn.
        ([note(), caller("the fifth")], ("strong", "doubt")),
        ([agent("When?"), note(), caller("the"), caller("fifth")], ("strong", "doubt")),
        ([note(), caller("the fifth"), agent("The fifth?"), caller("Yes.")], ("light", "routine")),
        ([caller("<heard> is what I said")], ("light", "routine")),
        # Long, and of several sentences.
        ([caller(LONG)], ("strong", "requests")),
        ([caller(LONG.replace(". ", " ", 1))], ("light", "routine")),
        ([caller("Are you open? And where are you?")], ("light", "routine")),
        ([caller(LONG[:80]), caller(LONG[80:])], ("strong", "requests")),
    ],
)
def test_a_turn_is_hard_for_few_reasons(messages: list[Any], choice: tuple[str, str]) -> None:
    assert chosen(*messages) == choice


def test_what_follows_the_callers_words_does_not_change_who_answers() -> None:
    asked = [agent("Sorry, I didn't catch that."), caller("A cleaning.")]
    assert chosen(*asked, agent("Sure."), *tool("take_message", {}), agent("Anything else?")) == (
        "strong",
        "repair",
    )
    booking = [caller("A cleaning."), *tool("find_slots", {"status": "offered"})]
    assert chosen(*booking) == ("light", "routine")
    assert chosen(*booking, agent("I have nine or ten."), caller("Nine.")) == ("strong", "tool")


@pytest.mark.parametrize(
    ("called", "choice"),
    [
        ([("book", {"status": "needs_confirmation"})], ("strong", "tool")),
        ([("book", {"status": "booked"})], ("light", "tool")),
        ([("find_slots", {}), ("book", {"status": "booked"})], ("light", "tool")),
        ([("find_slots", {}), ("take_message", {})], ("light", "tool")),
        ([("take_message", {}), ("find_slots", {})], ("strong", "tool")),
        # What is not marked, runs, or says nothing leaves it as it was.
        ([("find_slots", {}), ("transfer", {"status": "unavailable"})], ("strong", "tool")),
        ([("find_slots", {}), ("book", None)], ("strong", "tool")),
        ([("look_up", {"found": True})], ("strong", "tool")),
        ([("look_up", {"found": False})], ("light", "routine")),
        ([("find_slots", {}), ("look_up", ["no mapping"])], ("strong", "tool")),
    ],
)
def test_the_last_marked_result_decides(called: list[tuple[str, Any]], choice: tuple[str, str]) -> None:
    results = [part for place, one in enumerate(called) for part in tool(*one, call_id=f"t{place}")]
    assert chosen(caller("A"), *results, agent("So."), caller("B")) == choice


def test_a_result_that_comes_late_counts() -> None:
    call, _ = tool("find_slots", None)
    started = async_tool_messages.build_started_message("t1")
    late = async_tool_messages.build_final_result_message("t1", '{"status": "offered"}')
    assert chosen(caller("A"), call, started, agent("One moment."), caller("Hello?")) == ("light", "routine")
    assert chosen(caller("A"), call, started, agent("One moment."), late, caller("Hello?")) == (
        "strong",
        "tool",
    )
    cancelled = async_tool_messages.build_cancelled_message("t1")
    assert chosen(caller("A"), call, started, cancelled, caller("Hello?")) == ("light", "routine")


def test_a_marked_node_counts_more_than_tools_and_less_than_a_hard_turn() -> None:
    offered = [caller("A"), *tool("find_slots", {}), agent("So."), caller("B")]
    assert chosen(caller("A"), node="booking") == ("strong", "node")
    assert chosen(*offered, node="smalltalk") == ("light", "node")
    assert chosen(*offered, node="elsewhere") == ("strong", "tool")
    assert chosen(note(), caller("A"), node="smalltalk") == ("strong", "doubt")


def test_without_marks_and_lines_only_the_turn_decides() -> None:
    rule = TierRule()
    assert (
        rule.choose([caller("A"), *tool("find_slots", {}), agent("So."), caller("B")], "booking") == ROUTINE
    )
    assert rule.choose([agent("Sorry, I didn't catch that."), caller("B")]) == ROUTINE
    assert rule.choose([note(), caller("B")]) == TierChoice(Tier.STRONG, TierReason.DOUBT)


def test_content_in_parts_is_read_and_what_is_one_vendors_own_is_passed_over() -> None:
    parts = [{"type": "text", "text": LONG[:80]}, {"type": "text", "text": LONG[80:]}, "odd"]
    assert chosen(object(), {"role": "user", "content": parts}) == ("strong", "requests")
    assert chosen({"role": "user", "content": None}) == ("light", "routine")


@given(words=st.integers(0, 60), cuts=st.integers(1, 6))
def test_a_long_turn_is_hard_exactly_with_enough_words_in_two_sentences(words: int, cuts: int) -> None:
    said = ["word"] * words
    pieces = [said[at::cuts] for at in range(cuts)]
    text = " ".join(" ".join(piece) + "." for piece in pieces if piece)
    sentences = sum(bool(piece) for piece in pieces)
    is_hard = words >= LONG_WORDS and sentences >= 2
    assert (chosen(caller(text or ".")) == ("strong", "requests")) is is_hard


@pytest.mark.parametrize("language", ["en-US", "de-DE", "es-ES", "fr-FR", "it-IT", "nl-NL", "pt-PT"])
def test_every_repair_line_of_every_language_is_known(language: str) -> None:
    rule = TierRule(repair_lines=repair_lines(language))
    for line in repair_lines(language):
        assert rule.choose([agent(line), caller("…")]).reason is TierReason.REPAIR
