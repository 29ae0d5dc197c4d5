"""Limits: Clip, Min with Max, Relu, and activations that are made of them.

HardSigmoid is max(0, min(1, a x + b)); HardSwish is x * HardSigmoid(x) with a = 1/6 and b = 1/2
(Howard et al. 2019), which exporters also write as x * Clip(x + 3, 0, 6) / 6.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph.queries import (
    attr,
    constant_side,
    divided_by,
    input_at,
    is_float,
    only_user,
    operand,
    pair,
    producer,
    scalar,
)
from .rule import Found, Writer, rewrite_rule


def clip_bounds(clip: ir.Node) -> tuple[float | None, float | None] | None:
    """Return the constant bounds of a Clip, None for an open side; None if one is computed."""
    if "min" in clip.attributes or "max" in clip.attributes:  # before opset 11
        return attr(clip, "min"), attr(clip, "max")
    found: list[float | None] = []
    for index in (1, 2):
        value = input_at(clip, index)
        bound = None if value is None else scalar(value)
        if value is not None and bound is None:
            return None
        found.append(bound)
    return found[0], found[1]


def _limits(w: Writer, *values: float) -> list[ir.Value]:
    return [w.weight(np.array(v, np.float32), "limit") for v in values]


@rewrite_rule("clip-as-min-max", at="Clip", back="clip-from-min-max", min_opset=8)
def clip_as_min_max(clip: ir.Node) -> Found:
    """Write Clip as Max and Min."""
    limits = clip_bounds(clip)
    if limits is None or None in limits:
        return None if limits else "its bounds are computed"
    if not is_float(clip.inputs[0]):
        return "it is not float32"
    low, high = limits

    def make(w: Writer) -> ir.Value:
        bottom, top = _limits(w, low or 0.0, high or 0.0)
        return w.op("Min", w.op("Max", clip.inputs[0], bottom, like=clip.outputs[0]), top)

    return make


@rewrite_rule("clip-from-min-max", at="Min Max", back="clip-as-min-max", min_opset=11)
def clip_from_min_max(last: ir.Node) -> Found:
    """Write Max and Min with constants, in either order, as one Clip."""
    if len(last.inputs) != 2:
        return None
    outer = constant_side(last)
    other = "Max" if last.op_type == "Min" else "Min"
    before = producer(outer[0], other) if outer else None
    if outer is None or before is None or len(before.inputs) != 2:
        return None
    inner = constant_side(before)
    first, second = scalar(outer[1]), scalar(inner[1]) if inner else None
    if inner is None or first is None or second is None or not is_float(inner[0]):
        return None
    low, high = (second, first) if last.op_type == "Min" else (first, second)
    if low > high:
        return "its bounds cross"
    return lambda w: w.op("Clip", inner[0], *_limits(w, low, high), like=last.outputs[0])


@rewrite_rule("clip-as-relu", at="Clip", back="relu-as-clip")
def clip_as_relu(clip: ir.Node) -> Found:
    """Write a Clip from zero up as Relu."""
    limits = clip_bounds(clip)
    if limits is None or limits[0] != 0 or (limits[1] is not None and limits[1] < 3e38):
        return None
    return lambda w: w.op("Relu", clip.inputs[0], like=clip.outputs[0])


@rewrite_rule("relu-as-clip", at="Relu", back="clip-as-relu", min_opset=11)
def relu_as_clip(relu: ir.Node) -> Found:
    """Write Relu as a Clip from zero up."""
    if not is_float(relu.inputs[0]):
        return "it is not float32"
    return lambda w: w.op("Clip", relu.inputs[0], *_limits(w, 0.0), like=relu.outputs[0])


@rewrite_rule("relu6-split", at="Clip", min_opset=8)
def relu6_split(clip: ir.Node) -> Found:
    """Write a Clip from zero to a bound as Relu and Min, so that the Relu joins the convolution."""
    limits = clip_bounds(clip)
    if limits is None or limits[0] != 0 or limits[1] is None or not is_float(clip.inputs[0]):
        return None
    top = limits[1]
    return lambda w: w.op(
        "Min", w.op("Relu", clip.inputs[0], like=clip.outputs[0]), *_limits(w, top)
    )


@rewrite_rule("relu-into-clip", at="Clip")
def relu_into_clip(clip: ir.Node) -> Found:
    """Leave out a Relu before a Clip from zero, which does nothing there."""
    relu, limits = producer(clip.inputs[0], "Relu"), clip_bounds(clip)
    if relu is None:
        return None
    if limits is None or limits[0] is None or limits[0] < 0:
        return "its lower bound lets negative values through, or is computed"
    return lambda w: w.op("Clip", relu.inputs[0], *clip.inputs[1:], like=clip.outputs[0])


@rewrite_rule("hardsigmoid-open", at="HardSigmoid", back="hardsigmoid-closed", min_opset=11)
def hardsigmoid_open(node: ir.Node) -> Found:
    """Write HardSigmoid as multiplication, addition and Clip."""
    alpha, beta = attr(node, "alpha", 0.2), attr(node, "beta", 0.5)
    if not is_float(node.inputs[0]):
        return "it is not float32"

    def make(w: Writer) -> ir.Value:
        slope, shift, low, high = _limits(w, alpha, beta, 0.0, 1.0)
        scaled = w.op("Mul", node.inputs[0], slope, like=node.outputs[0])
        moved = w.op("Add", scaled, shift, like=node.outputs[0])
        return w.op("Clip", moved, low, high, like=node.outputs[0])

    return make


@rewrite_rule("hardsigmoid-closed", at="Div Mul", back="hardsigmoid-open")
def hardsigmoid_closed(last: ir.Node) -> Found:
    """Write Clip of x + 3 from 0 to 6, divided by 6, as HardSigmoid."""
    source = _open_hardsigmoid(last)
    if source is None or not is_float(source):
        return None
    return lambda w: w.op("HardSigmoid", source, like=last.outputs[0], alpha=1 / 6, beta=0.5)


@rewrite_rule("hardswish-closed", at="Mul Div", back="hardswish-open", min_opset=14)
def hardswish_closed(last: ir.Node) -> Found:
    """Write the product of x and its HardSigmoid, open or closed, as HardSwish."""
    source = _hardswish_by_sigmoid(last) or _hardswish_by_clip(last)
    if source is None or not is_float(source):
        return None
    return lambda w: w.op("HardSwish", source, like=last.outputs[0])


@rewrite_rule("hardswish-open", at="HardSwish", back="hardswish-closed")
def hardswish_open(node: ir.Node) -> Found:
    """Write HardSwish as x times HardSigmoid of x."""

    def make(w: Writer) -> ir.Value:
        gate = w.op("HardSigmoid", node.inputs[0], like=node.outputs[0], alpha=1 / 6, beta=0.5)
        return w.op("Mul", node.inputs[0], gate, like=node.outputs[0])

    return make


def _hardswish_by_sigmoid(mul: ir.Node) -> ir.Value | None:
    if mul.op_type != "Mul":
        return None
    for x, gate in (pair(mul), pair(mul)[::-1]):
        node = producer(gate, "HardSigmoid")
        if node is not None and node.inputs[0] is x:
            six, half = attr(node, "alpha", 0.2), attr(node, "beta", 0.5)
            return x if abs(six - 1 / 6) < 1e-6 and abs(half - 0.5) < 1e-7 else None
        opened = producer(gate, "Mul", "Div")
        if opened is not None and _open_hardsigmoid(opened) is x:
            return x
    return None


def _hardswish_by_clip(last: ir.Node) -> ir.Value | None:
    """Return the x of (x * Clip(x + 3, 0, 6)) / 6, where the division may be a product."""
    inner = divided_by(last, 6.0)
    mul = producer(inner, "Mul")
    if mul is None or inner is None or only_user(inner) is not last:
        return None
    for x, gate in (pair(mul), pair(mul)[::-1]):
        if _clip_of_three(gate) is x:
            return x
    return None


def _open_hardsigmoid(last: ir.Node) -> ir.Value | None:
    return _clip_of_three(divided_by(last, 6.0))


def _clip_of_three(value: ir.Value | None) -> ir.Value | None:
    """Return the x of Clip(x + 3, 0, 6)."""
    clip = producer(value, "Clip")
    if clip is None or clip_bounds(clip) != (0.0, 6.0):
        return None
    return operand(clip.inputs[0], "Add", 3.0)
