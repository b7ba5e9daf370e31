"""A small rule brain behind the Anthropic sim: one request in, one reply out, no memory and no clock.

It knows English and the shape of a Messages request, nothing of any agent. What to do comes from the tools
it is given, what to say from their descriptions, their results and the system prompt:

- a parameter's description may hold `One of: a (also, called), b.` and `Ask: The question?`;
- a string parameter whose description names another tool is chosen among the options which that tool
  returned (a list of objects with the parameter's name and a `say`);
- a boolean parameter with "confirm" in its name is sent false first, and true once the caller has agreed to
  what came back with the status `needs_confirmation`;
- a tool's result may hold `say`, which is spoken as it is;
- quoted words behind "begin every reply" in the system prompt open the answers to questions, in turn;
- lines `- Label: sentence` of the system prompt, below a line `Facts:` if it has one, answer questions about the label;
- text in `<tag>…</tag>` comes from the developer, everything else a user message holds from the caller;
- where the developer says that a beginning may be missing, words without a capital in front are asked for again.

It replays the conversation from its start on every request, so a cut, repeated or reordered message changes
only what it touches. Words of its own at the very end, with nothing of the caller's behind them, are a reply that
broke off: it goes on with the next word. What it does not know it says so; it never invents a tool, an argument or
a fact.
"""

import enum
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sims import english


@dataclass(frozen=True)
class TextBlock:
    """Words to speak."""

    text: str


@dataclass(frozen=True)
class ToolUse:
    """One tool call."""

    name: str
    arguments: Mapping[str, object]


Block = TextBlock | ToolUse

_GREETING = "Hello. How can I help you?"
_PART_OF_NUMBER = 3
"""Digits from which on a run is at least part of a phone number."""
_LONGEST_TIME = 4
"""Digits up to which a run may be a time: "eleven thirty"."""

_MORE = "Is there anything else?"
_UNCLEAR = "Sorry, I didn't catch that."
_WAIT = "One moment, please."
_GOODBYE = "Thanks for calling. Goodbye."
_SEARCH = "Sure, let me look."
_READ_BACK = "Thanks, let me read that back."
_COMMIT = "Great, one moment."
_AT_ONCE = "Of course."
_FAILED = "I'm sorry, that did not work. Shall I try again?"
_CHANGE = "Okay. What should I change?"
_LEAD_INS = (_SEARCH, _READ_BACK, _COMMIT, _AT_ONCE)


def reply(request: Mapping[str, Any]) -> list[Block]:
    """Answer one Messages request.

    Args:
        request: Body of `POST /v1/messages`; `system`, `tools` and `messages` are read.

    Returns:
        At least one block; at most one tool call, which stands last.
    """
    tools = tuple(_parse_tool(json.dumps(tool)) for tool in request.get("tools") or ())
    system = _text_of(request.get("system"))
    events = list(_events(request.get("messages") or ()))
    mind = _Mind(tools, _facts(system), _openers(system))
    return _rest(mind, events) or mind.answer(events)


class _Kind(enum.Enum):
    """What a parameter wants."""

    OPTION = "option"
    CHOICE = "choice"
    DAY = "day"
    NAME = "name"
    PHONE = "phone"
    CONFIRMATION = "confirmation"
    FLAG = "flag"
    TEXT = "text"


@dataclass(frozen=True)
class _Param:
    name: str
    kind: _Kind
    required: bool
    question: str
    options: Mapping[str, tuple[str, ...]]
    """Option to the words that mean it."""
    source: str | None
    """Tool whose result it is chosen from."""
    takes_same: bool


@dataclass(frozen=True)
class _Tool:
    name: str
    params: tuple[_Param, ...]
    keywords: frozenset[str]
    ends_call: bool

    @property
    def source(self) -> str | None:
        return next((param.source for param in self.params if param.source), None)


@dataclass(frozen=True)
class _Said:
    text: str
    by_agent: bool
    is_rest: bool = False
    """Whether only the end of it was heard: nobody knows what was wanted."""


@dataclass(frozen=True)
class _Called:
    call_id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class _Returned:
    call_id: str
    content: str


_PERSONAL = frozenset({_Kind.NAME, _Kind.PHONE})
"""What belongs to the caller, not to one wish of theirs."""

_Event = _Said | _Called | _Returned


class _Turn(enum.Enum):
    """What the caller's last words were."""

    CONTENT = "content"
    YES = "yes"
    NO = "no"
    QUESTION = "question"
    REPEAT = "repeat"
    NUDGE = "nudge"
    THANKS = "thanks"
    DROPPED = "dropped"
    GOODBYE = "goodbye"
    UNCLEAR = "unclear"


@dataclass
class _Memory:
    """What the replay has established so far."""

    goal: _Tool | None = None
    values: dict[str, object] = field(default_factory=dict[str, object])
    options: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    searched: Mapping[str, object] | None = None
    """Arguments of the search that gave `options`."""
    read_back: Mapping[str, object] | None = None
    """Arguments that wait for the caller's yes."""
    read_back_say: str = ""
    running: dict[str, _Called] = field(default_factory=dict[str, _Called])
    unsaid: str | None = None
    """A tool's words that were not spoken yet."""
    last_said: str = ""
    turn: _Turn = _Turn.CONTENT
    fact: str = ""
    partial_digits: str = ""


class _Mind:
    """One replay of one conversation."""

    def __init__(self, tools: Sequence[_Tool], facts: Mapping[str, str], openers: Sequence[str] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools if not tool.ends_call}
        self._end = next((tool for tool in tools if tool.ends_call), None)
        self._facts = facts
        self._openers = openers
        spread = {
            word: sum(word in tool.keywords for tool in self._tools.values())
            for tool in self._tools.values()
            for word in tool.keywords
        }
        self._weight = {word: math.log(1 + len(self._tools) / count) for word, count in spread.items()}

    def answer(self, events: Sequence[_Event]) -> list[Block]:
        memory = _Memory()
        heard_caller = False
        for event in events:
            self._take(memory, event)
            if isinstance(event, _Said):
                heard_caller = not event.by_agent
            elif isinstance(event, _Called):
                heard_caller = False
        if not any(isinstance(event, _Said) and not event.by_agent for event in events):
            return [TextBlock(_GREETING)]
        if memory.turn is _Turn.REPEAT and heard_caller and memory.unsaid is None:
            return self._again(memory, events)
        return self._act(memory, heard_caller=heard_caller)

    # Replay

    def _take(self, memory: _Memory, event: _Event) -> None:
        if isinstance(event, _Said) and event.by_agent:
            if not _is_lead_in(event):
                memory.last_said, memory.unsaid = event.text, None
        elif isinstance(event, _Said):
            if event.is_rest:
                memory.turn = _Turn.UNCLEAR
            else:
                self._take_caller(memory, event.text)
        elif isinstance(event, _Called):
            self._take_call(memory, event)
        else:
            self._take_result(memory, event)

    def _take_call(self, memory: _Memory, event: _Called) -> None:
        memory.running[event.call_id] = event
        tool = self._tools.get(event.name)
        if tool is not None:
            memory.goal = self._root(tool)
            confirmations = {param.name for param in tool.params if param.kind is _Kind.CONFIRMATION}
            memory.values |= {k: v for k, v in event.arguments.items() if k not in confirmations}

    def _take_result(self, memory: _Memory, event: _Returned) -> None:
        call = memory.running.get(event.call_id)
        if call is None or event.content == "IN_PROGRESS":
            return
        result = _json_object(event.content)
        if result.get("type") == "async_tool":  # the placeholder of a tool that goes on running
            return
        del memory.running[event.call_id]
        if event.content.startswith("CANCELLED"):
            memory.unsaid = _FAILED
            return
        if self._end is not None and call.name == self._end.name:
            return  # who speaks on gets an answer, or another goodbye
        memory.unsaid = _say(result, event.content)
        tool = self._tools.get(call.name)
        if tool is None or memory.goal is None:
            return
        if tool is memory.goal:
            self._take_goal_result(memory, call, result)
        else:
            self._take_search_result(memory, tool, call, result)

    def _take_goal_result(self, memory: _Memory, call: _Called, result: Mapping[str, Any]) -> None:
        goal, say = memory.goal, _say(result, "")
        if goal is None or say == _FAILED:  # a yes tries again
            return
        if result.get("status") == "needs_confirmation":
            memory.read_back, memory.read_back_say = _settled(goal, call.arguments), say
            return
        memory.read_back = None
        search, options = self._tools.get(goal.source or ""), _options(result)
        if search is not None and options:  # others instead of the one chosen
            self._drop_options(memory)
            memory.options, memory.searched = options, self._arguments(memory, search)
            return
        wanted = self._asked_in(goal, say)
        if wanted is None:
            self._finish(memory)
            return
        memory.values.pop(wanted.name, None)
        if wanted.source is None and goal.source is not None and wanted not in goal.params:
            self._drop_options(memory)  # asked for another search

    def _take_search_result(
        self, memory: _Memory, tool: _Tool, call: _Called, result: Mapping[str, Any]
    ) -> None:
        self._drop_options(memory)
        memory.options = _options(result)
        memory.searched = dict(call.arguments)
        if memory.options:
            return
        wanted = self._asked_in(tool, _say(result, ""))
        if wanted is not None:
            memory.values.pop(wanted.name, None)
        elif _say(result, "") != _FAILED:  # it led nowhere, and something else was suggested
            self._finish(memory)

    def _take_caller(self, memory: _Memory, text: str) -> None:
        if memory.unsaid == _FAILED:  # the caller spoke, which is why the tool was cancelled
            memory.unsaid = None
        asked = self._asked(memory)
        fact = self._fact_for(text) if english.is_question(text) else ""
        if fact:
            memory.turn, memory.fact = _Turn.QUESTION, fact
            return
        before = (memory.goal, dict(memory.values))
        if english.is_dropped(text):
            self._finish(memory)
        is_confirming = self._is_confirming(memory)
        if (
            memory.goal is not None
            and is_confirming
            and (english.is_no(text) or memory.last_said.endswith(_CHANGE))
        ):
            self._reopen(memory, memory.goal, text)
        if not (is_confirming and english.is_plain_yes(text)):
            if asked is None or self._value(memory, asked, text, asked) is None:
                self._aim(memory, text, asked)
            self._fill(memory, text, asked)
        digits = _longest_digits(text)
        memory.partial_digits = digits if _PART_OF_NUMBER <= len(digits) < 10 else ""
        changed = before != (memory.goal, memory.values)
        memory.turn = _Turn.CONTENT if changed else self._turn(memory, text)
        if memory.turn is _Turn.YES and memory.goal is None:
            memory.goal = self._best_tool(_last_sentence(memory.last_said))  # "May I take a message?" "Yes."
            memory.turn = _Turn.YES if memory.goal is None else _Turn.CONTENT

    def _turn(self, memory: _Memory, text: str) -> _Turn:
        tests = (
            (_Turn.REPEAT, english.is_repeat),
            (_Turn.NUDGE, english.is_nudge),
            (_Turn.DROPPED, english.is_dropped),
            (_Turn.GOODBYE, english.is_goodbye),
            (_Turn.THANKS, english.is_thanks),
            (_Turn.NO, english.is_no),
            (_Turn.YES, english.is_yes),
        )
        if self._is_confirming(memory):  # "yes, that's all right" is no goodbye
            tests = (tests[-1], *tests[:-1])
        return next((turn for turn, test in tests if test(text)), _Turn.UNCLEAR)

    # Aim: which tool the caller wants

    def _aim(self, memory: _Memory, text: str, asked: _Param | None) -> None:
        if english.is_goodbye(text) and memory.goal is None:
            return
        best = self._best_tool(text)
        if best is None or best is memory.goal:
            return
        if memory.goal is None:
            memory.goal = best
            return
        if asked is not None and asked.kind in (_Kind.TEXT, _Kind.NAME):
            return
        if self._score(best, text) > 2 * self._score(memory.goal, text):
            self._finish(memory)
            memory.goal = best

    def _best_tool(self, text: str) -> _Tool | None:
        scores: dict[str, float] = {}
        for tool in self._tools.values():
            root = self._root(tool)
            scores[root.name] = max(scores.get(root.name, 0.0), self._score(root, text))
        name = max(scores, key=lambda name: scores[name], default=None)
        return self._tools[name] if name is not None and scores[name] > 0 else None

    def _score(self, root: _Tool, text: str) -> float:
        words = english.stems(text)
        chain = [tool for tool in self._tools.values() if self._root(tool) is root]
        return sum(self._weight[word] for word in words if any(word in tool.keywords for tool in chain))

    def _root(self, tool: _Tool) -> _Tool:
        """The tool that uses what `tool` finds, or `tool` itself."""
        return next((other for other in self._tools.values() if other.source == tool.name), tool)

    def _chain(self, goal: _Tool) -> Iterator[tuple[_Tool, _Param]]:
        """Parameters to settle for a goal, in the order in which they are asked for."""
        search = self._tools.get(goal.source or "")
        if search is not None:
            yield from ((search, param) for param in search.params)
        yield from ((goal, param) for param in goal.params)

    # Fill: what the caller said about its parameters

    def _fill(self, memory: _Memory, text: str, asked: _Param | None) -> None:
        memory.goal = goal = memory.goal or self._implied_goal(text)
        params = [
            (tool, param) for tool in self._tools.values() for param in tool.params if param.kind in _PERSONAL
        ]
        settled = False
        if goal is not None:
            params = list(self._chain(goal))
            chosen = self._choose(memory, goal, text)
            settled = chosen or not _is_choice_open(goal, memory.values)
            if chosen:  # "Tuesday at nine" took an option, it asks for no new search
                params = [(tool, param) for tool, param in params if tool is goal]
        for tool, param in params:
            value = self._value(memory, param, text, asked)
            if value is not None and not (value == "any" and settled and tool is not goal):
                memory.values[param.name] = value
        search = self._tools.get(goal.source or "") if goal is not None else None
        if search and memory.searched is not None and self._arguments(memory, search) != memory.searched:
            self._drop_options(memory)

    def _value(self, memory: _Memory, param: _Param, text: str, asked: _Param | None) -> object | None:
        if param.kind is _Kind.PHONE:
            return _phone(param, text, memory.partial_digits)
        return _extract(param, text, asked=param is asked)

    def _implied_goal(self, text: str) -> _Tool | None:
        """Wishes that no keyword names: a message ("tell them …"), a day ("anything on Tuesday?")."""
        for tool in self._tools.values():
            if any(p.kind is _Kind.TEXT for p in tool.params) and english.free_text(text, asked=False):
                return tool  # "tell them that ..."
            days = [param for _, param in self._chain(tool) if param.kind is _Kind.DAY]
            if tool.source and any(_extract(param, text, asked=False) for param in days):
                return tool
        return None

    def _reopen(self, memory: _Memory, goal: _Tool, text: str) -> None:
        """Forget what the caller wants to change ("the phone number"), so that it is asked for again."""
        named = _best_named([param for _, param in self._chain(goal)], english.plain(text))
        if named is not None:
            memory.values.pop(named.name, None)
        elif re.search(r"\b(time|appointment|slot)\b", english.plain(text)):
            self._drop_options(memory)

    def _choose(self, memory: _Memory, goal: _Tool, text: str) -> bool:
        param = next((param for param in goal.params if param.kind is _Kind.CHOICE), None)
        if param is None or not memory.options or len(_longest_digits(text)) > _LONGEST_TIME:
            return False
        index = _chosen(memory.options, text)
        if index is None:
            return False
        memory.values[param.name] = memory.options[index].get(param.name)
        return True

    # Act: what comes next

    def _act(self, memory: _Memory, *, heard_caller: bool) -> list[Block]:
        if memory.unsaid is not None and not (heard_caller and memory.turn is _Turn.CONTENT):
            fact = f"{memory.fact} " if heard_caller and memory.turn is _Turn.QUESTION else ""
            return [TextBlock(fact + memory.unsaid)]
        if memory.running:
            return [TextBlock(_WAIT)]
        if not heard_caller:
            return [TextBlock(memory.last_said or _GREETING)]
        if memory.turn is _Turn.GOODBYE or (memory.turn is _Turn.NO and memory.goal is None):
            return self._goodbye()
        if memory.turn is _Turn.QUESTION:
            return [TextBlock(f"{self._opener(memory)}{memory.fact} {self._next_words(memory)}")]
        if memory.goal is None:
            return [TextBlock(self._small_talk(memory))]
        if memory.turn is _Turn.NO and self._is_confirming(memory):
            return [TextBlock(_CHANGE)]
        if memory.turn in (_Turn.YES, _Turn.NO):
            self._settle_single_option(memory)
        step = self._step(memory)
        if isinstance(step, ToolUse):
            return [TextBlock(self._lead_in(memory, step)), step]
        return [TextBlock(self._opening(memory) + step)]

    def _step(self, memory: _Memory) -> ToolUse | str:
        """The next call, or the next thing to ask."""
        goal = memory.goal
        if goal is None:
            return _MORE
        search = self._tools.get(goal.source or "")
        choice = next((param for param in goal.params if param.kind is _Kind.CHOICE), None)
        if search is not None and choice is not None and choice.name not in memory.values:
            if missing := _missing(search, memory.values):
                return missing.question
            if not memory.options:
                return ToolUse(search.name, self._arguments(memory, search))
            return _offer(memory.options)
        if missing := _missing(goal, memory.values):
            return missing.question
        arguments = self._arguments(memory, goal)
        if not self._is_confirming(memory):
            return ToolUse(goal.name, arguments | dict.fromkeys(_confirmations(goal), False))
        if memory.turn is _Turn.YES and _answers(memory.last_said, memory.read_back_say):
            return ToolUse(goal.name, arguments | dict.fromkeys(_confirmations(goal), True))
        return memory.read_back_say

    def _next_words(self, memory: _Memory) -> str:
        """What to go on with after an aside."""
        if memory.goal is None:
            return _MORE
        if self._is_confirming(memory):
            return memory.read_back_say
        step = self._step(memory)
        return step if isinstance(step, str) else "Shall I go on?"

    def _opener(self, memory: _Memory) -> str:
        """One of the words that the prompt wants in front of an answer, another one than last time."""
        if not self._openers:
            return ""
        last = next(
            (place for place, opener in enumerate(self._openers) if memory.last_said.startswith(opener)), -1
        )
        return f"{self._openers[(last + 1) % len(self._openers)]} "

    def _opening(self, memory: _Memory) -> str:
        if memory.turn is _Turn.UNCLEAR:
            return f"{_UNCLEAR} "
        if memory.turn is _Turn.NUDGE:
            return "I'm here. "
        if memory.turn is _Turn.CONTENT:
            return "Thanks. " if "name" in memory.values else "Sure. "
        return ""

    def _lead_in(self, memory: _Memory, step: ToolUse) -> str:
        if memory.goal is not None and step.name != memory.goal.name:
            return _SEARCH
        if memory.goal is not None and not _confirmations(memory.goal):
            return _AT_ONCE
        return _COMMIT if memory.turn is _Turn.YES else _READ_BACK

    def _small_talk(self, memory: _Memory) -> str:
        if memory.turn is _Turn.THANKS:
            return f"You're welcome. {_MORE}"
        if memory.turn is _Turn.DROPPED:
            return f"Okay. {_MORE}"
        if memory.turn in (_Turn.NUDGE, _Turn.CONTENT):
            return _GREETING
        if memory.turn is _Turn.YES:
            return "What can I do for you?"
        return f"{_UNCLEAR} How can I help you?"

    def _goodbye(self) -> list[Block]:
        if self._end is None:
            return [TextBlock(_GOODBYE)]
        flags = {
            param.name: True for param in self._end.params if param.kind in (_Kind.FLAG, _Kind.CONFIRMATION)
        }
        return [TextBlock(_GOODBYE), ToolUse(self._end.name, flags)]

    def _again(self, memory: _Memory, events: Sequence[_Event]) -> list[Block]:
        """Say the last thing once more, whole, even if the caller heard only its beginning."""
        last = max(
            (
                i
                for i, event in enumerate(events)
                if isinstance(event, _Said) and event.by_agent and not _is_lead_in(event)
            ),
            default=0,
        )
        before = events[:last]
        if not any(isinstance(event, _Said) and not event.by_agent for event in before):
            return [TextBlock(memory.last_said or _GREETING)]
        blocks = self.answer(before)
        if any(isinstance(block, ToolUse) for block in blocks):
            return [TextBlock(memory.last_said)]
        return blocks

    # Small parts

    def _asked(self, memory: _Memory) -> _Param | None:
        """The parameter which the caller's next words answer."""
        if memory.goal is None or self._is_confirming(memory):
            return None
        if (found := self._asked_in(memory.goal, memory.last_said)) is not None:
            return found
        search = self._tools.get(memory.goal.source or "")
        if memory.options and _is_choice_open(memory.goal, memory.values):
            return None  # the options were offered
        for tool in (search, memory.goal):
            if tool is not None and (missing := _missing(tool, memory.values)) is not None:
                return missing
        return None

    def _asked_in(self, goal: _Tool, said: str) -> _Param | None:
        """The parameter that the last question in `said` is about."""
        question = _last_sentence(said)
        params = [param for _, param in self._chain(goal) if param.question]
        for param in params:
            if param.question.endswith(question) or (
                len(question.split()) >= 2 and param.question.startswith(question.rstrip(".,"))
            ):
                return param
        if not question.endswith("?") or question.endswith(_MORE):
            return None
        return _best_named(params, english.plain(question))

    def _is_confirming(self, memory: _Memory) -> bool:
        return (
            memory.goal is not None
            and memory.read_back is not None
            and memory.read_back == self._arguments(memory, memory.goal)
        )

    def _arguments(self, memory: _Memory, tool: _Tool) -> dict[str, object]:
        return {
            param.name: memory.values[param.name]
            for param in tool.params
            if param.name in memory.values and param.kind is not _Kind.CONFIRMATION
        }

    def _settle_single_option(self, memory: _Memory) -> None:
        """Take a yes or a no to the only time that was offered."""
        goal = memory.goal
        choice = next((param for param in goal.params if param.kind is _Kind.CHOICE), None) if goal else None
        if goal is None or choice is None or not memory.options or choice.name in memory.values:
            return
        if memory.turn is _Turn.YES and len(memory.options) == 1:
            memory.values[choice.name] = memory.options[0].get(choice.name)
        elif memory.turn is _Turn.NO:
            for _, param in self._chain(goal):
                if param.kind is _Kind.DAY:
                    memory.values.pop(param.name, None)
            self._drop_options(memory)

    def _drop_options(self, memory: _Memory) -> None:
        if memory.goal is not None:
            for param in memory.goal.params:
                if param.kind is _Kind.CHOICE:
                    memory.values.pop(param.name, None)
        memory.options, memory.searched = [], None

    def _finish(self, memory: _Memory) -> None:
        self._drop_options(memory)
        keep = {
            param.name for tool in self._tools.values() for param in tool.params if param.kind in _PERSONAL
        }
        memory.values = {name: value for name, value in memory.values.items() if name in keep}
        memory.goal, memory.read_back = None, None

    def _fact_for(self, text: str) -> str:
        """Return the fact that is asked for: of a long story, by its last question."""
        questions = [sentence for sentence in _sentences(text) if sentence.endswith("?")]
        return (self._fact_in(questions[-1]) if questions else "") or self._fact_in(text)

    def _fact_in(self, text: str) -> str:
        words = set(english.plain(text).split())
        scores = {label: _fact_score(label, words) for label in self._facts}
        best = max(scores, key=lambda label: scores[label], default=None)
        return self._facts[best] if best is not None and scores[best] > 0 else ""


_SYNONYMS = {
    "hours": {"open": 2, "close": 2, "closed": 2, "opening": 1, "closing": 2},
    "address": {"located": 2, "location": 2, "directions": 2, "where": 1},
    "parking": {"park": 2},
    "price": {"prices": 2, "cost": 2, "costs": 2, "charge": 2, "fee": 2, "much": 1},
    "insurance": {"insured": 2, "coverage": 2},
    "patients": {"patient": 2, "accepting": 1},
}
"""General English: words that ask for what a label names, and how surely."""


def _fact_score(label: str, words: set[str]) -> int:
    own = english.plain(label).split()
    return sum(
        3 * (word in words)
        + sum(weight for other, weight in _SYNONYMS.get(word, {}).items() if other in words)
        for word in own
    )


def _facts(prompt: str) -> dict[str, str]:
    """Lines `- Label: sentence`; a label is at most three words that begin with a capital."""
    _, header, below = prompt.partition("Facts:\n")
    lines = below if header else prompt
    found = re.findall(r"^\s*(?:[-*] )?([A-Z][\w' ]{1,30}): +(\S.*)$", lines, re.MULTILINE)
    return {
        label: text.strip() for label, text in found if len(label.split()) <= 3 and text.strip().endswith(".")
    }


def _openers(prompt: str) -> tuple[str, ...]:
    listed = re.search(r'begin every reply[^"]*((?:"[^"]+"[,\s]*)+)', prompt, re.IGNORECASE)
    return tuple(re.findall(r'"([^"]+)"', listed[1])) if listed else ()


@functools.lru_cache(maxsize=256)  # the same few tools come with every request
def _parse_tool(tool_json: str) -> _Tool:
    tool = json.loads(tool_json)
    name = str(tool["name"])
    description = " ".join(str(tool.get("description", "")).split())
    schema = tool.get("input_schema") or {}
    required = set(schema.get("required") or ())
    properties = schema.get("properties") or {}
    params = tuple(_parse_param(key, value, key in required) for key, value in properties.items())
    words = [re.sub(r"_", " ", name)]
    words += [
        sentence
        for sentence in re.split(r"(?<=[.!?])\s+", description)
        if not any(re.search(rf"\b{re.escape(key)}\b", sentence) for key in properties)
    ]
    words += [word for param in params for option in param.options.values() for word in option]
    ends_call = re.search(
        r"\b(end|hang up|finish)\b.*\bcall\b", f"{name.replace('_', ' ')} {description}".lower()
    )
    return _Tool(name, params, frozenset(english.stems(" ".join(words))), ends_call is not None)


def _parse_param(name: str, schema: Mapping[str, Any], required: bool) -> _Param:
    description = " ".join(str(schema.get("description", "")).split())
    question = re.search(r"\bAsk: (.+\?)", description)
    options = _parse_options(schema, description)
    source = re.search(r"\b([a-z]+_[a-z_]+)\b", description)
    kind = _kind(name, schema, description, has_options=bool(options), has_source=source is not None)
    return _Param(
        name=name,
        kind=kind,
        required=required,
        question=question[1] if question else f"Could you tell me the {name.replace('_', ' ')}?",
        options=options,
        source=source[1] if source and kind is _Kind.CHOICE else None,
        takes_same=re.search(r"\bsame\b", description) is not None,
    )


def _parse_options(schema: Mapping[str, Any], description: str) -> dict[str, tuple[str, ...]]:
    listed = re.search(r"\bOne of: ([^.]+)", description)
    options = {str(value): (str(value),) for value in schema.get("enum") or ()}
    if listed:
        for option, aliases in re.findall(r"([\w' -]+?)\s*(?:\(([^)]*)\))?(?:,|$)", listed[1]):
            also = tuple(alias.strip() for alias in aliases.split(",") if alias.strip())
            options[option.strip()] = (option.strip(), *also)
    return options


def _kind(
    name: str, schema: Mapping[str, Any], description: str, *, has_options: bool, has_source: bool
) -> _Kind:
    if schema.get("type") == "boolean":
        return _Kind.CONFIRMATION if "confirm" in name else _Kind.FLAG
    if has_options:
        return _Kind.OPTION
    if has_source:
        return _Kind.CHOICE
    hint = f"{name.replace('_', ' ')} {description.split('.')[0].split(';')[0]}".lower()
    for word, kind in (("phone", _Kind.PHONE), ("name", _Kind.NAME), ("day", _Kind.DAY), ("date", _Kind.DAY)):
        if re.search(rf"\b{word}\b", hint):
            return kind
    return _Kind.TEXT


def _extract(param: _Param, text: str, *, asked: bool) -> object | None:
    if param.kind is _Kind.OPTION:
        return _option(param.options, text)
    if param.kind is _Kind.DAY:
        return english.day_phrase(text)
    if param.kind is _Kind.NAME:
        return english.person_name(text, asked=asked)
    if param.kind is _Kind.TEXT:
        is_aside = english.is_repeat(text) or english.is_nudge(text) or english.is_goodbye(text)
        return english.free_text(text, asked=asked and not is_aside)
    return None


def _phone(param: _Param, text: str, before: str) -> str | None:
    """Ten digits, or `before` made ten; "same" where the tool takes that."""
    if param.takes_same and re.search(
        r"\b(same|this) (phone )?(number|one)|number i'm (calling|on)|one i'm calling|the number you (see|have)",
        english.plain(text),
    ):
        return "same"
    digits = _longest_digits(text)
    if len(digits) < 10 and len(before + digits) == 10:
        digits = before + digits
    return digits if len(digits) in (10, 11) else None


def _longest_digits(text: str) -> str:
    return max(english.digit_runs(text)[-2:], key=len, default="")


def _option(options: Mapping[str, tuple[str, ...]], text: str) -> str | None:
    words = english.plain(text)
    last: tuple[int, str] | None = None
    for option, names in options.items():
        for name in names:
            for match in re.finditer(rf"(?<!not )(?<!not a )\b{re.escape(name.lower())}s?\b", words):
                last = max(last or (-1, ""), (match.start(), option))
    return last[1] if last else None


def _options(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The first list of objects in a result."""
    for value in result.values():
        if (
            isinstance(value, list)
            and value
            and all(isinstance(item, dict) and "say" in item for item in value)
        ):
            return value
    return []


def _chosen(options: Sequence[Mapping[str, Any]], text: str) -> int | None:
    """Index of the option the caller takes: by time, by day, or by its place."""
    times, day = english.times_in(text), english.day_phrase(text)
    says = [str(option["say"]) for option in options]
    fitting = list(range(len(options)))
    if day is not None and day != "any":
        fitting = [
            index for index in fitting if set(day.split()[-1:]) <= set(english.plain(says[index]).split())
        ]
    if times:
        fitting = [index for index in fitting if any(time in english.times_in(says[index]) for time in times)]
    named = bool(times) or (day is not None and day != "any")
    if named:
        return fitting[0] if len(fitting) == 1 else None
    return english.choice(text, len(options))


def _offer(options: Sequence[Mapping[str, Any]]) -> str:
    says = [str(option["say"]) for option in options]
    if len(says) == 1:
        return f"I have {says[0]}. Would that suit you?"
    return f"I have {', '.join(says[:-1])}, or {says[-1]}. Which would you like?"


def _missing(tool: _Tool, values: Mapping[str, object]) -> _Param | None:
    asking = (_Kind.CONFIRMATION, _Kind.FLAG)
    return next(
        (p for p in tool.params if p.required and p.kind not in asking and values.get(p.name) is None), None
    )


def _is_choice_open(goal: _Tool, values: Mapping[str, object]) -> bool:
    return any(param.kind is _Kind.CHOICE and param.name not in values for param in goal.params)


def _best_named(params: Sequence[_Param], words: str) -> _Param | None:
    """The parameter whose name, or whose options, some words mention most."""
    spoken = {word for word in words.split() if len(word) > 2}
    scores = [sum(word in spoken for word in (*param.name.split("_"), *param.options)) for param in params]
    best = max(scores, default=0)
    return params[scores.index(best)] if best > 0 else None


def _answers(last_said: str, read_back: str) -> bool:
    """Whether a yes after `last_said` can be a yes to the read-back: not if another question came after it."""
    question = _last_sentence(last_said)
    return not question.endswith("?") or question in read_back


def _last_sentence(text: str) -> str:
    return _sentences(text)[-1]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", text.strip())


def _confirmations(tool: _Tool) -> list[str]:
    return [param.name for param in tool.params if param.kind is _Kind.CONFIRMATION]


def _settled(tool: _Tool, arguments: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in arguments.items() if name not in _confirmations(tool)}


def _say(result: Mapping[str, Any], content: str) -> str:
    if isinstance(result.get("say"), str):
        return result["say"]
    if not result or "error" in result or result.get("status") == "error":
        return _FAILED
    spoken = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in result.items()
        if isinstance(value, str | int | float)
    ]
    return f"{', '.join(spoken[:3])}.".capitalize() if spoken else content[:80]


def _rest(mind: _Mind, events: Sequence[_Event]) -> list[Block]:
    """What is left of the reply whose beginning is the last thing in a conversation; nothing if there is none.

    A beginning that broke off more than once stands there in as many parts.
    """
    parts = list(
        itertools.takewhile(lambda event: isinstance(event, _Said) and event.by_agent, reversed(events))
    )
    for count in range(len(parts), 0, -1):
        said = " ".join(part.text for part in reversed(parts[:count]) if isinstance(part, _Said)).split()
        if before := events[:-count]:
            blocks = mind.answer(before)
            words = blocks[0].text.split() if isinstance(blocks[0], TextBlock) else []
            if words[: len(said)] == said:
                left = " ".join(words[len(said) :])
                return [TextBlock(left), *blocks[1:]] if left else blocks[1:]
    return []


def _is_lead_in(event: _Said) -> bool:
    """Whether an agent's words, maybe cut, only opened a tool call."""
    return any(lead_in.startswith(event.text) for lead_in in _LEAD_INS)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return ""


_BEGINNING_MISSES = re.compile(r"^<([\w-]+)>.*beginning may be missing.*</\1>$", re.DOTALL)
"""The developer's word that of what the caller says next only the end may be there."""


def _events(messages: Sequence[Mapping[str, Any]]) -> Iterator[_Event]:
    may_be_rest = False
    for message in messages:
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
        for block in blocks:
            if _BEGINNING_MISSES.search(str(block.get("text", ""))):
                may_be_rest = True
                continue
            event = _event(block, by_agent=message.get("role") == "assistant")
            if isinstance(event, _Said) and not event.by_agent:
                event = replace(event, is_rest=may_be_rest and event.text[0].islower())
                may_be_rest = False
            if event is not None:
                yield event


def _event(block: Mapping[str, Any], *, by_agent: bool) -> _Event | None:
    kind = block.get("type")
    if kind == "tool_use":
        return _Called(str(block["id"]), str(block["name"]), block.get("input") or {})
    if kind == "tool_result":
        return _Returned(str(block["tool_use_id"]), _text_of(block.get("content")))
    text = str(block.get("text", "")).strip().removeprefix("DTMF: ")  # keys are words like others
    if kind != "text" or text in ("", ".", "(empty)"):
        return None
    if by_agent:
        text = text.removesuffix("—").rstrip()  # the mark of words that were cut
        return _Said(text, by_agent=True) if text else None
    if re.match(r"<([\w-]+)>.*</\1>$|\(.*\)$", text, re.DOTALL):
        return None  # the developer's, not the caller's: nobody speaks in brackets
    late = _json_object(text)
    if late.get("type") == "async_tool":  # a result that came after the conversation had moved on
        return _Returned(str(late.get("tool_call_id")), str(late.get("result", "IN_PROGRESS")))
    return _Said(text, by_agent=False)
