"""The paired sequential test, on made noise: what it may claim wrongly, and what it must find."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runtime_bench.stats.e_process import (
    PairedTest,
    hodges_lehmann,
    log_e_value,
    log_phi,
    medians_side_by_side,
    scale_about,
)
from trimtab.runtime_bench.stats.verdict import decide, interval, is_decided

ALPHA, RESOLUTION = 0.01, 0.05
Noise = Callable[[np.random.Generator, int], np.ndarray]


def drift(rng: np.random.Generator, count: int) -> np.ndarray:
    """A clock rate that falls by a fifth, and white noise. (count, 4): log time by position."""
    line = np.linspace(0, 0.2, 4 * count) + 0.03 * rng.standard_normal(4 * count)
    return line.reshape(count, 4)


def bursts(rng: np.random.Generator, count: int) -> np.ndarray:
    """A neighbour that doubles latencies now and then for a while."""
    on = np.repeat(rng.random(count * 4 // 8 + 1) < 0.1, 8)[: 4 * count]
    return (0.7 * on + 0.03 * rng.standard_normal(4 * count)).reshape(count, 4)


def autocorrelated(rng: np.random.Generator, count: int) -> np.ndarray:
    """AR(0.6), and the inner positions of a block are slower."""
    white = 0.05 * rng.standard_normal(4 * count)
    series = np.zeros(4 * count)
    for i in range(1, 4 * count):
        series[i] = 0.6 * series[i - 1] + white[i]
    return series.reshape(count, 4) + np.array([0, 0.05, 0.05, 0.04])


def heavy_tails(rng: np.random.Generator, count: int) -> np.ndarray:
    """Student's t with 1.5 degrees of freedom: no variance."""
    return 0.03 * rng.standard_t(1.5, (count, 4))


NOISES = [drift, bursts, autocorrelated, heavy_tails]


def log_ratios(
    noise: Noise, rng: np.random.Generator, count: int, theta: float = 0.0, *, coin: bool = True
) -> list[float]:
    """Blocks ABBA or BAAB under the noise, with true log ratio theta."""
    times = noise(rng, count)
    abba = rng.integers(2, size=count).astype(bool) if coin else np.ones(count, bool)
    outer, inner = times[:, [0, 3]].mean(1), times[:, [1, 2]].mean(1)
    return list(np.where(abba, outer - inner, inner - outer) + theta)


def verdicts(noise: Noise, theta: float, sequences: int, count: int, *, coin: bool = True) -> list:
    rng = np.random.default_rng(7)
    tests = [
        PairedTest.of(log_ratios(noise, rng, count, theta, coin=coin)) for _ in range(sequences)
    ]
    return [decide(test, alpha=ALPHA, resolution=RESOLUTION) for test in tests]


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.__name__)
def test_equal_models_are_told_apart_no_more_often_than_alpha(noise: Noise) -> None:
    found = verdicts(noise, 0.0, sequences=300, count=80)
    wrong = found.count("better") + found.count("worse")
    assert wrong <= 300 * ALPHA


def test_without_the_coin_a_fixed_order_would_alarm() -> None:
    found = verdicts(autocorrelated, 0.0, sequences=60, count=200, coin=False)
    assert found.count("worse") + found.count("better") > 10


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.__name__)
def test_five_percent_are_found_in_both_directions(noise: Noise) -> None:
    theta = math.log(1.05)
    assert verdicts(noise, theta, sequences=30, count=300).count("better") >= 29
    assert verdicts(noise, -theta, sequences=30, count=300).count("worse") >= 29


def test_equal_models_come_out_same() -> None:
    assert verdicts(drift, 0.0, sequences=30, count=80).count("same") >= 29


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.__name__)
def test_the_interval_at_the_stop_holds_the_truth(noise: Noise) -> None:
    rng, theta, missed = np.random.default_rng(3), 0.1, 0
    for _ in range(60):
        test = PairedTest()
        for value in log_ratios(noise, rng, 80, theta):
            test.add(value)
            if test.blocks % 5 == 0 and is_decided(test, alpha=ALPHA, resolution=RESOLUTION):
                break
        low, high = interval(test, alpha=ALPHA, resolution=RESOLUTION)
        missed += not low <= math.exp(theta) <= high
    assert missed <= 1


def test_the_interval_shrinks_as_blocks_come() -> None:
    rng = np.random.default_rng(0)
    values = log_ratios(drift, rng, 400, 0.3)
    widths = [np.diff(PairedTest.of(values[:n]).interval(ALPHA))[0] for n in (30, 100, 400)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.02


def test_the_interval_holds_the_estimate_where_the_noise_changed_after_a_verdict() -> None:
    rng = np.random.default_rng(0)
    test = PairedTest.of([*rng.normal(0.2, 0.02, 60), *rng.normal(0.02, 0.02, 150)])
    low, high = interval(test, alpha=ALPHA, resolution=RESOLUTION)
    assert low <= math.exp(test.estimate()) <= high


def test_nothing_is_claimed_within_the_pilot() -> None:
    assert PairedTest.of([5.0] * 9).evidence_above(0) == 0
    test = PairedTest.of([5.0] * 10)  # of which the sizes alone are the scale
    assert 0 < test.evidence_above(0) < math.log(2 / 0.05)
    assert test.interval(ALPHA) == (-math.inf, math.inf)
    assert decide(test, alpha=ALPHA, resolution=RESOLUTION) == "inconclusive"
    assert interval(test, alpha=ALPHA, resolution=RESOLUTION) == (0.0, math.inf)


def test_blocks_without_any_noise_decide() -> None:
    assert (
        decide(PairedTest.of([0.5] * 40), alpha=ALPHA, resolution=RESOLUTION),
        decide(PairedTest.of([-0.5] * 40), alpha=ALPHA, resolution=RESOLUTION),
        decide(PairedTest.of([0.0] * 40), alpha=ALPHA, resolution=RESOLUTION),
    ) == ("better", "worse", "same")


def test_one_pair_of_sessions_must_differ_by_more_than_its_luck() -> None:
    kept = {"alpha": ALPHA, "resolution": RESOLUTION, "renewed": False}
    assert decide(PairedTest.of([0.02] * 40), **kept) == "same"
    assert decide(PairedTest.of([0.06] * 40), **kept) == "better"
    assert decide(PairedTest.of([-0.06] * 40), **kept) == "worse"


def test_one_preempted_block_does_not_undo_the_evidence() -> None:
    rng = np.random.default_rng(0)
    values = list(0.05 + 0.02 * rng.standard_normal(60))
    spoilt = [*values[:30], -3.0, *values[31:]]
    assert decide(PairedTest.of(spoilt), alpha=ALPHA, resolution=RESOLUTION) == "better"


def test_evidence_asked_late_is_the_evidence_asked_early() -> None:
    rng = np.random.default_rng(0)
    values = log_ratios(bursts, rng, 50, 0.02)
    early = PairedTest()
    for value in values:
        early.add(value)
        early.evidence_above(0.01)
    assert early.evidence_above(0.01) == PairedTest.of(values).evidence_above(0.01)


def test_the_mixture_is_the_integral_it_stands_for() -> None:
    total, squares, tau2 = 5.0, 20.0, 0.25
    grid = np.linspace(0, 8, 400_001)
    density = 2 * np.exp(-(grid**2) / (2 * tau2)) / math.sqrt(2 * math.pi * tau2)
    integral = np.trapezoid(density * np.exp(grid * total - grid**2 * squares / 2), grid)
    assert log_e_value(total, squares) == pytest.approx(math.log(integral), abs=1e-6)


def test_log_phi_is_smooth_where_its_form_changes() -> None:
    assert log_phi(0) == pytest.approx(math.log(0.5))
    assert log_phi(-12.0) == pytest.approx(log_phi(-11.9999), abs=2e-3)
    assert log_phi(-40.0) == pytest.approx(-804.608442, abs=1e-5)


@pytest.mark.slow
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.floats(-1, 1))
def test_the_estimate_moves_with_the_values(values: list[float], shift: float) -> None:
    moved = hodges_lehmann([v + shift for v in values])
    assert moved == pytest.approx(hodges_lehmann(values) + shift, abs=1e-9)
    assert min(values) <= hodges_lehmann(values) <= max(values)


@pytest.mark.slow
@given(st.lists(st.floats(-2, 2), min_size=12, max_size=80))
def test_the_interval_mirrors_when_the_models_swap(values: list[float]) -> None:
    low, high = PairedTest.of(values).interval(ALPHA)
    mirrored = PairedTest.of([-v for v in values]).interval(ALPHA)
    assert mirrored == pytest.approx((-high, -low), abs=1e-9)
    assert low <= high


def test_an_estimate_of_many_blocks_stays_cheap() -> None:
    values = np.random.default_rng(0).standard_normal(20_001)
    assert hodges_lehmann(values) == np.median(values)


def test_an_estimate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        hodges_lehmann([])


def test_the_scale_ignores_a_wild_value_and_all_signs_and_never_vanishes() -> None:
    values = [*np.random.default_rng(0).standard_normal(400), 1e6]
    assert scale_about(0, values) == pytest.approx(0.6745, abs=0.1)
    assert scale_about(0, [abs(value) for value in values]) == scale_about(0, values)
    assert scale_about(0.2, [0.2] * 10) > 0


@pytest.mark.parametrize(("alpha", "blocks"), [(0.05, 11), (0.01, 14)])
def test_a_large_difference_is_claimed_after_the_fewest_blocks(alpha: float, blocks: int) -> None:
    values = list(np.random.default_rng(0).normal(0.7, 0.001, blocks))
    limit = math.log(2 / alpha)
    assert PairedTest.of(values[:-1]).evidence_above(0.0) < limit
    assert PairedTest.of(values).evidence_above(0.0) >= limit
    low, high = PairedTest.of(values).interval(alpha)
    assert 0.69 < low < 0.7 < high < 0.71


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.__name__)
def test_a_test_that_may_stop_at_any_block_alarms_no_more_often_than_alpha(noise: Noise) -> None:
    """The scale is made from blocks that count: what it may not do is to raise false alarms."""
    rng, limit = np.random.default_rng(11), math.log(2 / 0.05)
    tests = [PairedTest.of(log_ratios(noise, rng, 120)) for _ in range(400)]
    wrong = sum(max(t.evidence_above(0.0), t.evidence_below(0.0)) >= limit for t in tests)
    assert wrong <= 400 * 0.05


def test_medians_side_by_side_see_through_a_machine_of_two_speeds() -> None:
    """Half of the rounds run at 0.6 of the speed; each plain median falls on either."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        slow = np.where(rng.random(41) < 0.5, 1 / 0.6, 1.0)
        true = np.array([100.0, 80.0, 40.0])
        times = true[:, None] * slow * np.exp(0.02 * rng.standard_normal((3, 41)))
        found = medians_side_by_side(times.tolist())
        assert np.array(found) / found[0] == pytest.approx(true / 100, rel=0.02)
        assert 95 < found[0] < 105 / 0.6


def test_one_row_alone_has_its_median_and_a_longer_row_is_cut() -> None:
    assert medians_side_by_side([[3e6, 1e6, 2e6]]) == pytest.approx([2e6])
    assert medians_side_by_side([[10.0, 10.0, 10.0], [20.0, 20.0]]) == pytest.approx([10, 20])
    with pytest.raises(ValueError, match="no times"):
        medians_side_by_side([[1.0], []])
