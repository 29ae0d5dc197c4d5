"""A Q/DQ model turned back into float, so that it can be quantized anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.data import Array
from trimtab.core.errors import InputError
from trimtab.core.model import Model
from trimtab.core.ort.int8_share import INT8_OPS, QDQ_OPS

from ..base import Pass, Rewrite
from ..calibration.range_estimator import Range
from ..graph.edit import (
    add_initializer,
    lift_constants,
    name_nodes,
    remove_unused_initializers,
    replace_by_constant,
    replace_output,
)
from .qdq.roles import BOUNDS_KEY

#: Operators on integers without Q/DQ pairs, whose float form is lost.
_INTEGER = INT8_OPS | {"DynamicQuantizeLinear", "QLinearAdd", "QLinearMul", "QLinearConcat"}


@dataclass(frozen=True)
class Dequantize(Pass):
    """Turn a model of Q/DQ pairs back into float.

    Weights become the floats that their integers represent: rounding errors stay. Where a pair
    stands for a Relu or Clip, as one whose range begins or ends at zero may, a Clip is inserted.
    Weights that are stored in fewer bits become floats as well.
    """

    expands: ClassVar[bool] = True

    def rewrite(self, model: Model, ctx: Context) -> Rewrite:  # noqa: ARG002 - needs no context
        """Fold weights and remove pairs."""
        graph = model.graph
        for node in model.nodes():
            if node.op_type in _INTEGER:
                raise InputError(
                    f"computes with integers in node {node.name!r}, a {node.op_type}: only Q/DQ "
                    "pairs can be turned back into float",
                    where=model.name,
                    hint="Quantize the float model that it was made from",
                )
        lift_constants(graph)
        name_nodes(graph)
        weights = sum(_fold(n) for n in list(graph) if n.op_type == "DequantizeLinear")
        pairs = sum(_remove_pairs(graph, n) for n in list(graph) if n.op_type == "QuantizeLinear")
        left = [node.name for node in model.nodes() if node.op_type in QDQ_OPS]
        if left:
            raise InputError(
                f"has a QuantizeLinear or DequantizeLinear without its partner: node {left[0]!r}",
                where=model.name,
                hint="Quantize the float model that it was made from",
            )
        remove_unused_initializers(graph)
        return Rewrite(model.ir, report={"weights": weights, "pairs": pairs})


def _fold(node: ir.Node) -> bool:
    """Replace a constant DequantizeLinear by its floats; return whether that was possible."""
    arrays = [_array(value) for value in node.inputs]
    if any(array is None for array in arrays):
        return False
    integers, scale, *rest = [a for a in arrays if a is not None]
    zero = rest[0].astype(np.float32) if rest else np.zeros((), np.float32)
    floats = integers.astype(np.float32) - _spread(zero, integers, node)
    floats = floats * _spread(scale.astype(np.float32), integers, node)
    if node.outputs[0].is_graph_output():
        return False
    kind = node.attributes.get_int("output_dtype", 0)
    floats = floats.astype(ir.DataType(kind).numpy() if kind else scale.dtype)
    replace_by_constant(node, floats)
    return True


def _remove_pairs(graph: ir.Graph, quantize: ir.Node) -> bool:
    """Let readers of the rounded tensor read the tensor itself, clipped as by the pair."""
    pairs = [node for node, _ in quantize.outputs[0].uses()]
    value, scale, zero = (*quantize.inputs, None)[:3]
    steps, offset = _array(scale), _array(zero)
    if value is None or steps is None or quantize.outputs[0].is_graph_output():
        return False
    if not pairs or any(node.op_type != "DequantizeLinear" for node in pairs):
        return False
    bounds = _bounds(quantize, steps, offset)
    source = value if bounds is None else _clipped(graph, quantize, value, bounds, steps.dtype)
    for dequantize in dict.fromkeys(pairs):
        output = dequantize.outputs[0]
        if output.is_graph_output():
            _move_output(graph, dequantize, source)
        else:
            output.replace_all_uses_with(source)
        graph.remove(dequantize, safe=True)
    graph.remove(quantize, safe=True)
    return True


def _bounds(quantize: ir.Node, steps: Array, offset: Array | None) -> Range | None:
    """Return the bounds of the Relu or Clip that a pair stands for, None where it does not.

    Files of other tools do not tell them; a range that begins or ends at zero does.
    """
    if BOUNDS_KEY in quantize.metadata_props:
        low, high = map(float, quantize.metadata_props[BOUNDS_KEY].split())
        return low, high
    if offset is None or steps.size != 1:
        return None
    limits, zero = np.iinfo(offset.dtype), int(offset.reshape(-1)[0])
    span = float(steps.reshape(-1)[0]) * (limits.max - limits.min)
    return {limits.min: (0.0, span), limits.max: (-span, 0.0)}.get(zero)


def _clipped(
    graph: ir.Graph, before: ir.Node, value: ir.Value, bounds: Range, dtype: np.dtype[Any]
) -> ir.Value:
    """Insert the Clip that a pair stands for."""
    ends: list[ir.Value | None] = [
        add_initializer(graph, f"{before.name}_{part}", np.array(end, dtype))
        if np.isfinite(end)
        else None
        for part, end in zip(("low", "high"), bounds, strict=True)
    ]
    output = ir.val(f"{before.name}_clipped", ir.DataType.from_numpy(dtype), value.shape)
    clip = ir.node("Clip", [value, *ends], outputs=[output], name=f"{before.name}_clip")
    graph.insert_before(before, clip)
    return output


def _move_output(graph: ir.Graph, dequantize: ir.Node, source: ir.Value) -> None:
    """Make an Identity the producer of the graph's output, which keeps its name and type."""
    output = dequantize.outputs[0]
    same = ir.node("Identity", [source], name=f"{dequantize.name}_output")
    graph.insert_before(dequantize, same)
    fresh = same.outputs[0]
    fresh.dtype = ir.DataType.FLOAT
    replace_output(output, fresh)
    output.name = f"{fresh.name}_rounded"


def _array(value: ir.Value | None) -> Array | None:
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def _spread(array: NDArray[np.float32], integers: Array, node: ir.Node) -> NDArray[np.float32]:
    """Return scales or zero points as they broadcast to integers, one for each channel or block."""
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    if not block or array.size == 1:
        return _broadcast(array, integers.ndim, axis)
    return np.repeat(array, block, axis).take(range(integers.shape[axis]), axis)


def _broadcast(array: NDArray[np.float32], rank: int, axis: int) -> NDArray[np.float32]:
    """Reshape per-channel numbers so that they broadcast along the axis."""
    if array.size == 1:
        return array.reshape(())
    return array.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
