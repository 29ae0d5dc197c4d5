"""Second moments of layers' inputs, in whatever order the inputs come."""

from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph

from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.passes.graph import runs_in_parts
from trimtab.passes.quantization.algorithms.error_rounding import layers_with_moments
from trimtab.passes.quantization.algorithms.gptq import DAMPING, inverse_factor


def test_moments_do_not_depend_on_the_parts_that_inputs_come_in(monkeypatch):
    model = graph(
        """g (float[N, 3, 20, 20] x) => (float[N, 4, 20, 20] y) {
          a = Conv <pads = [1, 1, 1, 1]> (x, w0)
          b = Conv <pads = [1, 1, 1, 1]> (a, w1)
          c = Conv <pads = [1, 1, 1, 1]> (b, w2)
          d = Conv <pads = [1, 1, 1, 1]> (a, w3)
          y = Add (c, d)
        }""",
        w0=(4, 3, 3, 3),
        w1=(4, 4, 3, 3),
        w2=(4, 4, 3, 3),
        w3=(4, 4, 3, 3),
    )
    weights = [model.graph.initializers[name] for name in ("w0", "w1", "w2", "w3")]
    rng = np.random.default_rng(0)
    batches = [Batch({"x": rng.standard_normal((2, 3, 20, 20)).astype("f")}) for _ in range(2)]

    def moments():
        return [layer.moments for layer in layers_with_moments(model, weights, batches, Context())]

    whole = moments()
    monkeypatch.setattr(runs_in_parts, "PART_BYTES", 1)
    parts = moments()
    assert len(whole) == len(parts) == 4
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 65, 129, 300])
def test_factor_is_that_of_the_inverse_of_the_damped_moments(size):
    rows = np.random.default_rng(size).normal(size=(2, size // 2 + 1, size))
    moments = rows.transpose(0, 2, 1) @ rows
    damped = moments + DAMPING * np.eye(size) * np.einsum("gii->g", moments)[:, None, None] / size
    factor = inverse_factor(moments.copy())
    np.testing.assert_allclose(np.tril(factor, -1), 0, atol=1e-12)
    product = factor.transpose(0, 2, 1) @ factor
    np.testing.assert_allclose(product @ damped, np.stack([np.eye(size)] * 2), atol=1e-8)
