"""Placeholders for large weights in onnxruntime's quantizer, which would hold several copies.

Of a weight it reads the least and the greatest value of each channel and, at the end, the values
to round. So it gets a placeholder with the same two values in every channel, and the real weights
are rounded afterwards, one at a time, with the scales that were written for the placeholders.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

from trimtab.core.model import Model

from ...graph.edit import initializer_array

#: Weights of fewer bytes are passed to the quantizer themselves.
LARGE = 1 << 20
#: Models of fewer bytes of weights get no placeholders.
LARGE_MODEL = 1 << 28
#: Operators whose weights may get placeholders, the input's index, and its channel axis.
_WEIGHTS = {"Conv": (1, 0), "MatMul": (1, -1), "Gather": (0, -1)}

#: Channel axis by the name of a weight that has a placeholder.
PlaceholderAxes = dict[str, int]


def add_placeholders(model: Model, *, gemms: bool) -> tuple[Model, PlaceholderAxes]:
    """Return a model with placeholders for its large weights, and their channel axes.

    The model itself and no axes where its weights are small in total. A quantizer may transpose
    weights of Gemm, so they are replaced only with `gemms`.
    """
    if model.weight_bytes <= LARGE_MODEL:
        return model, {}
    copy = model.clone()
    ShapeInferencePass()(copy.ir)  # while the weights have their shapes
    axes: PlaceholderAxes = {}
    for name, value in copy.graph.initializers.items():
        tensor, axis = value.const_value, _axis(value, gemms=gemms)
        if tensor is None or axis is None or tensor.nbytes < LARGE:
            continue
        small = _extremes(tensor.numpy(), axis)
        value.const_value = ir.tensor(small, name=name)
        value.shape = ir.Shape(small.shape)
        axes[name] = axis
    return copy, axes


def _axis(value: ir.Value, *, gemms: bool) -> int | None:
    """Return the channel axis of a weight, None where it is ambiguous or not a plain weight."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or value.is_graph_output():
        return None
    found = set()
    for node, number in value.uses():
        place, axis = _WEIGHTS.get(node.op_type, (None, 0))
        if node.op_type == "Gemm" and gemms:
            place, axis = 1, 0 if node.attributes.get_int("transB", 0) else 1
        if node.graph is not value.graph or number != place:
            return None
        found.add(axis % len(tensor.shape))
    return found.pop() if len(found) == 1 and len(tensor.shape) > 1 else None


def _extremes(array: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the least and greatest value of each channel: its axis, one axis of 2, ones."""
    others = tuple(a for a in range(array.ndim) if a != axis)
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    pair = [array.min(others).reshape(shape), array.max(others).reshape(shape)]
    return np.concatenate(pair, others[0])


def restore_weights(graph: ir.Graph, model: Model, axes: PlaceholderAxes) -> None:
    """Restore the weights of `model` in a written graph, rounded where their placeholders were."""
    for name, axis in axes.items():
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        rounded = graph.initializers.get(f"{name}_quantized")
        if rounded is not None:
            parameters = (graph.initializers[f"{name}_{kind}"] for kind in ("scale", "zero_point"))
            scale, zero = (initializer_array(value) for value in parameters)
            integers = _rounded(tensor.numpy(), scale, zero, axis)
            rounded.const_value = ir.tensor(integers, name=rounded.name)
            rounded.shape = ir.Shape(integers.shape)
        if name in graph.initializers:
            value = graph.initializers[name]
            value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())


def _rounded(
    array: NDArray[np.float32], scale: NDArray[np.generic], zero: NDArray[np.generic], axis: int
) -> NDArray[np.generic]:
    """Apply QuantizeLinear (ONNX) to a part of the channels at a time, to save memory."""
    integers = np.empty(array.shape, zero.dtype)
    limits = np.iinfo(cast("Any", zero.dtype))
    source, target = np.moveaxis(array, axis, 0), np.moveaxis(integers, axis, 0)
    ones = (1,) * (array.ndim - 1)
    scales, zeros = (np.broadcast_to(v.ravel(), len(source)) for v in (scale, zero))
    step = max(1, LARGE // max(1, math.prod(source.shape[1:])))
    for start in range(0, len(source), step):
        part = slice(start, start + step)
        values = source[part] / scales[part].reshape(-1, *ones)
        np.rint(values, out=values)
        values += zeros[part].reshape(-1, *ones)
        target[part] = np.clip(values, limits.min, limits.max)
    return integers
