"""Any int8 graph as pairs of QuantizeLinear and DequantizeLinear around float operators.

Operators that compute on integers (QLinearConv, MatMulInteger, MatMulNBits, ...) become the float
operator between the pairs that they stand for, so that one reading suits all formats.
"""

from __future__ import annotations

import onnx_ir as ir

from .constants import Value, fresh
from .expand_rules import RULES
from .pair_writer import Integers, dequantized, scales_of

#: Operators that move integers as they move floats, and change none.
MOVES = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def to_pairs(model: ir.Model) -> list[str]:
    """Rewrite the main graph in place.

    Returns:
        Names of integer operators that have no float form here; they stay as they are.
    """
    graph = model.graph
    left = []
    for node in list(graph):
        rule = RULES.get(node.op_type)
        if rule is not None:
            rule(graph, node)
        elif node.op_type.startswith(("QLinear", "QAttention", "DynamicQuantizeLSTM")):
            left.append(node.name or node.op_type)
    _read_as_floats(graph)
    # What was replaced is read by nobody now.
    for node in reversed(list(graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    unread = [
        node.name or node.op_type
        for node in graph
        if node.op_type in {"MatMulInteger", "ConvInteger", "MatMulNBits"}
    ]
    graph.sort()
    return left + unread


def _read_as_floats(graph: ir.Graph) -> None:
    """Put a DQ before and a Q behind each operator that moves the integers of a Q."""
    for node in list(graph):
        if node.op_type not in MOVES:
            continue
        pair: tuple[Value, Value] | None = None
        for index, value in enumerate(node.inputs):
            maker = value.producer() if value is not None else None
            if maker is not None and maker.op_type == "QuantizeLinear":
                pair = scales_of(maker)
                floats = dequantized(graph, node, Integers(value, *pair))
                node.replace_input_with(index, floats)
        if pair is not None:
            for output in node.outputs:
                _quantized_again(graph, node, output, pair)


def _quantized_again(
    graph: ir.Graph, node: ir.Node, output: ir.Value, pair: tuple[Value, Value]
) -> None:
    uses, was_output = list(output.uses()), output.is_graph_output()
    quantize = ir.node("QuantizeLinear", [output, *pair])
    integers = quantize.outputs[0]
    integers.name = fresh(f"{output.name}_integers")
    if output.dtype is not None:
        integers.type = ir.TensorType(output.dtype)
    output.type = ir.TensorType(ir.DataType.FLOAT)  # a clone shares the old type with its source
    graph.insert_after(node, quantize)
    for use in uses:
        use.node.replace_input_with(use.idx, integers)
    if was_output:
        graph.outputs[list(graph.outputs).index(output)] = integers
