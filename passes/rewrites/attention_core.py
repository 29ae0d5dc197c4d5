"""Recognition of attention written out as softmax(scale Q K^T + mask) V (Vaswani et al. 2017).

Exporters write the scale behind the product or on both factors, transpose the keys in one step or
in three axes between two Reshapes, and guard the softmax against NaN: all of these are recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ..graph.queries import attr, constant_side, dims, is_float, only_user, producer, rank, scalar
from .attention import keys_before, unguarded
from .dimensions import axis_size
from .rule import Writer

#: Queries, keys and values as (batch, heads, length, depth).
HEADS_SECOND = (0, 2, 1, 3)


@dataclass(frozen=True)
class Keys:
    """Keys before they are transposed to (batch, heads, depth, length).

    Attributes:
        source: the tensor before the exporter's Transpose.
        perm: order of axes that makes it (batch, heads, length, depth); None where it is already.
    """

    source: ir.Value
    perm: tuple[int, ...] | None

    def value(self, w: Writer) -> ir.Value:
        """Return the keys as (batch, heads, length, depth)."""
        if self.perm is None:
            return self.source
        return w.op("Transpose", self.source, perm=self.perm)


@dataclass(frozen=True)
class AttentionCore:
    """One attention, ending in the product of probabilities and values.

    Attributes:
        queries: (batch, heads, rows, depth).
        keys: (batch, heads, length, depth) after `Keys.value`.
        values: (batch, heads, length, depth of values).
        mask: added to the scores; None where there is none.
        scale: factor of the product of queries and keys.
        scores: (batch, heads, rows, length) without the mask.
    """

    queries: ir.Value
    keys: Keys
    values: ir.Value
    mask: ir.Value | None
    scale: float
    scores: ir.Value


def find_attention(last: ir.Node) -> AttentionCore | str | None:
    """Return the attention that ends in a MatMul, or the reason why its scores do not fit."""
    probabilities, values = last.inputs[:2]
    softmax = producer(unguarded(probabilities), "Softmax")
    if softmax is None or values is None or not is_float(values) or rank(values) != 4:
        return None
    if attr(softmax, "axis", -1) not in {-1, 3}:
        return "its softmax is not over the last axis"
    if only_user(softmax.outputs[0]) is None and unguarded(probabilities) is probabilities:
        return "its probabilities are read elsewhere too"
    return _of_scores(softmax.inputs[0], values)


def _of_scores(value: ir.Value | None, values: ir.Value) -> AttentionCore | str:
    scores, mask = _masked(value)
    product, scale = _scaled(scores)
    dot = producer(product, "MatMul")
    queries, of_queries = _scaled(dot.inputs[0] if dot is not None else None)
    keys, of_keys = _scaled(dot.inputs[1] if dot is not None else None)
    if scores is None or queries is None or keys is None:
        return "its scores are not a product of queries and keys"
    if rank(queries) != 4 or rank(keys) != 4:
        return "its queries or keys do not have four axes"
    return AttentionCore(queries, _keys(keys), values, mask, scale * of_queries * of_keys, scores)


def _masked(value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """Return (scores, mask); scores are a product, with or without a scale."""
    add = producer(value, "Add")
    if add is None:
        return value, None
    for scores, mask in (add.inputs, add.inputs[::-1]):
        if producer(_scaled(scores)[0], "MatMul") is not None:
            return scores, mask
    return None, None


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Return (value, factor) of a product or quotient with one constant number."""
    node = producer(value, "Mul", "Div")
    sides = constant_side(node)
    number = scalar(sides[1]) if sides else None
    if node is None or sides is None or not number:
        return value, 1.0
    if node.op_type == "Mul":
        return sides[0], number
    return (sides[0], 1 / number) if sides[1] is node.inputs[1] else (value, 1.0)


def _keys(transposed: ir.Value) -> Keys:
    before = keys_before(transposed.producer())
    if before is not None:
        return Keys(before, None)
    node = producer(transposed, "Transpose")
    perm = attr(node, "perm") if node is not None else None
    if node is None or perm is None or len(perm) != 4 or node.inputs[0] is None:
        return Keys(transposed, (0, 1, 3, 2))
    swapped = (perm[0], perm[1], perm[3], perm[2])
    return Keys(node.inputs[0], None if swapped == (0, 1, 2, 3) else swapped)


def rows_of_heads(value: ir.Value | None) -> ir.Value | None:
    """Return (batch, length, heads * depth) that was split into (batch, heads, length, depth)."""
    turn = producer(value, "Transpose")
    split = producer(turn.inputs[0], "Reshape") if turn is not None else None
    if turn is None or split is None or attr(turn, "perm") != HEADS_SECOND:
        return None
    return _merged(split)


def rows_of_keys(keys: Keys) -> ir.Value | None:
    """Return (batch, length, heads * depth) that the keys were split from."""
    if keys.perm is None:
        return rows_of_heads(keys.source)
    split = producer(keys.source, "Reshape") if keys.perm == HEADS_SECOND else None
    return _merged(split) if split is not None else None


def _merged(split: ir.Node) -> ir.Value | None:
    """Return the input of a Reshape from (.., width) to (.., heads, depth)."""
    source, known = split.inputs[0], dims(split.outputs[0])
    if source is None or rank(source) != 3 or known is None or len(known) != 4:
        return None
    width, heads, depth = (dims(source) or ())[2], known[2], known[3]
    if width is None or heads is None or depth is None or heads * depth != width:
        return None
    same = all(axis_size(source, i) == axis_size(split.outputs[0], i) for i in (0, 1))
    return source if same else None
