"""Spellings of Gelu (Hendrycks and Gimpel 2016), x * (1 + erf(x / sqrt 2)) / 2.

The operator came with opset 20; onnxruntime has long had its own, and earlier exporters wrote the
formula, with the factors in any order.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..graph.queries import attr, divided_by, is_float, is_scalar, operand, pair, producer
from .rule import CONTRIB, Found, Writer, rewrite_rule


@rewrite_rule("gelu-closed", at="Mul", back="gelu-open", min_opset=20)
def gelu_closed(last: ir.Node) -> Found:
    """Write Gelu made of Erf as the operator Gelu."""
    source = _open_gelu(last)
    if source is None or not is_float(source):
        return None
    return lambda w: w.op("Gelu", source, like=last.outputs[0])


@rewrite_rule("gelu-contrib", at="Mul Gelu", back="gelu-open", runtime_only=True)
def gelu_contrib(last: ir.Node) -> Found:
    """Write Gelu as onnxruntime's own operator."""
    if last.domain == CONTRIB:
        return None
    source = last.inputs[0] if last.op_type == "Gelu" else _open_gelu(last)
    if source is None or not is_float(source):
        return None
    if attr(last, "approximate", "none") != "none":
        return "it is the tanh approximation"
    return lambda w: w.op("Gelu", source, like=last.outputs[0], domain=CONTRIB)


@rewrite_rule("gelu-open", at="Gelu", back="gelu-closed", min_opset=9)
def gelu_open(gelu: ir.Node) -> Found:
    """Write Gelu with Erf."""
    if attr(gelu, "approximate", "none") != "none":
        return "it is the tanh approximation"
    if not is_float(gelu.inputs[0]):
        return "it is not float32"
    x, like = gelu.inputs[0], gelu.outputs[0]

    def make(w: Writer) -> ir.Value:
        root, one, half = (
            w.weight(np.array(v, np.float32), "gelu") for v in (math.sqrt(2), 1.0, 0.5)
        )
        erf = w.op("Erf", w.op("Div", x, root, like=like), like=like)
        gate = w.op("Mul", x, w.op("Add", erf, one, like=like), like=like)
        return w.op("Mul", gate, half, like=like)

    return make


def _open_gelu(last: ir.Node) -> ir.Value | None:
    """Return the x where the factors are x, 1/2 and 1 + erf(x / sqrt 2), in any order."""
    factors = [f for f in product_factors(last, 3) if not is_scalar(f, 0.5)]
    if len(factors) != 2 or len(product_factors(last, 3)) != 3:
        return None
    for x, gate in (factors, factors[::-1]):
        erf = producer(operand(gate, "Add", 1.0), "Erf")
        inner = producer(erf.inputs[0], "Div", "Mul") if erf is not None else None
        if divided_by(inner, math.sqrt(2)) is x:
            return x
    return None


def product_factors(node: ir.Node, most: int) -> list[ir.Value]:
    """Return at most that many factors of a product of products, from the outside in."""
    found = list(pair(node))
    while len(found) < most:
        inner = next((f for f in found if producer(f, "Mul") is not None), None)
        product = producer(inner, "Mul")
        if inner is None or product is None:
            break
        place = found.index(inner)
        found[place : place + 1] = pair(product)
    return found
