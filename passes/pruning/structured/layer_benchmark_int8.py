"""Models of one layer as onnxruntime runs it in int8, on which int8 layer times are measured.

Int8 kernels have a staircase of their own. A float convolution of few channels on a large image
costs as much as one of many channels on a small image; in int8 the former costs two to three times
as much, since copying the windows takes longer than multiplying them. Convolutions have the
channels last, as onnxruntime's layout transformer leaves them, so that no transposition is timed
with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.target import IntType

from .layer_spec import LayerSpec

#: Operators with an int8 kernel of onnxruntime's own domain that takes a layer as a whole.
KERNELS = {"Conv": "QLinearConv", "Gemm": "QGemm"}
_DOMAIN = "com.microsoft"
_TYPES: dict[IntType, Any] = {"int8": np.int8, "uint8": np.uint8}


def has_kernel(layer: LayerSpec) -> bool:
    """Return whether a layer runs in int8: a convolution, or a product with a constant."""
    op = layer.node.op_type
    constant = [number for number, _ in enumerate(layer.shapes) if layer.is_weight(number)]
    return (op in KERNELS or op == "MatMul") and 1 in constant


def int8_model(layer: LayerSpec, activation: IntType, weight: IntType) -> Model:
    """Return a layer as a model of int8 input and output, with random weights.

    Args:
        layer: a layer with an int8 kernel, by `has_kernel`.
        activation: type of input and output.
        weight: type of the weights, which have a scale for each output channel.
    """
    conv = layer.node.op_type == "Conv"
    constants = _Constants()
    shape = _channels_last(layer.shapes[0]) if conv else layer.shapes[0]
    x = ir.val("x0", _dtype(activation), shape)
    columns, zero = _columns(layer), np.zeros((), _TYPES[activation])
    weights = [
        constants.integers("w", layer.shapes[1], weight),
        constants.constant("w_scale", np.full(columns, 0.01, np.float32)),
        constants.constant("w_zero", np.zeros(columns, _TYPES[weight])),
    ]
    inputs: list[ir.Value | None] = [
        x,
        constants.scale("x_scale"),
        constants.constant("x_zero", zero),
        *weights,
    ]
    outputs = [constants.scale("y_scale"), constants.constant("y_zero", zero)]
    bias: list[ir.Value | None] = (
        [constants.constant("bias", np.zeros(layer.shapes[2], np.int32).reshape(-1))]
        if len(layer.shapes) > 2
        else []
    )
    if layer.node.op_type == "Gemm":
        inputs += [*(bias or [None]), *outputs]
    else:
        inputs += [*outputs, *bias]
    return _layer_node_model(layer, inputs, x, constants.values, activation)


def addition_model(elements: int, activation: IntType) -> Model:
    """Return a model of the sum of two int8 tensors, as at the end of a residual branch."""
    constants = _Constants()
    zero = constants.constant("zero", np.zeros((), _TYPES[activation]))
    scale = constants.scale("scale")
    a, b = (ir.val(name, _dtype(activation), [elements]) for name in ("x0", "x1"))
    inputs = [a, scale, zero, b, scale, zero, scale, zero]
    node = ir.Node(_DOMAIN, "QLinearAdd", inputs, num_outputs=1, name="addition")
    return _one_node(node, [a, b], constants.values, activation, {"": 17}, 8)


def _layer_node_model(
    layer: LayerSpec,
    inputs: Sequence[ir.Value | None],
    x: ir.Value,
    constants: Sequence[ir.Value],
    activation: IntType,
) -> Model:
    op = layer.node.op_type
    domain = _DOMAIN if op in KERNELS else ""
    kept = [a for a in layer.node.attributes.values() if a.name not in {"beta", *layer.changed}]
    changed = [ir.AttrInt64(name, value) for name, value in layer.changed.items()]
    last = [ir.AttrInt64("channels_last", 1)] if op == "Conv" else []
    node = ir.Node(
        domain,
        KERNELS.get(op, "QLinearMatMul"),
        inputs,
        [*kept, *changed, *last],
        num_outputs=1,
        name="layer",
    )
    return _one_node(node, [x], constants, activation, layer.opsets, layer.ir_version)


def _one_node(
    node: ir.Node,
    inputs: Sequence[ir.Value],
    constants: Sequence[ir.Value],
    activation: IntType,
    opsets: Mapping[str, int],
    ir_version: int,
) -> Model:
    node.outputs[0].name, node.outputs[0].dtype = "y", _dtype(activation)
    graph = ir.Graph(
        inputs,
        node.outputs,
        nodes=[node],
        initializers=constants,
        opset_imports={**opsets, _DOMAIN: 1},
        name="l",
    )
    return Model(ir.Model(graph, ir_version=ir_version), name=f"int8 {node.name}")


def _columns(layer: LayerSpec) -> int:
    """Return the number of output channels, each of which has a scale of its weights."""
    w = layer.shapes[1]
    if layer.node.op_type == "Conv":
        return w[0]
    flipped = layer.node.op_type == "Gemm" and layer.node.attributes.get_int("transB", 0) != 0
    return w[0] if flipped else w[-1]


def _channels_last(shape: Sequence[int]) -> list[int]:
    return [shape[0], *shape[2:], shape[1]]


def _dtype(kind: IntType) -> ir.DataType:
    return ir.DataType.INT8 if kind == "int8" else ir.DataType.UINT8


class _Constants:
    """Constants of one model."""

    def __init__(self) -> None:
        self.values: list[ir.Value] = []
        self._rng = np.random.default_rng(0)

    def constant(self, name: str, array: Any) -> ir.Value:
        self.values.append(ir.val(name, const_value=ir.tensor(np.asarray(array), name=name)))
        return self.values[-1]

    def scale(self, name: str) -> ir.Value:
        return self.constant(name, np.float32(0.05))

    def integers(self, name: str, shape: Sequence[int], kind: IntType) -> ir.Value:
        few = self._rng.integers(-60, 61, min(4099, math.prod(shape)))
        few = few + (64 if kind == "uint8" else 0)
        return self.constant(name, np.resize(few.astype(_TYPES[kind]), tuple(shape)))
