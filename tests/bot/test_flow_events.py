from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.flow_events import (
    LONGEST_LINE,
    NOT_YET,
    Branch,
    FlowEvent,
    FlowEvents,
    event_targets,
    read_events,
)
from bot.yaml_source import YamlSource

NODES = "nodes: {desk: {}, goodbye: {}}\n"


def read(events: str, *, nodes: str = NODES) -> tuple[FlowEvents, list[str]]:
    found, faults = read_events(YamlSource(Path("flow.yaml"), nodes + events))
    return found, [str(fault) for fault in faults]


def test_branches_are_read() -> None:
    found, faults = read(
        "events:\n"
        '  no_speech: {say: " Nobody there? Goodbye. ", then: end}\n'
        "  line_sound:\n"
        "    then: goodbye\n"
    )
    assert faults == []
    assert found.branch(FlowEvent.NO_SPEECH) == Branch(say="Nobody there? Goodbye.", node=None)
    assert found.branch(FlowEvent.LINE_SOUND) == Branch(say=None, node="goodbye")


def test_a_caller_who_asks_for_a_person_may_go_elsewhere() -> None:
    found, faults = read(
        "events:\n"
        '  human_requested: {say: "What is it about?", then: desk}\n'
        '  out_of_hours: {say: "We are closed. Goodbye.", then: end}\n'
    )
    assert faults == []
    assert found.own(FlowEvent.HUMAN_REQUESTED) == Branch("What is it about?", "desk")
    assert found.own(FlowEvent.OUT_OF_HOURS) == Branch("We are closed. Goodbye.", None)
    assert found.own(FlowEvent.NO_SPEECH) is None


@pytest.mark.parametrize(
    ("branch", "fault"),
    [
        (
            "human_requested: {say: Goodbye., then: end}",
            "human_requested.then: would hang up on a caller who asks for a person: name a node",
        ),
        (
            "out_of_hours: {then: end}",
            "out_of_hours.then: would hang up without a word: add `say`, or name a node",
        ),
    ],
)
def test_nobody_who_asks_for_a_person_is_left_with_nothing(branch: str, fault: str) -> None:
    assert read(f"events:\n  {branch}\n")[1] == [f"flow.yaml:3: events.{fault}"]


@pytest.mark.parametrize("events", ["", "events: {}\n", "events: {no_speech: {then: end}}\n"])
def test_what_is_left_out_ends_the_call_with_the_languages_line(events: str) -> None:
    found, faults = read(events)
    assert faults == []
    assert {found.branch(event) for event in FlowEvent} == {Branch(say=None, node=None)}


@pytest.mark.parametrize(
    ("events", "faults"),
    [
        ("events:\n", ["flow.yaml:2: events: must map events to branches, or be left out"]),
        ("events: [no_speech]\n", ["flow.yaml:2: events: must map events to branches, or be left out"]),
        (
            "events:\n  no_speech:\n",
            ['flow.yaml:3: events.no_speech: is empty: write `{say: "…", then: end}` or `{then: <node>}`'],
        ),
        (
            "events:\n  no_speech: {}\n",
            ['flow.yaml:3: events.no_speech: is empty: write `{say: "…", then: end}` or `{then: <node>}`'],
        ),
        (
            "events:\n  no_speech: end\n",
            [
                'flow.yaml:3: events.no_speech: is no branch: write `{say: "…", then: end}` or `{then: <node>}`'
            ],
        ),
        ("events:\n  no_speech: {say: Bye.}\n", ["flow.yaml:3: events.no_speech.then: is missing"]),
        (
            "events:\n  no_speech:\n    say: Bye.\n    than: end\n",
            [
                "flow.yaml:3: events.no_speech.then: is missing",
                "flow.yaml:5: events.no_speech.than: unknown key; did you mean then?",
            ],
        ),
        (
            f"events:\n  no_speech:\n    then: end\n    say: {'a' * (LONGEST_LINE + 1)}\n",
            ["flow.yaml:5: events.no_speech.say: String should have at most 300 characters"],
        ),
        (
            'events:\n  no_speech:\n    then: end\n    say: "  "\n',
            ["flow.yaml:5: events.no_speech.say: String should have at least 1 character"],
        ),
        (
            'events:\n  no_speech:\n    then: end\n    say: "Bye, {{ caller_name }}."\n',
            [
                "flow.yaml:5: events.no_speech.say: a placeholder would be read out as it is: "
                "the line is spoken before the call"
            ],
        ),
        (
            "events:\n  no_spech: {then: end}\n",
            ["flow.yaml:3: events.no_spech: unknown event; did you mean no_speech?"],
        ),
        ("events:\n  rain: {then: end}\n", ["flow.yaml:3: events.rain: unknown event"]),
        (
            "events:\n  voice_mail: {then: end}\n",
            ["flow.yaml:3: events.voice_mail: unknown event; did you mean voicemail?"],
        ),
        (
            "events:\n  rain: {then: end}\n  line_sound: {then: 7}\n",
            [
                "flow.yaml:3: events.rain: unknown event",
                "flow.yaml:4: events.line_sound.then: Input should be a valid string",
            ],
        ),
    ],
)
def test_each_fault_has_its_line(events: str, faults: list[str]) -> None:
    assert read(events)[1] == faults


@pytest.mark.parametrize("name", sorted(NOT_YET))
def test_an_event_that_nothing_raises_yet_is_refused(name: str) -> None:
    _, faults = read(f"events:\n  {name}: {{then: end}}\n")
    assert faults == [f"flow.yaml:3: events.{name}: not available yet (available: {', '.join(FlowEvent)})"]


def test_a_node_named_like_the_end_is_refused_where_it_stands() -> None:
    _, faults = read("events: {no_speech: {then: end}}\n", nodes="nodes:\n  end: {}\n")
    assert faults == ["flow.yaml:2: nodes.end: no node can have this name: `then: end` ends the call"]


def test_a_node_may_be_named_end_where_there_are_no_events() -> None:
    assert read("", nodes="nodes: {end: {}}\n")[1] == []


def test_targets_are_told_with_their_place() -> None:
    data = {
        "events": {"no_speech": {"then": "desk"}, "line_sound": {"then": "end"}, "rain": {"then": "nowhere"}}
    }
    assert list(event_targets(data)) == [
        (("events", "no_speech", "then"), "desk"),
        (("events", "rain", "then"), "nowhere"),
    ]


def test_lines_are_told_for_the_cache() -> None:
    goodbye, quiet = Branch("Goodbye.", None), Branch(None, "desk")
    assert FlowEvents().lines() == []
    assert FlowEvents({FlowEvent.NO_SPEECH: quiet, FlowEvent.LINE_SOUND: goodbye}).lines() == ["Goodbye."]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["end", "desk"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["say", "then", "no_speech", "human_requested", "out_of_hours", "dtmf", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(ANYTHING)
def test_whatever_stands_there_is_read_or_explained(events: object) -> None:
    source = YamlSource(Path("flow.yaml"), NODES)
    source.data["events"] = events
    found, faults = read_events(source)
    names = set(events) if isinstance(events, dict) else set[str]()
    is_right = isinstance(events, dict) and len(found.branches) == len(names)
    assert is_right or faults
    for branch in found.branches.values():
        assert branch.node != "end"
        assert branch.say is None or 0 < len(branch.say) <= LONGEST_LINE
    list(event_targets(source.data))
