"""Softmax over another axis than the last, and written with Exp."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph.queries import attr, axes_of, is_float, producer, rank
from .rule import Found, Writer, rewrite_rule


def _axis(softmax: ir.Node) -> int | None:
    """Return the axis counted from the front; None for an unknown rank."""
    known = rank(softmax.inputs[0])
    return None if known is None else int(attr(softmax, "axis", -1)) % known


@rewrite_rule("softmax-on-last-axis", at="Softmax", min_opset=13)
def softmax_on_last_axis(softmax: ir.Node) -> Found:
    """Write Softmax over another axis as Transpose, Softmax over the last, Transpose."""
    axis, known = _axis(softmax), rank(softmax.inputs[0])
    if axis is None or known is None or axis == known - 1:
        return None
    perm = list(range(known))
    perm[axis], perm[-1] = perm[-1], perm[axis]

    def make(w: Writer) -> ir.Value:
        turned = w.op("Softmax", w.op("Transpose", softmax.inputs[0], perm=perm), axis=-1)
        return w.op("Transpose", turned, like=softmax.outputs[0], perm=perm)

    return make


@rewrite_rule("softmax-open", at="Softmax", back="softmax-closed", min_opset=18)
def softmax_open(softmax: ir.Node) -> Found:
    """Write Softmax as Exp of the distance from the maximum, divided by its sum."""
    axis, x = _axis(softmax), softmax.inputs[0]
    if axis is None or not is_float(x):
        return None

    def make(w: Writer) -> ir.Value:
        axes = w.weight(np.array([axis], np.int64), "axes")
        largest = w.op("ReduceMax", x, axes, keepdims=1)
        raised = w.op("Exp", w.op("Sub", x, largest, like=x), like=x)
        total = w.op("ReduceSum", raised, axes, keepdims=1)
        return w.op("Div", raised, total, like=softmax.outputs[0])

    return make


@rewrite_rule("softmax-closed", at="Div", back="softmax-open", min_opset=13)
def softmax_closed(div: ir.Node) -> Found:
    """Write Exp of the distance from the maximum, divided by its sum, as Softmax."""
    exp, total = producer(div.inputs[0], "Exp"), producer(div.inputs[1], "ReduceSum")
    sub = producer(exp.inputs[0], "Sub") if exp is not None else None
    if exp is None or total is None or sub is None or total.inputs[0] is not exp.outputs[0]:
        return None
    largest, x = producer(sub.inputs[1], "ReduceMax"), sub.inputs[0]
    if largest is None or largest.inputs[0] is not x or not is_float(x):
        return None
    axes = [_reduced(n) for n in (largest, total)]
    if axes[0] is None or axes[0] != axes[1] or len(axes[0]) != 1:
        return "its maximum and its sum are not over the same one axis"
    known, [axis] = rank(x), axes[0]
    if known is None:
        return "its rank is unknown"
    return lambda w: w.op("Softmax", x, like=div.outputs[0], axis=axis % known)


def _reduced(node: ir.Node) -> list[int] | None:
    """Return the axes of a reduction that keeps them; None if it does not, or computes them."""
    if not attr(node, "keepdims", 1):
        return None
    given, count = axes_of(node), rank(node.inputs[0])
    return None if given is None or count is None else [a % count for a in given]
