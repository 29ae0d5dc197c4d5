"""Products of one input, such as queries, keys and values, as one wide product and as several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats32

from ..graph.convolutions import conv_attrs, conv_weights, stacked
from ..graph.queries import attr, const, dims, is_float, only_user, producer, rank, users_beside
from .rule import Found, Writer, rewrite_rule
from .selections import pieces, split_sizes


@rewrite_rule("matmuls-merged", at="MatMul", back="matmul-split", min_opset=13)
def matmuls_merged(first: ir.Node) -> Found:
    """Write MatMuls of one input with constant weights as one wide MatMul and a Split."""
    source = first.inputs[0]
    if source is None or not is_float(source):
        return None
    group = [
        n for n in users_beside(first, source) if _weight(n) is not None and n.inputs[0] is source
    ]
    if len(group) < 2 or group[0] is not first:
        return None
    weights = [w for n in group if (w := _weight(n)) is not None]
    if len({w.shape[0] for w in weights}) > 1:
        return "its weights differ in depth"
    sizes = [w.shape[1] for w in weights]

    def make(w: Writer) -> dict[ir.Value, ir.Value]:
        wide = w.op("MatMul", source, w.weight(np.concatenate(weights, axis=1)))
        lengths = w.weight(np.array(sizes, np.int64), "sizes")
        parts = w.ops("Split", (wide, lengths), [n.outputs[0] for n in group], axis=-1)
        return {n.outputs[0]: part for n, part in zip(group, parts, strict=True)}

    return make


def _weight(node: ir.Node) -> Floats32 | None:
    if node.op_type != "MatMul" or node.domain:
        return None
    weight = const(node.inputs[1])
    return weight if weight is not None and weight.ndim == 2 else None


@rewrite_rule("matmul-split", at="Split", back="matmuls-merged")
def matmul_split(split: ir.Node) -> Found:
    """Write a wide MatMul, its bias and a Split as one MatMul and bias for each part."""
    value = split.inputs[0]
    add, bias = producer(value, "Add"), None
    if add is not None:
        biases = [v for v in add.inputs if const(v) is not None and rank(v) == 1]
        bias = const(biases[0]) if biases else None
        value = next((v for v in add.inputs if v not in biases), None) if biases else None
    product = producer(value, "MatMul")
    weight = _weight(product) if product is not None else None
    if product is None or weight is None or value is None:
        return None
    found = split_sizes(split, weight.shape[1])
    if found is None or found[0] != (rank(split.inputs[0]) or 0) - 1:
        return "it does not split the last axis in known sizes"
    if only_user(value) is None or (split.inputs[0] and only_user(split.inputs[0]) is None):
        return "the wide product is read elsewhere too"
    if bias is not None and bias.shape != weight.shape[1:]:
        return "its bias is broadcast"
    return _parts(split, product.inputs[0], weight, bias, found[1])


def _parts(
    split: ir.Node,
    source: ir.Value | None,
    weight: Floats32,
    bias: Floats32 | None,
    sizes: Sequence[int],
) -> Found:
    def make(w: Writer) -> dict[ir.Value, ir.Value]:
        made, kernels = {}, np.split(weight, np.cumsum(sizes)[:-1], axis=1)
        for part, kernel, shift in zip(split.outputs, kernels, pieces(bias, sizes), strict=True):
            made[part] = w.op("MatMul", source, w.weight(kernel), like=part)
            if shift is not None:
                made[part] = w.op("Add", made[part], w.weight(shift, "bias"), like=part)
        return made

    return make


@rewrite_rule("convs-merged", at="Concat")
def convs_merged(concat: ir.Node) -> Found:
    """Write convolutions of one input that are concatenated as one convolution."""
    convs = [producer(v, "Conv") for v in concat.inputs]
    if attr(concat, "axis") not in {1, -3} or len(convs) < 2 or None in convs:
        return None
    nodes = [c for c in convs if c is not None]
    first = nodes[0]
    if len({id(c.inputs[0]) for c in nodes}) > 1 or len({id(c) for c in nodes}) < len(nodes):
        return None
    facts = [f for c in nodes if (f := conv_weights(c)) is not None]
    if len(facts) < len(nodes) or rank(first.inputs[0]) != 4:
        return "its weights are computed"
    kinds = [{**conv_attrs(c), "kernel": f[0].shape[2:]} for c, f in zip(nodes, facts, strict=True)]
    if any(k != kinds[0] for k in kinds) or kinds[0]["group"] != 1 or kinds[0]["pads"] is None:
        return "its convolutions differ in kernel, stride or padding"
    if any(only_user(c.outputs[0]) is None for c in nodes):
        return "a part is read elsewhere too"
    layer = stacked(facts)
    plain = {k: v for k, v in kinds[0].items() if k not in {"kernel", "group"}}
    return lambda w: w.op(
        "Conv", first.inputs[0], *w.weights(*layer), like=concat.outputs[0], **plain
    )


@rewrite_rule("grouped-as-convs", at="Conv", min_opset=13)
def grouped_as_convs(conv: ir.Node) -> Found:
    """Write a grouped convolution as Split, a convolution for each group, Concat."""
    found = _grouped(conv)
    if isinstance(found, str | None):
        return found
    weight, bias, group = found
    if group > 8:
        return f"it has {group} groups: as many convolutions cannot be faster"
    plain = {k: v for k, v in conv_attrs(conv).items() if k != "group"}
    depth = weight.shape[1]

    def make(w: Writer) -> ir.Value:
        sizes = w.weight(np.array([depth] * group, np.int64), "sizes")
        parts = w.ops("Split", (conv.inputs[0], sizes), [None] * group, axis=1)
        shifts = pieces(bias, [len(weight) // group] * group)
        results = [
            w.op("Conv", part, *w.weights(kernel, shift), **plain)
            for part, kernel, shift in zip(parts, np.split(weight, group), shifts, strict=True)
        ]
        return w.op("Concat", *results, like=conv.outputs[0], axis=1)

    return make


@rewrite_rule("grouped-as-dense", at="Conv")
def grouped_as_dense(conv: ir.Node) -> Found:
    """Write a grouped convolution as a dense one whose weight is zero between groups."""
    found = _grouped(conv)
    if isinstance(found, str | None):
        return found
    weight, _, group = found
    if group > 8:
        return f"it has {group} groups: a dense weight costs as many times the work"
    out, depth = weight.shape[:2]
    dense = np.zeros((out, depth * group, *weight.shape[2:]), weight.dtype)
    for g in range(group):
        rows = slice(g * out // group, (g + 1) * out // group)
        dense[rows, g * depth : (g + 1) * depth] = weight[rows]
    plain = {k: v for k, v in conv_attrs(conv).items() if k != "group"}
    bias = conv.inputs[2:3]
    return lambda w: w.op(
        "Conv", conv.inputs[0], w.weight(dense), *bias, like=conv.outputs[0], **plain
    )


def _grouped(conv: ir.Node) -> tuple[Floats32, Floats32 | None, int] | str | None:
    if rank(conv.inputs[0]) != 4:
        return None
    facts, kinds = conv_weights(conv), conv_attrs(conv)
    if facts is None or kinds["group"] == 1 or dims(conv.inputs[0]) is None:
        return None
    if facts[0].shape[1] == 1:
        return None  # depthwise, which has kernels of its own
    if kinds["pads"] is None:
        return "its padding is decided by auto_pad"
    return facts[0], facts[1], kinds["group"]
