"""Intervals of what few items tell, as the first line of a command shows them."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.metrics.metric import Pooled, with_interval


@pytest.mark.parametrize("count", [8, 12, 64])
@pytest.mark.parametrize("kept", [0.8, 0.93, 0.99])
def test_the_interval_of_few_decisions_holds_the_truth(count: int, kept: float) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        items = (rng.random(count) < kept).astype(float)
        interval = Pooled(float(items.mean()), items).interval
        assert interval is not None
        held += interval[0] <= kept <= interval[1]
    assert held / 400 > 0.78  # a normal interval of so few is somewhat short


def test_of_decisions_that_all_stay_some_may_go() -> None:
    assert Pooled(1.0, np.ones(12)).interval == pytest.approx((1 - 2.51 / 12, 1.0))
    assert Pooled(1.0, np.ones(12), unit=0.01).interval == pytest.approx((1 - 0.0251 / 12, 1.0))
    assert Pooled(1.0, np.ones(1)).interval is None
    assert Pooled(0.5).interval is None


def test_an_interval_is_told_where_it_is_wide() -> None:
    assert with_interval(0.986, (0.93, 1.0)) == "0.986 [0.930, 1.000]"
    assert with_interval(0.986, (0.984, 0.988)) == "0.986"
    assert with_interval(0.986, None) == "0.986"


def test_answers_that_do_not_differ_at_all_have_no_interval_to_tell() -> None:
    model = model_of(
        "(float[N,4] x) => (float[N,3] y) <float[4,3] w> { l = MatMul (x, w) y = Softmax (l) }"
    )
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 12).astype(np.float32)
    metric = fidelity_of(model, [{"y": scores}])
    assert metric.finish is not None
    same = metric.finish([metric.score({"y": scores}, {"y": scores})])
    assert same.interval == (1.0, 1.0)
    near = metric.finish([metric.score({"y": scores * np.float32(0.999)}, {"y": scores})])
    assert near.value == 1.0
    assert near.interval == pytest.approx((1 - 2.51 / 12, 1.0))


@pytest.mark.parametrize("width", [1, 4])
def test_whole_numbers_that_all_stay_may_hide_a_difference(width: int) -> None:
    """Class numbers are decisions already: the same ones come from scores that differ."""
    model = model_of("(float[N,4] x) => (int64[N,K] y) { y = ArgMax <axis = 1, keepdims = 1> (x) }")
    ids = np.arange(12).reshape(12, 1).repeat(width, 1)
    metric = fidelity_of(model, [{"y": ids}])
    assert metric.finish is not None
    same = metric.finish([metric.score({"y": ids}, {"y": ids})])
    assert same.value == 1.0
    assert same.interval == pytest.approx((1 - 2.51 / 12 / width, 1.0))
