"""One convolution as several, several as one, and a 1x1 convolution as a product of matrices."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.convolutions import conv_attrs, conv_weights, stacked, written_attrs
from ..graph.queries import attr, const, constant_side, dims, is_float, only_user, producer, rank
from .rule import CONTRIB, Found, Writer, rewrite_rule
from .selections import pieces, split_sizes

#: Channels of an image that fill a word of int8.
WORD = 4


@rewrite_rule("conv-split", at="Split", back="convs-merged", min_opset=13)
def conv_split(split: ir.Node) -> Found:
    """Write a convolution and a Split of its channels as one convolution for each part."""
    conv, found = producer(split.inputs[0], "Conv"), split_sizes(split)
    facts = conv_weights(conv) if conv is not None else None
    if conv is None or facts is None or rank(split.inputs[0]) != 4:
        return None
    if found is None or found[0] != 1:
        return "it does not split the channels in known sizes"
    if conv_attrs(conv)["group"] != 1 or only_user(conv.outputs[0]) is None:
        return "its convolution is grouped, or read elsewhere too"
    (weight, bias), plain = facts, written_attrs(conv)

    def make(w: Writer) -> dict[ir.Value, ir.Value]:
        made, kernels = {}, np.split(weight, np.cumsum(found[1])[:-1])
        for part, kernel, shift in zip(split.outputs, kernels, pieces(bias, found[1]), strict=True):
            made[part] = w.op("Conv", conv.inputs[0], *w.weights(kernel, shift), like=part, **plain)
        return made

    return make


@rewrite_rule("grouped-from-convs", at="Concat", back="grouped-as-convs", min_opset=13)
def grouped_from_convs(concat: ir.Node) -> Found:
    """Write Split, an equal convolution for each part, Concat as one grouped convolution."""
    convs = [producer(v, "Conv") for v in concat.inputs]
    nodes = [c for c in convs if c is not None]
    split = producer(nodes[0].inputs[0], "Split") if nodes else None
    if split is None or len(nodes) < len(convs) or attr(concat, "axis") not in {1, -3}:
        return None
    if [c.inputs[0] for c in nodes] != list(split.outputs) or rank(split.inputs[0]) != 4:
        return "its convolutions do not take the parts in order"
    facts = [f for c in nodes if (f := conv_weights(c)) is not None]
    kinds = [written_attrs(c) for c in nodes]
    alike = len(facts) == len(nodes) and len({f[0].shape for f in facts}) == 1
    if not alike or any(k != kinds[0] for k in kinds) or kinds[0]["group"] != 1:
        return "its convolutions differ"
    if attr(split, "axis", 0) != 1 or any(only_user(c.outputs[0]) is None for c in nodes):
        return "its parts are not channels, or are read elsewhere too"
    layer, plain = stacked(facts), kinds[0] | {"group": len(nodes)}
    return lambda w: w.op(
        "Conv", split.inputs[0], *w.weights(*layer), like=concat.outputs[0], **plain
    )


@rewrite_rule("pointwise-as-matmul", at="Conv", back="pointwise-from-matmul")
def pointwise_as_matmul(conv: ir.Node) -> Found:
    """Write a 1x1 Conv of an image as MatMul of its weight and the pixels in columns."""
    facts = conv_weights(conv) if rank(conv.inputs[0]) == 4 else None
    sizes, kinds = dims(conv.inputs[0]), conv_attrs(conv)
    if facts is None or sizes is None or facts[0].shape[2:] != (1, 1) or sizes[2:] == (1, 1):
        return None
    if kinds["group"] != 1 or kinds["pads"] != (0, 0, 0, 0) or kinds["strides"] != (1, 1):
        return "it is grouped, pads or has a stride"
    if None in sizes[1:] or not is_float(conv.inputs[0]):
        return "its size is unknown, or it is not float32"
    (weight, bias), (_, channels, height, width) = facts, sizes
    out = len(weight)

    def make(w: Writer) -> ir.Value:
        flat = w.weight(np.array([0, channels, -1], np.int64), "columns")
        columns = w.op("Reshape", conv.inputs[0], flat)
        made = w.op("MatMul", w.weight(weight.reshape(out, -1)), columns)
        if bias is not None:
            made = w.op("Add", made, w.weight(bias.reshape(out, 1), "bias"))
        shape = w.weight(np.array([0, out, height, width], np.int64), "shape")
        return w.op("Reshape", made, shape, like=conv.outputs[0])

    return make


@rewrite_rule("pointwise-from-matmul", at="Reshape", back="pointwise-as-matmul")
def pointwise_from_matmul(last: ir.Node) -> Found:
    """Write pixels in columns, MatMul of a weight and them, back to an image, as a 1x1 Conv."""
    found = _columns(last)
    if found is None:
        return None
    product, flat, weight, bias = found
    value = last.inputs[0] or product.outputs[0]
    before, after = dims(flat.inputs[0]), dims(last.outputs[0])
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return None
    if None in before[1:] or before[2:] != after[2:] or weight.shape != (after[1], before[1]):
        return "its image is not known to stay"
    if rank(flat.outputs[0]) != 3 or (dims(flat.outputs[0]) or ())[1] != before[1]:
        return "its columns are not the pixels"
    if only_user(product.outputs[0]) is None or only_user(value) is None:
        return "its product is read elsewhere too"

    layer = weight[:, :, None, None], None if bias is None else bias.reshape(-1)
    return lambda w: w.op(
        "Conv", flat.inputs[0], *w.weights(*layer), like=last.outputs[0], kernel_shape=[1, 1]
    )


def _columns(last: ir.Node) -> tuple[ir.Node, ir.Node, Array, Array | None] | None:
    """Return (product, Reshape to columns, weight, bias as a column) of a product as an image."""
    add, bias = producer(last.inputs[0], "Add"), None
    product = producer(last.inputs[0], "MatMul")
    if add is not None:
        sides = constant_side(add)
        product, bias = (producer(sides[0], "MatMul"), const(sides[1])) if sides else (None, None)
    weight = const(product.inputs[0]) if product is not None else None
    flat = producer(product.inputs[1], "Reshape") if product is not None else None
    if product is None or weight is None or weight.ndim != 2 or flat is None:
        return None
    if bias is not None and bias.shape != (len(weight), 1):
        return None
    return product, flat, weight, bias


@rewrite_rule("image-to-word", at="Conv", min_opset=11)
def image_to_word(conv: ir.Node) -> Found:
    """Fill the channels of an image up to four with zeros for its first convolution."""
    source, facts = conv.inputs[0], conv_weights(conv) if rank(conv.inputs[0]) == 4 else None
    if source is None or facts is None or not source.is_graph_input() or not is_float(source):
        return None
    extra = -facts[0].shape[1] % WORD
    if conv_attrs(conv)["group"] != 1 or not extra or facts[0].shape[1] > WORD:
        return None
    weight, plain = np.pad(facts[0], ((0, 0), (0, extra), (0, 0), (0, 0))), written_attrs(conv)

    def make(w: Writer) -> ir.Value:
        amounts = w.weight(np.array([0, 0, 0, 0, 0, extra, 0, 0], np.int64), "pads")
        filled = w.op("Pad", source, amounts)
        bias = conv.inputs[2:3]
        return w.op("Conv", filled, w.weight(weight), *bias, like=conv.outputs[0], **plain)

    return make


@rewrite_rule("qlinearconv-channels-last", at="QLinearConv", runtime_only=True)
def qlinearconv_channels_last(conv: ir.Node) -> Found:
    """Write QLinearConv in onnxruntime's layout with channels last, between Transposes."""
    if conv.domain or rank(conv.inputs[0]) != 4:
        return None
    # onnxruntime writes this layout by itself where it makes QLinearConv of Q/DQ pairs.
    plain, last = written_attrs(conv), (0, 2, 3, 1)

    def make(w: Writer) -> ir.Value:
        turned = w.op("Transpose", conv.inputs[0], perm=last)
        made = w.op(
            "QLinearConv", turned, *conv.inputs[1:], domain=CONTRIB, channels_last=1, **plain
        )
        return w.op("Transpose", made, like=conv.outputs[0], perm=(0, 3, 1, 2))

    return make
