"""Attribution of quantizers and constants to layers."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from trimtab.core.graphs import constant_array

from ..quantization.qdq.fill_channels import filled_image

#: Operators whose quantizer belongs to the operator before them.
FOLLOWERS = frozenset(
    {"Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid", "Tanh"}
)
QUANTIZERS = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
#: Layer: a node, or a graph input.
LayerKey = ir.Node | ir.Value


def quantizer_chain(node: ir.Node) -> tuple[ir.Value | None, Sequence[ir.Node]]:
    """Return the value that a DequantizeLinear is computed from, and the quantizers between."""
    integers = node.inputs[0]
    producer = integers.producer() if integers is not None else None
    if producer is not None and producer.op_type in {"QuantizeLinear", "DynamicQuantizeLinear"}:
        return producer.inputs[0], [producer, node]
    return integers, [node]


def producing_layer(value: ir.Value) -> LayerKey:
    """Return the layer that computes a tensor."""
    value = filled_image(value) or value  # filling channels with zeros is not a layer of the model
    node = value.producer()
    return value if node is None else layer_of(node)


def layer_of(node: ir.Node) -> ir.Node:
    """Return the operator that a node belongs to: a Relu or bias to the product before it."""
    while node.op_type in FOLLOWERS or (
        node.op_type == "Add" and any(_is_constant(value) for value in node.inputs)
    ):
        producers = [v.producer() for v in node.inputs if v is not None and len(v.uses()) == 1]
        before = [m for m in producers if m is not None and m.op_type not in QUANTIZERS]
        if len(before) != 1 or before[0].op_type in {"If", "Constant"}:
            break
        node = before[0]
    return node


def _is_constant(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "DequantizeLinear":
        return _is_constant(producer.inputs[0])
    return constant_array(value) is not None


def computing_reader(value: ir.Value) -> tuple[ir.Node, int]:
    """Return the first operator that does more with a constant than move it, and its input."""
    use = next(iter(value.uses()))
    while use.node.op_type in {"Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}:
        after = next(iter(use.node.outputs[0].uses()), None)
        if after is None:
            break
        use = after
    return use.node, use.idx


def input_position(value: ir.Value) -> int:
    """Return the input at which a constant is read; 0 where it is unused."""
    return computing_reader(value)[1] if value.uses() else 0


def channel_axis(node: ir.Node, rank: int) -> int | None:
    """Return the axis of output channels of a constant that a node reads."""
    if rank < 2:
        return None
    if node.op_type in {"Conv", "Gather"}:
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return rank - 1 if node.op_type == "MatMul" else None
