from pathlib import Path

import pytest
from pipecat.flows import FlowConfig

from bot.errors import AgentFilesError
from bot.flow_check import check_agent
from bot.flow_tiers import flow_tiers
from processors.model_tiers import FlowTiers, Tier, ToolMark
from tests.bot.agent_files import FLOW, write_agent

END = "      - name: end_call\n"


def marks(folder: Path, flow: str) -> FlowTiers:
    return flow_tiers(check_agent(write_agent(folder, flow=flow)).flow.config)


def faults(folder: Path, flow: str) -> list[str]:
    with pytest.raises(AgentFilesError) as caught:
        marks(folder, flow)
    return [fault.removeprefix(f"{folder}/") for fault in caught.value.faults]


def marked(old: str, new: str) -> str:
    assert FLOW.count(old) == 1
    return FLOW.replace(old, new)


def test_a_flow_without_marks_has_none(tmp_path: Path) -> None:
    assert marks(tmp_path / "a", FLOW) == FlowTiers()
    plain = FlowConfig.model_validate({"initial_node": "a", "nodes": {"a": {"task_messages": []}}})
    assert flow_tiers(plain) == FlowTiers()


def test_nodes_and_tools_are_marked(tmp_path: Path) -> None:
    flow = marked("  goodbye:\n", "  goodbye:\n    tier: strong\n")
    flow = flow.replace(END, f"{END}        tier: {{field: ok, cases: {{True: light}}, default: strong}}\n")
    flow = flow.replace("      - name: note_name\n", "      - name: note_name\n        tier: strong\n")
    assert marks(tmp_path / "a", flow) == FlowTiers(
        nodes={"goodbye": Tier.STRONG},
        tools={
            "note_name": ToolMark(Tier.STRONG),
            "end_call": ToolMark(Tier.STRONG, "ok", {"True": Tier.LIGHT}),
        },
    )


def test_tools_of_every_node_may_be_marked(tmp_path: Path) -> None:
    flow = marked(f"    functions:\n{END}", "") + "global_functions:\n  - {name: end_call, tier: light}\n"
    assert marks(tmp_path / "a", flow).tools == {"end_call": ToolMark(Tier.LIGHT)}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "  goodbye:\n",
            "  goodbye:\n    tier: stong\n",
            "flow.yaml:12: nodes.goodbye.tier: unknown tier 'stong'; did you mean strong? (known: light, strong)",
        ),
        (
            "  goodbye:\n",
            "  goodbye:\n    teir: strong\n",
            "flow.yaml:12: nodes.goodbye.teir: unknown key; did you mean tier?",
        ),
        (
            END,
            f"{END}        tier: 3\n",
            "flow.yaml:15: nodes.goodbye.functions[0].tier: unknown tier 3 (known: light, strong)",
        ),
        (
            END,
            f"{END}        tier: {{field: ok, cases: {{yes: heavy}}}}\n",
            "flow.yaml:15: nodes.goodbye.functions[0].tier.cases.True: unknown tier 'heavy' (known: ",
        ),
        (
            END,
            f"{END}        tier: {{field: ok, cases: {{a: light}}, else: light}}\n",
            "flow.yaml:15: nodes.goodbye.functions[0].tier.else: unknown key",
        ),
        (
            END,
            f"{END}        tier: {{default: light}}\n",
            "flow.yaml:15: nodes.goodbye.functions[0].tier: needs `field` and `cases`, or is one tier",
        ),
        (
            END,
            f"{END}        tier: strong\n      - name: note_name\n"
            "        tier: light\n  more:\n    task_messages: []\n    functions:\n"
            "      - {name: end_call, tier: light}\n",
            "flow.yaml:21: nodes.more.functions[0].tier: end_call is marked differently in another node",
        ),
    ],
)
def test_each_fault_has_its_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    found = [one for one in faults(tmp_path / "a", marked(old, new)) if "no way leads" not in one]
    assert len(found) == 1, found
    assert found[0].startswith(fault)
