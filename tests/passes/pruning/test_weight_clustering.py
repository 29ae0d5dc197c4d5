"""ClusterWeights: few values a layer, and recovery that keeps them few."""

from __future__ import annotations

import graphs
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.target import Target
from trimtab.passes import ClusterWeights, Finetune, PruneMagnitude, QuantizeStatic, Simplify
from trimtab.passes.pruning.weight_clustering import shared_values

KERNELS = ("w0", "w1", "w2", "w3")


def context() -> Context:
    x = np.random.default_rng(5).standard_normal((64, 3, 8, 8)).astype(np.float32)
    target = Target.named("x64-avx512-vnni")
    return Context(target=target, data=Dataset.of_arrays({"x": x}), seed=3)


def distinct(model: Model, name: str) -> int:
    values = graphs.weights_of(model)[name]
    return len(np.unique(values[values != 0]))


def test_each_layer_takes_few_values_and_compresses() -> None:
    model = graphs.model_of("""(float[n,200] x) => (float[n,200] y) <float[200,200] w> {
        y = MatMul (x, w)
    }""")
    after = ClusterWeights(clusters=16)(model)
    assert distinct(after, "w") == 16
    notes = after.lineage[-1].notes
    assert notes["gzip_bytes"][1] < 0.3 * notes["gzip_bytes"][0]
    assert notes["layers"]["w"]["relative_rms_error"] < 0.15


def test_zeros_stay_zeros() -> None:
    pruned = PruneMagnitude(sparsity=0.5)(graphs.cnn())
    after = ClusterWeights(clusters=4)(pruned)
    for name in KERNELS:
        old, new = graphs.weights_of(pruned)[name], graphs.weights_of(after)[name]
        np.testing.assert_array_equal(new == 0, old == 0)
        assert distinct(after, name) <= 4


def test_each_channel_may_have_values_of_its_own() -> None:
    after = ClusterWeights(clusters=3, scope="channel")(graphs.cnn())
    assert all(len(np.unique(channel)) <= 3 for channel in graphs.weights_of(after)["w1"])
    assert distinct(after, "w1") > 3


def test_a_layer_with_few_values_stays_as_it_is() -> None:
    once = ClusterWeights(clusters=8)(graphs.cnn())
    twice = ClusterWeights(clusters=8)(once)
    for name in KERNELS:
        np.testing.assert_array_equal(graphs.weights_of(once)[name], graphs.weights_of(twice)[name])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=60),
    st.integers(2, 9),
    st.sampled_from(["linear", "quantile"]),
)
def test_every_weight_takes_the_nearest_value(values: list[float], count: int, start: str) -> None:
    weights = np.array(values, np.float32)
    made = shared_values(weights, count, start, 50)
    centres = np.unique(made[weights != 0])
    assert len(centres) <= count
    np.testing.assert_array_equal(made[weights == 0], 0)
    if len(centres):
        nearest = np.abs(weights[:, None] - centres[None]).min(1)
        chosen = np.abs(weights - made)
        np.testing.assert_allclose(chosen[weights != 0], nearest[weights != 0], atol=1e-5)


def test_recovery_keeps_the_values_few() -> None:
    teacher = graphs.cnn()
    shared = ClusterWeights(clusters=4)(PruneMagnitude(sparsity=0.4)(teacher))
    how = Finetune(teacher=teacher, epochs=6, batch=16, learning_rate=5e-3)
    after = how(shared, context())
    before, best = after.lineage[-1].notes["validation"]
    assert best < before
    for name in KERNELS:
        assert distinct(after, name) <= 4
        old, new = graphs.weights_of(shared)[name], graphs.weights_of(after)[name]
        np.testing.assert_array_equal(new[old == 0], 0)
        assert not np.array_equal(new, old)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["zeros", "values", "zeros and values"])
def test_quantization_aware_training_keeps_what_was_bought(kept: str) -> None:
    """Sparsity-, cluster-, and sparsity- and cluster-preserving, seen on the integers of a file."""
    teacher, ctx = graphs.cnn(), context()
    before = Simplify()(teacher, ctx)
    before = PruneMagnitude(sparsity=0.4)(before) if "zeros" in kept else before
    before = ClusterWeights(clusters=4)(before) if "values" in kept else before
    rounded = QuantizeStatic()(before, ctx)
    after = Finetune(teacher=teacher, epochs=2, batch=16, learning_rate=5e-3)(rounded, ctx)
    after = Model.from_proto(onnx.load_from_string(after.to_bytes()))
    checked, moved = 0, False
    for name, old in graphs.weights_of(rounded).items():
        new = graphs.weights_of(after)[name]
        if old.dtype != np.int8 or old.ndim < 2:
            continue
        if "zeros" in kept:
            np.testing.assert_array_equal(new[old == 0], 0)
        if "values" in kept:
            for a, b in zip(old, new, strict=True):
                assert len(np.unique(b)) <= len(np.unique(a))
        moved = moved or not np.array_equal(old, new)
        checked += 1
    assert checked >= 3
    assert moved


@pytest.mark.parametrize("fields", [{"clusters": 1}, {"iterations": 0}, {"ops": ("Relu",)}])
def test_fields_that_make_no_sense(fields: dict) -> None:
    with pytest.raises(OptionError):
        ClusterWeights(**fields)
