"""Masks of attention as a choice or as a sum.

x + c = c in float32 for every |x| < 1e22 where c <= -1e30, and for every finite x where c is minus
infinity: so the choice of c for masked scores equals adding 0 or c.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .facts import is_float, producer, same_shape, scalar
from .form import Found, Writer, form

LARGE = -1e30


@form("mask-as-add", at="Where", back="mask-as-where", min_opset=9)
def mask_as_add(where: ir.Node) -> Found:
    """Where that puts a very low score at masked places as an Add of zero or that score."""
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


@form("mask-as-where", at="Add", back="mask-as-add", min_opset=9)
def mask_as_where(add: ir.Node) -> Found:
    """Add of zero or a very low score as a Where of the scores themselves."""
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
