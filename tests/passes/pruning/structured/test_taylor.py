"""Importance by gradients: first-order change of the loss without a channel."""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from channel_models import TARGET, chain, step

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.passes.pruning.channels import PruneChannels
from trimtab.passes.pruning.dependency.graph import build_dependency_graph, prepare
from trimtab.passes.pruning.structured.taylor import taylor


def linear(c: int = 6) -> Model:
    """y = x W V, with nothing in between: its expansion to first order is exact."""
    return graphs.model_of(
        f"(float[N, 4] x) => (float[N, 5] y) <float[4,{c}] w, float[{c},5] v> "
        "{ a = MatMul(x, w) y = MatMul(a, v) }"
    )


def scores_of(model: Model, data: Dataset) -> np.ndarray:
    work = prepare(model.clone())
    graph = build_dependency_graph(work)
    return taylor(work, graph, data.bind(work), Context(target=TARGET))[graph.groups[0].units]


@pytest.mark.slow
def test_without_labels_it_is_the_squared_change_of_the_outputs() -> None:
    model = linear()
    x = np.random.default_rng(0).standard_normal((4000, 4)).astype(np.float32)
    w, v = (graphs.weights_of(model)[name] for name in "wv")
    found = scores_of(model, Dataset.of_arrays({"x": x}, batch=1))
    changes = [np.square(np.outer(x @ w[:, c], v[c])).sum(1) for c in range(6)]
    size = np.square(x @ w @ v).mean(1)
    wanted = np.array([(change / size).mean() for change in changes])
    np.testing.assert_allclose(found, wanted, rtol=0.15)


def test_with_labels_it_is_the_change_of_the_cross_entropy() -> None:
    model = linear()
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((32, 4)).astype(np.float32), rng.integers(0, 5, 32)
    w, v = (graphs.weights_of(model)[name].astype(np.float64) for name in "wv")

    def loss(scale: np.ndarray) -> float:
        logits = (x.astype(np.float64) @ w * scale) @ v
        return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(32), targets]).mean())

    step_size = 1e-5
    slopes = [(loss(1 + step_size * np.eye(6)[c]) - loss(np.ones(6))) / step_size for c in range(6)]
    found = scores_of(model, Dataset.of_arrays({"x": x}, targets, batch=32))
    np.testing.assert_allclose(found, np.square(slopes), rtol=1e-2, atol=1e-6)


def test_channels_whose_gradients_are_least_go_first() -> None:
    model = linear(8)
    v = graphs.weights_of(model)["v"]
    v[:4] *= 0.01
    model = graphs.model_of(
        "(float[N, 4] x) => (float[N, 5] y) <float[4,8] w, float[8,5] v> "
        "{ a = MatMul(x, w) y = MatMul(a, v) }",
        v=v,
    )
    data = Dataset.of_arrays(random_feeds(model, batch=32))
    options = {"importance": "taylor", "repair": "none", "block": 1}
    after = PruneChannels(0.5, **options)(model, Context(target=TARGET, data=data))
    kept = [a for a in graphs.weights_of(after).values() if a.shape == (4, 5)]
    np.testing.assert_array_equal(kept[0], v[4:])


def test_a_residual_network_is_differentiated_whole() -> None:
    model = chain(16)
    data = Dataset.of_arrays(random_feeds(model, batch=16))
    notes = step(
        PruneChannels(0.5, importance="taylor", scope="local")(
            model, Context(target=TARGET, data=data)
        )
    )
    assert notes["channels"] == [32, 16]


def test_it_refuses_to_go_without_data() -> None:
    with pytest.raises(DataError, match="needs data"):
        PruneChannels(0.5, importance="taylor")(chain(), Context(target=TARGET))
