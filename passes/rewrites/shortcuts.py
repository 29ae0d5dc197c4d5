"""Shortcuts of residual networks, and strided selections, as one convolution or pooling.

The parameter-free shortcut of ResNets for CIFAR (He et al. 2016, option A) is Slice with a stride
and zero channels from Pad. As a convolution it is y[o, i, j] = sum_c w[o, c] x[c, s i, s j] with
w = 1 where o - first = c: a sum of one term, hence exact, in int8 too. onnxruntime fuses Add and
Relu after it and keeps its blocked layout, which Slice and Pad break.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats32

from ..graph.queries import (
    attr,
    const,
    dims,
    input_at,
    ints,
    is_float,
    only_user,
    producer,
    rank,
    scalar,
)
from .rule import Found, Writer, rewrite_rule

FAR = 2**31 - 1


@dataclass(frozen=True)
class SliceChain:
    """Chain of Slices: by axis its first index, end and step."""

    source: ir.Value
    axes: dict[int, tuple[int, int, int]]


def slice_of(node: ir.Node) -> tuple[dict[int, tuple[int, int, int]], str]:
    """Return (start, end, step) by axis of a constant Slice, or the reason why it is not."""
    known = rank(node.inputs[0])
    if known is None:
        return {}, "the rank is unknown"
    parts = [ints(input_at(node, i)) for i in range(1, 5)]
    starts, ends, axes, steps = parts
    if starts is None or ends is None:
        return {}, "its bounds are computed"
    if any(input_at(node, i) is not None and parts[i - 1] is None for i in (3, 4)):
        return {}, "its axes or steps are computed"
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    cuts = zip(starts, ends, steps, strict=True)
    return {axis % known: cut for axis, cut in zip(axes, cuts, strict=True)}, ""


def covers_axis(cut: tuple[int, int, int], size: int | None) -> bool:
    """Return whether a slice takes all of its axis, its step aside."""
    start, end, _ = cut
    return start == 0 and (end >= FAR or (size is not None and end >= size))


def _strided(last: ir.Node) -> SliceChain | str | None:
    """Return the chain of Slices that ends in `last` and selects by steps."""
    axes: dict[int, tuple[int, int, int]] = {}
    node: ir.Node | None = last
    source = last.inputs[0]
    while node is not None:
        cut, reason = slice_of(node)
        if reason:
            return reason
        sizes = dims(node.inputs[0]) or ()
        for axis, part in cut.items():
            if part[2] == 1 and covers_axis(part, sizes[axis]):
                continue
            if axis in axes or not covers_axis(part, sizes[axis]) or part[2] < 1:
                return "it cuts more than a step"
            axes[axis] = part
        source = node.inputs[0]
        alone = source is not None and only_user(source) is not None
        node = producer(source, "Slice") if alone else None
    if not axes or source is None:
        return None
    return SliceChain(source, axes)


def _strides(cut: SliceChain) -> tuple[int, int] | None:
    if rank(cut.source) != 4 or not set(cut.axes) <= {2, 3}:
        return None
    steps = [cut.axes.get(a, (0, FAR, 1))[2] for a in (2, 3)]
    return steps[0], steps[1]


@rewrite_rule("shortcut-as-conv", at="Pad", min_opset=11)
def shortcut_as_conv(pad: ir.Node) -> Found:
    """Write strided Slice and zero channels from Pad as one 1x1 Conv with weights 0 and 1."""
    last = producer(pad.inputs[0], "Slice")
    cut = _strided(last) if last is not None else None
    if isinstance(cut, str | None):
        return cut
    strides, amounts = _strides(cut), channel_pads(pad)
    channels = (dims(cut.source) or (None, None))[1]
    if strides is None or isinstance(amounts, str):
        return amounts if isinstance(amounts, str) else "its steps are not on two spatial axes"
    if channels is None or not is_float(cut.source):
        return "its number of channels is unknown, or it is not float32"
    before, after = amounts
    weight = np.zeros((before + channels + after, channels, 1, 1), np.float32)
    weight[np.arange(channels) + before, np.arange(channels)] = 1
    return lambda w: _selection(w, cut.source, weight, strides, pad.outputs[0])


def _selection(
    w: Writer, source: ir.Value, weight: Floats32, strides: tuple[int, int], like: ir.Value
) -> ir.Value:
    kernel = w.weight(weight, "select")
    return w.op("Conv", source, kernel, like=like, kernel_shape=[1, 1], strides=strides)


def channel_pads(pad: ir.Node) -> tuple[int, int] | str:
    """Return the zero channels that a Pad adds before and after, or the reason if it does more."""
    amounts = pads_of(pad)
    if isinstance(amounts, str):
        return amounts
    before, after = amounts
    if any(before[i] or after[i] for i in range(len(before)) if i != 1):
        return "it pads other axes than the channels"
    if before[1] < 0 or after[1] < 0:
        return "it cuts channels"
    return before[1], after[1]


def pads_of(pad: ir.Node) -> tuple[list[int], list[int]] | str:
    """Return what a Pad with zeros adds before and after each of four axes, or why it does not."""
    if attr(pad, "mode", "constant") != "constant":
        return "it does not pad with a constant"
    if rank(pad.inputs[0]) != 4:
        return "it does not have four axes"
    fill = input_at(pad, 2)
    if fill is not None and scalar(fill) != 0:
        return "it pads with another value than zero"
    given = ints(input_at(pad, 1))
    if given is None:
        return "its amounts are computed"
    chosen = input_at(pad, 3)
    axes = list(range(4)) if chosen is None else ints(chosen)
    if axes is None:
        return "its axes are computed"
    half = len(given) // 2
    before, after = [0] * 4, [0] * 4
    for index, axis in enumerate(axes):
        before[axis % 4], after[axis % 4] = given[index], given[half + index]
    return before, after


@rewrite_rule("stride-as-pool", at="Slice", min_opset=10)
def stride_as_pool(node: ir.Node) -> Found:
    """Write a strided Slice on the spatial axes as a MaxPool with a 1x1 kernel."""
    cut = _last_cut(node)
    if isinstance(cut, str | None):
        return cut
    source, strides = cut
    if not is_float(source):
        return "it is not float32"
    return lambda w: w.op(
        "MaxPool", source, like=node.outputs[0], kernel_shape=[1, 1], strides=strides
    )


@rewrite_rule("stride-as-conv", at="Slice", min_opset=10)
def stride_as_conv(node: ir.Node) -> Found:
    """Write a strided Slice on the spatial axes as a 1x1 Conv whose weight is the identity."""
    cut = _last_cut(node)
    if isinstance(cut, str | None):
        return cut
    source, strides = cut
    channels = (dims(source) or (None, None))[1]
    if channels is None or not is_float(source):
        return "its channels are unknown, or it is not float32"
    weight = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    return lambda w: _selection(w, source, weight, strides, node.outputs[0])


def _last_cut(node: ir.Node) -> tuple[ir.Value, tuple[int, int]] | str | None:
    """Return (source, spatial strides) of the chain that ends here, if no Slice follows."""
    steps = ints(input_at(node, 4))
    if not steps or max(steps) < 2:
        return None  # an ordinary Slice
    goes_on = any(use.node.op_type == "Slice" for use in node.outputs[0].uses())
    cut = None if goes_on else _strided(node)
    if isinstance(cut, str | None):
        return cut
    strides = _strides(cut)
    return (cut.source, strides) if strides else "its steps are not on two spatial axes"


@rewrite_rule("pool-as-stride", at="MaxPool", back="stride-as-pool", min_opset=10)
def pool_as_stride(pool: ir.Node) -> Found:
    """Write a MaxPool with a 1x1 kernel as a strided Slice."""
    if attr(pool, "kernel_shape") != (1, 1) or len(pool.outputs) > 1:
        return None
    strides = attr(pool, "strides", (1, 1))
    if any(attr(pool, "pads", ())) or attr(pool, "auto_pad", "NOTSET") != "NOTSET":
        return "it pads"
    if const(pool.inputs[0]) is not None:
        return "its input is constant"
    if attr(pool, "ceil_mode", 0) and strides != (1, 1):
        return None

    def make(w: Writer) -> ir.Value:
        arguments = {"starts": (0, 0), "ends": (FAR, FAR), "axes": (2, 3), "steps": strides}
        bounds = [w.weight(np.array(v, np.int64), n) for n, v in arguments.items()]
        return w.op("Slice", pool.inputs[0], *bounds, like=pool.outputs[0])

    return make
