"""Comparison of two graphs, node by node, without writing them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def is_same_graph(a: ir.Model, b: ir.Model) -> bool:
    """Return whether two models surely have the same nodes, names and constants.

    It is quick and says no where it would have to look into subgraphs, functions or arrays.
    """
    if a.functions or b.functions or a.opset_imports != b.opset_imports:
        return False
    return (
        _names(a.graph.inputs) == _names(b.graph.inputs)
        and _names(a.graph.outputs) == _names(b.graph.outputs)
        and _constants(a.graph) == _constants(b.graph)
        and len(a.graph) == len(b.graph)
        and all(_is_same_node(m, n) for m, n in zip(a.graph, b.graph, strict=True))
    )


def _names(values: Iterable[ir.Value | None]) -> list[str | None]:
    return [None if value is None else value.name for value in values]


def _constants(graph: ir.Graph) -> dict[str, int]:
    return {str(v.name): id(v.const_value) for v in graph.initializers.values()}


def _is_same_node(a: ir.Node, b: ir.Node) -> bool:
    if (a.domain, a.op_type, a.attributes.keys()) != (b.domain, b.op_type, b.attributes.keys()):
        return False
    if _names(a.inputs) != _names(b.inputs) or _names(a.outputs) != _names(b.outputs):
        return False
    return all(_is_same(a.attributes[name], b.attributes[name]) for name in a.attributes)


def _is_same(a: ir.Attr, b: ir.Attr) -> bool:
    if a is b:
        return a.type not in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
    plain = {ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT}
    plain |= {ir.AttributeType.FLOATS, ir.AttributeType.STRING, ir.AttributeType.STRINGS}
    return a.type == b.type and a.type in plain and bool(a.value == b.value)
