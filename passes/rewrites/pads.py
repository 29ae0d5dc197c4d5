"""Pads with zeros taken into the layer behind them, and channels filled up to a block.

onnxruntime's blocked convolutions work on 8 or 16 channels at a time; a convolution of 10 channels
falls back to another kernel. Channels of zeros between two convolutions change no sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ..graph.convolutions import conv_attrs, conv_weights, written_attrs
from ..graph.queries import attr, only_user, producer, rank
from .clips import clip_bounds
from .rule import Found, Writer, rewrite_rule
from .shortcuts import pads_of

#: Channels that the float and int8 kernels of all targets divide by.
BLOCK = 16


def _spatial(pad: ir.Node) -> tuple[int, ...] | str:
    """Return what a Pad adds around an image, as `pads` of a Conv; a reason if it does more."""
    amounts = pads_of(pad)
    if isinstance(amounts, str):
        return amounts
    before, after = amounts
    if any((*before[:2], *after[:2])):
        return "it pads the batch or channels"
    if min((*before, *after)) < 0:
        return "it cuts the image"
    return (*before[2:], *after[2:])


@rewrite_rule("pad-into-conv", at="Conv", back="pad-out-of-conv")
def pad_into_conv(conv: ir.Node) -> Found:
    """Take a Pad with zeros before a convolution into its `pads`."""
    pad = producer(conv.inputs[0], "Pad")
    if pad is None:
        return None
    around, kinds = _spatial(pad), conv_attrs(conv)
    if isinstance(around, str):
        return around
    if kinds["pads"] is None:
        return "its padding is decided by auto_pad"
    pads = [a + b for a, b in zip(kinds["pads"], around, strict=True)]
    return lambda w: w.op(
        "Conv", pad.inputs[0], *conv.inputs[1:], like=conv.outputs[0], **(kinds | {"pads": pads})
    )


@rewrite_rule("pad-out-of-conv", at="Conv", back="pad-into-conv", min_opset=11)
def pad_out_of_conv(conv: ir.Node) -> Found:
    """Write uneven padding of a convolution as a Pad before it, so that kernels for none fit."""
    if rank(conv.inputs[0]) != 4:
        return None
    kinds = conv_attrs(conv)
    pads = kinds["pads"]
    if pads is None or not any(pads) or pads[:2] == pads[2:]:
        return None
    amounts = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)

    def make(w: Writer) -> ir.Value:
        padded = w.op("Pad", conv.inputs[0], w.weight(amounts, "pads"))
        plain = kinds | {"pads": (0, 0, 0, 0)}
        return w.op("Conv", padded, *conv.inputs[1:], like=conv.outputs[0], **plain)

    return make


@rewrite_rule("pad-into-pool", at="AveragePool MaxPool")
def pad_into_pool(pool: ir.Node) -> Found:
    """Take a Pad with zeros before a pooling into its `pads`."""
    pad = producer(pool.inputs[0], "Pad")
    if pad is None:
        return None
    around = _spatial(pad)
    if isinstance(around, str):
        return around
    if any(attr(pool, "pads", ())) or attr(pool, "auto_pad", "NOTSET") != "NOTSET":
        return "it pads by itself too"
    kernel = attr(pool, "kernel_shape")
    if attr(pool, "ceil_mode", 0) or any(a >= k for a, k in zip(around, kernel * 2, strict=True)):
        return "a window may lie in the border as a whole"
    extra: dict[str, Any] = {"count_include_pad": 1}
    if pool.op_type == "MaxPool":
        if producer(pad.inputs[0], "Relu") is None:
            return "its input may be below the zeros of the border"
        extra = {}
    kept = {n: a.value for n, a in pool.attributes.items() if n not in {"pads", *extra}}
    return lambda w: w.op(
        pool.op_type, pad.inputs[0], like=pool.outputs[0], pads=around, **kept, **extra
    )


@rewrite_rule("channels-to-block", at="Conv")
def channels_to_block(last: ir.Node) -> Found:
    """Fill channels between two convolutions with zeros up to the block of the kernels."""
    chain = _chain(last)
    if isinstance(chain, str | None):
        return chain
    first, between = chain
    facts, after = conv_weights(first), conv_weights(last)
    if facts is None or after is None:
        return "its weights are computed"
    channels = facts[0].shape[0]
    extra = -channels % BLOCK
    if not extra:
        return None
    if extra > channels:
        return f"{channels} channels would more than double"

    def make(w: Writer) -> ir.Value:
        value = _widened(w, first, first.inputs[0], extra)
        for node in between:
            if node.op_type == "Conv":
                value = _widened(w, node, value, extra)
            else:
                value = w.op(node.op_type, value, *node.inputs[1:])
        weight = np.pad(after[0], ((0, 0), (0, extra), (0, 0), (0, 0)))
        bias = last.inputs[2:3]
        return w.op(
            "Conv", value, w.weight(weight), *bias, like=last.outputs[0], **written_attrs(last)
        )

    return make


def _chain(last: ir.Node) -> tuple[ir.Node, list[ir.Node]] | str | None:
    """Return (first convolution, nodes between) where channels of zeros stay so up to `last`."""
    if rank(last.inputs[0]) != 4 or conv_attrs(last)["group"] != 1:
        return None
    between: list[ir.Node] = []
    value = last.inputs[0]
    while True:
        node = producer(value, "Conv", "Relu", "Clip")
        if node is None or value is None or only_user(value) is None:
            return None
        if node.op_type == "Clip":
            low, high = clip_bounds(node) or (1.0, 0.0)
            if (low or 0.0) > 0 or (high is not None and high < 0):
                return "its Clip leaves out zero, or its bounds are computed"
        if node.op_type == "Conv":
            weight, group = conv_weights(node), conv_attrs(node)["group"]
            if weight is None:
                return None
            if group == 1:
                return node, between[::-1]
            if weight[0].shape[:2] != (group, 1):
                return "a grouped convolution stands between"
        between.append(node)
        value = node.inputs[0]


def _widened(w: Writer, conv: ir.Node, value: ir.Value | None, extra: int) -> ir.Value:
    """Write a convolution with further outputs of zeros, a depthwise one with further groups."""
    facts = conv_weights(conv)
    assert facts is not None
    weight = np.pad(facts[0], ((0, extra), (0, 0), (0, 0), (0, 0)))
    bias = None if facts[1] is None else np.pad(facts[1], (0, extra))
    kinds = written_attrs(conv)
    if kinds["group"] > 1:
        kinds["group"] += extra
    return w.op("Conv", value, *w.weights(weight, bias), **kinds)
