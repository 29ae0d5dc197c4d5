from __future__ import annotations

import numpy as np
import pytest
from int8_graphs import chain, graph, normal, transformer_block

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.metric import evaluate
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import build_session, run
from trimtab.core.target import Target
from trimtab.passes.base import relative_error
from trimtab.passes.quantization.algorithms.smooth_quant import SmoothQuant
from trimtab.passes.quantization.static import QuantizeStatic

VNNI = Context(target=Target.named("x64-avx512-vnni"))


def prenorm():
    """A normalisation with a few enormous gains, read by two products."""
    gain = np.ones(32, np.float32)
    gain[[3, 17]] = 60
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((32, 16)).astype(np.float32) / 6 for _ in range(2)]
    for w in weights:
        w[[3, 17]] /= 60
    return graph(
        """g (float[N, 6, 32] x) => (float[N, 6, 16] y) {
          h = LayerNormalization <axis = -1> (x, gain, shift)
          [q] a = MatMul (h, w1)
          [k] b = MatMul (h, w2)
          y = Add (a, b)
        }""",
        gain=gain,
        shift=(32,),
        w1=weights[0],
        w2=weights[1],
    )


def same(before, after):
    feeds = random_feeds(before, seed=3, batch=4)
    expected, got = (next(iter(run(build_session(m), feeds).values())) for m in (before, after))
    return relative_error(expected, got)


def test_factors_go_into_the_normalisation_and_the_function_stays():
    model = prenorm()
    after = SmoothQuant(data=normal(model))(model, VNNI)
    assert [node.op_type for node in after.graph] == [node.op_type for node in model.graph]
    assert same(model, after) < 1e-5
    assert after.lineage[-1].notes["smoothed"] == 1


def test_it_rescues_activations_with_outlier_features():
    model = prenorm()
    data = normal(model, rows=48)
    plain = QuantizeStatic(data=data)(model, VNNI)
    smooth = QuantizeStatic(data=data)(SmoothQuant(data=data)(model, VNNI), VNNI)
    lost = [1 - evaluate(m, data, "cosine", reference=model).value for m in (plain, smooth)]
    assert lost[1] < 0.3 * lost[0]


def test_a_residual_reader_is_declined_unless_a_multiplication_may_be_inserted():
    model = transformer_block()
    data = normal(model)
    after = SmoothQuant(data=data)(model, VNNI)
    reasons = dict(after.lineage[-1].notes["declined"])
    assert "others read its input" in reasons["query"]
    assert after.lineage[-1].notes["smoothed"] == 0
    inserted = SmoothQuant(data=data, insert=True)(model, VNNI)
    assert inserted.lineage[-1].notes["inserted"] == 2
    assert same(model, inserted) < 1e-5


def test_features_that_are_always_zero_are_unchanged():
    model = graph("g (float[N, 8] x) => (float[N, 4] y) { y = MatMul (x, w) }", w=(8, 4))
    x = np.zeros((8, 8), np.float32)
    x[:, :4] = np.random.default_rng(0).standard_normal((8, 4))
    after = SmoothQuant(data=Dataset.of_arrays({"x": x}), insert=True)(model, VNNI)
    assert same(model, after) < 1e-5


def test_a_model_without_products_is_unchanged():
    model = chain()
    after = SmoothQuant(data=normal(model))(model, VNNI)
    assert after.lineage[-1].notes == {"smoothed": 0}
    assert same(model, after) == 0


@pytest.mark.parametrize("fields", [{"alpha": 1.5}, {"samples": 0}])
def test_invalid_fields_are_refused(fields):
    with pytest.raises(OptionError):
        SmoothQuant(**fields)
