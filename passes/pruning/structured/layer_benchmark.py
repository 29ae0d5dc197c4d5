"""Models of one layer at any widths, on which layer times are measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.model import Model
from trimtab.core.target import IntType

from ...graph.constants import is_constant
from ..dependency.records import Cost, OpaqueError
from ..dependency.tracer import Trace
from .layer_benchmark_int8 import has_kernel, int8_model
from .layer_spec import LayerSpec, one_node_model


def layer_model(layer: LayerSpec) -> Model:
    """Return a layer as a model of its own, with random constants where it has constants."""
    if layer.integers:
        return int8_model(layer, *layer.integers)
    rng = np.random.default_rng(0)
    values: list[ir.Value] = []
    for number, shape in enumerate(layer.shapes):
        if layer.is_weight(number):
            tensor = ir.tensor(_filled(rng, shape), name=f"w{number}")
            values.append(ir.val(f"w{number}", const_value=tensor))
        else:
            values.append(ir.val(f"x{number}", ir.DataType.FLOAT, shape))
    op, name = layer.node.op_type, f"layer {layer.node.name}"
    node = ir.Node("", op, values, layer.attributes, num_outputs=1, name=name)
    inputs = [v for v in values if v.const_value is None]
    constants = [v for v in values if v.const_value is not None]
    return one_node_model(node, inputs, constants, opsets=layer.opsets, ir_version=layer.ir_version)


def layer_at(
    trace: Trace, cost: Cost, point: Sequence[int], integers: tuple[IntType, IntType] | None = None
) -> LayerSpec | None:
    """Return the operator of `cost` for one sample, with these lengths of its prunable axes.

    None where it cannot be made, as for fused attention. With `integers`, types of activations and
    weights, it runs in int8 where there is a kernel.
    """
    lengths = cost.filled(point)
    node = cost.node
    try:
        if node.op_type in {"Conv", "ConvTranspose"}:
            shapes, changed = _conv(trace, node, lengths)
        elif node.op_type in {"Gemm", "MatMul"}:
            shapes, changed = _product(trace, node, lengths)
        else:
            return None
    except OpaqueError:
        return None
    opsets, version = dict(trace.model.opset_imports), trace.model.ir_version
    macs = cost.fixed * math.prod(point)
    layer = LayerSpec(node, shapes[: len(node.inputs)], changed, opsets, version, macs)
    return replace(layer, integers=integers) if integers and has_kernel(layer) else layer


def _conv(
    trace: Trace, node: ir.Node, lengths: Sequence[int]
) -> tuple[list[list[int]], dict[str, int]]:
    """Return the shapes of input, weight and bias, and the group count."""
    x, w = (list(trace.shape(value)) for value in node.inputs[:2])
    group = node.attributes.get_int("group", 1)
    old = w[:2]
    w[:2] = lengths
    out = 0 if node.op_type == "Conv" else 1
    if group > 1 and w[1] == old[1]:  # whole groups go
        group = max(1, group * w[0] // old[0])
    x[0], x[1] = 1, w[0] if out else w[1] * group
    bias = [w[out] * (group if out else 1)]
    return [x, w, bias], {"group": group}


def _product(
    trace: Trace, node: ir.Node, lengths: Sequence[int]
) -> tuple[list[list[int]], dict[str, int]]:
    """Return the shapes of both factors, for one sample."""
    a, b = (list(trace.shape(value)) for value in node.inputs[:2])
    rows, columns, depth = lengths[-3:] if len(lengths) > 2 else (1, *lengths[-2:])
    if node.op_type == "Gemm":
        swap_a, swap_b = node.attributes.get_int("transA", 0), node.attributes.get_int("transB", 0)
        rows = max(1, rows // trace.shapes.samples)
        first = [depth, rows] if swap_a else [rows, depth]
        return [first, [columns, depth] if swap_b else [depth, columns]], {}
    lead = list(lengths[:-3])
    a[-1] = depth
    if len(a) > 1:
        a[-2] = rows
    if len(b) > 1:
        b[-2:] = [depth, columns]
    for shape in (a, b):
        for axis in range(-min(len(lead), len(shape) - 2), 0):
            if shape[axis - 2] > 1:
                shape[axis - 2] = lead[axis]
    for value, shape in zip(node.inputs, (a, b), strict=False):
        if value is not None and not is_constant(value) and len(shape) > 2 and shape[0] > 1:
            shape[0] = max(1, shape[0] // trace.shapes.samples)
    return [a, b], {}


def _filled(rng: np.random.Generator, shape: Sequence[int]) -> NDArray[np.float32]:
    """Return a few thousand normal values, repeated: drawing all of them would take long."""
    return np.resize(rng.standard_normal(4099).astype(np.float32), tuple(shape))
