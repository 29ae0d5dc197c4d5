"""What a pruning tells: what went from each group, what it costs now, what could not go and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.model import Model

from ...base import Declined
from ...graph.constants import constant_shape, is_constant
from ...graph.weights import label as node_label
from ..dependency.groups import Labels
from ..dependency.parts import Ids
from .plan import Plan
from .verify import LARGE_BYTES


def declined_of(labels: Labels) -> list[Declined]:
    """Operators none of whose outputs can go, each with the first reason found."""
    reasons: dict[int, str] = {}
    for ids, where, reason in labels.trace.pins:
        for index in set(map(int, labels.class_of[ids])):
            reasons.setdefault(index, f"{reason} ({where})")
    found: dict[str, str] = {}
    for sink in labels.weights:
        for axis, classes in labels.axes_of(sink):
            if axis == sink.into or labels.free[classes].any():
                continue
            reason = next((reasons[int(c)] for c in classes if int(c) in reasons), "not followed")
            found.setdefault(node_label(sink.node), f"its channels stay: {reason}")
    return [Declined(name, reason) for name, reason in found.items()]


def report_of(before: Model, after: Model, labels: Labels, plan: Plan) -> dict[str, Any]:
    """Figures before and after, and the groups that lost channels."""
    costs = _costs_of_groups(labels, plan)
    groups = [
        {
            "name": group.name,
            "channels": [len(group.classes) * group.width, int(count) * group.width],
            "operators": len(group.members),
            "macs": costs[number, :2].tolist(),
            "parameters": costs[number, 2:].tolist(),
        }
        for number, (group, count) in enumerate(zip(plan.groups, plan.kept, strict=True))
        if count < len(group.classes)
    ]
    channels = sum(len(g.classes) * g.width for g in plan.groups)
    left = sum(int(n) * g.width for g, n in zip(plan.groups, plan.kept, strict=True))
    return {
        "channels": [channels, left],
        "macs": [labels.macs(), labels.macs(labels.keep(_gone(plan)))],
        "parameters": [_parameters(before), _parameters(after)],
        "bytes": [_bytes(m) for m in (before, after)],
        "groups": groups,
    }


def _costs_of_groups(labels: Labels, plan: Plan) -> NDArray[np.int64]:
    """(groups, 4): MACs before and after, weights before and after, of a group's operators.

    An operator between two groups counts for both.
    """
    owner = np.full(labels.count + 1, -1)
    for number, group in enumerate(plan.groups):
        owner[group.classes] = number
    keep = labels.keep(_gone(plan))
    table = np.zeros((len(plan.groups) + 1, 4), np.int64)  # the last row is nobody's

    def add(axes: Sequence[Ids | None], fixed: int, column: int) -> None:
        own = [ids for ids in axes if ids is not None]
        sizes = fixed * np.array(
            [
                np.prod([len(ids) for ids in own], dtype=np.int64),
                np.prod([keep.count(ids) for ids in own], dtype=np.int64),
            ]
        )
        for number in {int(g) for ids in own for g in np.unique(owner[labels.class_of[ids]])}:
            table[number, column : column + 2] += sizes

    for cost in labels.trace.costs:
        add(cost.axes, cost.fixed, 0)
    table[:, :2] //= labels.trace.shapes.samples
    for sink in labels.weights:
        value = sink.node.inputs[sink.index]
        if value is not None and is_constant(value):
            shape = constant_shape(value)
            rest = [n for n, ids in zip(shape, sink.axes, strict=True) if ids is None]
            add(sink.axes, int(np.prod(rest, dtype=np.int64)), 2)
    return table[:-1]


def _bytes(model: Model) -> int:
    """Bytes of the file; of a large one those of its weights, since to write it takes memory."""
    held = model.weight_bytes
    return held if held > LARGE_BYTES else dataclasses.replace(model, lineage=()).size_bytes


def _gone(plan: Plan) -> list[int]:
    """All classes that count for nothing, the last of an emptied group too."""
    gone = set(plan.dead)
    for group, count in zip(plan.groups, plan.kept, strict=True):
        if not count:
            gone.update(map(int, group.classes))
    return sorted(gone)


def _parameters(model: Model) -> int:
    """Elements of the initializers that are no shapes or indices."""
    tensors = [v.const_value for v in model.graph.initializers.values()]
    return sum(t.size for t in tensors if t is not None and t.dtype.is_floating_point())
