"""Weights that a graph computes from constants, computed once."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from .free_names import FreeNames
from .queries import attr, axes_of, const, input_at, ints, is_onnx_op

#: Operators that only change type or form of a constant.
_FORMS = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def lift_weights(model: ir.Model, layers: Collection[str]) -> int:
    """Turn constants behind operators of form into initializers, where layers read them.

    Args:
        model: model to change in place.
        layers: operator types whose inputs are lifted.

    Returns:
        The number of new initializers.
    """
    graph, names = model.graph, FreeNames(model)
    lifted = 0
    for node in list(graph):
        if node.op_type not in layers or not is_onnx_op(node):
            continue
        for index, value in enumerate(node.inputs):
            array = _computed(value)
            if value is not None and array is not None:
                lifted += 1
                _replace(graph, node, index, array, names)
    return lifted


def _computed(value: ir.Value | None) -> Array | None:
    """Return the array of a constant behind at least one operator of form."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _FORMS or not is_onnx_op(node):
        return None
    source = _computed(node.inputs[0])
    array = const(node.inputs[0]) if source is None else source
    return None if array is None else _formed(node, array)


def _formed(node: ir.Node, array: Array) -> Array | None:
    match node.op_type:
        case "Cast":
            to = ir.DataType(attr(node, "to", 0))
            return array.astype(to.numpy()) if to.is_floating_point() else None
        case "Transpose":
            return np.transpose(array, attr(node, "perm"))
        case "Flatten":
            axis = attr(node, "axis", 1) % (array.ndim + 1)
            return array.reshape(int(np.prod(array.shape[:axis])), -1)
        case "Reshape":
            return _reshaped(node, array)
        case "Squeeze" | "Unsqueeze":
            return _with_axes(node, array)
    return array  # of an Identity


def _with_axes(node: ir.Node, array: Array) -> Array | None:
    axes = axes_of(node)
    if axes is not None:
        form = np.squeeze if node.op_type == "Squeeze" else np.expand_dims
        return form(array, tuple(axes))
    return np.squeeze(array) if len(node.inputs) == 1 else None


def _reshaped(node: ir.Node, array: Array) -> Array | None:
    shape = ints(input_at(node, 1))
    if shape is None or (attr(node, "allowzero", 0) and 0 in shape):
        return None
    return array.reshape([array.shape[i] if d == 0 else d for i, d in enumerate(shape)])


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: Array, names: FreeNames) -> None:
    old = node.inputs[index]
    assert old is not None
    maker = old.producer()
    assert maker is not None
    name = old.name or ""
    if old.is_graph_output():
        name = names.value(name)
    value = ir.val(name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
    graph.register_initializer(value)
    if old.is_graph_output():
        node.replace_input_with(index, value)
    else:
        old.replace_all_uses_with(value)
        _remove(graph, maker)


def _remove(graph: ir.Graph, node: ir.Node) -> None:
    """Remove an operator, and those and the constants that only it needed."""
    inputs = list(node.inputs)  # which a removed node loses
    graph.remove(node, safe=True)
    for value in inputs:
        if value is None or value.uses() or value.is_graph_output():
            continue
        before = value.producer()
        if before is not None and before.graph is graph:
            _remove(graph, before)
        elif not value.is_graph_input():
            graph.initializers.pop(value.name or "", None)
