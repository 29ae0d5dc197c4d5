"""Roles of initializers: kernels, vectors, step sizes and statistics. Needs no torch.

A float initializer is trained where it is a weight of an operator that has some, directly or
through operators that only move elements. Constants of the algorithm (epsilons, masks, scalars, a
shift of the input) are not trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from ...graph.queries import input_at, is_onnx_op

#: kernel: weights with weight decay; vector: biases, norms and the like; step: a quantizer's step
#: size; statistic: mean or variance of BatchNormalization.
Role = Literal["kernel", "vector", "step", "statistic"]

_MOVES = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity", "Cast", "Expand"})
_ROUNDS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_KERNELS = {"Conv": {1}, "ConvTranspose": {1}, "Gemm": {0, 1}, "MatMul": {0, 1}, "Gather": {0}}
_VECTORS = {
    "Conv": {2},
    "ConvTranspose": {2},
    "Gemm": {2},
    "BatchNormalization": {1, 2},
    "LayerNormalization": {1, 2},
    "RMSNormalization": {1},
    "GroupNormalization": {1, 2},
    "InstanceNormalization": {1, 2},
    "PRelu": {1},
}
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
#: Magnitude beyond which a number is a mask's minus infinity, not a weight.
_LARGEST = 1e4


@dataclass(frozen=True)
class QuantizationParameters:
    """Quantization parameters of an integer weight, whose floats are (q - zero) * scale.

    Attributes:
        scale: name of the initializer with the step sizes.
        zero: name of the initializer with the zero points, or None.
        axis: axis of a scale per channel or block.
        block: elements that share a scale along the axis, 0 for all.
        low: smallest integer to use.
        high: largest integer to use.
        bias: true for a bias of 32 bits, which is not rounded in training.
    """

    scale: str
    zero: str | None
    axis: int
    block: int
    low: int
    high: int
    bias: bool


@dataclass(frozen=True)
class TrainableWeight:
    """Initializer that is trained, or a statistic that is measured in training.

    Attributes:
        name: name of the initializer.
        role: role of the initializer.
        qparams: scale, zero point and range of an integer initializer.
    """

    name: str
    role: Role
    qparams: QuantizationParameters | None = None


def find_trainable_weights(graph: ir.Graph) -> dict[str, TrainableWeight]:
    """Find the trainable initializers by name, in the graph's order."""
    found: dict[str, TrainableWeight] = {}
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or value.is_graph_output():
            continue
        read = _float_weight if tensor.dtype in FLOATS else _integer_weight
        if weight := read(name, value):
            found[name] = weight
    # The scales of 32-bit biases follow from two others when the graph is written.
    derived = {w.qparams.scale for w in found.values() if w.qparams and w.qparams.bias}
    return {n: w for n, w in found.items() if not (w.role == "step" and n in derived)}


def _float_weight(name: str, value: ir.Value) -> TrainableWeight | None:
    # In this order: a tied embedding is a kernel as well.
    order: tuple[Role, ...] = ("statistic", "step", "kernel", "vector")
    role = min(_roles(value), key=order.index, default=None)
    return None if role is None else TrainableWeight(name, role)


def _roles(value: ir.Value, depth: int = 0) -> Iterator[Role]:
    """Yield the role of a value at each of its uses."""
    for node, index in value.uses():
        if not is_onnx_op(node):
            continue
        if node.op_type in _ROUNDS and index == 1:
            yield "step"
        elif index in _KERNELS.get(node.op_type, ()):
            yield "kernel"
        elif index in _VECTORS.get(node.op_type, ()):
            yield "vector"
        elif node.op_type == "BatchNormalization" and index in {3, 4}:
            yield "statistic"
        elif node.op_type in {"Add", "Mul", "Concat"} and _is_weight(value, node):
            yield "vector"
        elif (node.op_type in _MOVES or node.op_type in _ROUNDS) and index == 0 and depth < 8:
            yield from _roles(node.outputs[0], depth + 1)


def _is_weight(value: ir.Value, node: ir.Node) -> bool:
    """Return whether an operand of Add, Mul or Concat is a weight, as a bias or class token is."""
    root = value
    while (producer := root.producer()) is not None and producer.inputs[0] is not None:
        root = producer.inputs[0]
    array = root.const_value.numpy() if root.const_value is not None else np.zeros(0)
    others = [other for other in node.inputs if other is not None and other is not value]
    # A constant added to the model's input normalises the data.
    if array.size < 2 or any(other.is_graph_input() for other in others):
        return False
    return bool(np.abs(array.astype(np.float32)).max() < _LARGEST)


def _integer_weight(name: str, value: ir.Value) -> TrainableWeight | None:
    """Return the weight of an integer initializer that DequantizeLinear reads, if it is one."""
    tensor = value.const_value
    assert tensor is not None
    users = [node for node, index in value.uses() if index == 0]
    if not users or len(users) != len(value.uses()):
        return None
    if any(node.op_type != "DequantizeLinear" for node in users):
        return None
    scale, node = users[0].inputs[1], users[0]
    if any(user.inputs[1] is not scale for user in users) or scale is None:
        return None
    if not scale.is_initializer() or scale.const_value is None:
        return None
    roles = set(_roles(node.outputs[0]))
    zero = input_at(node, 2)
    if not roles or (zero is not None and zero.const_value is None):
        return None
    low, high = _weight_range(tensor, zero)
    qparams = QuantizationParameters(
        scale=scale.name or "",
        zero=None if zero is None else zero.name,
        axis=node.attributes.get_int("axis", 1),
        block=node.attributes.get_int("block_size", 0),
        low=low,
        high=high,
        bias=tensor.dtype == ir.DataType.INT32,
    )
    return TrainableWeight(name, "kernel" if "kernel" in roles else "vector", qparams)


def _weight_range(tensor: ir.TensorProtocol, zero: ir.Value | None) -> tuple[int, int]:
    """Return the range of a weight's integers: that of its type, or of the fewer bits it uses.

    Quantizers write 7-bit weights into int8 for machines without VNNI, and 4-bit ones where a
    runtime has no smaller type. The largest magnitude shows the bits, since every channel reaches
    the end of its range.
    """
    low, high = type_range(tensor.dtype)
    if tensor.dtype == ir.DataType.INT32:
        return low, high
    values = tensor.numpy().astype(np.int64)
    if low == 0:
        return (0, 127) if high == 255 and values.max(initial=0) <= 127 else (low, high)
    if zero is not None and zero.const_value is not None and zero.const_value.numpy().any():
        return low, high
    largest = int(np.abs(values).max(initial=0))
    for bits in range(2, tensor.dtype.bitwidth):
        if largest <= 2 ** (bits - 1):
            # 7-bit weights reach 64 in onnxruntime, whose pair sums then still fit 16 bits.
            return -(2 ** (bits - 1)), max(largest, 2 ** (bits - 1) - 1)
    return low, high


def type_range(kind: ir.DataType) -> tuple[int, int]:
    """Return the smallest and largest value of an integer type."""
    return int(kind.min), int(kind.max)


def rounding_range(node: ir.Node, weight: TrainableWeight | None) -> tuple[int, int] | None:
    """Return the integer range of a Q or DQ: that of its weight, or of its type."""
    if node.op_type not in _ROUNDS:
        return None
    if weight is not None and weight.qparams is not None:
        return None if weight.qparams.bias else (weight.qparams.low, weight.qparams.high)
    data, zero = node.inputs[0], input_at(node, 2)
    kind = zero.dtype if zero is not None else None
    if node.op_type == "DequantizeLinear" and data is not None:
        kind = data.dtype or kind
    kind = kind or ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)
    return type_range(kind) if kind.is_integer() else None


def same_axis(a: ir.Node, b: ir.Node) -> bool:
    """Return whether a Q and a DQ have the same axis and block size."""
    return all(
        a.attributes.get_int(name, default) == b.attributes.get_int(name, default)
        for name, default in (("axis", 1), ("block_size", 0))
    )
