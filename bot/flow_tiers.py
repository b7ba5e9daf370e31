"""Which parts of a flow want the strong models: `tier:` of nodes and tools in `flow.yaml`.

    nodes:
      booking:
        tier: strong          # every turn in this node
      front_desk:
        functions:
          - name: find_slots
            tier: strong      # from the caller's next words on, until another marked tool says otherwise
          - name: book
            tier: {field: status, cases: {booked: light}, default: strong}   # as in `transition_to`

Pipecat knows nothing of it: `TieredFlow` is its file with our key. What the marks mean is in `processors.model_tiers`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, cast

from pipecat.flows import FlowConfig
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bot.yaml_source import Fault, YamlSource, suggestion
from processors.model_tiers import FlowTiers, Tier, ToolMark


def _tier(value: object) -> Tier:
    names = [tier.value for tier in Tier]
    if isinstance(value, Tier) or value in names:
        return Tier(value)
    near = suggestion(value, names) if isinstance(value, str) else ""
    raise ValueError(f"unknown tier {value!r}{near} (known: {', '.join(names)})")


_Tier = Annotated[Tier, BeforeValidator(_tier)]


class TierBranch(BaseModel):
    """A tier chosen by a field of a tool's result, as Pipecat's `transition_to` chooses a node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str | None = None
    cases: dict[str, _Tier] = {}
    default: _Tier | None = None


def _branch(value: object) -> object:
    """Read what a tool is marked with: a tier for every result, or a branch.

    Raises:
        ValueError: If it is no tier, or a branch without what makes it one.
    """
    if value is None or isinstance(value, TierBranch):
        return value
    if not isinstance(value, dict):
        return {"default": _tier(value)}
    branch = cast(dict[Any, Any], value)
    if "field" not in branch or not branch.get("cases"):
        raise ValueError("needs `field` and `cases`, or is one tier for every result")
    return {**branch, "cases": {str(case): tier for case, tier in dict(branch["cases"]).items()}}


class TieredFunction(FlowConfig.Function):
    """A tool of a node, with its mark."""

    tier: Annotated[TierBranch | None, BeforeValidator(_branch)] = None


class TieredNode(FlowConfig.Node):
    """A node, with its mark."""

    tier: _Tier | None = None
    functions: list[TieredFunction] = Field(default_factory=list[TieredFunction])  # pyright: ignore[reportIncompatibleVariableOverride] - each is one of Pipecat's


class TieredFlow(FlowConfig):
    """`flow.yaml` as Pipecat has it, where nodes and tools may be marked."""

    nodes: dict[str, TieredNode] = Field(min_length=1)  # pyright: ignore[reportIncompatibleVariableOverride] - each is one of Pipecat's
    global_functions: list[TieredFunction] = Field(default_factory=list[TieredFunction])  # pyright: ignore[reportIncompatibleVariableOverride]


def flow_tiers(config: FlowConfig) -> FlowTiers:
    """Return the marks of a flow; none of one that was not read as a `TieredFlow`."""
    if not isinstance(config, TieredFlow):
        return FlowTiers()
    return FlowTiers(
        nodes={name: node.tier for name, node in config.nodes.items() if node.tier is not None},
        tools={
            function.name: ToolMark(function.tier.default, function.tier.field, function.tier.cases)
            for _, function in _functions(config)
            if function.tier is not None
        },
    )


def tier_faults(source: YamlSource, config: FlowConfig) -> list[Fault]:
    """Return a fault for each tool that is marked differently in two places: its result is remembered, not its node."""
    if not isinstance(config, TieredFlow):
        return []
    first: dict[str, TierBranch] = {}
    faults: list[Fault] = []
    for location, function in _functions(config):
        if function.tier is None:
            continue
        if first.setdefault(function.name, function.tier) != function.tier:
            message = f"{function.name} is marked differently in another node"
            faults.append(source.fault((*location, "tier"), message))
    return faults


def _functions(config: TieredFlow) -> Iterator[tuple[tuple[str | int, ...], TieredFunction]]:
    for name, node in config.nodes.items():
        for index, function in enumerate(node.functions):
            yield ("nodes", name, "functions", index), function
    for index, function in enumerate(config.global_functions):
        yield ("global_functions", index), function
