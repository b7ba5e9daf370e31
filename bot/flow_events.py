"""What happens in a call without asking the model: the `events:` map of `flow.yaml`.

    events:
      no_speech: {say: "I can't hear you, so I'll hang up now. Goodbye.", then: end}
      line_sound: {then: end}
      human_requested: {say: "What may I tell them it is about?", then: before_a_person}
      out_of_hours: {say: "Everybody has gone home. May I take a message?", then: message}

Reads and checks the map; `bot/flow_check.py` joins it to the rest of the file, `bot/caller_absence.py` and
`bot/person_branch.py` act on it. An event that the map leaves out ends the call with the fixed line of the agent's
language; who asks for a person is put through.
"""

import enum
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from bot.yaml_source import Fault, YamlSource, suggestion

EVENTS_KEY = "events"
END = "end"
"""What stands in `then` where no node is to follow."""
LONGEST_LINE = 300
"""Characters, as in `agent.yaml`."""


class FlowEvent(enum.StrEnum):
    """What a flow can have a branch for."""

    NO_SPEECH = "no_speech"
    """The caller did not answer, however often they were asked."""
    LINE_SOUND = "line_sound"
    """Nobody human is on the line: a fax, hold music, a recording."""
    HUMAN_REQUESTED = "human_requested"
    """The caller asks for a person, for the first time in this call."""
    OUT_OF_HOURS = "out_of_hours"
    """They do so while nobody is there, for the first time."""


NOT_YET = frozenset(
    {
        "voicemail",
        "wrong_party",
        "low_confidence",
        "llm_failed",
        "tool_failed",
        "opt_out",
        "dtmf",
    }
)
"""Events whose names are taken, and which nothing raises."""


@dataclass(frozen=True)
class Branch:
    """What an event leads to."""

    say: str | None
    """Spoken word for word first; None leaves it to the agent's language, or says nothing in front of a node."""
    node: str | None
    """Where the flow goes on; None ends the call."""


@dataclass(frozen=True)
class FlowEvents:
    """The branches of one flow. Shared by all its calls."""

    branches: Mapping[FlowEvent, Branch] = field(default_factory=dict[FlowEvent, Branch])

    def branch(self, event: FlowEvent) -> Branch:
        """Return what `event` leads to; without a branch of its own, to the end of the call."""
        return self.branches.get(event, _DEFAULT)

    def own(self, event: FlowEvent) -> Branch | None:
        """Return the branch that the flow has for `event`, None without one."""
        return self.branches.get(event)

    def lines(self) -> list[str]:
        """Return what is spoken word for word."""
        return [branch.say for branch in self.branches.values() if branch.say]


_DEFAULT = Branch(say=None, node=None)


class _Branch(BaseModel, frozen=True, extra="forbid"):
    """A branch as it stands in the file."""

    say: (
        Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_LINE)] | None
    ) = None
    then: Annotated[str, StringConstraints(min_length=1)]


class _EventsSection(BaseModel, frozen=True):
    """The part of `flow.yaml` that is read here."""

    events: dict[str, _Branch] = Field(default_factory=dict[str, _Branch])


def event_targets(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where each branch of a raw file leads and the node's name; ends are left out."""
    for name, branch in _raw_branches(data).items():
        target = cast(dict[Any, Any], branch).get("then") if isinstance(branch, dict) else None
        if isinstance(target, str) and target and target != END:
            yield (EVENTS_KEY, str(name), "then"), target


def read_events(source: YamlSource) -> tuple[FlowEvents, list[Fault]]:
    """Read the map of a whole `flow.yaml`.

    Nodes that do not exist are not looked for here: see `event_targets`.

    Returns:
        The branches that are right, and a fault for everything that is wrong.
    """
    if EVENTS_KEY not in source.data:
        return FlowEvents(), []
    if not isinstance(source.data[EVENTS_KEY], dict):
        return FlowEvents(), [source.fault((EVENTS_KEY,), "must map events to branches, or be left out")]
    faults: list[Fault] = list(_name_faults(source))
    branches: dict[FlowEvent, Branch] = {}
    for name, raw in _raw_branches(source.data).items():
        if not isinstance(raw, dict) or not raw:
            message = "is empty" if not raw else "is no branch"
            message += f': write `{{say: "…", then: {END}}}` or `{{then: <node>}}`'
            faults.append(source.fault((EVENTS_KEY, str(name)), message))
            continue
        try:
            section = _EventsSection.model_validate({EVENTS_KEY: {str(name): raw}})
        except ValidationError as error:
            faults += source.validation_faults(error, _EventsSection)
            continue
        read = section.events[str(name)]
        if read.say is not None and "{{" in read.say:
            message = "a placeholder would be read out as it is: the line is spoken before the call"
            faults.append(source.fault((EVENTS_KEY, str(name), "say"), message))
        if name in _known():
            faults += _end_faults(source, FlowEvent(name), read)
            branches[FlowEvent(name)] = Branch(read.say, None if read.then == END else read.then)
    return FlowEvents(branches), faults


def _end_faults(source: YamlSource, event: FlowEvent, branch: _Branch) -> Iterator[Fault]:
    """Find branches that leave a caller who wants a person with nothing."""
    if branch.then != END:
        return
    here = (EVENTS_KEY, event.value, "then")
    if event is FlowEvent.HUMAN_REQUESTED:
        yield source.fault(here, "would hang up on a caller who asks for a person: name a node")
    elif event is FlowEvent.OUT_OF_HOURS and branch.say is None:
        yield source.fault(here, "would hang up without a word: add `say`, or name a node")


def _name_faults(source: YamlSource) -> Iterator[Fault]:
    nodes = source.data.get("nodes")
    if isinstance(nodes, dict) and END in nodes:
        yield source.fault(("nodes", END), f"no node can have this name: `then: {END}` ends the call")
    for name in _raw_branches(source.data):
        if name in NOT_YET:
            known = ", ".join(_known())
            yield source.fault((EVENTS_KEY, str(name)), f"not available yet (available: {known})")
        elif name not in _known():
            near = suggestion(str(name), (*_known(), *NOT_YET))
            yield source.fault((EVENTS_KEY, str(name)), f"unknown event{near}")


def _raw_branches(data: Mapping[str, Any]) -> dict[Any, Any]:
    branches = data.get(EVENTS_KEY)
    return cast(dict[Any, Any], branches) if isinstance(branches, dict) else {}


def _known() -> Collection[str]:
    return [event.value for event in FlowEvent]
