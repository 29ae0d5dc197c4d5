"""Constant values of a graph, read through operators that only move or dequantize them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array
from trimtab.core.graphs import values_inside

from .queries import attr, input_at, is_onnx_op


def is_constant(value: ir.Value) -> bool:
    """Return whether a value is an initializer that no caller feeds, or a constant fill.

    A constant fill is the output of ConstantOfShape for a constant shape.
    """
    if value.is_graph_input():
        return False
    if value.is_initializer() and value.const_value is not None:
        return True
    maker = value.producer()
    if maker is None or maker.op_type != "ConstantOfShape" or not is_onnx_op(maker):
        return False
    shape = maker.inputs[0]
    return shape is not None and shape.is_initializer() and shape.const_value is not None


def constant_shape(value: ir.Value) -> tuple[int, ...]:
    """Return the shape of a value that `is_constant`."""
    if value.const_value is not None:
        return tuple(value.const_value.numpy().shape)
    maker = value.producer()
    assert maker is not None
    shape = maker.inputs[0]
    assert shape is not None
    assert shape.const_value is not None
    return tuple(int(d) for d in shape.const_value.numpy().reshape(-1))


def constant_array(value: ir.Value) -> Array | None:
    """Return the array of a constant, also through Transpose, DequantizeLinear and Identity."""
    if is_constant(value) and value.const_value is not None:
        return value.const_value.numpy()
    maker = value.producer()
    if maker is None or not maker.inputs or maker.inputs[0] is None:
        return None
    if is_constant(value):
        given = maker.attributes.get_tensor("value", None)
        filler = np.zeros(1, np.float32) if given is None else given.numpy()
        return np.broadcast_to(filler.reshape(-1)[0], constant_shape(value))
    source = constant_array(maker.inputs[0]) if maker.op_type in _FOLDED else None
    return None if source is None else _FOLDED[maker.op_type](maker, source)


def _transposed(node: ir.Node, array: Array) -> Array:
    return np.transpose(array, node.attributes.get_ints("perm", None))


def _dequantized(node: ir.Node, array: Array) -> Array | None:
    scale = None if node.inputs[1] is None else constant_array(node.inputs[1])
    zero = input_at(node, 2)
    offset = np.zeros(1) if zero is None else constant_array(zero)
    if scale is None or offset is None or "block_size" in node.attributes:
        return None
    shape = [1] * array.ndim
    if scale.size > 1:
        shape[attr(node, "axis", 1)] = scale.size
    spread = offset.reshape(shape if offset.size > 1 else [1] * array.ndim).astype(np.float32)
    return np.asarray((array.astype(np.float32) - spread) * scale.reshape(shape))


def _same(node: ir.Node, array: Array) -> Array:  # noqa: ARG001
    return array


_FOLDED: dict[str, Callable[[ir.Node, Array], Array | None]] = {
    "DequantizeLinear": _dequantized,
    "Transpose": _transposed,
    "Identity": _same,
}


def can_cut(value: ir.Value) -> bool:
    """Return whether channels may be cut: shapes, indices and texts have rules of their own."""
    if value.const_value is None:
        maker = value.producer()
        given = maker.attributes.get_tensor("value", None) if maker is not None else None
        kind = ir.DataType.FLOAT if given is None else given.dtype
    else:
        kind = value.const_value.dtype
    return kind not in {ir.DataType.INT64, ir.DataType.STRING}


def captured(node: ir.Node) -> list[ir.Value]:
    """Return the values that the subgraphs of a node read, those of the outer graph included."""
    return list(values_inside(node))
