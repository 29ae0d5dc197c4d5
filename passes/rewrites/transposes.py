"""Pairs of Transpose with element-wise operators between them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..graph.queries import attr, const, is_onnx_op, only_user, producer, rank
from .rule import Found, Writer, rewrite_rule

UNARY = "Abs Ceil Clip Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Neg Relu Sigmoid " \
    "Sign Softplus Sqrt Tanh"  # fmt: skip
BINARY = "Add Div Max Min Mul Pow Sub Sum"
MOST = 8


@rewrite_rule("transpose-pair", at="Transpose")
def transpose_pair(last: ir.Node) -> Found:
    """Write two Transposes in a row as one, or as none."""
    first = producer(last.inputs[0], "Transpose")
    if first is None:
        return None
    after, before = attr(last, "perm"), attr(first, "perm")
    if after is None or before is None:
        return "its order of axes is not written"
    perm = [before[i] for i in after]
    source = first.inputs[0]
    if source is None:
        return None
    if perm != sorted(perm):
        return lambda w: w.op("Transpose", source, like=last.outputs[0], perm=perm)
    named = last.outputs[0].is_graph_output()
    return lambda w: w.op("Identity", source, like=last.outputs[0]) if named else source


@rewrite_rule("transpose-through", at="Transpose")
def transpose_through(last: ir.Node) -> Found:
    """Drop a Transpose and its inverse around element-wise operators."""
    chain: list[ir.Node] = []
    value, perm = last.inputs[0], attr(last, "perm")
    while value is not None and len(chain) <= MOST:
        node = value.producer()
        if node is None or only_user(value) is None or not is_onnx_op(node):
            return None
        if node.op_type == "Transpose":
            return _without(last, node, chain, perm)
        data = _data_input(node)
        if data is None:
            return None
        chain.append(node)
        value = node.inputs[data]
    return None


def _without(
    last: ir.Node, first: ir.Node, chain: list[ir.Node], perm: tuple[int, ...] | None
) -> Found:
    before = attr(first, "perm")
    if not chain or perm is None or before is None:
        return None
    if [before[i] for i in perm] != sorted(perm):
        return "the second is not the inverse of the first"

    def make(w: Writer) -> ir.Value:
        value = first.inputs[0]
        for node in reversed(chain):
            data = _data_input(node)
            inputs = [
                value if i == data else _turned(w, v, perm) for i, v in enumerate(node.inputs)
            ]
            like = last.outputs[0]
            attributes = {name: a.value for name, a in node.attributes.items()}
            value = w.op(node.op_type, *inputs, like=like, **attributes)
        assert value is not None
        return value

    return make


def _data_input(node: ir.Node) -> int | None:
    """Return the position of the one computed input of an element-wise operator."""
    if node.op_type in UNARY.split():
        return 0
    if node.op_type not in BINARY.split():
        return None
    computed = [i for i, v in enumerate(node.inputs) if const(v) is None]
    return computed[0] if len(computed) == 1 and rank(node.inputs[computed[0]]) else None


def _turned(w: Writer, value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    """Transpose a constant so that it broadcasts after the axes are turned back."""
    array = const(value)
    if array is None or array.size == 1:
        return value
    full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return w.weight(np.ascontiguousarray(full.transpose(perm)), "turned")
