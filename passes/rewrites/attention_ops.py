"""Attention as one operator, and written out again.

The operator Attention came with opset 23; MultiHeadAttention and Attention of onnxruntime work on
any opset, and only there. None of them keeps all scores in memory, and each has its own
kernels for the products: whether that wins depends on lengths, heads and threads.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.queries import (
    attr,
    const,
    constant_side,
    dims,
    input_at,
    is_float,
    only_user,
    producer,
    rank,
    same_dim,
)
from .attention_core import HEADS_SECOND, AttentionCore, find_attention, rows_of_heads, rows_of_keys
from .rule import CONTRIB, Found, Writer, rewrite_rule


@rewrite_rule("attention-closed", at="MatMul", back="attention-open", min_opset=23)
def attention_closed(last: ir.Node) -> Found:
    """Write attention made of MatMul and Softmax as the operator Attention."""
    core = find_attention(last)
    if isinstance(core, str | None):
        return core

    def make(w: Writer) -> ir.Value:
        inputs = (core.queries, core.keys.value(w), core.values, core.mask)
        return w.op("Attention", *inputs[: 3 + bool(core.mask)], like=last.outputs[0],
                    scale=core.scale)  # fmt: skip

    return make


@rewrite_rule("attention-open", at="Attention", back="attention-closed", min_opset=23)
def attention_open(node: ir.Node) -> Found:
    """Write the operator Attention on four axes with MatMul and Softmax."""
    if node.domain:
        return None
    queries, keys, values = node.inputs[:3]
    reason = _not_plain(node)
    if reason:
        return reason
    mask = input_at(node, 3)
    depth = (dims(queries) or (None,) * 4)[3]
    scale = attr(node, "scale") or (depth and 1 / math.sqrt(depth))
    if not scale:
        return "its depth is unknown, and so is its scale"

    def make(w: Writer) -> ir.Value:
        turned = w.op("Transpose", keys, perm=[0, 1, 3, 2])
        probabilities = _probabilities(w, w.op("MatMul", queries, turned), scale, mask)
        return w.op("MatMul", probabilities, values, like=node.outputs[0])

    return make


def _probabilities(w: Writer, products: ir.Value, scale: float, mask: ir.Value | None) -> ir.Value:
    """Write the Softmax of products of queries and keys, scaled and masked."""
    scores = w.op("Mul", products, w.weight(np.array(scale, np.float32), "scale"))
    scores = w.op("Add", scores, mask) if mask is not None else scores
    return w.op("Softmax", scores, axis=-1)


def _not_plain(node: ir.Node) -> str | None:
    """Return the reason why an Attention is more than softmax(scale Q K^T + mask) V, if it is."""
    queries, keys, values = node.inputs[:3]
    if any(v is not None and rank(v) != 4 for v in (queries, keys, values)):
        return "it has not four axes"
    heads = [(dims(v) or (None, None))[1] for v in (queries, keys)]
    if None in heads or heads[0] != heads[1]:
        return "its queries share keys, or their number is unknown"
    if attr(node, "is_causal", 0) or attr(node, "softcap", 0.0):
        return "it is causal or caps its scores"
    if sum(v is not None for v in node.inputs) > 4 or len(node.outputs) > 1:
        return "it has a cache or further outputs"
    mask = input_at(node, 3)
    if mask is not None and not is_float(mask):
        return "its mask is not of numbers"
    return None


@rewrite_rule("attention-multihead", at="Reshape", back="multihead-open", runtime_only=True)
def attention_multihead(last: ir.Node) -> Found:
    """Write attention between its linear layers as MultiHeadAttention of onnxruntime."""
    found = _between_layers(last)
    if isinstance(found, str | None):
        return found
    core, rows, heads = found
    if core.mask is not None and not _bias_fits(core.mask, core):
        return "its mask is not known to be as long and wide as the scores"

    def make(w: Writer) -> ir.Value:
        inputs = [*rows, None, None, core.mask] if core.mask is not None else rows
        return w.op(
            "MultiHeadAttention", *inputs, like=last.outputs[0], domain=CONTRIB,
            num_heads=heads, scale=core.scale,
        )  # fmt: skip

    return make


def _between_layers(last: ir.Node) -> tuple[AttentionCore, list[ir.Value], int] | str | None:
    """Return (attention, rows of queries, keys and values, heads) that ends in merging heads."""
    turn = producer(last.inputs[0], "Transpose")
    product = producer(turn.inputs[0], "MatMul") if turn is not None else None
    if turn is None or product is None or attr(turn, "perm") != HEADS_SECOND:
        return None
    core = find_attention(product)
    if isinstance(core, str | None):
        return core
    if rank(last.outputs[0]) != 3:
        return None
    rows = [rows_of_heads(core.queries), rows_of_keys(core.keys), rows_of_heads(core.values)]
    heads = (dims(core.queries) or (None, None))[1]
    known = [r for r in rows if r is not None]
    if len(known) < 3 or heads is None:
        return "its heads are not split from rows of known width"
    if (dims(last.outputs[0]) or (None,))[-1] != (dims(known[2]) or (None,))[-1]:
        return "its heads are not merged as they were split"
    return core, known, heads


def _bias_fits(bias: ir.Value, core: AttentionCore) -> bool:
    """Return whether a mask has the rows and columns of the scores, and one or all heads."""
    sizes, wanted = bias.shape, core.scores.shape
    if sizes is None or wanted is None or len(sizes) != 4 or not is_float(bias):
        return False
    exact = all(same_dim(sizes[i], wanted[i]) for i in (2, 3))
    return exact and all(sizes[i] == 1 or same_dim(sizes[i], wanted[i]) for i in (0, 1))


@rewrite_rule("multihead-open", at="MultiHeadAttention", back="attention-multihead")
def multihead_open(node: ir.Node) -> Found:
    """Write MultiHeadAttention of onnxruntime with MatMul and Softmax."""
    heads, rows = attr(node, "num_heads"), list(node.inputs[:3])
    widths = [(dims(v) or (None,))[-1] if rank(v) == 3 else None for v in rows]
    if None in widths or len(node.outputs) > 1 or attr(node, "unidirectional", 0):
        return "its inputs are packed, it is causal, or it has further outputs"
    if any(v is not None for i, v in enumerate(node.inputs[3:], 3) if i != 5):
        return "it has a bias, a padding mask or a cache"
    mask = input_at(node, 5)
    depths = [(width or 0) // heads for width in widths]
    scale = attr(node, "scale") or 1 / math.sqrt(depths[0])

    def make(w: Writer) -> ir.Value:
        perms = [HEADS_SECOND, (0, 2, 3, 1), HEADS_SECOND]
        parts = []
        for value, depth, perm in zip(rows, depths, perms, strict=True):
            shape = w.weight(np.array([0, 0, heads, depth], np.int64), "heads")
            parts.append(w.op("Transpose", w.op("Reshape", value, shape), perm=perm))
        probabilities = _probabilities(w, w.op("MatMul", parts[0], parts[1]), scale, mask)
        made = w.op("MatMul", probabilities, parts[2])
        merged = w.weight(np.array([0, 0, heads * depths[2]], np.int64), "merged")
        turned = w.op("Transpose", made, perm=HEADS_SECOND)
        return w.op("Reshape", turned, merged, like=node.outputs[0])

    return make


@rewrite_rule("attention-packed", at="Reshape", back="multihead-open", runtime_only=True)
def attention_packed(last: ir.Node) -> Found:
    """Write attention with the linear layers before it as Attention of onnxruntime."""
    found = _between_layers(last)
    if isinstance(found, str | None):
        return found
    core, rows, heads = found
    layers = [_linear(row) for row in rows]
    known = [layer for layer in layers if layer is not None]
    if len(known) < 3 or len({id(source) for source, _, _ in known}) > 1:
        return "its queries, keys and values are not linear layers of one input"
    if core.mask is not None and not _bias_fits(core.mask, core):
        return "its mask is not known to be as long and wide as the scores"
    sizes = [int(bias.shape[0]) for _, _, bias in known]

    def make(w: Writer) -> ir.Value:
        weight = w.weight(np.concatenate([k[1] for k in known], axis=1))
        bias = w.weight(np.concatenate([k[2] for k in known]), "bias")
        rest = [None, None, core.mask] if core.mask is not None else []
        return w.op(
            "Attention", known[0][0], weight, bias, *rest, like=last.outputs[0], domain=CONTRIB,
            num_heads=heads, scale=core.scale, qkv_hidden_sizes=sizes,
        )  # fmt: skip

    return make


def _linear(value: ir.Value) -> tuple[ir.Value, Array, Array] | None:
    """Return (input, weight, bias) of a MatMul and Add that have one user."""
    sides = constant_side(producer(value, "Add"))
    product = producer(sides[0], "MatMul") if sides else None
    if sides is None or product is None or only_user(sides[0]) is None:
        return None
    weight, bias, source = const(product.inputs[1]), const(sides[1]), product.inputs[0]
    if weight is None or bias is None or source is None or weight.ndim != 2:
        return None
    return (source, weight, bias) if bias.shape == weight.shape[1:] else None
