"""Elements of computed shapes: known sizes, and sizes of axes of other values.

Exporters compute the target of a Reshape from Shape, Slice and Concat; a rule that asks whether two
shapes agree has to follow that.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..graph.queries import attr, const, ints, producer, rank

MAX_DEPTH = 12


@dataclass(frozen=True)
class Axis:
    """Size of an axis: of a value, or by the name of its symbolic dimension.

    Attributes:
        of: the name of the dimension, else of the value.
        index: axis of the value; -1 for a named dimension.
    """

    of: str
    index: int = -1


Size = int | Axis


def axis_size(value: ir.Value, index: int) -> Size:
    """Return the size of one axis: a number, a named dimension, or the axis itself."""
    if value.shape is not None:
        size = value.shape[index]
        if isinstance(size, int):
            return size or Axis(str(value.name), index)  # 0 is what failed inference writes
        if size.value is not None:
            return Axis(str(size.value))
    return Axis(str(value.name), index)


def sizes_of(value: ir.Value | None) -> list[Size] | None:
    """Return the sizes of all axes; of a Reshape its target, since inference may lose names."""
    reshape = producer(value, "Reshape")
    if reshape is not None:
        given = shape_items(reshape.inputs[1])
        if given is not None and all(not isinstance(g, int) or g > 0 for g in given):
            return given
    return _declared(value)


def _declared(value: ir.Value | None) -> list[Size] | None:
    """Return the sizes of all axes as the shape of the value says them."""
    known = rank(value)
    if value is None or known is None:
        return None
    return [axis_size(value, i) for i in range(known)]


def shape_items(value: ir.Value | None, depth: int = MAX_DEPTH) -> list[Size] | None:
    """Return the elements of a computed shape; None where they are not known."""
    if value is None or depth == 0:
        return None
    known = ints(value)
    if known is not None:
        return list(known)
    node = producer(value, *_OPERATORS)
    return None if node is None else _OPERATORS[node.op_type](node, depth - 1)


def _shape(node: ir.Node, depth: int) -> list[Size] | None:  # noqa: ARG001
    every = _declared(node.inputs[0])
    return every and every[attr(node, "start", 0) : attr(node, "end", len(every))]


def _slice(node: ir.Node, depth: int) -> list[Size] | None:
    given = shape_items(node.inputs[0], depth)
    start, end = ints(node.inputs[1]), ints(node.inputs[2])
    steps = ints(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if given is None or start is None or end is None or steps != [1]:
        return None
    return given[start[0] : end[0]]


def _concat(node: ir.Node, depth: int) -> list[Size] | None:
    parts = [shape_items(v, depth) for v in node.inputs]
    return None if None in parts else [size for part in parts if part for size in part]


def _gather(node: ir.Node, depth: int) -> list[Size] | None:
    given, index = shape_items(node.inputs[0], depth), const(node.inputs[1])
    if given is None or index is None:
        return None
    return [given[int(i)] for i in index.reshape(-1)]


def _same(node: ir.Node, depth: int) -> list[Size] | None:
    return shape_items(node.inputs[0], depth)


_OPERATORS = {
    "Shape": _shape,
    "Slice": _slice,
    "Concat": _concat,
    "Gather": _gather,
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Cast"), _same),
}
