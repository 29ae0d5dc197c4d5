"""Expansion of any int8 graph to float operators between QuantizeLinear and DequantizeLinear.

Operators that compute on integers (QLinearConv, MatMulInteger, MatMulNBits, ...) become the float
operator between Q and DQ, so that one diagnosis reads all formats.
"""

from __future__ import annotations

import contextlib

import onnx_ir as ir

from trimtab.core.errors import ModelError
from trimtab.core.model import Model

from ..graph.forms.raise_opset import raise_opset
from .constants import OptionalValue, fresh_name
from .expand_rules import RULES
from .qdq_writer import QuantizedTensor, insert_dequantize, scales_of

#: Opset from which DequantizeLinear has an axis.
SCALES_OF_CHANNELS = 13
#: Operators that move values without changing them.
MOVES = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad"),
        *("Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose"),
        "Unsqueeze",
    }
)


def expand_to_qdq(model: Model) -> tuple[Model, list[str]]:
    """Expand the main graph of a copy.

    Returns:
        The copy, and names of integer operators without a rule; they stay unchanged.
    """
    copy = model.clone()
    # Integer operators are older than a scale for each channel of a DequantizeLinear.
    with contextlib.suppress(ModelError):
        copy = raise_opset(copy, SCALES_OF_CHANNELS)
    return copy, _expand(copy.graph)


def _expand(graph: ir.Graph) -> list[str]:
    left = []
    for node in list(graph):
        rule = RULES.get(node.op_type)
        if rule is not None:
            rule(graph, node)
        elif node.op_type.startswith(("QLinear", "QAttention", "DynamicQuantizeLSTM")):
            left.append(node.name or node.op_type)
    _move_floats(graph)
    # Replaced nodes are unused now.
    for node in reversed(list(graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    integer = {"MatMulInteger", "ConvInteger", "MatMulNBits"}
    left += [node.name or node.op_type for node in graph if node.op_type in integer]
    graph.sort()
    return left


def _move_floats(graph: ir.Graph) -> None:
    """Put a DQ before and a Q after each operator that moves the integers of a Q."""
    for node in list(graph):
        if node.op_type not in MOVES:
            continue
        pair: tuple[OptionalValue, OptionalValue] | None = None
        for index, value in enumerate(node.inputs):
            producer = value.producer() if value is not None else None
            if producer is not None and producer.op_type == "QuantizeLinear":
                pair = scales_of(producer)
                floats = insert_dequantize(graph, node, QuantizedTensor(value, *pair))
                node.replace_input_with(index, floats)
        if pair is not None:
            for output in node.outputs:
                _requantize(graph, node, output, pair)


def _requantize(
    graph: ir.Graph, node: ir.Node, output: ir.Value, pair: tuple[OptionalValue, OptionalValue]
) -> None:
    uses, was_output = list(output.uses()), output.is_graph_output()
    quantize = ir.node("QuantizeLinear", [output, *pair])
    integers = quantize.outputs[0]
    integers.name = fresh_name(f"{output.name}_integers")
    if output.dtype is not None:
        integers.type = ir.TensorType(output.dtype)
    output.type = ir.TensorType(ir.DataType.FLOAT)  # a clone shares the old type with its source
    graph.insert_after(node, quantize)
    for use in uses:
        use.node.replace_input_with(use.idx, integers)
    if was_output:
        graph.outputs[list(graph.outputs).index(output)] = integers
