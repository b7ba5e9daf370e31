"""The reception flow's real prompt and tools under a model that is called directly: no pipeline, no socket."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from bot.flow_check import read_flow
from flows.business import Business, PersonAnswer, prompt_facts
from flows.reception import tools
from integrations.calendar import OpeningHours
from sims.brain import Block, TextBlock, ToolUse, reply
from tests.fakes.books import MemoryCalendar, MemoryMessageBook

ZONE = ZoneInfo("America/Chicago")
SATURDAY = datetime(2026, 11, 21, 9, 30, tzinfo=ZONE)
HOURS = OpeningHours.parse({"mon-fri": "08:00-18:00", "sat": "09:00-13:00"})
FLOW_FILE = Path(tools.__file__).with_name("flow.yaml")


@dataclass
class FrontDesk:
    """One typed call. `say` returns what the agent answers."""

    now: datetime = SATURDAY
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tool_calls: list[ToolUse] = field(default_factory=list[ToolUse])
    results: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    ended: int = 0
    person: PersonAnswer = PersonAnswer.NOBODY
    """What becomes of a caller who wants one."""
    asked_for_person: list[str] = field(default_factory=list[str])
    think: Callable[[Mapping[str, Any]], list[Block]] = reply

    def __post_init__(self) -> None:
        self.calendar = MemoryCalendar(HOURS, ZONE, self.now)
        self.book = MemoryMessageBook()
        business = Business(
            calendar=self.calendar,
            messages=self.book,
            timezone=ZONE,
            hours=HOURS,
            call_sid="CA1",
            caller_number="+18505550142",
            now=lambda: self.now,
            request_end=self._end,
            request_person=self._request_person,
        )
        facts = prompt_facts(business)
        self.state |= {"business": business, **facts}
        node = read_flow(FLOW_FILE.parent).flow.initial_node
        self.functions: dict[str, Any] = {function.name: function for function in node.get("functions", [])}  # pyright: ignore[reportFunctionMemberAccess] - a configured flow has schemas only
        self.system = _render(node.get("role_message", ""), facts)
        self.messages.append({"role": "user", "content": _render(node["task_messages"][0]["content"], facts)})
        self.agent_said("Northside Dental, how can I help?")

    def _request_person(self, about: str) -> PersonAnswer:
        self.asked_for_person.append(about)
        return self.person

    async def say(self, text: str) -> str:
        """The caller says `text`; returns the agent's words, tool calls carried out in between."""
        self.messages.append({"role": "user", "content": text})
        return await self.run()

    async def run(self) -> str:
        words: list[str] = []
        for _ in range(6):
            blocks = self.think(self.request())
            words += [block.text for block in blocks if isinstance(block, TextBlock)]
            self.messages.append({"role": "assistant", "content": [self._wire(block) for block in blocks]})
            calls = [block for block in blocks if isinstance(block, ToolUse)]
            if not calls or not await self._carry_out(calls[0]):
                return " ".join(words)
        raise AssertionError("the model goes on calling tools")

    def agent_said(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def heard_only(self, text: str) -> None:
        """The caller cut in: of the agent's last words only `text` was heard."""
        self.messages[-1] = {"role": "assistant", "content": text}

    def request(self) -> dict[str, Any]:
        return {
            "model": "claude-haiku-4-5",
            "max_tokens": 300,
            "system": self.system,
            "messages": self.messages,
            "tools": [
                {
                    "name": function.name,
                    "description": function.description,
                    "input_schema": {
                        "type": "object",
                        "properties": function.properties,
                        "required": function.required,
                    },
                }
                for function in self.functions.values()
            ],
        }

    def get_current_context(self) -> list[dict[str, Any]]:
        """As `FlowManager` has it: the caller's turns are the messages of role user."""
        return [
            message
            for message in self.messages[1:]
            if message["role"] == "user" and isinstance(message["content"], str)
        ]

    async def call_tool(self, tool: str, /, **arguments: object) -> tuple[dict[str, Any], bool]:
        """Run a tool; returns its result and whether the model is to answer it."""
        result, next_node = await self.functions[tool].handler(dict(arguments), self)
        return result, repr(next_node) != "NO_RESPONSE"

    async def _carry_out(self, call: ToolUse) -> bool:
        self.tool_calls.append(call)
        result, is_to_answer = await self.call_tool(call.name, **call.arguments)
        self.results.append(result)
        content = json.dumps(result)
        block = {"type": "tool_result", "tool_use_id": f"t{len(self.tool_calls)}", "content": content}
        self.messages.append({"role": "user", "content": [block]})
        return is_to_answer

    def _wire(self, block: Block) -> dict[str, Any]:
        if isinstance(block, TextBlock):
            return {"type": "text", "text": block.text}
        call_id = f"t{len(self.tool_calls) + 1}"
        return {"type": "tool_use", "id": call_id, "name": block.name, "input": dict(block.arguments)}

    def _end(self) -> None:
        self.ended += 1


def _render(text: str, facts: Mapping[str, str]) -> str:
    for key, value in facts.items():
        text = text.replace("{{ " + key + " }}", value)
    assert "{{" not in text
    return text
