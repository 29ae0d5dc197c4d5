"""Which layer a quantizer or a constant belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..quantization.qdq.fill_channels import filled_image
from .constants import array_of

#: Operators whose result is rounded in the name of the operator before them.
FOLLOWERS = frozenset(
    {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"}
)
QUANTIZERS = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
#: A node, or an input of the graph.
Key = ir.Node | ir.Value


def chain_of(node: ir.Node) -> tuple[ir.Value | None, Sequence[ir.Node]]:
    """What a DequantizeLinear makes rounded floats of, and the nodes from there to it."""
    integers = node.inputs[0]
    maker = integers.producer() if integers is not None else None
    if maker is not None and maker.op_type in {"QuantizeLinear", "DynamicQuantizeLinear"}:
        return maker.inputs[0], [maker, node]
    return integers, [node]


def maker_of(value: ir.Value) -> Key:
    """The layer whose result a tensor is."""
    value = filled_image(value) or value  # whose channels of zeros are no layer of the model
    node = value.producer()
    return value if node is None else layer_of(node)


def layer_of(node: ir.Node) -> ir.Node:
    """The operator that a node melts into: a Relu, or a bias, belongs to the product before it."""
    while node.op_type in FOLLOWERS or _adds_constant(node):
        makers = [v.producer() for v in node.inputs if v is not None and len(v.uses()) == 1]
        before = [m for m in makers if m is not None and m.op_type not in QUANTIZERS]
        if len(before) != 1 or before[0].op_type in {"If", "Constant"}:
            break
        node = before[0]
    return node


def _adds_constant(node: ir.Node) -> bool:
    return node.op_type == "Add" and any(_is_constant(value) for value in node.inputs)


def _is_constant(value: ir.Value | None) -> bool:
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "DequantizeLinear":
        return _is_constant(maker.inputs[0])
    return array_of(value) is not None


def reader_of(value: ir.Value) -> tuple[ir.Node, int]:
    """The first operator that does more with a constant than move it, and at which input."""
    node, position = next((use.node, use.idx) for use in value.uses())
    while node.op_type in {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}:
        use = next(iter(node.outputs[0].uses()), None)
        if use is None:
            break
        node, position = use.node, use.idx
    return node, position


def position_of(value: ir.Value) -> int:
    """At which input a constant is read; 0 where nobody reads it."""
    return reader_of(value)[1] if value.uses() else 0


def channels_of(node: ir.Node, rank: int) -> int | None:
    """The axis of output channels of a constant that a node reads."""
    if rank < 2:
        return None
    if node.op_type in {"Conv", "Gather"}:
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        transposed = node.attributes.get("transB")
        return 0 if transposed is not None and transposed.as_int() else 1
    return rank - 1 if node.op_type == "MatMul" else None
