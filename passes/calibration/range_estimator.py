"""Ranges of tensors from their statistics: the part of the values that the 256 levels cover.

`minmax` keeps all values; `mean_minmax` the mean over samples of their extremes (NNCF's default);
`percentile` cuts equal tails; `entropy` and `mse` search a clipping threshold over the histogram:
the least Kullback-Leibler divergence (Migacz 2017) or the least squared error (Sung et al. 2015,
Banner et al. 2019).
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Floats

from .histogram import BINS, Histogram
from .statistics import Statistics

Method = Literal["minmax", "mean_minmax", "percentile", "entropy", "mse"]
METHODS: tuple[str, ...] = get_args(Method)

Range = tuple[float, float]

LEVELS = 256
#: Number of thresholds that a search tries, as evenly spaced parts of the largest magnitude.
CANDIDATES = 100
#: Thresholds whose errors are computed at a time, so that they stay in the processor's cache.
TOGETHER = 8
#: Least threshold, as a part of the largest magnitude.
SMALLEST = 0.05


def find_range(
    statistics: Statistics, method: Method, *, percentile: float = 99.99, levels: int = LEVELS
) -> Range:
    """Choose the range of a tensor that the levels cover, zero included; see the module.

    Without samples it has zero width. `percentile` is the part of the values kept, in percent.
    """
    if statistics.rows == 0:
        return 0.0, 0.0
    full = (min(statistics.lowest, 0.0), max(statistics.highest, 0.0))
    if method == "minmax" or full == (0.0, 0.0):
        return full
    span = statistics.histogram.start, statistics.histogram.start + statistics.histogram.width
    full = intersection(span, full)  # the histogram excludes outliers
    if method == "mean_minmax":
        sums, rows = (statistics.sum_lowest, statistics.sum_highest), statistics.rows
        return intersection((min(sums[0] / rows, 0.0), max(sums[1] / rows, 0.0)), full)
    if method == "percentile":
        return intersection(_percentile(statistics.histogram, percentile), full)
    candidates = _candidates(full)
    search = squared_errors if method == "mse" else _divergences
    costs = search(statistics.histogram, candidates, levels)
    best = candidates[int(np.argmin(costs))]
    return float(best[0]), float(best[1])


def intersection(range_: Range, full: Range) -> Range:
    """Return the part of a range that lies in another one."""
    return max(range_[0], full[0]), min(range_[1], full[1])


def _percentile(histogram: Histogram, percentile: float) -> Range:
    """Return bounds that cut equal tails, zero included; linear within a bin."""
    tail = (100.0 - percentile) / 200.0
    share = np.concatenate([[0.0], np.cumsum(histogram.counts) / max(histogram.total, 1)])
    low, high = np.interp([tail, 1.0 - tail], share, histogram.edges)
    return min(float(low), 0.0), max(float(high), 0.0)


def _candidates(full: Range) -> Floats:
    """Return ranges to try, the full one first: (N, 2).

    Values are clipped by magnitude, so a tail on one side is not shortened for the other's sake.
    """
    low, high = full
    thresholds = max(-low, high) * np.linspace(1.0, SMALLEST, CANDIDATES)
    ends = [np.maximum(low, -thresholds), np.minimum(high, thresholds)]
    return np.unique(np.stack(ends, axis=1), axis=0)


def squared_errors(histogram: Histogram, candidates: Floats, levels: int) -> Floats:
    """Return the mean squared error of rounding and clipping to each candidate range: (N,)."""
    used = np.flatnonzero(histogram.counts)
    counts, centres = histogram.counts[used].astype(np.float64), histogram.centres[used]
    low, high = candidates[:, :1], candidates[:, 1:]
    scale = np.maximum(high - low, 1e-30) / (levels - 1)
    zero = np.round(-low / scale)
    result = np.empty(len(candidates))
    for start in range(0, len(candidates), TOGETHER):
        some = slice(start, start + TOGETHER)
        error = centres / scale[some]
        np.round(error, out=error)
        np.clip(error, -zero[some], levels - 1 - zero[some], out=error)
        error *= scale[some]
        error -= centres
        np.square(error, out=error)
        result[some] = error @ counts
    result /= max(int(histogram.counts.sum()), 1)
    # Values within a bin differ by its width, so finer rounding cannot be resolved.
    return result


def _divergences(histogram: Histogram, candidates: Floats, levels: int) -> Floats:
    """Return the Kullback-Leibler divergence of quantized from clipped distributions: (N,).

    Each level's count is spread evenly over its non-empty bins, so sums over bins are sums over
    levels, and those are differences of running sums: all candidates at once. Exact zeros, of
    which ReLU makes thousands, are left out: every range has them, and their peak would dominate.
    """
    counts = histogram.counts.astype(np.float64)
    step = histogram.width / BINS
    zero_bin = min(max(int(-histogram.start / step), 0), BINS - 1)
    counts[zero_bin] = 0.0
    if not counts.any():
        return np.zeros(len(candidates))
    low, high = (candidates - histogram.start).T / step
    first = np.clip(np.floor(low), 0, BINS - 1).astype(np.int64)
    last = np.clip(np.ceil(high), first + 1, BINS).astype(np.int64)
    sums, filled, entropy = (_running(a) for a in (counts, counts > 0, _times_log(counts)))
    edges = first[:, None] + -(-np.arange(levels + 1) * (last - first)[:, None] // levels)
    mass = np.diff(sums[edges], axis=1)
    bins = np.maximum(np.diff(filled[edges], axis=1), 1)
    kept, total = sums[last] - sums[first], sums[-1]
    share = mass / bins / np.maximum(kept, 1e-30)[:, None]  # of the quantized, in each filled bin
    wanted = entropy[last] - entropy[first]
    got = (mass * np.log(np.maximum(share, 1e-30))).sum(axis=1)
    # Values beyond are clipped to the first and the last bin; an empty one is smoothed.
    for position, clipped in ((first, sums[first]), (last - 1, total - sums[last])):
        count = counts[position]
        wanted += _times_log(count + clipped) - _times_log(count)
        levels_of = (edges[:, 1:] <= position[:, None]).sum(axis=1)
        chosen = share[np.arange(len(share)), levels_of]
        got += clipped * np.log(np.where(count > 0, np.maximum(chosen, 1e-30), 1e-9))
    divergence: Floats = np.where(kept > 0, (wanted - got) / total - np.log(total), np.inf)
    return divergence


def _running(values: NDArray[Any]) -> Floats:
    """Return the sums of all values before each position, one more than there are values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _times_log(values: Floats) -> Floats:
    """Return each value times its logarithm, 0 at 0."""
    result: Floats = values * np.log(np.maximum(values, 1e-30))
    return result
