"""What of a call's conversation is written down, and how it is read again: the model's memory and the flow's.

Pure. Only JSON leaves it. Never decides when something is saved or what is said on a new line.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import orjson
from pipecat.flows import NodeConfig
from pipecat.processors.aggregators import async_tool_messages
from pydantic_core import PydanticSerializationError, to_jsonable_python

from integrations.crm import Said, Speaker
from processors.playout import CUT_MARK

IN_PROGRESS: Final = "IN_PROGRESS"
"""Pipecat's result of a tool that still runs. Source: `LLMAssistantAggregator._handle_function_call_in_progress`."""

BREAK_NOTE: Final = (
    "<call>The line broke off here and is back; you have said that you are sorry.{heard} "
    "Give your answer to the caller's last words, from its start. Ask nothing that was answered.</call>"
)
"""Tells the model why it is asked again on a new line; in the tag that no caller speaks in."""
LOST_TURN_NOTE: Final = (
    "<call>The line broke off while the caller was speaking, and is back: what they had said was not heard, and of "
    "what they say next the beginning may be missing. If it is not clear without it, ask them to say it again.</call>"
)
"""Tells the model why a turn may be half of one."""
_BREAK_HEARD: Final = ' Of your answer was heard: "{text} —".'

Message = Mapping[str, Any]
_SPEAKERS: Final = {"user": Speaker.CALLER, "assistant": Speaker.AGENT}


def saved_messages(messages: Iterable[object]) -> tuple[Message, ...]:
    """Return the model's memory as JSON: without what only one vendor reads, and without tools that still run.

    Such a tool is called again by whoever goes on with the call; those with side effects know a call they have had.
    """
    kept = [cast(Message, message) for message in messages if isinstance(message, dict)]
    running = _running_tools(kept)
    saved: list[Message] = []
    for message in kept:
        if message.get("tool_call_id") in running:
            continue
        calls = [call for call in message.get("tool_calls") or () if call.get("id") not in running]
        if "tool_calls" in message and not calls and not message.get("content"):
            continue
        saved.append({**message, "tool_calls": calls} if "tool_calls" in message else message)
    return tuple(orjson.loads(orjson.dumps(saved)))  # a copy: Pipecat writes results into its own


def _running_tools(messages: Sequence[Message]) -> set[str]:
    running: set[str] = set()
    for message in messages:
        told = async_tool_messages.parse_message(cast(Any, message))
        if told is not None:
            (running.add if told.status == "running" else running.discard)(told.tool_call_id)
        elif message.get("role") == "tool" and message.get("content") == IN_PROGRESS:
            running.add(str(message.get("tool_call_id")))
    return running


def heard_since_caller(messages: Sequence[Message], unfinished: str) -> str:
    """Return what the caller has heard since their last turn, `unfinished` (what is being said) behind it."""
    said: list[str] = []
    for message in reversed(messages):
        if message.get("role") == "user":
            break
        if message.get("role") == "assistant" and isinstance(message.get("content"), str):
            said.insert(0, message["content"])
    return " ".join([*said, unfinished]).strip()


def with_unfinished(messages: Sequence[Message], unfinished: str) -> tuple[Message, ...]:
    """Return the memory with what was heard of the utterance that the cut ended."""
    if not unfinished.strip():
        return tuple(messages)
    return (*messages, {"role": "assistant", "content": f"{unfinished.strip()} {CUT_MARK}"})


def with_lost_turn_note(messages: Sequence[Message]) -> list[Message]:
    """Return the memory for a model that has missed what the caller was saying."""
    return [*messages, {"role": "developer", "content": LOST_TURN_NOTE}]


def with_break_note(messages: Sequence[Message]) -> list[Message]:
    """Return the memory for a model that has to answer again: what was heard of its answer stands in a note.

    Words of the model's at the end would ask it for the rest of them.
    """
    asked = list(messages)
    heard = ""
    if asked and asked[-1].get("role") == "assistant" and not asked[-1].get("tool_calls"):
        text = str(asked[-1].get("content") or "")
        if text.endswith(CUT_MARK):
            heard = _BREAK_HEARD.format(text=text.removesuffix(CUT_MARK).strip())
            asked.pop()
    return [*asked, {"role": "developer", "content": BREAK_NOTE.format(heard=heard)}]


def saved_state(state: Mapping[str, Any], *, but: Iterable[str]) -> dict[str, Any]:
    """Return what a flow's tools remember, as JSON.

    Args:
        state: `FlowManager.state`: anything; dataclasses become objects, times ISO texts. What cannot be JSON is left
            out.
        but: Keys that whoever reads it again fills himself.
    """
    left_out = set(but)
    saved: dict[str, Any] = {}
    for name, value in state.items():
        if name in left_out:
            continue
        try:
            saved[name] = to_jsonable_python(value)
        except (PydanticSerializationError, ValueError):
            continue
    return saved


def resumed_node(node: NodeConfig) -> NodeConfig:
    """Return a node as it is entered by a call that was in it already: nothing is said, run or added to the memory."""
    entered = {name: value for name, value in node.items() if name not in ("pre_actions", "post_actions")}
    return cast(NodeConfig, {**entered, "task_messages": [], "respond_immediately": False})


def last_words(messages: Iterable[object]) -> str:
    """Return what the caller said last, empty when they have said nothing."""
    said = [cast(Message, message) for message in messages if isinstance(message, dict)]
    texts = (message.get("content") for message in reversed(said) if message.get("role") == "user")
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


def transcript(messages: Iterable[object]) -> tuple[Said, ...]:
    """Return what was said in a call, of the agent what was heard, in its order."""
    said: list[Said] = []
    for message in messages:
        role, text = (
            (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        )
        if isinstance(text, str) and text.strip() and role in _SPEAKERS:
            said.append(Said(_SPEAKERS[role], text.strip()))
    return tuple(said)
