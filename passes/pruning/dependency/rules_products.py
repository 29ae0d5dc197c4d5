"""Rules of channels for operators with weights: convolutions, matrix products, attention."""

from __future__ import annotations

import math
import string

import numpy as np
import onnx_ir as ir

from ...graph.edit import set_int
from .records import Axes, Ids, OpaqueError
from .tracer import Trace


def conv(t: Trace, node: ir.Node) -> None:
    """Tie X.C to W.1 and Y.C to W.0, for X (N, C, ...), W (M, C / group, k...) and B (M)."""
    group = node.attributes.get_int("group", 1)
    x, w = t.axes(node, 0), t.axes(node, 1, only=(0, 1))
    t.pin(x[2:], "a convolution mixes it")
    w_shape, y_shape = t.shape(node.inputs[1]), t.shape(node.outputs[0])
    out, into = w[0], w[1]
    if group == 1:
        t.tie(x[1], w[1])
    else:
        out, into = _grouped(t, node, group, x[1], (w[0], w[1]), t.shape(node.inputs[0])[1])
    kernel: Axes = [None] * (len(w_shape) - 2)
    t.operand(node, 1, [out, into, *kernel], input_axis=1)
    _bias(t, node, out)
    t.set(node.outputs[0], [x[0], out, *kernel])
    fixed = math.prod(w_shape[2:]) * math.prod([y_shape[0], *y_shape[2:]])
    t.cost(node, fixed, [(w_shape[0], out), (w_shape[1], into)])


def conv_transpose(t: Trace, node: ir.Node) -> None:
    """Tie X.C to W.0 and Y.C to W.1, for X (N, C, ...), W (C, M / group, k...) and B (M)."""
    group = node.attributes.get_int("group", 1)
    x, w = t.axes(node, 0), t.axes(node, 1, only=(0, 1))
    t.pin(x[2:], "a convolution mixes it")
    x_shape, w_shape = t.shape(node.inputs[0]), t.shape(node.inputs[1])
    t.tie(x[1], w[0])
    out = w[1] if group == 1 else _grouped_transpose(t, node, group, w, w_shape)
    kernel: Axes = [None] * (len(w_shape) - 2)
    t.operand(node, 1, [w[0], w[1] if group == 1 else None, *kernel], input_axis=0)
    _bias(t, node, out)
    t.set(node.outputs[0], [x[0], out, *kernel])
    fixed = math.prod(w_shape[2:]) * math.prod([x_shape[0], *x_shape[2:]])
    t.cost(node, fixed, [(w_shape[0], w[0]), (w_shape[1], w[1])])


def _bias(t: Trace, node: ir.Node, out: Ids | None) -> None:
    if t.has(node, 2):
        bias = t.axes(node, 2)
        t.tie(bias[0], out)
        t.operand(node, 2, bias)


def _grouped(
    t: Trace,
    node: ir.Node,
    group: int,
    x: Ids | None,
    w: tuple[Ids | None, Ids | None],
    channels: int,
) -> tuple[Ids | None, Ids | None]:
    """Let whole groups go, or the same positions of each; return the channel ids of W.0 and W.1.

    With one input channel to a group, and any number of outputs, only groups can go.
    """
    out, into = w
    if out is None or x is None:
        t.pin([out, into, x], "a grouped convolution next to channels that cannot change")
        return None, None
    rows = x.reshape(group, -1)
    options = 2 if channels > group and len(out) > group else 1
    if t.choose_factor(x, options) == 1:
        t.tie(t.tie_rows(rows.T), into)
        t.tie_rows(out.reshape(group, -1).T)
        return out, into
    t.pin([into], "whole groups go")
    whole = t.tie(t.tie_rows(rows), t.tie_rows(out.reshape(group, -1)))
    assert whole is not None
    t.updates.append(lambda _, keep: set_int(node, "group", keep.count(whole)))
    return np.repeat(whole, len(out) // group), None


def _grouped_transpose(
    t: Trace, node: ir.Node, group: int, w: Axes, shape: tuple[int, ...]
) -> Ids | None:
    """Do the same as `_grouped`; the outputs of all groups share the columns of W.1."""
    into, column = w[0], w[1]
    if into is None:
        t.pin([column], "a grouped convolution next to channels that cannot change")
        return None
    options = 2 if shape[0] > group and shape[1] > 1 else 1
    if t.choose_factor(into, options) == 1:
        t.tie_rows(into.reshape(group, -1).T)
        return None if column is None else np.tile(column, group)
    t.pin([column], "whole groups go")
    whole = t.tie_rows(into.reshape(group, -1))
    t.updates.append(lambda _, keep: set_int(node, "group", keep.count(whole)))
    return np.repeat(whole, shape[1])


def gemm(t: Trace, node: ir.Node) -> None:
    """Tie the axes that Y = alpha A' B' + beta C sums over."""
    a, b = t.axes(node, 0), t.axes(node, 1)
    if len(a) != 2 or len(b) != 2:  # onnxruntime takes a vector too
        raise OpaqueError("reads what is not a matrix")
    a_in = 0 if node.attributes.get_int("transA", 0) else 1
    b_in = 1 if node.attributes.get_int("transB", 0) else 0
    t.tie(a[a_in], b[b_in])
    t.operand(node, 0, a, input_axis=a_in)
    t.operand(node, 1, b, input_axis=b_in)
    out: Axes = [a[1 - a_in], b[1 - b_in]]
    a_shape, b_shape = t.shape(node.inputs[0]), t.shape(node.inputs[1])
    if t.has(node, 2):
        c = t.axes(node, 2)
        t.tie_broadcast(c, t.shape(node.inputs[2]), out)
        t.operand(node, 2, c)
    t.set(node.outputs[0], out)
    lengths = (a_shape[1 - a_in], b_shape[1 - b_in], a_shape[a_in])
    t.cost(node, 1, list(zip(lengths, (*out, b[b_in]), strict=True)))


def matmul(t: Trace, node: ir.Node) -> None:
    """Tie K and the leading axes of A (..., M, K) and B (..., K, N)."""
    a, b = t.axes(node, 0), t.axes(node, 1)
    a_shape, b_shape = t.shape(node.inputs[0]), t.shape(node.inputs[1])
    b_in = max(len(b) - 2, 0)
    t.tie(a[-1], b[b_in])
    t.operand(node, 0, a, input_axis=len(a) - 1)
    t.operand(node, 1, b, input_axis=b_in)
    lead, lengths = broadcast(t, [a[:-2], b[:-2]], [a_shape[:-2], b_shape[:-2]])
    rows = [(a_shape[-2], a[-2])] if len(a) > 1 else []
    columns = [(b_shape[-1], b[-1])] if len(b) > 1 else []
    t.set(node.outputs[0], [*lead, *(ids for _, ids in rows + columns)])
    outer = list(zip(lengths, lead, strict=True))
    t.cost(node, 1, [*outer, *rows, *columns, (a_shape[-1], b[b_in])])


def broadcast(
    t: Trace, operands: list[Axes], shapes: list[tuple[int, ...]]
) -> tuple[Axes, tuple[int, ...]]:
    """Return channel ids and lengths of the shape that operands broadcast to.

    Axes of length 1 tie nothing.
    """
    rank = max(len(s) for s in shapes)
    result: Axes = []
    lengths: list[int] = []
    for axis in range(-rank, 0):
        there = [
            (o[axis], s[axis]) for o, s in zip(operands, shapes, strict=True) if -axis <= len(s)
        ]
        wide = [ids for ids, size in there if size != 1]
        lengths.append(max((size for _, size in there), default=1))
        if any(ids is None for ids in wide):
            t.pin(wide, "meets an axis that cannot change")
            result.append(None)
            continue
        for other in wide[1:]:
            t.tie(wide[0], other)
        result.append(wide[0] if wide else None)
    return result, tuple(lengths)


def einsum(t: Trace, node: ir.Node) -> None:
    """Tie axes of the same index; pin an index that one operand alone sums over."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow or "." in equation or not set(left) <= set(string.ascii_letters + ","):
        raise OpaqueError("its equation is not explicit")
    ids_of: dict[str, Ids | None] = {}
    for index, term in enumerate(terms):
        axes, shape = t.axes(node, index), t.shape(node.inputs[index])
        if len(set(term)) < len(term):
            raise OpaqueError("an index is twice in one operand")
        for name, ids, size in zip(term, axes, shape, strict=True):
            ids_of[name] = t.tie(ids_of[name], ids) if name in ids_of else ids
            alone = sum(name in other for other in terms) == 1
            if (alone and name not in right) or size == 1:
                t.pin([ids], "Einsum sums over it")
        summed = [i for i, name in enumerate(term) if name not in right]
        t.operand(node, index, axes, input_axis=summed[0] if summed else None)
    t.set(node.outputs[0], [ids_of[name] for name in right])


def attention(t: Trace, node: ir.Node) -> None:
    """Tie heads and both widths of Q (B, H, T, D), K (B, H, S, D), V (B, H, S, E); no cache."""
    shapes = [t.shape(node.inputs[i]) for i in range(3)]
    plain = all(len(s) == 4 for s in shapes) and len(node.outputs) == 1
    if not plain or any(t.has(node, i) for i in range(4, len(node.inputs))):
        raise OpaqueError("this form of Attention is not followed")
    if shapes[0][1] != shapes[1][1]:
        raise OpaqueError("queries share their keys")
    q, k, v = (t.axes(node, i) for i in range(3))
    heads = t.tie(t.tie(q[1], k[1]), v[1])
    t.tie(q[3], k[3])
    t.pin([q[2], k[2], v[2]], "Attention mixes it")
    for index, axes in enumerate((q, k, v)):
        t.operand(node, index, axes, input_axis=3)
    if t.has(node, 3):
        mask, size = t.axes(node, 3), t.shape(node.inputs[3])
        t.pin(mask[-2:], "Attention mixes it")
        if len(size) > 2 and size[-3] > 1:
            t.tie(mask[-3], heads)
    if "scale" not in node.attributes:  # its default would follow the new width
        scale = ir.AttrFloat32("scale", 1 / float(np.sqrt(shapes[0][3])))
        t.updates.append(lambda _, keep: node.attributes.add(scale) if keep.changes(q[3]) else None)
    t.set(node.outputs[0], [q[0], heads, q[2], v[3]])
    batch, count, length, width = shapes[0]
    outer = [(batch * length * shapes[1][2], None), (count, heads)]
    t.cost(node, 1, [*outer, (width, q[3])])
    t.cost(node, 1, [*outer, (shapes[2][3], v[3])])
