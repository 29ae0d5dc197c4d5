"""Weights take more than 7 bits where no pair of products can exceed 16 bits."""

from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import graph, normal

from trimtab.core.context import Context
from trimtab.core.target import Target
from trimtab.passes import QuantizeStatic

SIGNS = np.where(np.arange(8) % 2, -1, 1)


def quantized(weight, group=1):
    model = graph(
        f"""g (float[1, 8, 6, 6] x) => (float[1, {len(weight)}, 4, 4] y) {{
          y = Conv <group = {group}> (x, w)
        }}""",
        w=weight.astype(np.float32),
    )
    context = Context(target=Target.named("x64-avx2"), data=normal(model, rows=4))
    made = QuantizeStatic(all_int8=True)(model, context)
    (integers,) = (v for v in made.graph.initializers.values() if v.name == "w_quantized")
    return integers.const_value.numpy().astype(int), made.lineage[-1].notes["overflow"]


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("depthwise", 127, 127), ("opposite", 127, 127), ("alike", 60, 66)]
)
def test_weights_have_as_many_bits_as_sums_of_two_allow(kind, least, most):
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.9, 1.0, (8, 1 if kind == "depthwise" else 8, 3, 3))
    weight = sizes * SIGNS[:, None, None] if kind == "opposite" else sizes
    integers, overflow = quantized(weight, 8 if kind == "depthwise" else 1)
    assert least <= np.abs(integers).max() <= most
    if kind != "depthwise":
        rows = integers.transpose(0, 2, 3, 1).reshape(8, -1)
        for part in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            assert (part[:, 1:] + part[:, :-1]).max() <= 128
    assert not overflow
