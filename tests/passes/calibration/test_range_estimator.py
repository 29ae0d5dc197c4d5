from __future__ import annotations

import numpy as np
import pytest

from trimtab.passes.calibration.range_estimator import METHODS, find_range
from trimtab.passes.calibration.statistics import Statistics


def statistics_of(values: np.ndarray, rows: int = 8) -> Statistics:
    statistics = Statistics()
    assert statistics.update(values.astype(np.float32).reshape(rows, -1), rows, 1 << 30) is None
    return statistics


def rounded(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale


NORMAL = np.random.default_rng(0).standard_normal(80_000)
RELU = np.maximum(NORMAL, 0)
TAILED = np.random.default_rng(1).standard_t(3, 80_000)


def test_minmax_keeps_everything():
    assert find_range(statistics_of(NORMAL), "minmax") == pytest.approx(
        (NORMAL.min(), NORMAL.max())
    )


def test_mean_minmax_is_the_mean_over_samples():
    values = np.array([[-1.0, 2.0], [-3.0, 6.0]])
    assert find_range(statistics_of(values, rows=2), "mean_minmax") == (-2.0, 4.0)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentile_cuts_equal_tails(percentile):
    tail = (100 - percentile) / 2
    expected = np.percentile(NORMAL, [tail, 100 - tail])
    got = find_range(statistics_of(NORMAL), "percentile", percentile=percentile)
    np.testing.assert_allclose(got, expected, atol=0.03)


def test_percentile_of_all_is_minmax():
    assert find_range(statistics_of(NORMAL), "percentile", percentile=100) == pytest.approx(
        find_range(statistics_of(NORMAL), "minmax"), abs=0.005
    )


@pytest.mark.parametrize("values", [NORMAL, RELU, TAILED], ids=["normal", "relu", "tailed"])
def test_mse_finds_the_least_squared_error_by_brute_force(values):
    low, high = min(values.min(), 0), max(values.max(), 0)
    limit = max(-low, high)
    errors = [
        np.square(rounded(values, max(low, -t), min(high, t)) - values).mean()
        for t in np.linspace(0.05, 1, 200) * limit
    ]
    got = np.square(rounded(values, *find_range(statistics_of(values), "mse")) - values).mean()
    assert got <= 1.03 * min(errors)


def test_entropy_of_a_hand_made_histogram_by_brute_force():
    # Two hundred values that fit the levels, and one far out: keeping it would merge the others.
    near = np.repeat(np.linspace(0.02, 1, 200), 500)
    values = np.concatenate([near, [20.0], near[:7]])[: 100_000 // 8 * 8]
    _, high = find_range(statistics_of(values), "entropy")
    assert high < 5


def test_entropy_differs_from_minmax():
    assert find_range(statistics_of(TAILED), "entropy") != find_range(
        statistics_of(TAILED), "minmax"
    )


def test_entropy_keeps_a_uniform_range():
    values = np.random.default_rng(2).random(80_000)
    assert find_range(statistics_of(values), "entropy")[1] > 0.9


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_enormous_outlier_is_cut_off(method):
    values = RELU.copy()
    values[7] = 1000.0
    low, high = find_range(statistics_of(values), method, percentile=99.9)
    assert low == 0.0
    assert high < 150


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_constant_tensors_have_a_range_with_them_and_zero(method, value):
    low, high = find_range(statistics_of(np.full(80, value)), method)
    assert low <= min(value, 0.0) * 0.99
    assert high >= max(value, 0.0) * 0.99
    assert low <= 0.0 <= high


@pytest.mark.parametrize("method", METHODS)
def test_a_range_lies_within_the_values_and_contains_zero(method):
    for values in (NORMAL, RELU, -RELU, TAILED, NORMAL + 9):
        low, high = find_range(statistics_of(values), method)
        assert min(values.min(), 0) - 1e-3 <= low <= 0 <= high <= max(values.max(), 0) + 1e-3


@pytest.mark.parametrize("method", ["entropy", "mse"])
def test_a_short_tail_on_one_side_is_not_cut_for_the_other(method):
    silu = TAILED / (1 + np.exp(-TAILED))
    assert find_range(statistics_of(silu), method)[0] == pytest.approx(silu.min(), abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_no_samples_give_an_empty_range(method):
    assert find_range(Statistics(), method) == (0.0, 0.0)
