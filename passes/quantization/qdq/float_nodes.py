"""Q/DQ graphs in which chosen nodes stay float: candidates, ranges, and the graph itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from trimtab.core.model import Model

from ...calibration.range_estimator import Range
from .int8_operators import ARITHMETIC, MOVES, PRODUCTS
from .writer import Scheme, quantize


def quantized_nodes(graph: ir.Graph, scheme: Scheme) -> list[str]:
    """Nodes that compute in int8 under this scheme; what only moves values follows its input."""
    kinds = (PRODUCTS | ARITHMETIC | {"ConvTranspose"}) & scheme.ops
    excluded = set(scheme.exclude)
    return [
        node.name or "" for node in graph if node.op_type in kinds and node.name not in excluded
    ]


def averages(graph: ir.Graph) -> list[str]:
    """Tensors that take their input's scale behind an int8 layer, and want their own elsewhere."""
    pools = [node for node in graph if node.op_type in {"AveragePool", "GlobalAveragePool"}]
    return [node.outputs[0].name or "" for node in pools]


def through_moves(graph: ir.Graph, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """The ranges, with that of its input for each moved tensor that has none of its own.

    Behind an int8 layer it takes its input's scale; behind a float one it needs a range.
    """
    full = dict(ranges)
    for node in graph:
        source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
        if node.op_type in MOVES and source in full:
            for made in node.outputs:
                full.setdefault(made.name or "", full[source])
    for node in reversed(list(graph)):
        source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
        made_name = node.outputs[0].name or ""
        if node.op_type in MOVES and source and made_name in full:
            full.setdefault(source, full[made_name])
    return full


def quantize_but(
    clipped: Model,
    plain: Model,
    scheme: Scheme,
    ranges: Mapping[str, Range],
    floats: Sequence[str],
) -> ir.Model:
    """The Q/DQ graph in which further nodes stay float, with the weights that they had.

    Args:
        clipped: the prepared model, its weights clipped to the scales of the least error.
        plain: the same with the weights as they were.
        scheme: types and operators.
        ranges: see `through_moves`.
        floats: names of the nodes that stay float.
    """
    if not floats:
        return quantize(clipped, scheme, ranges)
    model = clipped.clone()
    chosen = set(floats)
    for node in model.graph:
        weight = node.inputs[1] if node.name in chosen and len(node.inputs) > 1 else None
        before = plain.graph.initializers.get(weight.name or "") if weight is not None else None
        if weight is None or before is None:
            continue
        if all(use.node.name in chosen for use in weight.uses()):
            weight.const_value = before.const_value
    exclude = [*scheme.exclude, *floats]
    return quantize(model, dataclasses.replace(scheme, exclude=exclude), ranges)


def touched_by(graph: ir.Graph, nodes: Sequence[str], tensors: Sequence[str]) -> list[str]:
    """Those of the tensors that any of the nodes reads or makes, in their order."""
    chosen = set(nodes)
    touching = [node for node in graph if node.name in chosen]
    names = {v.name for n in touching for v in (*n.inputs, *n.outputs) if v is not None}
    return [name for name in tensors if name in names]
