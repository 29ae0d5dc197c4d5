"""Report of a pruning: channels and costs of each group, and operators that could not lose any."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.model import Model

from ...graph.constants import constant_shape, is_constant
from ...graph.declined import Declined
from ..dependency.graph import DependencyGraph
from ..dependency.records import Ids
from .plan import PruningPlan
from .verify import LARGE_BYTES

#: Operators that have channels to lose.
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def declined_operators(graph: DependencyGraph) -> list[Declined]:
    """Return the operators whose outputs all have to stay, each with the first reason."""
    reasons: dict[int, str] = {}
    for ids, where, reason in graph.trace.pins:
        for index in set(map(int, graph.unit_of[ids])):
            reasons.setdefault(index, f"{reason} ({where})")
    found: dict[str, str] = {}
    for row in graph.weight_axes:
        if row.produces and not graph.free[row.units].any():
            reason = next((reasons[c] for c in map(int, row.units) if c in reasons), "not followed")
            found.setdefault(row.label, f"its channels stay: {reason}")
    return [Declined(name, reason) for name, reason in found.items()]


def layers_in_subgraphs(model: Model) -> list[Declined]:
    """Return the layers inside of If, Loop and Scan, whose channels are not followed."""
    inner = (node for graph in model.graph.subgraphs() for node in graph)
    reason = "it stands in a branch or a loop, whose channels are not followed"
    return [Declined(node.name or "", reason) for node in inner if node.op_type in _LAYERS]


def pruning_report(
    before: Model, after: Model, graph: DependencyGraph, plan: PruningPlan
) -> dict[str, Any]:
    """Return figures before and after, and the groups that lost channels."""
    costs = _costs_of_groups(graph, plan)
    groups = [
        {
            "name": group.name,
            "channels": [len(group.units) * group.width, int(count) * group.width],
            "operators": len(group.members),
            "macs": costs[number, :2].tolist(),
            "parameters": costs[number, 2:].tolist(),
        }
        for number, (group, count) in enumerate(zip(plan.groups, plan.kept, strict=True))
        if count < len(group.units)
    ]
    channels = sum(len(g.units) * g.width for g in plan.groups)
    left = sum(int(n) * g.width for g, n in zip(plan.groups, plan.kept, strict=True))
    return {
        "channels": [channels, left],
        "macs": [graph.macs(), graph.macs(graph.keep(_gone(plan)))],
        "parameters": [_parameters(before), _parameters(after)],
        "bytes": [_bytes(m) for m in (before, after)],
        "groups": groups,
    }


def _costs_of_groups(graph: DependencyGraph, plan: PruningPlan) -> NDArray[np.int64]:
    """Return MACs before and after, weights before and after, of operators by group, (groups, 4).

    An operator between two groups counts for both.
    """
    owner = graph.owners(plan.groups)
    keep = graph.keep(_gone(plan))
    table = np.zeros((len(plan.groups) + 1, 4), np.int64)  # the last row belongs to no group

    def add(axes: Sequence[Ids | None], fixed: int, column: int) -> None:
        own = [ids for ids in axes if ids is not None]
        lengths = [(len(ids), keep.count(ids)) for ids in own]
        sizes = fixed * np.prod(lengths, axis=0, dtype=np.int64)
        for number in {int(g) for ids in own for g in np.unique(owner[graph.unit_of[ids]])}:
            table[number, column : column + 2] += sizes

    for cost in graph.trace.costs:
        add(cost.axes, cost.fixed, 0)
    table[:, :2] //= graph.trace.shapes.samples
    # The constants from before the cut: an operator that went with its branch has none any more.
    constants = {(use.node, use.index): use.value for use in graph.trace.uses}
    for operand in graph.weights:
        value = constants.get((operand.node, operand.index), operand.node.inputs[operand.index])
        if value is not None and (value.const_value is not None or is_constant(value)):
            shape = constant_shape(value)
            rest = [n for n, ids in zip(shape, operand.axes, strict=True) if ids is None]
            add(operand.axes, int(np.prod(rest, dtype=np.int64)), 2)
    return table[:-1]


def _bytes(model: Model) -> int:
    """Return the bytes of the file; of a large one those of its weights, to save memory."""
    held = model.weight_bytes
    return held if held > LARGE_BYTES else dataclasses.replace(model, lineage=()).size_bytes


def _gone(plan: PruningPlan) -> list[int]:
    """Return all units without effect, the last one of a group that goes as a whole too."""
    gone = set(plan.removed)
    for group, count in zip(plan.groups, plan.kept, strict=True):
        if not count:
            gone.update(map(int, group.units))
    return sorted(gone)


def _parameters(model: Model) -> int:
    """Count the elements of floating-point initializers and Constant nodes."""
    return sum(t.size for t in model.constant_tensors() if t.dtype.is_floating_point())
