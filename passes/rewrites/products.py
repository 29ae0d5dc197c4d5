"""The same product as MatMul, Gemm or a 1x1 convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Floats32

from ..graph.convolutions import conv_attrs, conv_weights
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
    users,
)
from .dimensions import sizes_of
from .rule import Found, Writer, rewrite_rule


@rewrite_rule("gemm-from-matmul", at="Add", back="matmul-from-gemm")
def gemm_from_matmul(add: ir.Node) -> Found:
    """Write a MatMul of two axes and its bias Add as one Gemm."""
    found = _product_and_bias(add)
    if found is None:
        return None
    product, bias = found
    data, weight = product.inputs[:2]
    if rank(data) != 2:
        return "its input does not have two axes, and Gemm takes no other"
    if rank(weight) != 2 or not is_float(data):
        return "its weight does not have two axes, or it is not float32"
    return lambda w: w.op("Gemm", data, weight, bias, like=add.outputs[0])


@rewrite_rule("gemm-rows-from-matmul", at="Add")
def gemm_rows_from_matmul(add: ir.Node) -> Found:
    """Write a MatMul of more axes and its bias Add as Reshape, Gemm, Reshape."""
    found = _product_and_bias(add)
    if found is None:
        return None
    product, bias = found
    data, weight = product.inputs[:2]
    axes, array = rank(data), const(weight)
    if axes is None or axes < 3 or array is None or array.ndim != 2:
        return None
    sizes = dims(data) or ()
    if sum(d is None for d in sizes[:-1]) > 1:
        return "more than one of its sizes is unknown"
    depth, width = array.shape

    def make(w: Writer) -> ir.Value:
        rows = w.op("Reshape", data, w.weight(np.array([-1, depth], np.int64), "rows"))
        made = w.op("Gemm", rows, weight, bias)
        shape = np.array([-1 if d is None else d for d in (*sizes[:-1], width)], np.int64)
        return w.op("Reshape", made, w.weight(shape, "shape"), like=add.outputs[0])

    return make


@rewrite_rule("matmul-from-gemm", at="Gemm", back="gemm-from-matmul")
def matmul_from_gemm(gemm: ir.Node) -> Found:
    """Write a Gemm with a constant weight as MatMul and Add."""
    plain = _plain_gemm(gemm)
    if isinstance(plain, str | None):
        return plain
    data, weight, bias = plain
    return lambda w: _product(w, data, weight, bias, gemm.outputs[0])


@rewrite_rule("matmul-from-rows", at="Reshape", back="gemm-rows-from-matmul")
def matmul_from_rows(last: ir.Node) -> Found:
    """Write Reshape to rows, Gemm, Reshape back as a MatMul of all axes and an Add."""
    gemm = producer(last.inputs[0], "Gemm")
    first = producer(gemm.inputs[0], "Reshape") if gemm is not None else None
    if gemm is None or first is None:
        return None
    plain = _plain_gemm(gemm)
    if isinstance(plain, str | None):
        return plain
    _, weight, bias = plain
    source, result = first.inputs[0], last.outputs[0]
    if only_user(gemm.outputs[0]) is None:
        return "its rows are read elsewhere too"
    if not _same_rows(source, result):
        return "its shapes before and after are not known to agree"
    if bias is not None and rank(bias) != 1:
        return "its bias does not have one axis"
    return lambda w: _product(w, source, weight, bias, result)


@rewrite_rule("conv-as-matmul", at="Conv")
def conv_as_matmul(conv: ir.Node) -> Found:
    """Write a 1x1 Conv of a 1x1 image as a MatMul of the channels."""
    facts, kinds = conv_weights(conv), conv_attrs(conv) if rank(conv.inputs[0]) == 4 else None
    if facts is None or kinds is None or facts[0].shape[2:] != (1, 1) or kinds["group"] != 1:
        return None
    sizes = dims(conv.inputs[0]) or ()
    if sizes[2:] != (1, 1):
        return None
    if kinds["pads"] != (0, 0, 0, 0):
        return "it pads"
    weight, bias = facts
    out, depth = weight.shape[:2]

    def make(w: Writer) -> ir.Value:
        rows = w.op("Reshape", conv.inputs[0], w.weight(np.array([0, depth], np.int64), "rows"))
        terms = [rows, w.weight(weight.reshape(out, depth).T)]
        made = w.op("Gemm", *terms, None if bias is None else conv.inputs[2])
        shape = w.weight(np.array([0, out, 1, 1], np.int64), "shape")
        return w.op("Reshape", made, shape, like=conv.outputs[0])

    return make


@rewrite_rule("conv-from-matmul", at="Transpose")
def conv_from_matmul(back: ir.Node) -> Found:
    """Write Transpose to channels last, MatMul, Add, Transpose back as one 1x1 Conv."""
    if attr(back, "perm") != (0, 3, 1, 2):
        return None
    add = producer(back.inputs[0], "Add")
    product = producer(back.inputs[0], "MatMul")
    bias: ir.Value | None = None
    if add is not None:
        found = _product_and_bias(add)
        if found is None:
            return None
        product, bias = found
    there = producer(product.inputs[0], "Transpose") if product is not None else None
    if product is None or there is None or attr(there, "perm") != (0, 2, 3, 1):
        return None
    weight = const(product.inputs[1])
    if weight is None or weight.ndim != 2 or not is_float(there.inputs[0]):
        return "its weight is computed, or it is not float32"
    if any(u is not back for u in users(back.inputs[0] or back.outputs[0])):
        return "its product is read elsewhere too"
    kernel = np.ascontiguousarray(weight.T)[:, :, None, None]
    source = there.inputs[0]
    return lambda w: w.op(
        "Conv", source, w.weight(kernel), *([bias] if bias else []), like=back.outputs[0],
        kernel_shape=[1, 1],
    )  # fmt: skip


def _product_and_bias(add: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """Return the MatMul with a constant weight and the constant vector that an Add adds to it."""
    sides = constant_side(add)
    if sides is None:
        return None
    product, bias = producer(sides[0], "MatMul"), sides[1]
    if product is None or only_user(sides[0]) is not add or rank(bias) != 1:
        return None
    weight = const(product.inputs[1])
    if weight is None or weight.ndim != 2 or weight.shape[1:] != tuple(bias.shape or ()):
        return None
    return product, bias


def _plain_gemm(gemm: ir.Node) -> tuple[ir.Value, Floats32, ir.Value | None] | str | None:
    """Return (input, weight as (in, out), bias) of a Gemm that is a linear layer."""
    weight = const(gemm.inputs[1])
    if weight is None:
        return None
    if attr(gemm, "transA", 0) or attr(gemm, "alpha", 1.0) != 1 or attr(gemm, "beta", 1.0) != 1:
        return "it transposes its input or scales"
    data = gemm.inputs[0]
    if not is_float(data) or data is None:
        return "it is not float32"
    bias = input_at(gemm, 2)
    return data, weight.T if attr(gemm, "transB", 0) else weight, bias


def _product(
    w: Writer, data: ir.Value | None, weight: Floats32, bias: ir.Value | None, like: ir.Value
) -> ir.Value:
    """Write the MatMul of a linear layer, and an Add where it has a bias."""
    made = w.op("MatMul", data, w.weight(weight), like=like)
    return made if bias is None else w.op("Add", made, bias, like=like)


def _same_rows(source: ir.Value | None, result: ir.Value) -> bool:
    """Return whether all axes but the last are known to agree."""
    before, after = sizes_of(source), sizes_of(result)
    return before is not None and after is not None and before[:-1] == after[:-1]
