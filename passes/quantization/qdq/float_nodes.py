"""Q/DQ graphs in which chosen nodes stay float: candidates, ranges, and the graph itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimtab.core.model import Model

from ...calibration.range_estimator import Range
from ...graph.queries import input_at
from .int8_operators import ARITHMETIC, MOVES, PRODUCTS, is_fixed
from .roles import Role, roles_of
from .writer import Scheme, observed_tensors, quantize_graph

#: A Concat's input whose range is a smaller part of the output's has too few of the 256 levels.
SMALLEST_PART = 1 / 16
#: Operators that part what a Concat joined, so that the parts can have scales of their own again.
_PARTING = frozenset({"Gather", "Slice", "Split"})


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


def tensors_around_concats(model: Model, scheme: Scheme) -> list[str]:
    """List tensors whose ranges tell which Concats to leave float, and which that needs then."""
    roles = roles_of(model.graph, scheme)
    concats = [n for n in model.graph if n.op_type == "Concat" and roles[n] is not Role.FLOAT]
    inputs = [v.name or "" for n in concats for v in n.inputs if v is not None and not is_fixed(v)]
    names = [node.name or "" for node in concats]
    apart = dataclasses.replace(scheme, exclude=[*scheme.exclude, *names])
    return [*inputs, *observed_tensors(model, apart)]


def uneven_concats(graph: ir.Graph, scheme: Scheme, ranges: Mapping[str, Range]) -> list[str]:
    """List Concats of tensors of very different size that something reads as float values.

    One scale for boxes in pixels and scores below 1, as at the end of a detector, rounds the scores
    to zero. Where only int8 kernels read the output, they need that one scale anyway.
    """
    roles = roles_of(graph, scheme)

    def read_as_float(value: ir.Value) -> bool:
        if value.is_graph_output():
            return True
        for node, _ in value.uses():
            match roles.get(node, Role.FLOAT):
                case Role.FLOAT:
                    return True
                case Role.MOVE | Role.BOUND:
                    if node.op_type in _PARTING or any(map(read_as_float, node.outputs)):
                        return True
        return False

    return [
        node.name or ""
        for node in graph
        if node.op_type == "Concat"
        and roles[node] is not Role.FLOAT
        and _is_uneven(node, ranges)
        and read_as_float(node.outputs[0])
    ]


def _is_uneven(concat: ir.Node, ranges: Mapping[str, Range]) -> bool:
    widths = [_width(value, ranges) for value in concat.inputs if value is not None]
    known = [width for width in widths if width]  # zeros stay zeros in any scale
    return bool(known) and min(known) < SMALLEST_PART * max(known)


def _width(value: ir.Value, ranges: Mapping[str, Range]) -> float:
    """Return the width of a tensor's range with zero, 0 where it is unknown."""
    low, high = ranges.get(value.name or "", (0.0, 0.0))
    if is_fixed(value) and value.const_value is not None and value.const_value.size:
        array = value.const_value.numpy()
        low, high = float(array.min()), float(array.max())
    return max(high, 0.0) - min(low, 0.0)


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
