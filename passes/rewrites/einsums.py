"""Einsum written with Transpose and MatMul, whose kernels are faster.

The subscripts of two operands fall into four kinds: in both and in the result (batch), in both
alone (summed), in the left or in the right one and in the result. MatMul takes
(batch..., left, summed) and (batch..., summed, right).
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from trimtab.core.data import Array

from ..graph.queries import attr, const, is_float, rank
from .rule import Found, Writer, rewrite_rule


@dataclass(frozen=True)
class EinsumTerms:
    """Subscripts of both operands and of the result, and the order that MatMul needs."""

    left: str
    right: str
    out: str

    @property
    def batch(self) -> str:
        """Subscripts that all three have, in the order of the result."""
        return "".join(c for c in self.out if c in self.left and c in self.right)

    @property
    def summed(self) -> str:
        """Subscripts that the result lacks."""
        return "".join(c for c in self.left if c not in self.out)

    def alone(self, of: str, other: str) -> str:
        """Return the subscripts of one operand that the other lacks, in the order of the result."""
        return "".join(c for c in self.out if c in of and c not in other)


def _terms(node: ir.Node) -> EinsumTerms | str | None:
    equation = str(attr(node, "equation", "")).replace(" ", "")
    operands, arrow, out = equation.partition("->")
    parts = operands.split(",")
    if not arrow or "." in equation:
        return "its equation has dots, or no result"
    if len(parts) != 2:
        return f"it has {len(parts)} operands"
    left, right = parts
    if any(len(set(text)) < len(text) for text in (left, right, out)):
        return "a subscript is repeated"
    terms = EinsumTerms(left, right, out)
    only = [c for c in left + right if c not in out and not (c in left and c in right)]
    if only or len(terms.summed) != 1:
        return "it sums over more or less than one subscript of both"
    return terms


@rewrite_rule("einsum-as-matmul", at="Einsum")
def einsum_as_matmul(node: ir.Node) -> Found:
    """Write Einsum of two operands that sums over one subscript as Transpose and MatMul."""
    terms = _terms(node)
    if isinstance(terms, str | None):
        return terms
    a, b = node.inputs[:2]
    if not is_float(a) or rank(a) != len(terms.left) or rank(b) != len(terms.right):
        return "it is not float32, or its ranks are unknown"
    rows = terms.alone(terms.left, terms.right)
    columns = terms.alone(terms.right, terms.left)
    # MatMul broadcasts leading axes, so a matrix serves any number of rows without batch.
    plain = len(columns) == 1 and (len(rows) == 1 or (rows and not terms.batch))
    if not plain:
        return "its operands are not matrices"
    first, second = terms.batch + rows + terms.summed, terms.batch + terms.summed + columns

    def make(w: Writer) -> ir.Value:
        product = w.op("MatMul", _ordered(w, a, terms.left, first),
                       _ordered(w, b, terms.right, second))  # fmt: skip
        return _ordered(w, product, terms.batch + rows + columns, terms.out) or product

    return make


def _ordered(w: Writer, value: ir.Value | None, have: str, want: str) -> ir.Value | None:
    """Return a value with its axes in another order; a constant is transposed at once."""
    if have == want:
        return value
    perm = [have.index(c) for c in want]
    array: Array | None = const(value)
    if array is not None:
        return w.weight(array.transpose(perm), "turned")
    return w.op("Transpose", value, perm=perm)


@rewrite_rule("einsum-as-transpose", at="Einsum")
def einsum_as_transpose(node: ir.Node) -> Found:
    """Write Einsum of one operand that only changes the order of its axes as a Transpose."""
    have, arrow, want = str(attr(node, "equation", "")).replace(" ", "").partition("->")
    if len(node.inputs) != 1 or not arrow or "." in have:
        return None
    if sorted(have) != sorted(want) or len(set(have)) < len(have):
        return "it sums, or takes a diagonal"
    perm = [have.index(c) for c in want]
    return lambda w: w.op("Transpose", node.inputs[0], like=node.outputs[0], perm=perm)
