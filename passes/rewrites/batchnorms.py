"""BatchNormalization at inference, an affine map of each channel.

y = s x + t with s = scale / sqrt(var + epsilon) and t = shift - mean s.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.convolutions import conv_attrs, conv_weights
from ..graph.queries import (
    attr,
    const,
    dims,
    is_inference_norm,
    is_zero,
    only_user,
    producer,
    same_shape,
)
from .rule import Found, Writer, rewrite_rule
from .shortcuts import pads_of


def affine(node: ir.Node) -> tuple[Array, Array] | None:
    """Return (s, t) of a BatchNormalization with constant statistics; None where it trains."""
    parts = [const(v) for v in node.inputs[1:5]]
    if len(parts) < 4 or any(p is None for p in parts) or not is_inference_norm(node):
        return None
    scale, shift, mean, variance = (p.astype(np.float64) for p in parts if p is not None)
    slope = scale / np.sqrt(variance + attr(node, "epsilon", 1e-5))
    return slope, shift - mean * slope


@rewrite_rule("batchnorm-open", at="BatchNormalization")
def batchnorm_open(norm: ir.Node) -> Found:
    """Write BatchNormalization as Mul and Add."""
    found, known = affine(norm), dims(norm.inputs[0])
    if found is None or known is None:
        return None
    shape = (-1, *(1,) * (len(known) - 2))

    def make(w: Writer) -> ir.Value:
        slope, shift = (w.weight(v.astype(np.float32).reshape(shape)) for v in found)
        scaled = w.op("Mul", norm.inputs[0], slope, like=norm.outputs[0])
        return w.op("Add", scaled, shift, like=norm.outputs[0])

    return make


@rewrite_rule("batchnorm-into-next-conv", at="Conv")
def batchnorm_into_next_conv(conv: ir.Node) -> Found:
    """Take BatchNormalization before a convolution that does not pad into its weight."""
    norm = producer(conv.inputs[0], "BatchNormalization")
    facts = conv_weights(conv) if norm is not None else None
    found = affine(norm) if norm is not None else None
    if norm is None or facts is None or found is None or len(dims(norm.inputs[0]) or ()) != 4:
        return None
    kinds, (weight, bias), (slope, shift) = conv_attrs(conv), facts, found
    if kinds["group"] != 1:
        return "it is grouped"
    if kinds["pads"] != (0, 0, 0, 0) and not is_zero(shift):
        return "it pads with zeros, which the shift does not make"
    folded = weight * slope.reshape(1, -1, 1, 1)
    moved = (weight * shift.reshape(1, -1, 1, 1)).sum(axis=(1, 2, 3))
    total = moved if bias is None else moved + bias
    if kinds["pads"] is None:
        return "its padding is decided by auto_pad"

    layer = folded.astype(np.float32), total.astype(np.float32)
    return lambda w: w.op("Conv", norm.inputs[0], *w.weights(*layer), like=conv.outputs[0], **kinds)


@rewrite_rule("batchnorm-through-concat", at="BatchNormalization")
def batchnorm_through_concat(norm: ir.Node) -> Found:
    """Write BatchNormalization of a Concat of channels as one for each part."""
    concat = producer(norm.inputs[0], "Concat")
    if concat is None or attr(concat, "axis") not in {1, -3} or affine(norm) is None:
        return None
    parts = [v for v in concat.inputs if v is not None]
    channels = [(dims(v) or (None, None))[1] for v in parts]
    if any(c is None for c in channels) or len(dims(norm.inputs[0]) or ()) != 4:
        return "the channels of its parts are not known"
    if only_user(concat.outputs[0]) is None:
        return "the Concat is read elsewhere too"
    return lambda w: _normed(w, norm, parts, [c or 0 for c in channels])


def _normed(w: Writer, norm: ir.Node, parts: list[ir.Value], channels: list[int]) -> ir.Value:
    made, epsilon, ends = [], attr(norm, "epsilon", 1e-5), np.cumsum(channels)[:-1]
    arrays = [np.split(a, ends) for v in norm.inputs[1:5] if (a := const(v)) is not None]
    for part, *mine in zip(parts, *arrays, strict=True):
        numbers = [w.weight(array, "norm") for array in mine]
        made.append(w.op("BatchNormalization", part, *numbers, like=part, epsilon=epsilon))
    return w.op("Concat", *made, like=norm.outputs[0], axis=1)


@rewrite_rule("batchnorm-through-pad", at="BatchNormalization")
def batchnorm_through_pad(norm: ir.Node) -> Found:
    """Move BatchNormalization without shift before the Pad with zeros that it follows."""
    pad = producer(norm.inputs[0], "Pad")
    found = affine(norm) if pad is not None else None
    if pad is None or found is None:
        return None
    amounts = pads_of(pad)
    if isinstance(amounts, str):
        return amounts
    if amounts[0][1] or amounts[1][1]:
        return "it pads channels"
    if np.abs(found[1]).max() > 0:
        return "its shift changes the zeros of the border"
    if only_user(pad.outputs[0]) is None:
        return "the padded value is read elsewhere too"
    epsilon = attr(norm, "epsilon", 1e-5)

    def make(w: Writer) -> ir.Value:
        made = w.op(
            "BatchNormalization", pad.inputs[0], *norm.inputs[1:5], like=pad.inputs[0],
            epsilon=epsilon,
        )  # fmt: skip
        return w.op("Pad", made, *pad.inputs[1:], like=norm.outputs[0], mode="constant")

    return make


@rewrite_rule("batchnorm-through-add", at="BatchNormalization")
def batchnorm_through_add(norm: ir.Node) -> Found:
    """Write BatchNormalization of a sum of convolutions as one for each term."""
    add, found = producer(norm.inputs[0], "Add"), affine(norm)
    if add is None or found is None:
        return None
    terms = [v for v in add.inputs if v is not None]
    convs = [producer(v, "Conv") for v in terms]
    if any(c is None or conv_weights(c) is None for c in convs):
        return "a term is not a convolution that could take it"
    if any(only_user(v) is None for v in (add.outputs[0], *terms)):
        return "the sum or a term is read elsewhere too"
    if not all(same_shape(v, add.outputs[0]) for v in terms):
        return "its terms are not known to have one shape"
    zero = np.zeros_like(const(norm.inputs[2]))
    epsilon = attr(norm, "epsilon", 1e-5)

    def make(w: Writer) -> ir.Value:
        first, second = terms
        # The second term is scaled alone: the shift and the mean are in the first.
        still = [norm.inputs[1], w.weight(zero, "shift"), w.weight(zero, "mean"), norm.inputs[4]]
        parts = [
            w.op("BatchNormalization", value, *rest, like=value, epsilon=epsilon)
            for value, rest in ((first, norm.inputs[1:5]), (second, still))
        ]
        return w.op("Add", *parts, like=norm.outputs[0])

    return make
