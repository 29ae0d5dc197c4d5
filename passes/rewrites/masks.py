"""Masks of attention as a choice or as a sum.

x + c = c in float32 for every |x| < 1e22 where c <= -1e30, and for every finite x where c is minus
infinity: so the choice of c for masked scores equals adding 0 or c.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.queries import const, dims, is_float, producer, rank, same_shape, scalar
from .rule import Found, Make, Writer, rewrite_rule

LARGE = -1e30
#: Longest chain of operators that makes a mask.
MAX_STEPS = 6


@rewrite_rule("mask-as-add", at="Where", back="mask-as-where", min_opset=9)
def mask_as_add(where: ir.Node) -> Found:
    """Write a Where that puts a very low score at masked places as an Add of zero or that score."""
    mask, scores, low = where.inputs
    if mask is None or scores is None or scalar(scores) is not None or not is_float(scores):
        return None
    value = scalar(low)
    if value is None or value > LARGE:
        return None
    if not same_shape(scores, where.outputs[0]):
        return "its mask is larger than its scores"

    def make(w: Writer) -> ir.Value:
        choices = [w.weight(np.array(v, np.float32), "score") for v in (0.0, value)]
        bias = w.op("Where", mask, *choices)
        bias.type, bias.shape = scores.type, mask.shape and mask.shape.copy()
        return w.op("Add", scores, bias, like=where.outputs[0])

    return make


@rewrite_rule("mask-as-where", at="Add", back="mask-as-add", min_opset=9)
def mask_as_where(add: ir.Node) -> Found:
    """Write an Add of zero or a very low score as a Where of the scores themselves."""
    for scores, bias in (add.inputs, add.inputs[::-1]):
        where = producer(bias, "Where")
        if where is None or scalar(where.inputs[1]) != 0 or not is_float(scores):
            continue
        value = scalar(where.inputs[2])
        if value is None or value > LARGE:
            continue
        return lambda w: w.op(
            "Where", where.inputs[0], scores, where.inputs[2], like=add.outputs[0]
        )
    return None


@rewrite_rule("mask-constant", at="Add")
def mask_constant(add: ir.Node) -> Found:
    """Store a constant mask that is expanded to the batch as one weight; drop one of zeros."""
    for scores, bias in (add.inputs, add.inputs[::-1]):
        if scores is None or const(scores) is not None or not is_float(scores):
            continue
        mask = _unexpanded(bias, MAX_STEPS)
        if mask is None or const(bias) is not None:
            continue
        if not (_broadcasts(mask.shape, scores) and same_shape(scores, add.outputs[0])):
            return "its scores are not known to be as large as its mask"
        return _with_constant(add, scores, mask)
    return None


def _with_constant(add: ir.Node, scores: ir.Value, mask: Array) -> Make:
    if not mask.any() and not add.outputs[0].is_graph_output():
        return lambda w: scores  # noqa: ARG005
    return lambda w: w.op("Add", scores, w.weight(mask, "mask"), like=add.outputs[0])


def _unexpanded(value: ir.Value | None, steps: int) -> Array | None:
    """Compute a chain of Where, Not and Expand over constants, without its Expand."""
    known = const(value)
    if known is not None or steps == 0:
        return known
    node = producer(value, "Expand", "Where", "Not")
    if node is None:
        return None
    if node.op_type == "Expand":
        inner = _unexpanded(node.inputs[0], steps - 1)
        return inner if inner is not None and inner.ndim == rank(node.outputs[0]) else None
    parts = [p for v in node.inputs if (p := _unexpanded(v, steps - 1)) is not None]
    if len(parts) < len(node.inputs):
        return None
    if node.op_type == "Not":
        return np.logical_not(parts[0])
    return np.asarray(np.where(parts[0], parts[1], parts[2]))


def _broadcasts(shape: tuple[int, ...], scores: ir.Value) -> bool:
    """Return whether adding a constant of that shape leaves the shape of the scores alone."""
    known = dims(scores)
    if known is None or len(known) < len(shape):
        return False
    return all(s in {1, d} for s, d in zip(shape[::-1], known[::-1], strict=False))
