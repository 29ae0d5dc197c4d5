"""Float operators between Q/DQ pairs, written into the place of integer operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from .constants import Value, fresh

#: Attributes that only the integer operator has.
_OWN = frozenset({"channels_last", "opset"})


@dataclass(frozen=True)
class Integers:
    """Integers with their scale and zero point."""

    value: Value
    scale: Value
    zero: Value
    axis: int | None = None


def integers(node: ir.Node, start: int, axis: int | None = None) -> Integers:
    """The integers, scale and zero point at three neighbouring inputs of a node."""
    value, scale, zero = [*node.inputs[start : start + 3], None, None][:3]
    return Integers(value, scale, zero, axis)


def scales_of(node: ir.Node) -> tuple[Value, Value]:
    """Scale and zero point of a quantizer."""
    return node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None


def dequantized(graph: ir.Graph, before: ir.Node, integers: Integers) -> ir.Value:
    """The floats that integers stand for, by a DequantizeLinear put before a node."""
    inputs = [integers.value, integers.scale, integers.zero]
    attributes = {} if integers.axis is None else {"axis": integers.axis}
    node = ir.node("DequantizeLinear", inputs, attributes=attributes)
    value = integers.value
    base = f"{value.name if value is not None else ''}_as_float"
    node.outputs[0].name = fresh(base)
    graph.insert_before(before, node)
    return node.outputs[0]


def become(
    graph: ir.Graph,
    node: ir.Node,
    op: str,
    inputs: Sequence[Integers],
    output: tuple[Value, Value] | None,
    bias: Integers | None = None,
) -> None:
    """Put the float operator and its pairs in the place of an integer operator."""
    floats = [dequantized(graph, node, one) for one in inputs]
    if bias is not None:
        floats.append(dequantized(graph, node, bias))
    attributes = {name: a for name, a in node.attributes.items() if name not in _OWN}
    made = ir.node(op, floats, attributes=attributes, name=node.name)
    result = node.outputs[0]
    made.outputs[0].name = fresh(f"{result.name}_float")
    graph.insert_before(node, made)
    final = made.outputs[0]
    if output is not None:
        quantize = ir.node("QuantizeLinear", [final, *output])
        quantize.outputs[0].name = fresh(f"{result.name}_integers")
        if output[1] is not None and output[1].dtype is not None:
            quantize.outputs[0].dtype = output[1].dtype
        graph.insert_before(node, quantize)
        final = quantize.outputs[0]
    replace(graph, node, result, final)


def replace(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """Let `new` take over the users of `old`, and its name where that is an output."""
    if new.dtype is None and old.dtype is not None:
        new.dtype = old.dtype
    new.shape = new.shape or old.shape
    was_output, name = old.is_graph_output(), old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if was_output:
        new.name = name
