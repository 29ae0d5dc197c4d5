"""The paired sequential test: a self-normalised e-process on log ratios of blocks.

Block i times base and candidate in the order ABBA or BAAB, drawn by a fair coin, and yields
d_i = ln(base / candidate): above 0 the candidate is faster. To test a boundary theta0:

    y_i = clip((d_i - theta0) / s, -3, 3),   S = sum y_i,   V = sum y_i^2
    E   = 2 Phi(z) exp(z^2 / 2) / sqrt(1 + tau2 V),   z = S / sqrt(V + 1 / tau2)

where s is the robust spread of the first ten blocks, which are not used again. For symmetric Y,
E[exp(l Y - l^2 Y^2 / 2)] <= 1 for every l (de la Pena, "A general class of exponential inequalities
for martingales and ratios", Ann. Probab. 27, 1999), so the mixture of it over a half-normal l > 0
(Robbins, "Statistical methods related to the law of the iterated logarithm", 1970) is a
non-negative supermartingale, and P(ever E >= 1 / alpha) <= alpha (Ville 1939): the test may be
looked at after every block and stopped at any time. It needs neither a variance nor normality nor
independence: of two equal programs the coin makes d_i symmetric whatever the machine does. For
another boundary than 0 the noise must act multiplicatively.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trimtab.core.data import Floats

PILOT_BLOCKS = 10
TAU2 = 0.25
CLIP = 3.0
#: Spread in log units below which the pilot's blocks count as equal; a clock ticks no finer.
SPREAD_FLOOR = 1e-3
#: Up to here all pairs of blocks are averaged for the estimate; beyond, the median does.
PAIRS_UP_TO = 1500
#: Sweeps of a median polish, which hardly moves after two.
POLISHING = 4


def log_e_value(total: float, squares: float) -> float:
    """Logarithm of E of the half-normal mixture, for S = `total` and V = `squares`."""
    z = total / math.sqrt(squares + 1 / TAU2)
    return math.log(2) + log_phi(z) + z * z / 2 - math.log1p(TAU2 * squares) / 2


def log_phi(z: float) -> float:
    """Logarithm of the normal distribution function, by its asymptotic series far below."""
    if z > -12:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2)))
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) + math.log1p(-1 / (z * z))


def spread(values: Sequence[float]) -> float:
    """Robust standard deviation, 1.4826 MAD, at least `SPREAD_FLOOR`."""
    array = np.asarray(values, float)
    return max(SPREAD_FLOOR, 1.4826 * float(np.median(np.abs(array - np.median(array)))))


class EProcess:
    """Evidence, block by block, that the true log ratio lies beyond a boundary.

    Args:
        boundary: theta0.
        sign: +1 for "theta > theta0", -1 for "theta < theta0".
        scale: spread of the pilot, frozen.
    """

    def __init__(self, boundary: float, sign: int, scale: float) -> None:
        self.boundary, self.sign, self.scale = boundary, sign, scale
        self.total = self.squares = 0.0
        self.log_e = self.peak = 0.0

    def add(self, log_ratio: float) -> None:
        """Take one more block in."""
        y = self.sign * (log_ratio - self.boundary) / self.scale
        y = min(CLIP, max(-CLIP, y))
        self.total += y
        self.squares += y * y
        self.log_e = log_e_value(self.total, self.squares)
        self.peak = max(self.peak, self.log_e)


class PairedTest:
    """All that is known of one candidate against its base, block by block.

    Attributes:
        log_ratios: d_i of every block, ln(base / candidate).
    """

    def __init__(self) -> None:
        self.log_ratios: list[float] = []
        self._processes: dict[tuple[float, int], EProcess] = {}

    @classmethod
    def of(cls, log_ratios: Sequence[float]) -> PairedTest:
        """The test after the given blocks."""
        test = cls()
        for value in log_ratios:
            test.add(value)
        return test

    def add(self, log_ratio: float) -> None:
        """Take one more block in."""
        self.log_ratios.append(log_ratio)
        for process in self._processes.values():
            process.add(log_ratio)

    @property
    def blocks(self) -> int:
        """Number of blocks, the pilot's included."""
        return len(self.log_ratios)

    @property
    def scale(self) -> float | None:
        """Spread of the pilot, None before it is complete."""
        return None if self.blocks < PILOT_BLOCKS else spread(self.log_ratios[:PILOT_BLOCKS])

    def evidence_above(self, boundary: float) -> float:
        """Largest ln E so far for "the log ratio is above the boundary"; compare with ln(1/a)."""
        return self._evidence(boundary, 1)

    def evidence_below(self, boundary: float) -> float:
        """Largest ln E so far for "the log ratio is below the boundary"; compare with ln(1/a)."""
        return self._evidence(boundary, -1)

    def _evidence(self, boundary: float, sign: int) -> float:
        scale = self.scale
        if scale is None:
            return 0.0
        process = self._processes.get((boundary, sign))
        if process is None:
            process = self._processes[boundary, sign] = EProcess(boundary, sign, scale)
            for value in self.log_ratios[PILOT_BLOCKS:]:
                process.add(value)
        return process.peak

    def estimate(self) -> float:
        """Estimate of the log ratio: Hodges-Lehmann over the blocks after the pilot."""
        return hodges_lehmann(self.log_ratios[PILOT_BLOCKS:] or self.log_ratios)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence {theta0: neither side rejects}, valid at any stop.

        Args:
            alpha: error rate of the two ends together.

        Returns:
            (low, high) of the log ratio, infinite where the blocks do not suffice yet.
        """
        values = np.asarray(self.log_ratios[PILOT_BLOCKS:], float)
        scale = self.scale
        if scale is None or not len(values):
            return -math.inf, math.inf
        limit = math.log(2 / alpha)
        return _end(values, scale, limit), -_end(-values, scale, limit)


def _end(values: Floats, scale: float, limit: float) -> float:
    """The lower end of the confidence sequence: the smallest boundary that is not rejected."""
    lowest = float(values.min()) - CLIP * scale
    if _log_e(values, lowest, scale) < limit:  # even all y at the clip do not suffice
        return -math.inf
    grid = np.linspace(lowest, float(values.max()) + CLIP * scale, 65)
    first = next(i for i, theta in enumerate(grid) if _log_e(values, theta, scale) < limit)
    low, high = float(grid[first - 1]), float(grid[first])
    for _ in range(30):
        middle = (low + high) / 2
        if _log_e(values, middle, scale) < limit:
            high = middle
        else:
            low = middle
    return low


def _log_e(values: Floats, boundary: float, scale: float) -> float:
    y = np.clip((values - boundary) / scale, -CLIP, CLIP)
    return log_e_value(float(y.sum()), float(y @ y))


def hodges_lehmann(values: Sequence[float]) -> float:
    """Median of all pairwise means (Hodges and Lehmann 1963); the plain median where many.

    Its efficiency under normal noise is 0.955 of the mean's, the median's 0.637; its breakdown
    point is 29%.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("no values")
    array = np.asarray(values, float)
    if len(array) > PAIRS_UP_TO:
        return float(np.median(array))
    rows, columns = np.triu_indices(len(array))
    return float(np.median((array[rows] + array[columns]) / 2))


def medians_side_by_side(rounds: Sequence[Sequence[float]]) -> list[float]:
    """A typical time of each row, freed of what slows all rows of a column alike.

    Median polish (Tukey, Exploratory Data Analysis, 1977) on logarithms. Where a machine runs at
    two speeds by turns, plain medians may fall on the one for one row and on the other for another,
    so that their ratio tells nothing; within a column both run at the same.

    Args:
        rounds: (models, runs) times above 0; runs of one column were taken together. What one row
            has beyond the shortest is left out.

    Raises:
        ValueError: a row without times.
    """
    fewest = min(len(times) for times in rounds)
    if not fewest:
        raise ValueError("no times")
    rest = np.log(np.maximum(1.0, [list(times[:fewest]) for times in rounds]))
    rows, columns = np.zeros(len(rest)), np.zeros(fewest)
    for _ in range(POLISHING):
        by_row = np.median(rest, axis=1)
        rows, rest = rows + by_row, rest - by_row[:, None]
        by_column = np.median(rest, axis=0)
        columns, rest = columns + by_column, rest - by_column
    return [float(ns) for ns in np.exp(rows + np.median(columns))]
