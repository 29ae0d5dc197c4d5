"""What a pruning tells: what went from each group, what it costs now, what could not go and why."""

from __future__ import annotations

import dataclasses
from typing import Any

from trimtab.core.model import Model

from .base import Declined
from .channel_oracle import STRETCH_BYTES
from .channel_plan import Plan
from .labels_classes import Labels
from .prunable import label as node_label


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
    groups = [
        {
            "name": group.name,
            "channels": [len(group.classes) * group.width, int(count) * group.width],
            "operators": len(group.members),
        }
        for group, count in zip(plan.groups, plan.kept, strict=True)
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


def _bytes(model: Model) -> int:
    """Bytes of the file; of a large one those of its weights, since to write it takes memory."""
    held = model.weight_bytes
    return held if held > STRETCH_BYTES else dataclasses.replace(model, lineage=()).size_bytes


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
