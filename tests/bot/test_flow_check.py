import os
from pathlib import Path

import pytest
from pipecat.flows import Flow

from bot.errors import AgentFilesError
from bot.flow_check import check_agent, known_facts, load_checked_agents, load_tools, read_flow
from bot.flow_events import Branch, FlowEvent, FlowEvents
from tests.bot.agent_files import AGENT, FLOW, TOOLS, write_agent

BEFORE_TOOLS = "    functions:\n      - name: note_name"
"""Where a node's actions can be put in."""


def faults_of(folder: Path, *, flow: str = FLOW, tools: str | None = TOOLS) -> list[str]:
    write_agent(folder, flow=flow, tools=tools)
    with pytest.raises(AgentFilesError) as caught:
        read_flow(folder)
    return [fault.removeprefix(f"{folder}/") for fault in caught.value.faults]


def test_a_right_flow_is_read(tmp_path: Path) -> None:
    checked = check_agent(write_agent(tmp_path / "reception"))
    assert isinstance(checked.flow, Flow)
    assert checked.flow.config.initial_node == "desk"
    assert checked.agent.slug == "reception"


def test_every_shipped_agent_is_right() -> None:
    assert "reception" in load_checked_agents(Path("flows"))


def test_a_shipped_agents_tools_are_imported_by_their_package_name() -> None:
    assert load_tools(Path("flows/reception")).__name__ == "flows.reception.tools"


def test_tools_of_a_folder_elsewhere_are_imported_from_their_file(tmp_path: Path) -> None:
    tools = load_tools(write_agent(tmp_path / "elsewhere"))
    assert Path(tools.__file__ or "") == tmp_path / "elsewhere" / "tools.py"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "transition_to: goodbye",
            "transition_to: godbye",
            [
                "flow.yaml:10: nodes.desk.functions[0].transition_to: leads to unknown node 'godbye'; did you",
                "flow.yaml:11: nodes.goodbye: no way leads here from initial_node",
            ],
        ),
        (
            "initial_node: desk",
            "initial_node: dsk",
            ["flow.yaml:1: initial_node: there is no node 'dsk'; did you mean desk?"],
        ),
        (
            "        transition_to: goodbye\n",
            "",
            [
                "flow.yaml:3: nodes.desk: cannot be left: from here no tool that calls request_end",
                "flow.yaml:10: nodes.goodbye: no way leads here",
            ],
        ),
        (
            "transition_to: goodbye",
            "transition_to: {field: x, cases: {a: desk, b: nowhere}, default: goodbye}",
            ["flow.yaml:10: nodes.desk.functions[0].transition_to.cases.b: leads to unknown node 'nowhere'"],
        ),
        (
            "name: note_name",
            "name: note_nme",
            ["flow.yaml:9: nodes.desk.functions[0].name: node 'desk' references tool 'note_nme', which"],
        ),
        (
            "- name: end_call",
            "- name: note_name",
            ["flow.yaml:3: nodes.desk: leads to no end", "flow.yaml:11: nodes.goodbye: cannot be left"],
        ),
        (
            "{{ hours }}",
            "{{ ours }}",
            ["flow.yaml:4: nodes.desk.role_message: nobody sets {{ ours }}; did you mean hours?"],
        ),
        (
            "{{ hours }}",
            "{{ opening hours }}",
            ["flow.yaml:4: nodes.desk.role_message: {{ opening hours }} is not a key"],
        ),
        (
            "content: Help.",
            "content: Help {{ nobody.knows }}.",
            ["flow.yaml:7: nodes.desk.task_messages[0].content: nobody sets {{ nobody.knows }}"],
        ),
        (
            "role_message:",
            "role_mesage:",
            ["flow.yaml:4: nodes.desk.role_mesage: unknown key; did you mean role_message?"],
        ),
        (
            "content: Help.",
            "contents: Help.",
            [
                "flow.yaml:6: nodes.desk.task_messages[0].content: is missing",
                "flow.yaml:7: nodes.desk.task_messages[0].contents: unknown key; did you mean content?",
            ],
        ),
        (
            "transition_to: goodbye",
            "transition_to: {cases: {a: goodbye}}",
            ["flow.yaml:10: nodes.desk.functions[0].transition_to.field: is missing"],
        ),
        (
            "- name: end_call",
            "- {name: end_call, transition_only: true, description: x}",
            ["flow.yaml:14: nodes.goodbye.functions[0]: function 'end_call' is transition_only and must"],
        ),
        (
            BEFORE_TOOLS,
            "    pre_actions: [{type: tts_say, text: Hi}]\n" + BEFORE_TOOLS,
            ["flow.yaml:8: nodes.desk.pre_actions[0].type: tts_say hangs for good"],
        ),
        (
            BEFORE_TOOLS,
            "    post_actions: [{type: function, handler: end_call}]\n" + BEFORE_TOOLS,
            ["flow.yaml:8: nodes.desk.post_actions[0].type: function hangs for good"],
        ),
        (
            BEFORE_TOOLS,
            "    post_actions: [{type: end_conversation}]\n" + BEFORE_TOOLS,
            ["flow.yaml:8: nodes.desk.post_actions[0].type: ends the call before"],
        ),
        (
            BEFORE_TOOLS,
            "    post_actions: [{type: wave}]\n" + BEFORE_TOOLS,
            ["flow.yaml:8: nodes.desk.post_actions[0].type: unknown action 'wave'"],
        ),
        (
            "      - name: end_call",
            "      - name: end_call\n      - name: end_call",
            ["flow.yaml:11: nodes.goodbye: duplicate function 'end_call'"],
        ),
        ("initial_node: desk", "initial_node: [desk", ["flow.yaml:2: while parsing a flow sequence"]),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, old: str, new: str, fault: list[str]) -> None:
    assert FLOW.count(old) == 1
    found = faults_of(tmp_path / "reception", flow=FLOW.replace(old, new))
    assert len(found) == len(fault), found
    for sentence, start in zip(found, fault, strict=True):
        assert sentence.startswith(start)


def test_events_stand_beside_the_flow(tmp_path: Path) -> None:
    events = 'events: {no_speech: {say: "Goodbye.", then: goodbye}}\n'
    checked = check_agent(write_agent(tmp_path / "reception", flow=FLOW + events))
    assert checked.events.branch(FlowEvent.NO_SPEECH) == Branch("Goodbye.", "goodbye")
    assert set(checked.flow.config.nodes) == {"desk", "goodbye"}


ASKS = """

async def fetch_somebody(flow_manager: FlowManager):
    \"\"\"Fetch a person.\"\"\"
    flow_manager.state["business"].request_person("")
    return {"ok": True}, NO_RESPONSE
"""


def test_a_branch_for_who_asks_for_a_person_needs_a_tool_that_does(tmp_path: Path) -> None:
    events = "events:\n  human_requested: {then: desk}\n"
    line = len(FLOW.splitlines()) + 2
    fault = f"flow.yaml:{line}: events.human_requested: is never taken: no tool here calls request_person"
    assert faults_of(tmp_path / "reception", flow=FLOW + events) == [fault]
    assert faults_of(tmp_path / "reception", flow=FLOW + events, tools=TOOLS + ASKS) == [fault], (
        "it is not used"
    )
    asks = FLOW.replace("      - name: note_name", "      - name: fetch_somebody\n      - name: note_name")
    tools = TOOLS.replace("import TRANSITION", "import NO_RESPONSE, TRANSITION") + ASKS
    read_flow(write_agent(tmp_path / "reception", flow=asks + events, tools=tools))


def test_a_flow_without_events_has_none(tmp_path: Path) -> None:
    assert check_agent(write_agent(tmp_path / "reception")).events == FlowEvents()


def test_a_node_that_only_an_event_leads_to_can_be_entered(tmp_path: Path) -> None:
    flow = FLOW.replace("transition_to: goodbye", "transition_to: desk")
    flow = flow.replace("      - name: note_name", "      - name: end_call\n      - name: note_name")
    read_flow(write_agent(tmp_path / "reception", flow=flow + "events: {line_sound: {then: goodbye}}\n"))


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        (
            "events:\n  no_speech: {then: godbye}\n",
            "flow.yaml:16: events.no_speech.then: leads to unknown node 'godbye'; did you mean goodbye?",
        ),
        (
            "events:\n  opt_out: {then: end}\n",
            f"flow.yaml:16: events.opt_out: not available yet (available: {', '.join(FlowEvent)})",
        ),
        (
            "events:\n  no_speech: {then: end}\n  no_speech: {then: end}\n",
            "flow.yaml:17: events.no_speech: this key stands twice",
        ),
        ("evnts: {}\n", "flow.yaml:15: evnts: unknown key; did you mean events?"),
    ],
)
def test_each_fault_of_the_events_has_its_line(tmp_path: Path, events: str, fault: str) -> None:
    assert faults_of(tmp_path / "reception", flow=FLOW + events) == [fault]


def test_a_node_that_stands_twice_is_told_although_yaml_drops_one(tmp_path: Path) -> None:
    found = faults_of(tmp_path / "reception", flow=FLOW.replace("  goodbye:", "  desk:"))
    assert "flow.yaml:11: nodes.desk: this key stands twice" in found


@pytest.mark.parametrize(
    ("tools", "fault"),
    [
        (None, "tools.py: is missing"),
        (TOOLS + "\ndef (:\n", "tools.py:25: is not Python"),
        (TOOLS + "\n1 / 0\n", "tools.py:25: ZeroDivisionError"),
        (
            TOOLS.replace("async def note_name", "def note_name"),
            "flow.yaml:9: nodes.desk.functions[0].name: node 'desk' tool",
        ),
        (
            TOOLS.replace('state["caller_name"] = name', "state.clear()"),
            "flow.yaml:4: nodes.desk.role_message: nobody sets {{ caller_name }}",
        ),
        (TOOLS.replace(".request_end()", ".wave()"), "flow.yaml:3: nodes.desk: leads to no end"),
    ],
)
def test_faults_of_the_tools(tmp_path: Path, tools: str | None, fault: str) -> None:
    assert faults_of(tmp_path / "reception", tools=tools)[0].startswith(fault)


@pytest.mark.parametrize(
    "store",
    [
        "state.update(caller_name=name)",
        'state.update({"caller_name": name})',
        'state.setdefault("caller_name", name)',
    ],
)
def test_every_way_to_store_a_value_counts(tmp_path: Path, store: str) -> None:
    tools = TOOLS.replace('state["caller_name"] = name', store)
    read_flow(write_agent(tmp_path / "reception", tools=tools))


def test_an_escaped_placeholder_is_text(tmp_path: Path) -> None:
    read_flow(write_agent(tmp_path / "reception", flow=FLOW.replace("{{ hours }}", r"\{{ ours }}")))


def test_a_global_tool_that_ends_the_call_lets_every_node_end(tmp_path: Path) -> None:
    flow = FLOW.replace("- name: end_call", "- {name: note_name, transition_to: desk}")
    read_flow(write_agent(tmp_path / "reception", flow=flow + "global_functions: [{name: end_call}]\n"))


def test_faults_of_all_files_come_at_once(tmp_path: Path) -> None:
    write_agent(tmp_path / "a", agent=AGENT.replace("500", "-1"), flow=FLOW.replace("hours", "ours"))
    write_agent(tmp_path / "b", flow="nodes: {}", tools="import nowhere_at_all\n")
    with pytest.raises(AgentFilesError) as caught:
        load_checked_agents(tmp_path)
    files = {os.path.relpath(fault.partition(":")[0], tmp_path) for fault in caught.value.faults}
    assert files == {"a/agent.yaml", "a/flow.yaml", "b/flow.yaml", "b/tools.py"}


def test_pauses_are_set_for_nodes_of_the_flow(tmp_path: Path) -> None:
    states = "  states: {desk: {max_pause_ms: 700}, goodby: {max_pause_ms: 300}}\n"
    write_agent(tmp_path / "a", agent=AGENT + states)
    with pytest.raises(AgentFilesError) as caught:
        load_checked_agents(tmp_path)
    (fault,) = caught.value.faults
    assert fault.endswith("listening.states.goodby: the flow has no such node; did you mean goodbye?")


def test_known_facts_are_those_a_call_has() -> None:
    assert {"business", "hours", "today"} <= known_facts()
