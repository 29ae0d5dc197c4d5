"""Models of one layer as onnxruntime runs it in int8, on which int8 layer times are measured.

Int8 kernels have a staircase of their own. A float convolution of few channels on a large image
costs as much as one of many channels on a small image; in int8 the former costs two to three times
as much, since copying the windows takes longer than multiplying them. Convolutions have the
channels last, as onnxruntime's layout transformer leaves them, so that no transposition is timed
with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from trimtab.core.model import Model
from trimtab.core.target import IntType

from .layer_spec import OPSETS, LayerSpec, one_node_model

#: Operators with an int8 kernel of onnxruntime's own domain that takes a layer as a whole.
KERNELS = {"Conv": "QLinearConv", "Gemm": "QGemm"}
_DOMAIN = "com.microsoft"
_TYPES: dict[IntType, Any] = {"int8": np.int8, "uint8": np.uint8}


def has_kernel(layer: LayerSpec) -> bool:
    """Return whether a layer runs in int8: a convolution, or a product with a constant."""
    constant = len(layer.shapes) > 1 and layer.is_weight(1)
    return constant and layer.node.op_type in {*KERNELS, "MatMul"}


def int8_model(layer: LayerSpec, activation: IntType, weight: IntType) -> Model:
    """Return a layer that `has_kernel` as a model of int8 input and output, with random weights.

    The weights have a scale for each output channel.
    """
    op, constants, shape = layer.node.op_type, _Constants(), layer.shapes[0]
    if op == "Conv":
        shape = [shape[0], *shape[2:], shape[1]]
    x = ir.val("x0", _dtype(activation), shape)
    columns, zero = _columns(layer), np.zeros((), _TYPES[activation])
    inputs: list[ir.Value | None] = [
        x,
        constants.scale("x_scale"),
        constants.constant("x_zero", zero),
        constants.integers("w", layer.shapes[1], weight),
        constants.constant("w_scale", np.full(columns, 0.01, np.float32)),
        constants.constant("w_zero", np.zeros(columns, _TYPES[weight])),
    ]
    outputs = [constants.scale("y_scale"), constants.constant("y_zero", zero)]
    bias: list[ir.Value | None] = [
        constants.constant("bias", np.zeros(math.prod(s), np.int32)) for s in layer.shapes[2:3]
    ]
    inputs += [*(bias or [None]), *outputs] if op == "Gemm" else [*outputs, *bias]
    attributes = [a for a in layer.attributes if a.name != "beta"]
    if op == "Conv":
        attributes.append(ir.AttrInt64("channels_last", 1))
    domain, kernel = (_DOMAIN, KERNELS[op]) if op in KERNELS else ("", "QLinearMatMul")
    name = f"int8 {layer.node.name}"
    node = ir.Node(domain, kernel, inputs, attributes, num_outputs=1, name=name)
    kind, opsets = _dtype(activation), {**layer.opsets, _DOMAIN: 1}
    return one_node_model(node, [x], constants.values, kind, opsets, layer.ir_version)


def addition_model(elements: int, activation: IntType) -> Model:
    """Return a model of the sum of two int8 tensors, as at the end of a residual branch."""
    constants = _Constants()
    zero = constants.constant("zero", np.zeros((), _TYPES[activation]))
    scale = constants.scale("scale")
    a, b = (ir.val(name, _dtype(activation), [elements]) for name in ("x0", "x1"))
    inputs = [a, scale, zero, b, scale, zero, scale, zero]
    node = ir.Node(_DOMAIN, "QLinearAdd", inputs, num_outputs=1, name="addition")
    opsets = {**OPSETS, _DOMAIN: 1}
    return one_node_model(node, [a, b], constants.values, _dtype(activation), opsets)


def _columns(layer: LayerSpec) -> int:
    """Return the number of output channels, each of which has a scale of its weights."""
    w = layer.shapes[1]
    if layer.node.op_type == "Conv":
        return w[0]
    flipped = layer.node.op_type == "Gemm" and layer.node.attributes.get_int("transB", 0) != 0
    return w[0] if flipped else w[-1]


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
