"""Change points of a series: the least deviations with as few segments as suffice.

For every number of segments k the best cut into k constant segments is found exactly by dynamic
programming (segment neighbourhood: Auger and Lawrence, "Algorithms for the optimal identification
of segment neighborhoods", Bull. Math. Biol. 51, 1989), with the absolute deviation from the
segment's median as its cost, which one spike cannot move (the L1 Potts functional: Weinmann,
Storath, Demaret, SIAM J. Numer. Anal. 53, 2015). The k with the least

    n ln(cost(k) / n + floor) + 4 k ln n

is taken: the Bayesian information criterion of Laplace noise with a doubled penalty, as in the step
detection of airspeed velocity. Values are compared by their logarithms, so a change is a ratio.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np

#: Fewest values of a segment.
SHORTEST = 3
MOST_SEGMENTS = 8
#: Deviations below this part of the level count as none.
FLOOR = 0.002
#: Older values are left out, since the time of an exact cut grows with the square.
MOST_POINTS = 400


@dataclass(frozen=True)
class ChangePoint:
    """A change of level.

    Attributes:
        index: of the first value on the new level.
        before: median of the old level.
        after: median of the new level.
    """

    index: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """Relative change, 0.1 for an increase of 10%."""
        return self.after / self.before - 1 if self.before else math.inf


def find_change_points(values: Sequence[float]) -> list[ChangePoint]:
    """Find the changes of level of a series in order of time; none where it is short or constant.

    Where all values are above 0 their logarithms are compared.
    """
    first = max(0, len(values) - MOST_POINTS)
    kept = list(values[first:])
    if len(kept) < 2 * SHORTEST:
        return []
    positive = min(kept) > 0
    series = np.log(kept) if positive else np.asarray(kept, float)
    scale = 1.0 if positive else max(1e-12, float(np.max(np.abs(series))))
    ends = _best_cut(series / scale)
    levels = [float(median(kept[a:b])) for a, b in pairwise(ends)]
    return [
        ChangePoint(first + ends[i + 1], before, after)
        for i, (before, after) in enumerate(pairwise(levels))
    ]


def _best_cut(series: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    """Return the ends of the segments, from 0 to n."""
    count = len(series)
    cost = _costs(series)
    most = min(MOST_SEGMENTS, count // SHORTEST)
    # best[k][j]: least cost of the first j values in k + 1 segments; cut[k][j]: start of the last.
    best = np.full((most, count + 1), np.inf)
    cut = np.zeros((most, count + 1), int)
    best[0] = cost[0]
    for k in range(1, most):
        for j in range(SHORTEST * (k + 1), count + 1):
            totals = best[k - 1, :j] + cost[:j, j]
            cut[k, j] = int(np.argmin(totals))
            best[k, j] = totals[cut[k, j]]
    scores = [
        count * math.log(best[k, count] / count + FLOOR) + 4 * (k + 1) * math.log(count)
        for k in range(most)
    ]
    ends = [count]
    for k in range(int(np.argmin(scores)), 0, -1):
        ends.append(int(cut[k, ends[-1]]))
    return [0, *reversed(ends)]


def _costs(
    series: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Compute cost[i, j], the sum over i <= m < j of |x_m - median|; infinite if too short.

    The values of each start are kept sorted; the sum of deviations is the sum of the upper half
    minus that of the lower half.
    """
    count = len(series)
    cost = np.full((count + 1, count + 1), np.inf)
    for i in range(count):
        ordered: list[float] = []
        for j in range(i, count):
            bisect.insort(ordered, float(series[j]))
            size = len(ordered)
            if size >= SHORTEST:
                half = size // 2
                cost[i, j + 1] = sum(ordered[size - half :]) - sum(ordered[:half])
    return cost
