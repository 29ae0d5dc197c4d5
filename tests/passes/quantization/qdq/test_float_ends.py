from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import chain, graph, residual

from trimtab.core.model import Model
from trimtab.passes.quantization.qdq.float_ends import END, SPECTRUM, START, float_ends
from trimtab.passes.quantization.qdq.prepare import prepare


def ends(model: Model) -> dict[str, str]:
    made = model.clone()
    prepare(made)
    return {node.name or "": why for node, why in float_ends(made.graph)}


def detector() -> Model:
    return graph(
        """g (float[N, 3, 16, 16] x) => (float[N, 64, 9] y) {
          [stem] a = Conv <strides = [2, 2], kernel_shape = [2, 2]> (x, w)
          [mid_gate] s = Sigmoid (a)
          [mid] c = Mul (a, s)
          [boxes] b = Conv (c, wb)
          [scores] k = Conv (c, wk)
          [gate] p = Sigmoid (k)
          [both] t = Concat <axis = 1> (b, p)
          r = Reshape (t, shape)
          y = Transpose <perm = [0, 2, 1]> (r)
        }""",
        w=(8, 3, 2, 2),
        wb=(4, 8, 1, 1),
        wk=(5, 8, 1, 1),
        shape=np.array([0, 9, 64], np.int64),
    )


def distances() -> Model:
    return graph(
        """g (float[N, 4, 8] x) => (float[N, 4] y) {
          [body] a = MatMul (x, w)
          [share] p = Softmax <axis = 2> (a)
          [mean] d = MatMul (p, steps)
          [flat] y = Squeeze (d, last)
        }""",
        w=(8, 16),
        steps=np.arange(16, dtype=np.float32)[:, None],
        last=np.array([2], np.int64),
    )


def spectrum() -> Model:
    return graph(
        """g (float[N, 1, 256] x) => (float[N, 6, 4] y) {
          [window] a = Conv <strides = [32]> (x, w)
          [power] b = Mul (a, a)
          t = Transpose <perm = [0, 2, 1]> (b)
          [bands] m = MatMul (t, bank)
          l = Log (m)
          r = Relu (l)
          [body] y = MatMul (r, v)
        }""",
        w=(16, 1, 96),
        bank=np.abs(np.random.default_rng(0).standard_normal((16, 8))).astype(np.float32),
        v=(8, 4),
    )


def scaled_input() -> Model:
    return graph(
        """g (float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) {
          [scale] a = Mul (x, by)
          [shift] b = Add (a, by)
          [body] y = Conv (b, w)
        }""",
        by=np.array([0.5], np.float32),
        w=(4, 3, 1, 1),
    )


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (detector, {"gate": END, "both": END}),
        (distances, {"share": END, "mean": END}),
        (spectrum, {"window": SPECTRUM, "power": SPECTRUM, "bands": SPECTRUM}),
        (scaled_input, {"scale": START, "shift": START}),
        (chain, {}),
        (residual, {}),
    ],
)
def test_what_stays_float_by_rule(make, expected):
    assert ends(make()) == expected


def test_softplus_in_the_body_is_not_a_spectrum():
    model = graph(
        """g (float[N, 8] x) => (float[N, 4] y) {
          a = MatMul (x, w)
          b = Exp (a)
          c = Add (b, one)
          d = Log (c)
          y = MatMul (d, v)
        }""",
        w=(8, 8),
        v=(8, 4),
        one=np.array([1], np.float32),
    )
    assert ends(model) == {}
