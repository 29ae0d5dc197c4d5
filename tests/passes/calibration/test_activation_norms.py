"""Magnitudes times the norms of what they multiply."""

from __future__ import annotations

import graphs
import numpy as np
import pytest
from channel_models import TARGET

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError
from trimtab.passes.calibration.activation_norms import input_norms
from trimtab.passes.graph.stored.weights import find_weights
from trimtab.passes.pruning.magnitude import PruneMagnitude

OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def norms(model, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    found, _ = find_weights(model.ir, OPS, (), ())
    return input_norms(model, found, Dataset.of_arrays(feeds), Context(target=TARGET))


def rms(array: np.ndarray, axis: int) -> np.ndarray:
    return np.sqrt(np.square(np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])).mean(0))


@pytest.mark.parametrize(
    ("body", "w", "axis", "shape"),
    [
        ("y = MatMul(x, w)", (6, 5), 2, (6, 1)),
        ("y = MatMul(w, x)", (5, 4), 1, (1, 4)),
    ],
)
def test_products_read_the_axis_that_they_sum_over(body, w, axis, shape) -> None:
    rows = "N, 5, 6" if body.endswith("(w, x)") else "N, 4, 5"
    dims = ",".join(map(str, w))
    model = graphs.model_of(
        f"(float[N, 4, 6] x) => (float[{rows}] y) <float[{dims}] w> {{ {body} }}"
    )
    x = np.random.default_rng(0).standard_normal((16, 4, 6)).astype(np.float32)
    found = norms(model, x=x)["w"]
    np.testing.assert_allclose(found, rms(x, axis).reshape(shape), rtol=1e-5)


@pytest.mark.parametrize("group", [1, 2])
def test_convolutions_read_channels_each_group_its_own(group: int) -> None:
    model = graphs.model_of(
        f"(float[N, 4, 5, 5] x) => (float[N, 6, 5, 5] y) <float[6,{4 // group},1,1] w> "
        f"{{ y = Conv<group={group}>(x, w) }}"
    )
    x = np.random.default_rng(0).standard_normal((16, 4, 5, 5)).astype(np.float32)
    x *= np.arange(1, 5).reshape(1, -1, 1, 1)
    table = np.broadcast_to(norms(model, x=x)["w"], (6, 4 // group, 1, 1))[:, :, 0, 0]
    wanted = rms(x, 1)
    np.testing.assert_allclose(table[0], wanted[: 4 // group], rtol=1e-5)
    np.testing.assert_allclose(table[-1], wanted[-(4 // group) :], rtol=1e-5)


def test_a_weight_that_multiplies_nothing_goes_before_a_smaller_one() -> None:
    model = graphs.model_of(
        "(float[N, 4] x) => (float[N, 3] y) <float[4,3] w> { y = MatMul(x, w) }",
        w=np.array([[9, 9, 9], [8, 8, 8], [1, 1, 1], [2, 2, 2]], np.float32),
    )
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    x[:, 0] *= 1e-3
    data = Dataset.of_arrays({"x": x})
    pruned = PruneMagnitude(0.5, importance="activation", data=data)(model, Context(target=TARGET))
    assert (graphs.weights_of(pruned)["w"] != 0).any(1).tolist() == [False, True, False, True]
    pattern = PruneMagnitude(pattern="2:4", importance="activation", data=data)
    pruned = pattern(model, Context(target=TARGET))
    assert (graphs.weights_of(pruned)["w"] != 0).any(1).tolist() == [False, True, False, True]


def test_missing_data_and_nan_are_refused() -> None:
    model = graphs.cnn()
    with pytest.raises(DataError, match="needs data"):
        PruneMagnitude(0.5, importance="activation")(model, Context(target=TARGET))
    data = Dataset.of_arrays({"x": np.full((4, 3, 8, 8), np.nan, np.float32)})
    with pytest.raises(DataError, match="NaN"):
        PruneMagnitude(0.5, importance="activation", data=data)(model, Context(target=TARGET))
