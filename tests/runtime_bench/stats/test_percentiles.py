"""Percentiles that a sample supports, and the exact test of a percentile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runtime_bench.stats.percentiles import (
    binomial_cdf,
    design_effect,
    percentile,
    percentile_test,
    runs_needed,
)


def test_how_many_runs_a_percentile_needs() -> None:
    assert [runs_needed(q) for q in (0.5, 0.9, 0.95, 0.99)] == [7, 44, 90, 459]


def test_a_percentile_is_refused_where_it_would_be_the_maximum() -> None:
    assert percentile(range(89), 0.95) is None
    assert percentile(range(90), 0.95) == 85


@given(st.lists(st.integers(1, 10**9), min_size=7, max_size=99))
def test_the_median_by_rank_is_an_observed_value(samples: list[int]) -> None:
    assert percentile(samples, 0.5) == sorted(samples)[math.ceil(len(samples) / 2) - 1]


@pytest.mark.parametrize(
    ("runs", "passes", "fails"), [(1000, 34, 68), (2000, 77, 124), (5000, 214, 287)]
)
def test_the_exact_binomial_bounds_of_p95(runs: int, passes: int, fails: int) -> None:
    assert binomial_cdf(passes, runs, 0.05) <= 0.01 < binomial_cdf(passes + 1, runs, 0.05)
    assert 1 - binomial_cdf(fails - 1, runs, 0.05) <= 0.01 < 1 - binomial_cdf(fails - 2, runs, 0.05)


def test_the_binomial_law_at_its_ends() -> None:
    assert binomial_cdf(-1, 10, 0.3) == 0
    assert binomial_cdf(10, 10, 0.3) == 1
    assert binomial_cdf(0, 10, 0.3) == pytest.approx(0.7**10)


def test_a_fast_model_passes_with_the_fewest_runs() -> None:
    assert percentile_test([1.0] * 103, 2.0).verdict == "open"
    assert percentile_test([1.0] * 104, 2.0).verdict == "pass"


def test_a_slow_model_fails() -> None:
    found = percentile_test([3.0] * 104, 2.0)
    assert (found.verdict, found.over, found.runs) == ("fail", 104, 104)


def test_few_runs_decide_nothing() -> None:
    assert percentile_test([], 2.0).verdict == "open"
    assert percentile_test([9.0] * 20, 2.0).verdict == "open"


@pytest.mark.parametrize("wrong", ["pass", "fail"])
def test_a_percentile_just_at_the_limit_is_rarely_decided(wrong: str) -> None:
    rng = np.random.default_rng(1)
    series = (rng.random((300, 1700)) < 0.05).astype(float)
    assert [percentile_test(s, 0.5).verdict for s in series].count(wrong) <= 6


def test_bursts_count_for_less_than_independent_runs() -> None:
    rng = np.random.default_rng(0)
    alone = rng.random(4000) < 0.05
    clustered = np.repeat(rng.random(400) < 0.05, 10)
    assert design_effect(alone) < 1.6
    assert 6 < design_effect(clustered) < 16


def test_a_constant_series_has_no_design_effect() -> None:
    assert design_effect([False] * 50) == 1.0
    assert design_effect([True, False]) == 1.0


def test_clustered_runs_over_the_limit_do_not_fail_a_model_by_themselves() -> None:
    rng = np.random.default_rng(2)
    series = [np.repeat(rng.random(170) < 0.05, 10).astype(float) for _ in range(200)]
    assert [percentile_test(s, 0.5).verdict for s in series].count("fail") <= 8
