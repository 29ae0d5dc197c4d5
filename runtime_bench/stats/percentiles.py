"""Percentiles, and the test of "the q-quantile of latency is below a limit"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: A percentile is reported only where, at 99% confidence, some run lies beyond it.
CONFIDENCE = 0.99

PercentileVerdict = Literal["pass", "fail", "open"]


def runs_needed(quantile: float) -> int:
    """Return the fewest runs that support a percentile, q^n <= 0.01: p90 44, p95 90, p99 459.

    With fewer, the sample's percentile may well be its maximum and says nothing about the tail.
    """
    # The small term keeps 1e-2 == 0.1^2 from rounding up.
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(quantile) - 1e-9)


def percentile(samples: Sequence[float], quantile: float) -> float | None:
    """Return the quantile by nearest rank, an observed value; None if the sample is too small."""
    count = len(samples)
    if count < runs_needed(quantile):
        return None
    rank = math.ceil(quantile * count) - 1
    return float(np.partition(np.asarray(samples, float), rank)[rank])


def binomial_cdf(successes: int, trials: int, rate: float) -> float:
    """Return P(Bin(trials, rate) <= successes), summed in log space."""
    if successes < 0:
        return 0.0
    if successes >= trials:
        return 1.0
    k = np.arange(1, successes + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((trials - k + 1) / k))])
    all_k = np.arange(successes + 1)
    terms = log_choose + all_k * math.log(rate) + (trials - all_k) * math.log1p(-rate)
    return min(1.0, float(np.exp(terms).sum()))


def design_effect(indicator: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Return 1 + 2 sum rho_k of an indicator series: the runs that are worth one independent run.

    The sum ends at the first pair of lags whose correlations sum to less than 0 (Geyer, "Practical
    Markov chain Monte Carlo", Statistical Science 7, 1992). At least 1.
    """
    series = np.asarray(indicator, float)
    series = series - series.mean()
    count, power = len(series), float(series @ series)
    if count < 4 or not power:
        return 1.0
    total = 0.0
    for lag in range(1, min(count - 1, 400), 2):
        pair = float(series[:-lag] @ series[lag:] + series[: -lag - 1] @ series[lag + 1 :]) / power
        if pair <= 0:
            break
        total += pair
    return 1 + 2 * total


@dataclass(frozen=True)
class PercentileTest:
    """Result of the test "the quantile is below the limit".

    Attributes:
        verdict: pass, fail, or open if there are too few runs.
        runs: number of runs.
        over: number of runs above the limit.
        effect: design effect of the sequence at the deciding (or last) look.
    """

    verdict: PercentileVerdict
    runs: int
    over: int
    effect: float


def percentile_test(
    samples_ns: Sequence[float], limit_ns: float, *, quantile: float = 0.95, alpha: float = 0.01
) -> PercentileTest:
    """Test "quantile < limit" by the exact binomial distribution of the runs above the limit.

    The test looks at doublings of the number of runs, look k with alpha / (k (k + 1)), which sums
    to alpha; so it may be repeated while runs come in, and the first decision stands. Runs are not
    independent: each look divides its counts by the design effect, rounded against the decision.
    Early stopping in MLPerf loadgen uses the same distribution, with one look. The samples are in
    the order they were taken; alpha bounds the probability of either wrong decision.
    """
    over = np.asarray(samples_ns, float) > limit_ns
    effect = 1.0
    for look, end in enumerate(_looks(len(over), quantile, alpha), 1):
        effect = design_effect(over[:end])
        verdict = _decide(int(over[:end].sum()), end, effect, quantile, alpha / (look * (look + 1)))
        if verdict != "open":
            return PercentileTest(verdict, len(over), int(over.sum()), effect)
    return PercentileTest("open", len(over), int(over.sum()), effect)


def fewest_runs(quantile: float, alpha: float) -> int:
    """Return the least runs for a decision: the first look of the test, q^n <= alpha/2."""
    return math.ceil(math.log(alpha / 2) / math.log(quantile))


def _looks(count: int, quantile: float, alpha: float) -> Iterator[int]:
    """Yield the looks: first where a pass is possible, then doublings."""
    look = fewest_runs(quantile, alpha)
    while look <= count:
        yield look
        look *= 2


def _decide(
    over: int, runs: int, effect: float, quantile: float, alpha: float
) -> PercentileVerdict:
    rate = 1 - quantile
    if binomial_cdf(math.ceil(over / effect), math.floor(runs / effect), rate) <= alpha:
        return "pass"
    fewer, trials = math.floor(over / effect), math.ceil(runs / effect)
    if fewer and 1 - binomial_cdf(fewer - 1, trials, rate) <= alpha:
        return "fail"
    return "open"
