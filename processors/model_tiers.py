"""Which tier of models answers a turn: the light one unless the flow or the turn itself asks for the strong one. Pure.

The whole decision is a function of the conversation, of the flow's node and of its marks: an answer that is thought
ahead, the one that takes its place, and the answer to a tool's result in the same turn come from the same tier, and
another process that goes on with the call decides alike. `llm_guard` asks; nothing here knows models.

A turn is hard, and answered by the strong tier whatever the flow says, for three reasons, each of which means that the
light model is about to guess:

| reason | the turn |
|---|---|
| repair | follows a line of the agent's that asks the caller to say it again |
| doubt | holds words that the recogniser was not sure of (`processors.repair` has noted them) |
| requests | is long and of several sentences: more than one thing is wanted, or it is told with its story |

Length alone is no reason: a phone number with its name is long and simple. Nor is a tool, or a question: those are
routine.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from pipecat.processors.aggregators import async_tool_messages

from processors.confidence import NOTE_TAG
from processors.language import normalise, sentences

LONG_WORDS = 25
"""Words of a turn from which on it may hold several requests: ten seconds of speech."""
SEVERAL_SENTENCES = 2


class Tier(enum.StrEnum):
    """How much model."""

    LIGHT = "light"
    STRONG = "strong"


class TierReason(enum.StrEnum):
    """Why a turn is answered by its tier."""

    ROUTINE = "routine"
    NODE = "node"
    """The flow's node is marked."""
    TOOL = "tool"
    """The last marked tool's result says so."""
    REPAIR = "repair"
    DOUBT = "doubt"
    REQUESTS = "requests"


@dataclass(frozen=True)
class TierChoice:
    """Who answers, and why."""

    tier: Tier
    reason: TierReason


ROUTINE = TierChoice(Tier.LIGHT, TierReason.ROUTINE)


@dataclass(frozen=True)
class ToolMark:
    """The tier that a tool's result leads to, from the caller's next words on."""

    default: Tier | None
    """Of a result that no case names; None changes nothing."""
    key: str | None = None
    """Of the result: what is looked at."""
    cases: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    """Value of that key to tier."""

    def tier_of(self, result: Mapping[str, Any]) -> Tier | None:
        """Return what a result leads to; None changes nothing."""
        value = result.get(self.key) if self.key is not None else None
        return self.cases.get(str(value), self.default)


@dataclass(frozen=True)
class FlowTiers:
    """The marks of a flow. Shared by all its calls."""

    nodes: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    tools: Mapping[str, ToolMark] = field(default_factory=dict[str, ToolMark])


class TierRule:
    """The rule of one flow in one language."""

    def __init__(self, marks: FlowTiers | None = None, *, repair_lines: Iterable[str] = ()) -> None:
        """Create the rule.

        Args:
            marks: Of the flow.
            repair_lines: What the agent says when it could not hear the caller. A reply of the model's that begins with
                the first sentence of one counts too.
        """
        self._marks = marks or FlowTiers()
        self._repairs = tuple(normalise(sentences(line)[0]) for line in repair_lines)

    def choose(self, messages: Sequence[object], node: str | None = None) -> TierChoice:
        """Return who answers the caller's last words.

        Args:
            messages: The conversation as Pipecat's `LLMContext` has it; what came behind the caller's last words,
                tools and their results, decides nothing.
            node: Where the flow is.
        """
        turn = _Turn.last(messages)
        if self._asked_again(turn.before):
            return TierChoice(Tier.STRONG, TierReason.REPAIR)
        if turn.has_doubt:
            return TierChoice(Tier.STRONG, TierReason.DOUBT)
        if len(turn.words.split()) >= LONG_WORDS and len(sentences(turn.words)) >= SEVERAL_SENTENCES:
            return TierChoice(Tier.STRONG, TierReason.REQUESTS)
        if (marked := self._marks.nodes.get(node or "")) is not None:
            return TierChoice(marked, TierReason.NODE)
        if (marked := self._by_tools(turn.told)) is not None:
            return TierChoice(marked, TierReason.TOOL)
        return ROUTINE

    def _asked_again(self, before: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the agent's last words before the turn, since the caller's before those, ask for them again."""
        for message in reversed(before):
            role = message.get("role")
            if role == "user":
                return False
            if role == "assistant" and any(
                normalise(sentence).startswith(self._repairs) for sentence in sentences(_text(message))
            ):
                return True
        return False

    def _by_tools(self, told: Sequence[Mapping[str, Any]]) -> Tier | None:
        if not self._marks.tools:
            return None
        results = dict(_results(told))
        for message in reversed(told):
            for call in reversed(message.get("tool_calls") or ()):
                mark = self._marks.tools.get(str(call["function"]["name"]))
                result = results.get(str(call["id"]))
                if mark is not None and result is not None and (tier := mark.tier_of(result)) is not None:
                    return tier
        return None


@dataclass(frozen=True)
class _Turn:
    """The caller's last words, and what was before them."""

    before: Sequence[Mapping[str, Any]]
    told: Sequence[Mapping[str, Any]]
    """The same, with the turn itself: a late result may have come in it."""
    words: str
    has_doubt: bool

    @classmethod
    def last(cls, messages: Sequence[object]) -> "_Turn":
        told = [cast(Mapping[str, Any], message) for message in messages if isinstance(message, dict)]
        ends = next((at + 1 for at in range(len(told) - 1, -1, -1) if told[at].get("role") == "user"), 0)
        begins = ends
        while begins and told[begins - 1].get("role") not in ("assistant", "tool"):
            begins -= 1
        turn = told[begins:ends]
        return cls(
            before=told[:begins],
            told=told[:ends],
            words=" ".join(_text(message) for message in turn if message.get("role") == "user"),
            has_doubt=any(
                message.get("role") != "user" and _text(message).startswith(NOTE_TAG) for message in turn
            ),
        )


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _results(told: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield the results of tools that are there, by call: in the call's own message, or told later."""
    for message in told:
        late = async_tool_messages.parse_message(cast(Any, message))
        if late is not None:
            call_id, text = late.tool_call_id, late.result or ""
        elif message.get("role") == "tool":
            call_id, text = str(message.get("tool_call_id")), _text(message)
        else:
            continue
        try:
            result = orjson.loads(text)
        except orjson.JSONDecodeError:  # it runs, or was cancelled
            continue
        yield call_id, result if isinstance(result, dict) else {}
