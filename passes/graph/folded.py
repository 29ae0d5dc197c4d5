"""Constants behind operators that move or cast them, as exporters write weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from .queries import axes_of, input_at, ints, is_onnx_op


@dataclass(frozen=True)
class Folded:
    """Constant value of a tensor.

    Attributes:
        array: its value; do not write to it.
        graph: graph whose initializer or Constant node it comes from.
    """

    array: Array
    graph: ir.Graph


def fold(value: ir.Value | None) -> Folded | None:
    """Return the constant that a value holds, through Transpose, Reshape, Cast and the like.

    None where it is computed, or where a caller may feed it.
    """
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        held = value.const_value
        owner = value.graph
        return None if held is None or owner is None else Folded(held.numpy(), owner)
    node = value.producer()
    if node is None or not is_onnx_op(node) or node.graph is None:
        return None
    if node.op_type == "Constant":
        tensor = node.attributes.get_tensor("value", None)
        found = node.graph if isinstance(node.graph, ir.Graph) else None
        return None if tensor is None or found is None else Folded(tensor.numpy(), found)
    move = _MOVES.get(node.op_type)
    source = fold(input_at(node, 0)) if move is not None else None
    array = None if source is None or move is None else move(node, source.array)
    return None if source is None or array is None else Folded(array, source.graph)


def remove_unread_moves(graph: ir.Graph) -> None:
    """Remove the nodes that `fold` reads through, and Constants, where nothing reads them."""
    for part in (graph, *graph.subgraphs()):
        for node in reversed(list(part)):
            output = node.outputs[0]
            movable = node.op_type in _MOVES or node.op_type == "Constant"
            if not movable or not is_onnx_op(node) or output.uses() or output.is_graph_output():
                continue
            if node.op_type == "Constant" or fold(input_at(node, 0)) is not None:
                part.remove(node, safe=True)


def _transposed(node: ir.Node, array: Array) -> Array:
    return np.transpose(array, node.attributes.get_ints("perm", None))


def _reshaped(node: ir.Node, array: Array) -> Array | None:
    wanted = ints(input_at(node, 1))
    if wanted is None:
        return None
    if not node.attributes.get_int("allowzero", 0):
        wanted = [array.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return array.reshape(wanted)


def _cast(node: ir.Node, array: Array) -> Array | None:
    kind = ir.DataType(node.attributes["to"].as_int())
    plain = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
    return array.astype(kind.numpy()) if kind in plain and array.dtype.kind == "f" else None


def _squeezed(node: ir.Node, array: Array) -> Array | None:
    axes = axes_of(node)
    if axes is None:
        return None if len(node.inputs) > 1 else np.squeeze(array)
    return np.squeeze(array, tuple(axes))


def _unsqueezed(node: ir.Node, array: Array) -> Array | None:
    axes = axes_of(node)
    return None if axes is None else np.expand_dims(array, tuple(axes))


_MOVES: dict[str, Callable[[ir.Node, Array], Array | None]] = {
    "Cast": _cast,
    "Identity": lambda _, array: array,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
