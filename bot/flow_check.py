"""Check a whole agent folder: `agent.yaml`, `flow.yaml` and the tools that the flow names.

`firstring check`, start-up and tests ask the same function, so a flow that starts is a flow that was
checked. Explains everything at once, with file and line. Imports an agent's `tools.py`, calls nothing in it.
"""

import ast
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from zoneinfo import ZoneInfo

from pipecat.flows import Flow, FlowConfig
from pipecat.flows.exceptions import FlowReferenceError
from pydantic import ValidationError

from bot.agent import Agent, agent_folders, listening_state_faults, read_agent, shared_numbers
from bot.errors import AgentFilesError
from bot.flow_events import EVENTS_KEY, FlowEvent, FlowEvents, event_targets, read_events
from bot.flow_tiers import TieredFlow, tier_faults
from bot.yaml_source import Fault, Location, YamlSource, YamlSyntaxError, suggestion
from flows.business import Business, prompt_facts
from integrations.calendar import OpeningHours

FLOW_FILE = "flow.yaml"
TOOLS_FILE = "tools.py"

HANGING_ACTIONS = frozenset({"tts_say", "function"})
"""Pipecat 1.14 waits for a marker frame that a caller who speaks deletes; the flow then never goes on."""

_PLACEHOLDER = re.compile(r"(?<!\\)\{\{(.*?)\}\}", re.DOTALL)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class CheckedAgent:
    """An agent whose files are right, ready for calls."""

    agent: Agent
    flow: Flow
    """Shared by all calls: it holds no state of a call."""
    events: FlowEvents
    """What happens without asking the model."""


@dataclass(frozen=True)
class CheckedFlow:
    """The two parts of a `flow.yaml` that is right."""

    flow: Flow
    events: FlowEvents


class _FlowFile(TieredFlow):
    """The flow, in a file where `events:` may stand too; `read_events` looks into that."""

    events: Any = None


def load_checked_agents(agents_dir: Path) -> dict[str, CheckedAgent]:
    """Read and check every agent below a folder.

    Returns:
        Slug to agent, in order of the slugs.

    Raises:
        AgentFilesError: All faults of all agents at once, each with file and line.
    """
    checked: dict[str, CheckedAgent] = {}
    faults: list[str] = []
    for folder in agent_folders(agents_dir):
        try:
            checked[folder.name] = check_agent(folder)
        except AgentFilesError as error:
            faults += error.faults
    faults += shared_numbers({slug: one.agent for slug, one in checked.items()})
    if faults:
        raise AgentFilesError(faults)
    return checked


def check_agent(folder: Path) -> CheckedAgent:
    """Read and check one agent's folder.

    Raises:
        AgentFilesError: All faults of its files at once.
    """
    agent: Agent | None = None
    checked: CheckedFlow | None = None
    faults: list[str] = []
    try:
        agent = read_agent(folder)
    except AgentFilesError as error:
        faults += error.faults
    try:
        checked = read_flow(folder)
    except AgentFilesError as error:
        faults += error.faults
    if agent is None or checked is None:
        raise AgentFilesError(faults)
    if state_faults := listening_state_faults(folder, agent.config, checked.flow.config.nodes):
        raise AgentFilesError(state_faults)
    return CheckedAgent(agent, checked.flow, checked.events)


def read_flow(folder: Path) -> CheckedFlow:
    """Read `flow.yaml` and `tools.py` of one folder and join them.

    Raises:
        AgentFilesError: All faults of both files at once.
    """
    path = folder / FLOW_FILE
    try:
        source = YamlSource.read(path)
    except YamlSyntaxError as error:
        raise AgentFilesError([error.fault]) from None
    faults = list(source.duplicate_keys())
    events, event_faults = read_events(source)
    faults += event_faults
    config: FlowConfig | None = None
    graph_faults = list(_graph_faults(source))
    try:
        config = _FlowFile.model_validate(source.data)
    except ValidationError as error:
        # Pipecat's own look at the graph stops at the first fault and has no line: ours replaces it.
        found = source.validation_faults(error, _FlowFile)
        faults += [fault for fault in found if fault.where or not graph_faults]
    faults += graph_faults
    tools, tool_fault = _try_tools(folder)
    faults += [tool_fault] if tool_fault else []
    flow: Flow | None = None
    if config is not None and tools is not None:
        flow, reference_faults = _join(source, config, tools)
        tree = ast.parse((folder / TOOLS_FILE).read_text(encoding="utf-8"))
        faults += [*reference_faults, *_dead_end_faults(source, config, tree)]
        faults += _never_taken_faults(source, events, config, tree)
        faults += _placeholder_faults(source, config, known_facts() | _stored_keys(tree))
        faults += tier_faults(source, config)
    if flow is None or faults:
        raise AgentFilesError(_in_reading_order(faults))
    return CheckedFlow(flow, events)


def load_tools(folder: Path) -> ModuleType:
    """Import `tools.py` of an agent's folder, as `flows.<agent>.tools` when that is what it is.

    Raises:
        Exception: Whatever importing it raises.
    """
    path = (folder / TOOLS_FILE).resolve()
    dotted = f"{path.parent.parent.name}.{path.parent.name}.{path.stem}"
    if (path.parent / "__init__.py").exists() and _origin(dotted) == path:
        return importlib.import_module(dotted)
    name = f"firstring_agent_{path.parent.name}_tools"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and type hints of the module look it up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@cache
def known_facts() -> frozenset[str]:
    """Return the keys that every call puts into a flow's state before it starts."""
    nobody = cast(Any, None)
    business = Business(
        calendar=nobody,
        messages=nobody,
        timezone=ZoneInfo("UTC"),
        hours=OpeningHours.parse({"mon-fri": "09:00-17:00"}),
        call_sid="",
        caller_number="",
        now=lambda: datetime(2026, 1, 5, 12, tzinfo=UTC),
        request_end=lambda: None,
    )
    return frozenset(prompt_facts(business)) | {"business"}


def _in_reading_order(faults: Iterable[Fault]) -> list[Fault]:
    return sorted(dict.fromkeys(faults), key=lambda fault: (str(fault.path), fault.line or 0, fault.where))


def _try_tools(folder: Path) -> tuple[ModuleType | None, Fault | None]:
    path = folder / TOOLS_FILE
    if not path.is_file():
        return None, Fault(path, None, "", "is missing; it holds the functions that flow.yaml names")
    try:
        return load_tools(folder), None
    except SyntaxError as error:
        return None, Fault(path, error.lineno, "", f"is not Python: {error.msg}")
    except Exception as error:  # noqa: BLE001 - an agent's module may raise anything when it is imported
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).name == path.name
        ]
        return None, Fault(path, lines[-1] if lines else None, "", f"{type(error).__name__}: {error}")


def _join(source: YamlSource, config: FlowConfig, tools: ModuleType) -> tuple[Flow | None, list[Fault]]:
    try:
        return Flow(config, handlers=tools), []
    except FlowReferenceError as error:
        known = [name for name in vars(tools) if not name.startswith("_")]
        faults: list[Fault] = []
        for problem in error.problems:
            location = _function_location(config, problem.node, problem.function)
            hint = suggestion(problem.function or "", known) if problem.code.startswith("missing") else ""
            faults.append(source.fault(location, f"{problem.message} ({TOOLS_FILE}){hint}"))
        return None, faults


def _function_location(config: FlowConfig, node: str | None, function: str | None) -> Location:
    base: tuple[str | int, ...] = ("nodes", node, "functions") if node else ("global_functions",)
    functions = config.nodes[node].functions if node else config.global_functions
    for index, entry in enumerate(functions):
        if entry.name == function:
            return (*base, index, "name")
    return base[:2]


def _graph_faults(source: YamlSource) -> Iterator[Fault]:
    """Look at the graph in the raw file, so that one broken node does not hide the rest."""
    nodes = source.data.get("nodes")
    if not isinstance(nodes, dict):
        return
    names = [str(name) for name in nodes]
    initial = source.data.get("initial_node")
    if isinstance(initial, str) and initial not in names:
        yield source.fault(("initial_node",), f"there is no node {initial!r}{suggestion(initial, names)}")
        initial = None
    leads_to: dict[str | None, set[str]] = {}
    for location, target in _raw_targets(source.data):
        origin = str(location[1]) if location[0] == "nodes" else None
        leads_to.setdefault(origin, set()).add(target)
        if target not in names:
            yield source.fault(location, f"leads to unknown node {target!r}{suggestion(target, names)}")
    reached = _reached(str(initial), leads_to)
    for name in names:
        if initial is not None and name not in reached:
            yield source.fault(("nodes", name), "no way leads here from initial_node")
    yield from _action_faults(source, nodes)


def _reached(initial: str, leads_to: Mapping[str | None, set[str]]) -> set[str]:
    """Return the nodes that can be entered; the key None of `leads_to` holds what every node leads to."""
    reached = {initial} | leads_to.get(None, set())
    while more := {target for name in reached for target in leads_to.get(name, ())} - reached:
        reached |= more
    return reached


def _action_faults(source: YamlSource, nodes: Mapping[Any, Any]) -> Iterator[Fault]:
    for name, node in nodes.items():
        for when in ("pre_actions", "post_actions"):
            for index, action in enumerate(_list_of_dicts(_get(node, when))):
                kind, here = action.get("type"), ("nodes", str(name), when, index, "type")
                if kind in HANGING_ACTIONS:
                    yield source.fault(
                        here,
                        f"{kind} hangs for good when the caller speaks over it; let a tool or the model say it",
                    )
                elif kind == "end_conversation":
                    yield source.fault(
                        here, "ends the call before its last word was heard; let a tool call request_end"
                    )
                elif isinstance(kind, str) and "handler" not in action:
                    yield source.fault(here, f"unknown action {kind!r}: it has no handler")


def _raw_targets(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    lists: list[tuple[tuple[str | int, ...], Any]] = [(("global_functions",), data.get("global_functions"))]
    for name, node in data["nodes"].items():
        lists.append((("nodes", str(name), "functions"), _get(node, "functions")))
    for base, functions in lists:
        for index, function in enumerate(_list_of_dicts(functions)):
            here = (*base, index, "transition_to")
            target = function.get("transition_to")
            if isinstance(target, str):
                yield here, target
            elif isinstance(target, dict):
                cases = cast(dict[Any, Any], target).get("cases")
                if isinstance(cases, dict):
                    for case, to in cast(dict[Any, Any], cases).items():
                        yield (*here, "cases", str(case)), str(to)
                if isinstance(default := cast(dict[Any, Any], target).get("default"), str):
                    yield (*here, "default"), default
    yield from event_targets(data)


def _dead_end_faults(source: YamlSource, config: FlowConfig, tree: ast.Module) -> Iterator[Fault]:
    """Find nodes from which no tool that ends the call can be reached."""
    ending = _tools_calling(tree, "request_end")
    if any(function.name in ending for function in config.global_functions):
        return
    everywhere = {target for function in config.global_functions for target in function.targets()}
    leads_to = {
        name: everywhere | {target for function in node.functions for target in function.targets()}
        for name, node in config.nodes.items()
    }
    can_end = {name for name, node in config.nodes.items() if any(f.name in ending for f in node.functions)}
    while more := {name for name, targets in leads_to.items() if targets & can_end} - can_end:
        can_end |= more
    for name in config.nodes:
        if name not in can_end:
            way = "cannot be left" if leads_to[name] <= {name} else "leads to no end"
            yield source.fault(("nodes", name), f"{way}: from here no tool that calls request_end is reached")


def _never_taken_faults(
    source: YamlSource, events: FlowEvents, config: FlowConfig, tree: ast.Module
) -> Iterator[Fault]:
    """Find branches for callers who ask for a person, where no tool of the flow asks for one."""
    asking = _tools_calling(tree, "request_person")
    functions = [*config.global_functions, *(f for node in config.nodes.values() for f in node.functions)]
    if any(function.name in asking for function in functions):
        return
    for event in (FlowEvent.HUMAN_REQUESTED, FlowEvent.OUT_OF_HOURS):
        if events.own(event) is not None:
            yield source.fault((EVENTS_KEY, event.value), "is never taken: no tool here calls request_person")


def _placeholder_faults(source: YamlSource, config: FlowConfig, known: Iterable[str]) -> Iterator[Fault]:
    keys = sorted(known)
    for name, node in config.nodes.items():
        texts: list[tuple[Location, str | None]] = [(("nodes", name, "role_message"), node.role_message)]
        texts += [
            (("nodes", name, "task_messages", index, "content"), message.content)
            for index, message in enumerate(node.task_messages)
        ]
        for location, text in texts:
            for match in _PLACEHOLDER.finditer(text or ""):
                key = match[1].strip()
                if _KEY.fullmatch(key) is None:
                    yield source.fault(
                        location, f"{{{{{match[1]}}}}} is not a key; it would be read out as it is"
                    )
                elif key.partition(".")[0] not in keys:
                    near = suggestion(key, keys)
                    yield source.fault(
                        location, f"nobody sets {{{{ {key} }}}}{near} (known: {', '.join(keys)})"
                    )


def _tools_calling(tree: ast.Module, name: str) -> frozenset[str]:
    """Return the functions of a module that call `name`, themselves or through each other; and `name`."""
    calls = {
        function.name: {_called_name(node) for node in ast.walk(function) if isinstance(node, ast.Call)}
        for function in tree.body
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    found = {name}
    while more := {tool for tool, called in calls.items() if called & found} - found:
        found |= more
    return frozenset(found)


def _stored_keys(tree: ast.Module) -> frozenset[str]:
    """Return the keys that a module's code stores with `<…>.state["key"] = …` or `.state.setdefault("key", …)`."""
    keys: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and _is_state(node.value):
            keys |= _string(node.slice)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_state(node.func.value)
        ):
            if node.func.attr == "setdefault" and node.args:
                keys |= _string(node.args[0])
            elif node.func.attr == "update":
                keys |= {keyword.arg for keyword in node.keywords if keyword.arg}
                keys |= {
                    key
                    for arg in node.args
                    if isinstance(arg, ast.Dict)
                    for k in arg.keys
                    for key in _string(k)
                }
    return frozenset(keys)


def _is_state(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "state"


def _string(node: ast.expr | None) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def _called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _origin(dotted: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(dotted)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).resolve() if spec and spec.origin else None


def _get(node: object, key: str) -> object:
    return cast(dict[Any, Any], node).get(key) if isinstance(node, dict) else None


def _list_of_dicts(value: object) -> Iterator[dict[Any, Any]]:
    """Yield the mappings of a list; an entry that is none counts as empty so that indexes stay true."""
    for item in cast(list[Any], value) if isinstance(value, list) else []:
        yield item if isinstance(item, dict) else {}
