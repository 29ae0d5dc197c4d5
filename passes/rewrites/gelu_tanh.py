"""Spellings of the tanh approximation of Gelu, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).

It differs from Gelu with Erf by up to 5e-4, so no rule leads from one to the other.
Since (1 + tanh u) / 2 = sigmoid(2u), it equals x sigmoid(2u).
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..graph.queries import attr, is_float, is_scalar, operand, pair, producer
from .gelus import product_factors
from .rule import CONTRIB, Found, Make, Writer, rewrite_rule

ROOT, CUBIC, QUICK = math.sqrt(2 / math.pi), 0.044715, 1.702


@rewrite_rule("gelu-tanh-closed", at="Mul", back="gelu-tanh-open", min_opset=20)
def gelu_tanh_closed(last: ir.Node) -> Found:
    """Write Gelu made of Tanh as the operator Gelu, which approximates in the same way."""
    source = _open_tanh(last)
    if source is None or not is_float(source):
        return None
    return lambda w: w.op("Gelu", source, like=last.outputs[0], approximate="tanh")


@rewrite_rule("gelu-tanh-contrib", at="Mul Gelu", back="gelu-tanh-open", runtime_only=True)
def gelu_tanh_contrib(last: ir.Node) -> Found:
    """Write Gelu approximated with Tanh as FastGelu of onnxruntime."""
    source = _tanh_source(last)
    if source is None:
        return None
    return lambda w: w.op("FastGelu", source, like=last.outputs[0], domain=CONTRIB)


@rewrite_rule("gelu-tanh-as-sigmoid", at="Mul Gelu", back="gelu-tanh-closed")
def gelu_tanh_as_sigmoid(last: ir.Node) -> Found:
    """Write Gelu approximated with Tanh as x times the Sigmoid of twice its argument."""
    x = _tanh_source(last)
    if x is None:
        return None
    return lambda w: w.op("Mul", x, w.op("Sigmoid", _argument(w, x, 2 * ROOT), like=x),
                          like=last.outputs[0])  # fmt: skip


@rewrite_rule("gelu-tanh-open", at="Gelu FastGelu", back="gelu-tanh-closed")
def gelu_tanh_open(gelu: ir.Node) -> Found:
    """Write Gelu approximated with Tanh by its formula."""
    x = _tanh_source(gelu)
    if x is None:
        return None

    def make(w: Writer) -> ir.Value:
        one, half = (w.weight(np.array(v, np.float32), "gelu") for v in (1.0, 0.5))
        gate = w.op("Add", w.op("Tanh", _argument(w, x, ROOT), like=x), one, like=x)
        return w.op("Mul", w.op("Mul", x, half, like=x), gate, like=gelu.outputs[0])

    return make


@rewrite_rule("quick-gelu-contrib", at="Mul", runtime_only=True)
def quick_gelu_contrib(last: ir.Node) -> Found:
    """Write x times Sigmoid of 1.702 x, or of x, as QuickGelu of onnxruntime."""
    for x, gate in (pair(last), pair(last)[::-1]):
        sigmoid = producer(gate, "Sigmoid")
        if sigmoid is None or not is_float(x):
            continue
        plain = sigmoid.inputs[0] is x
        if plain or operand(sigmoid.inputs[0], "Mul", QUICK) is x:
            return _quick(last, x, 1.0 if plain else QUICK)
    return None


def _quick(last: ir.Node, x: ir.Value, alpha: float) -> Make:
    return lambda w: w.op("QuickGelu", x, like=last.outputs[0], domain=CONTRIB, alpha=alpha)


def _argument(w: Writer, x: ir.Value, root: float) -> ir.Value:
    """Write root (x + 0.044715 x^3) as x (root + root 0.044715 x^2)."""
    cubic, linear = (w.weight(np.array(v, np.float32), "gelu") for v in (root * CUBIC, root))
    square = w.op("Mul", w.op("Mul", x, x, like=x), cubic, like=x)
    return w.op("Mul", x, w.op("Add", square, linear, like=x), like=x)


def _tanh_source(node: ir.Node) -> ir.Value | None:
    """Return the x of a float Gelu by tanh, written out or an operator."""
    if node.op_type == "Mul":
        source = _open_tanh(node)
    elif node.op_type == "FastGelu":
        source = node.inputs[0] if len(node.inputs) == 1 else None
    else:
        source = node.inputs[0] if attr(node, "approximate", "none") == "tanh" else None
    return source if is_float(source) else None


def _open_tanh(last: ir.Node) -> ir.Value | None:
    """Return the x where the factors are x, 1/2 and 1 + tanh(...), in any order."""
    factors = product_factors(last, 3)
    rest = [f for f in factors if not is_scalar(f, 0.5)]
    if len(factors) != 3 or len(rest) != 2:
        return None
    for x, gate in (rest, rest[::-1]):
        tanh = producer(operand(gate, "Add", 1.0), "Tanh")
        argument = operand(tanh.inputs[0], "Mul", ROOT) if tanh is not None else None
        if argument is not None and _is_cubic(argument, x):
            return x
    return None


def _is_cubic(value: ir.Value, x: ir.Value) -> bool:
    """Return whether a value is x + 0.044715 x^3."""
    add = producer(value, "Add")
    if add is None or not any(v is x for v in add.inputs):
        return False
    [other] = [v for v in add.inputs if v is not x] or [x]
    raised = operand(other, "Mul", CUBIC)
    power = producer(raised, "Pow")
    if power is not None:
        return power.inputs[0] is x and is_scalar(power.inputs[1], 3.0)
    cube = producer(raised, "Mul")
    return cube is not None and [f is x for f in product_factors(cube, 3)] == [True] * 3
