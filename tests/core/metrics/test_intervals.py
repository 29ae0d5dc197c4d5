"""Intervals of what few items tell, as the first line of a command shows them."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import model_of

from trimtab.core.data import Floats
from trimtab.core.dataset import Dataset
from trimtab.core.metric import evaluate
from trimtab.core.metrics.fidelity import fidelity_of
from trimtab.core.metrics.metric import Pooled, Quality, with_interval
from trimtab.report.lines import quality_line


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


@pytest.mark.parametrize(("count", "half"), [(5, 0.502), (1000, 0.00251)])
def test_decisions_that_are_all_alike_leave_an_interval(count: int, half: float) -> None:
    """5 of 5 answers do not tell 1.0 from 0.5; a score that may be anything tells nothing."""
    right = quality(np.ones(count), unit=1.0)
    assert right.half_interval == pytest.approx(half)
    assert right.drop_text(right) == f"drop +0.0000 ± {half:.4f} (paired, 95%)"
    assert right.standard_error == 0.0
    assert quality(np.full(count, 0.25), unit=0.0).half_interval == 0.0


def test_decisions_that_differ_have_the_interval_of_their_spread() -> None:
    items = np.array([1.0, 0.0, 1.0, 1.0])
    assert quality(items, unit=1.0).half_interval == pytest.approx(1.96 * items.std(ddof=1) / 2)


def test_accuracy_of_few_right_answers_is_told_with_its_interval() -> None:
    model = model_of("(float[N,3] x) => (float[N,3] y) { y = Identity (x) }")
    rows = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]]
    data = Dataset.of_arrays({"x": rows}, rows.argmax(axis=1))
    found = evaluate(model, data, "top1")
    assert quality_line(found) == "top1 1.0000 ± 0.5020 on 5 items"


def quality(items: Floats, unit: float) -> Quality:
    return Quality("m", float(items.mean()), items, len(items), unit=unit)
