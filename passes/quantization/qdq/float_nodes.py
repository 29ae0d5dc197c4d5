"""Q/DQ graphs in which chosen nodes stay float: candidates, ranges, and the graph itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimtab.core.model import Model

from ...calibration.range_estimator import Range
from ...graph.queries import input_at
from .int8_operators import ARITHMETIC, MOVES, PRODUCTS
from .writer import Scheme, quantize_graph


def quantizable_nodes(graph: ir.Graph, scheme: Scheme) -> list[str]:
    """List nodes that compute in int8 under this scheme; moving operators follow their input."""
    kinds = (PRODUCTS | ARITHMETIC | {"ConvTranspose"}) & scheme.ops
    excluded = set(scheme.exclude)
    return [
        node.name or "" for node in graph if node.op_type in kinds and node.name not in excluded
    ]


def average_pool_outputs(graph: ir.Graph) -> list[str]:
    """List outputs that take their input's scale after int8 layers and need their own elsewhere."""
    pools = [node for node in graph if node.op_type in {"AveragePool", "GlobalAveragePool"}]
    return [node.outputs[0].name or "" for node in pools]


def with_moved_tensors(graph: ir.Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the ranges completed by those of moved tensors, taken from their inputs.

    After an int8 layer a moved tensor takes its input's scale; after a float one it needs a range.
    """
    full = dict(ranges)
    moves = [(n, n.inputs[0]) for n in graph if n.op_type in MOVES and n.inputs]
    for node, source in moves:
        if source is not None and source.name in full:
            for output in node.outputs:
                full.setdefault(output.name or "", full[source.name])
    for node, source in reversed(moves):
        output_name = node.outputs[0].name or ""
        if source is not None and source.name and output_name in full:
            full.setdefault(source.name, full[output_name])
    return full


def quantize_except(
    clipped: Model,
    plain: Model,
    scheme: Scheme,
    ranges: Mapping[str, Range],
    float_nodes: Sequence[str],
) -> ir.Model:
    """Return the Q/DQ graph in which further nodes stay float, with their original weights.

    The weights of the prepared model are clipped to the scales of the least error, those of `plain`
    are the original ones; the ranges come from `with_moved_tensors`.
    """
    if not float_nodes:
        return quantize_graph(clipped, scheme, ranges)
    model = clipped.clone()
    chosen = set(float_nodes)
    for node in model.graph:
        weight = input_at(node, 1) if node.name in chosen else None
        if weight is not None and all(use.node.name in chosen for use in weight.uses()):
            before = plain.graph.initializers.get(weight.name or "")
            weight.const_value = before.const_value if before is not None else weight.const_value
    exclude = [*scheme.exclude, *float_nodes]
    return quantize_graph(model, dataclasses.replace(scheme, exclude=exclude), ranges)


def adjacent_tensors(graph: ir.Graph, nodes: Sequence[str], tensors: Sequence[str]) -> list[str]:
    """Return those of the tensors that any of the nodes reads or makes, in order."""
    chosen = set(nodes)
    touching = [node for node in graph if node.name in chosen]
    names = {v.name for n in touching for v in (*n.inputs, *n.outputs) if v is not None}
    return [name for name in tensors if name in names]
