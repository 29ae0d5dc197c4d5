"""Q/DQ graphs in which chosen nodes stay float: candidates, ranges, and the graph itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from trimtab.core.model import Model

from ...calibration.range_estimator import Range
from ...graph.queries import input_at
from .int8_operators import ARITHMETIC, MOVES, PRODUCTS, is_fixed
from .roles import Role, data_inputs, roles_of
from .writer import Scheme, observed_tensors, quantize_graph

#: An input of Concat or Where whose range is a smaller part of the largest has too few levels.
SMALLEST_PART = 1 / 8
#: Operators that part what was joined, so that the parts can have scales of their own again.
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


def tensors_around_joins(model: Model, scheme: Scheme) -> list[str]:
    """List tensors whose ranges tell which joins to leave float, and which that needs then."""
    joins = _joins(model.graph, roles_of(model.graph, scheme))
    joined = [v for n in joins for v in _joined(n) if not is_fixed(v)]
    inputs = [value.name or "" for value in joined]
    names = [node.name or "" for node in joins]
    apart = dataclasses.replace(scheme, exclude=[*scheme.exclude, *names])
    return [*inputs, *observed_tensors(model, apart)]


def uneven_joins(graph: ir.Graph, scheme: Scheme, ranges: Mapping[str, Range]) -> list[str]:
    """List Concat and Where of tensors of very different size, and the arithmetic on such outputs.

    One scale for boxes in pixels and scores below 1, as at the end of a detector, rounds the scores
    to zero. Those that lead to products alone are not listed: a product needs one scale anyway.
    """
    roles = roles_of(graph, scheme)
    joins = set(_joins(graph, roles))
    if not joins:
        return []
    carriers: dict[ir.Node, list[ir.Value]] = {}
    extents: dict[ir.Value, Range] = {}
    for node in graph:
        if node in joins:
            carriers[node] = _joined(node)
        elif roles[node] is Role.ARITHMETIC:
            carriers[node] = [v for v in _joined(node) if _is_uneven(extents.get(v))]
        elif roles[node] in {Role.MOVE, Role.BOUND} and node.op_type not in _PARTING:
            carriers[node] = [value for value in node.inputs[:1] if value is not None]
        if extent := _extent(carriers.get(node, ()), extents, ranges):
            extents[node.outputs[0]] = extent
    as_float = _read_as_float(graph, carriers, roles)
    return [
        node.name or ""
        for node in carriers
        if (node in joins or roles[node] is Role.ARITHMETIC)
        and _is_uneven(extents.get(node.outputs[0]))
        and node.outputs[0] in as_float
    ]


def _is_uneven(extent: Range | None) -> bool:
    return extent is not None and extent[0] < SMALLEST_PART * extent[1]


def _extent(
    values: Iterable[ir.Value],
    extents: Mapping[ir.Value, Range],
    ranges: Mapping[str, Range],
) -> Range | None:
    """Return the least and the greatest width among tensors and those that were joined to them."""
    parts = [extents.get(value, (_width(value, ranges),) * 2) for value in values]
    parts = [part for part in parts if part[1]]  # zeros stay zeros in any scale
    return (min(p[0] for p in parts), max(p[1] for p in parts)) if parts else None


def _read_as_float(
    graph: ir.Graph,
    carriers: Mapping[ir.Node, list[ir.Value]],
    roles: Mapping[ir.Node | None, Role],
) -> set[ir.Value]:
    """Return the tensors that something reads as float, or part by part, however they get there."""
    found = set(graph.outputs)
    for node in reversed(graph):
        for output in node.outputs:  # subgraphs read as float
            if any(user not in roles for user, _ in output.uses()):
                found.add(output)
        parted = roles[node] is Role.MOVE and node.op_type in _PARTING
        if roles[node] is Role.FLOAT or parted:
            found.update(value for value in node.inputs if value is not None)
        elif node in carriers and node.outputs[0] in found:
            found.update(carriers[node])
    return found


def _joins(graph: ir.Graph, roles: Mapping[ir.Node | None, Role]) -> list[ir.Node]:
    """List nodes of int8 whose output holds values of several inputs as they are."""
    return [
        node
        for node in graph
        if (node.op_type == "Concat" and roles[node] is not Role.FLOAT)
        # With a constant, a Where stays float anyway.
        or (roles[node] is Role.SELECTION and not any(map(is_fixed, _joined(node))))
    ]


def _joined(node: ir.Node) -> list[ir.Value]:
    return [v for index in data_inputs(node) if (v := input_at(node, index)) is not None]


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
