"""Time of each layer in the original and in the model made from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from trimtab.runtime_bench.doctor.findings import GraphFacts
from trimtab.runtime_bench.doctor.profile import NodeTime


@dataclass
class LayerTime:
    """Times of a layer in both models.

    Attributes:
        name: name of its node in the original; in parentheses the operator where there is none.
        op_type: its operator in the original.
        runs_as: operators that run it in the other model.
        before_ns: its time in the original, None where it is not there.
        after_ns: its time in the other model.
    """

    name: str
    op_type: str = ""
    runs_as: set[str] = field(default_factory=set)
    before_ns: float | None = None
    after_ns: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**self.__dict__, "runs_as": ", ".join(sorted(self.runs_as))}


def layers(
    before: GraphFacts | None,
    after: GraphFacts | None,
    *,
    original: ir.Graph,
    measured_ns: tuple[float | None, float | None] = (None, None),
) -> list[LayerTime]:
    """Return the layers in the order of the original's graph, then operators that belong to none.

    Args:
        before: facts of the original, profiled; None where it was not.
        after: facts of the other model.
        original: the original's graph.
        measured_ns: median latencies of both, to which the profile's shares are scaled, since a
            profiler slows every node.
    """
    found = LayerTimes(original)
    for timed, layer, ns in found.timed(before, measured_ns[0]):
        layer.before_ns = (layer.before_ns or 0.0) + ns
        layer.op_type = layer.op_type or timed.op_type
    for timed, layer, ns in found.timed(after, measured_ns[1]):
        layer.after_ns = (layer.after_ns or 0.0) + ns
        layer.runs_as.add(timed.op_type)
    return [layer for layer in found.found.values() if layer.before_ns or layer.after_ns]


class LayerTimes:
    """Layer times by name; a node without a name is known by the name of its output."""

    def __init__(self, original: ir.Graph) -> None:
        self.found: dict[str, LayerTime] = {}
        self.by_name: dict[str, LayerTime] = {}
        for node in original:
            output = node.outputs[0].name or ""
            layer = LayerTime(node.name or output, node.op_type)
            self.found[layer.name] = self.by_name[layer.name] = layer
            self.by_name.setdefault(output, layer)

    def at(self, *names: str | None, otherwise: str) -> LayerTime:
        """Return the original's layer that has one of these names, else one for `otherwise`."""
        known = next((self.by_name[name] for name in names if name in self.by_name), None)
        return known or self.found.setdefault(otherwise, LayerTime(otherwise))

    def timed(
        self, facts: GraphFacts | None, median_ns: float | None
    ) -> Iterator[tuple[NodeTime, LayerTime, float]]:
        """Yield the profiled nodes of a model, the layer of each, and its share of the median."""
        if facts is None or facts.times is None:
            return
        total = facts.times.total_ns
        scale = median_ns / total if median_ns and total else 1.0
        running = {node.name: node for node in facts.running if node.name}
        for timed in facts.times.nodes:
            node = running.get(timed.name)
            origin = _folded_into(facts.origin_of(node) if node is not None else None, timed)
            names = [timed.name]
            if origin is not None:
                names = [origin.name or "", *(v.name or "" for v in origin.outputs)]
            yield timed, self.at(*names, otherwise=f"({timed.op_type})"), scale * timed.ns


def _folded_into(origin: ir.Node | None, timed: NodeTime) -> ir.Node | None:
    """Return the layer that a BatchNormalization was folded into, where that is what ran."""
    if origin is None or origin.op_type != "BatchNormalization" or timed.op_type == origin.op_type:
        return origin
    value = origin.inputs[0]
    return value.producer() if value is not None else None
