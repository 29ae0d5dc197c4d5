"""Replacement of integer operators by float operators between Q and DQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..graph.queries import input_at
from .constants import OptionalValue, fresh_name

#: Attributes that only integer operators have.
_OWN = frozenset({"channels_last", "opset"})


@dataclass(frozen=True)
class QuantizedTensor:
    """Quantized tensor: integers, scale and zero point."""

    value: OptionalValue
    scale: OptionalValue
    zero: OptionalValue
    axis: int | None = None


def quantized_input(node: ir.Node, start: int, axis: int | None = None) -> QuantizedTensor:
    """Return the tensor at three neighbouring inputs of a node: integers, scale, zero point."""
    value, scale, zero = [*node.inputs[start : start + 3], None, None][:3]
    return QuantizedTensor(value, scale, zero, axis)


def scales_of(node: ir.Node) -> tuple[OptionalValue, OptionalValue]:
    """Return scale and zero point of a quantizer."""
    return node.inputs[1], input_at(node, 2)


def insert_before(graph: ir.Graph, before: ir.Node, node: ir.Node, base: str) -> ir.Value:
    """Insert a node of one output before another; return the output, named after `base`."""
    node.outputs[0].name = fresh_name(base)
    graph.insert_before(before, node)
    return node.outputs[0]


def insert_dequantize(graph: ir.Graph, before: ir.Node, integers: QuantizedTensor) -> ir.Value:
    """Insert a DequantizeLinear before a node; return its output."""
    inputs = [integers.value, integers.scale, integers.zero]
    attributes = {} if integers.axis is None else {"axis": integers.axis}
    node = ir.node("DequantizeLinear", inputs, attributes=attributes)
    name = integers.value.name if integers.value is not None else ""
    return insert_before(graph, before, node, f"{name}_as_float")


def replace_by_float_operator(
    graph: ir.Graph,
    node: ir.Node,
    op: str,
    inputs: Sequence[QuantizedTensor],
    output: tuple[OptionalValue, OptionalValue] | None,
) -> None:
    """Replace an integer operator by the float operator with its Q and DQ."""
    floats = [insert_dequantize(graph, node, one) for one in inputs]
    attributes = {name: a for name, a in node.attributes.items() if name not in _OWN}
    made = ir.node(op, floats, attributes=attributes, name=node.name)
    result = node.outputs[0]
    final = insert_before(graph, node, made, f"{result.name}_float")
    if output is not None:
        quantize = ir.node("QuantizeLinear", [final, *output])
        final = insert_before(graph, node, quantize, f"{result.name}_integers")
        if output[1] is not None and output[1].dtype is not None:
            final.dtype = output[1].dtype
    replace_output(graph, node, result, final)


def replace_output(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Replace a node's output by a new value, which takes its name where it is a graph output."""
    if new.dtype is None and old.dtype is not None:
        new.dtype = old.dtype
    new.shape = new.shape or old.shape
    was_output, name = old.is_graph_output(), old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if was_output:
        new.name = name
