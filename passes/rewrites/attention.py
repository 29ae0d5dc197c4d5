"""Operators that exporters write around attention and that it does not need.

torch guards the softmax against rows that are masked as a whole, whose scores are all minus
infinity: Where(IsNaN(p), 0, p). Where the mask adds a finite low score instead, as torch's exporter
writes it, such a row gives equal probabilities, never NaN, and the guard is two passes over the
largest tensors of the model for nothing.

It also transposes keys in three axes, (batch * heads, length, depth), between two Reshapes: the
same as one Transpose of the last two axes, which onnxruntime takes into the product. The heads of
a single sample are brought forward by a copy, where strides would do.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph.queries import (
    attr,
    const,
    constant_side,
    dims,
    only_user,
    producer,
    rank,
    scalar,
    users,
)
from .dimensions import Size, axis_size, shape_items
from .rule import Found, Writer, rewrite_rule

PRODUCTS = ("MatMul", "Gemm")
MAX_STEPS = 4
#: Queries or values, and keys, from (batch, positions, heads, depth) to what is multiplied.
_HEADS_FORWARD = {(0, 2, 1, 3), (0, 2, 3, 1)}


@rewrite_rule("nan-guard-dropped", at="Where")
def nan_guard_dropped(where: ir.Node) -> Found:
    """Leave out the guard against NaN after a Softmax whose scores are finite."""
    test = producer(where.inputs[0], "IsNaN")
    softmax = producer(where.inputs[2], "Softmax")
    if test is None or softmax is None or test.inputs[0] is not where.inputs[2]:
        return None
    if scalar(where.inputs[1]) is None:
        return None
    if not _finite(softmax.inputs[0], MAX_STEPS):
        return "its scores may be minus infinity, and then a row is NaN"
    probabilities = softmax.outputs[0]
    if where.outputs[0].is_graph_output():
        return lambda w: w.op("Softmax", softmax.inputs[0], axis=attr(softmax, "axis", -1))
    return lambda w: probabilities  # noqa: ARG005


def _finite(value: ir.Value | None, steps: int) -> bool:
    """Return whether a value is a product, scaled and shifted by finite constants and masks."""
    array = const(value)
    if array is not None:
        return bool(np.isfinite(array).all())
    if steps == 0 or producer(value, *PRODUCTS) is not None:
        return steps > 0
    node = producer(value, "Add", "Sub", "Mul", "Div", "Where", "Reshape", "Expand", "Unsqueeze")
    if node is None:
        return False
    if node.op_type == "Div":
        divisor = const(node.inputs[1])
        return divisor is not None and bool(divisor.all()) and _finite(node.inputs[0], steps - 1)
    first = {"Where": 1}.get(node.op_type, 0)
    last = 1 if node.op_type in {"Reshape", "Expand", "Unsqueeze"} else None
    return all(_finite(v, steps - 1) for v in node.inputs[first:last])


def unguarded(value: ir.Value | None) -> ir.Value | None:
    """Return the probabilities behind a guard that can be left out; the value itself if none."""
    where = producer(value, "Where")
    if where is None:
        return value
    found = nan_guard_dropped.look(where)
    return value if found is None or isinstance(found, str) else where.inputs[2]


@rewrite_rule("keys-transposed", at="Reshape")
def keys_transposed(last: ir.Node) -> Found:
    """Write a Transpose in three axes between two Reshapes as one of the last two of four."""
    source = _keys_before(last)
    if isinstance(source, str | None):
        return source
    return lambda w: w.op("Transpose", source, like=last.outputs[0], perm=[0, 1, 3, 2])


@rewrite_rule("heads-in-place", at="Transpose")
def heads_in_place(turn: ir.Node) -> Found:
    """Put the heads of a single sample before its positions by strides of a MatMul, not a copy.

    onnxruntime takes a Transpose whose first axis becomes the last but one into the MatMul behind
    it; with one sample that axis can be the positions.
    """
    perm, sizes = attr(turn, "perm"), dims(turn.inputs[0])
    if perm not in _HEADS_FORWARD or sizes is None or turn.outputs[0].is_graph_output():
        return None
    if any(user.op_type != "MatMul" for user in users(turn.outputs[0])):
        return None
    if sizes[0] != 1 or None in sizes[2:]:
        return "its batch is not known to be one, or its heads are not known"
    source = turn.inputs[0]
    split = producer(source, "Reshape")
    if split is not None and source is not None and only_user(source):
        source = split.inputs[0]

    def make(w: Writer) -> ir.Value:
        shape = w.weight(np.array([-1, 1, *sizes[2:]], np.int64), "shape")
        order = [(1, 0, 2, 3)[axis] for axis in perm]
        return w.op("Transpose", w.op("Reshape", source, shape), like=turn.outputs[0], perm=order)

    return make


def keys_before(last: ir.Node | None) -> ir.Value | None:
    """Return the keys that are transposed in three axes up to this Reshape, if they are."""
    found = _keys_before(last) if last is not None and last.op_type == "Reshape" else None
    return None if isinstance(found, str) else found


def _keys_before(last: ir.Node) -> ir.Value | str | None:
    middle = producer(last.inputs[0], "Transpose")
    first = producer(middle.inputs[0], "Reshape") if middle is not None else None
    source = first.inputs[0] if first is not None else None
    if middle is None or first is None or source is None or attr(middle, "perm") != (0, 2, 1):
        return None
    if rank(source) != 4:
        return None
    there, back = shape_items(first.inputs[1]), shape_items(last.inputs[1])
    if there is None or back is None or len(there) != 3 or len(back) != 4:
        return "its shapes are not known"
    sizes: list[Size] = [axis_size(source, i) for i in range(4)]
    if not _merged(there, sizes) or not _agree(back, [*sizes[:2], sizes[3], sizes[2]]):
        return "its shapes do more than merge the leading axes"
    return source


def _merged(given: list[Size], sizes: list[Size]) -> bool:
    """Return whether three axes are the first two of four merged, and the others."""
    lead = given[0]
    product = isinstance(sizes[0], int) and isinstance(sizes[1], int) and sizes[0] * sizes[1]
    return (lead in {-1, product}) and _agree(given[1:], sizes[2:])


def _agree(given: list[Size], sizes: list[Size]) -> bool:
    """Return whether sizes are equal; one may be left to be computed."""
    unknown = sum(g == -1 for g in given)
    return unknown <= 1 and all(g in {-1, s} for g, s in zip(given, sizes, strict=True))


@rewrite_rule("scale-into-weights", at="Mul")
def scale_into_weights(mul: ir.Node) -> Found:
    """Take the scale of queries or keys into the weight and bias that made them."""
    sides = constant_side(mul)
    factor = scalar(sides[1]) if sides else None
    if sides is None or factor is None:
        return None
    moves: list[ir.Node] = []
    value: ir.Value | None = sides[0]
    while (node := producer(value, "Reshape", "Transpose")) is not None and len(moves) < MAX_STEPS:
        if value is None or only_user(value) is None:
            return None
        moves.append(node)
        value = node.inputs[0]
    parts = constant_side(producer(value, "Add"))
    product = producer(parts[0], "MatMul") if parts else None
    if not moves or value is None or product is None or parts is None:
        return None
    weight, bias = const(product.inputs[1]), const(parts[1])
    if weight is None or bias is None or weight.ndim != 2:
        return None
    if only_user(value) is None or only_user(parts[0]) is None:
        return "the value is read without the scale too"

    def make(w: Writer) -> ir.Value:
        kernel = w.weight(weight * weight.dtype.type(factor))
        shift = w.weight(bias * bias.dtype.type(factor), "bias")
        scaled = w.op("MatMul", product.inputs[0], kernel, like=product.outputs[0])
        scaled = w.op("Add", scaled, shift, like=value)
        for node in reversed(moves):
            attributes = {name: a.value for name, a in node.attributes.items()}
            like = node.outputs[0]
            scaled = w.op(node.op_type, scaled, *node.inputs[1:], like=like, **attributes)
        return scaled

    return make
