import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pipecat.processors.aggregators import async_tool_messages
from pipecat.processors.aggregators.llm_context import LLMSpecificMessage

from bot.saved_context import (
    LOST_TURN_NOTE,
    heard_since_caller,
    resumed_node,
    saved_messages,
    saved_state,
    with_break_note,
    with_lost_turn_note,
    with_unfinished,
)

TASK = {"role": "developer", "content": "<call>Today: Friday.</call>"}
GREETED = {"role": "assistant", "content": "Hello, how can I help?"}
ASKED = {"role": "user", "content": "Book me in."}


def call(call_id: str, name: str = "book") -> dict[str, Any]:
    function = {"name": name, "arguments": "{}"}
    return {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "function": function, "type": "function"}],
    }


def result(call_id: str, content: str = '{"status": "booked"}') -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": call_id}


def test_what_was_said_is_kept_and_copied() -> None:
    messages: list[Any] = [TASK, GREETED, dict(ASKED), call("1"), result("1")]
    saved = saved_messages(messages)
    messages[2]["content"] = "changed"
    assert list(saved) == [TASK, GREETED, ASKED, call("1"), result("1")]


def test_what_one_vendor_reads_is_left_out() -> None:
    assert saved_messages([LLMSpecificMessage("anthropic", {"type": "thinking"}), ASKED]) == (ASKED,)


def test_a_tool_that_runs_is_called_again_by_who_goes_on() -> None:
    assert saved_messages([ASKED, call("1"), result("1", "IN_PROGRESS")]) == (ASKED,)
    started: Any = async_tool_messages.build_started_message("2")
    assert saved_messages([ASKED, call("2"), started]) == (ASKED,)


def test_a_tool_whose_result_came_later_is_kept() -> None:
    started: Any = async_tool_messages.build_started_message("2")
    final: Any = async_tool_messages.build_final_result_message("2", '{"status": "booked"}')
    assert saved_messages([call("2"), started, ASKED, final]) == (call("2"), started, ASKED, final)


@given(
    st.lists(
        st.sampled_from([TASK, GREETED, ASKED]) | st.integers(0, 5).map(lambda number: call(str(number))),
        max_size=12,
    )
)
def test_no_call_is_kept_whose_result_is_not(messages: list[dict[str, Any]]) -> None:
    """Models refuse a memory with a call that has no result, or a result without its call."""
    whole: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        whole.append(message)
        if "tool_calls" in message:
            content = "IN_PROGRESS" if number % 2 else "{}"
            whole.append(result(message["tool_calls"][0]["id"], content))
    saved = saved_messages(whole)
    assert json.loads(json.dumps(saved)) == list(saved)
    called = [one["id"] for message in saved for one in message.get("tool_calls", ())]
    assert sorted(called) == sorted(m["tool_call_id"] for m in saved if m["role"] == "tool")
    assert [m for m in saved if m["role"] == "user"] == [m for m in messages if m["role"] == "user"]


def test_heard_is_what_came_since_the_caller_spoke() -> None:
    answer = {"role": "assistant", "content": "Sure."}
    assert heard_since_caller([GREETED, ASKED, answer, call("1"), result("1")], "Which") == "Sure. Which"
    assert heard_since_caller([TASK, GREETED], "") == "Hello, how can I help?"


def test_what_was_being_said_ends_with_the_cut() -> None:
    assert with_unfinished([ASKED], " Which day ")[-1] == {"role": "assistant", "content": "Which day —"}
    assert with_unfinished([ASKED], " ") == (ASKED,)


def test_a_model_that_is_asked_again_does_not_see_words_of_its_own_at_the_end() -> None:
    asked = with_break_note(with_unfinished([ASKED], "Which day"))
    assert asked[0] == ASKED
    assert asked[-1]["role"] == "developer"
    assert 'was heard: "Which day —"' in asked[-1]["content"]
    assert len(asked) == 2
    assert "was heard" not in with_break_note([ASKED])[-1]["content"]


def test_a_model_that_has_missed_words_is_told_so_behind_its_memory() -> None:
    assert with_lost_turn_note([GREETED, ASKED]) == [
        GREETED,
        ASKED,
        {"role": "developer", "content": LOST_TURN_NOTE},
    ]


@dataclass
class Memory:
    at: datetime
    names: dict[str, str] = field(default_factory=dict[str, str])


def test_the_flow_remembers_what_can_be_json() -> None:
    at = datetime(2026, 11, 27, tzinfo=UTC)
    state = {"memory": Memory(at, {"a": "b"}), "n": 1, "business": object(), "socket": lambda: None}
    saved = saved_state(state, but=["business"])
    assert saved == {"memory": {"at": "2026-11-27T00:00:00Z", "names": {"a": "b"}}, "n": 1}


def test_a_node_is_entered_without_a_word() -> None:
    node: Any = {
        "name": "a",
        "role_message": "You …",
        "task_messages": [TASK],
        "functions": [],
        "pre_actions": [{"type": "tts_say", "text": "x"}],
    }
    assert resumed_node(node) == {
        "name": "a",
        "role_message": "You …",
        "task_messages": [],
        "functions": [],
        "respond_immediately": False,
    }
