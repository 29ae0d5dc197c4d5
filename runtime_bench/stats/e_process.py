"""The paired sequential test: a self-normalised e-process on log ratios of blocks.

Block i times base and candidate in the order ABBA or BAAB, drawn by a fair coin, and yields
d_i = ln(base / candidate): above 0 the candidate is faster. To test a boundary theta0:

    y_i = clip((d_i - theta0) / s, -2, 2),   S = sum y_i,   V = sum y_i^2
    E   = 2 Phi(z) exp(z^2 / 2) / sqrt(1 + tau2 V),   z = S / sqrt(V + 1 / tau2)

where s is the median of |d_i - theta0| over the first ten blocks, before which nothing is claimed.
Sizes alone decide the scale and what is clipped, and leave each sign a fair coin where d_i is
symmetric about theta0: so these blocks count as well. (A spread about their mean would depend on
the signs.) If Y is symmetric given what came before, E[exp(l Y - l^2 Y^2 / 2)] <= 1 for every l (de
la Pena, "A general class of exponential inequalities for martingales and ratios", Ann. Probab. 27,
1999), so its mixture over a half-normal l > 0 (Robbins, "Statistical methods related to the law of
the iterated logarithm", 1970) is a non-negative supermartingale, and P(ever E >= 1 / alpha) <=
alpha (Ville 1939): the test may be evaluated after every block and stopped at any time. It assumes
neither a known variance nor normality nor independence: for two equal programs the coin makes d_i
symmetric whatever the machine does. For boundaries other than 0 the noise has to act
multiplicatively.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trimtab.core.data import Floats

PILOT_BLOCKS = 10
TAU2 = 0.25
#: In medians of absolute differences: 1.35 standard deviations of normal noise, as Huber clips.
CLIP = 2.0
#: Least scale in log units, since clocks have a finite resolution.
SCALE_FLOOR = 1e-3
#: Most blocks of which all pairs are averaged for the estimate; beyond, the median is taken.
PAIRS_UP_TO = 1500
#: Iterations of the median polish, which hardly changes after two.
POLISH_ITERATIONS = 4


def log_e_value(total: float, squares: float) -> float:
    """Return ln E of the half-normal mixture, for S = `total` and V = `squares`."""
    z = total / math.sqrt(squares + 1 / TAU2)
    return math.log(2) + log_phi(z) + z * z / 2 - math.log1p(TAU2 * squares) / 2


def log_phi(z: float) -> float:
    """Return the logarithm of the normal distribution function, by a series in the far tail."""
    if z > -12:
        return math.log(0.5 * math.erfc(-z / math.sqrt(2)))
    return -z * z / 2 - math.log(-z * math.sqrt(2 * math.pi)) + math.log1p(-1 / (z * z))


def scale_about(boundary: float, pilot: Sequence[float]) -> float:
    """Return the median size of differences from a boundary, at least `SCALE_FLOOR`."""
    sizes = sorted(abs(value - boundary) for value in pilot)
    middle = len(sizes) // 2
    return max(SCALE_FLOOR, (sizes[middle] + sizes[~middle]) / 2)


class EProcess:
    """Evidence, block by block, that the true log ratio lies beyond a boundary theta0.

    The sign is +1 for "theta > theta0", -1 for "theta < theta0"; the scale is that of the pilot.
    """

    def __init__(self, boundary: float, sign: int, scale: float) -> None:
        self.boundary, self.sign, self.scale = boundary, sign, scale
        self.total = self.squares = 0.0
        self.log_e = self.peak = 0.0

    def add(self, log_ratio: float) -> None:
        """Add one block."""
        y = self.sign * (log_ratio - self.boundary) / self.scale
        y = min(CLIP, max(-CLIP, y))
        self.total += y
        self.squares += y * y
        self.log_e = log_e_value(self.total, self.squares)
        self.peak = max(self.peak, self.log_e)


class PairedTest:
    """Sequential test of one candidate against its base, block by block.

    Attributes:
        log_ratios: d_i of every block, ln(base / candidate).
    """

    def __init__(self) -> None:
        self.log_ratios: list[float] = []
        self._processes: dict[tuple[float, int], EProcess] = {}

    @classmethod
    def of(cls, log_ratios: Sequence[float]) -> PairedTest:
        """Build the test after these blocks."""
        test = cls()
        for value in log_ratios:
            test.add(value)
        return test

    def add(self, log_ratio: float) -> None:
        """Add one block."""
        self.log_ratios.append(log_ratio)
        for process in self._processes.values():
            process.add(log_ratio)

    @property
    def blocks(self) -> int:
        """Number of blocks, including the pilot."""
        return len(self.log_ratios)

    def evidence_above(self, boundary: float) -> float:
        """Return the largest ln E so far for "log ratio above"; compare with ln(1 / alpha)."""
        return self._evidence(boundary, 1)

    def evidence_below(self, boundary: float) -> float:
        """Return the largest ln E so far for "log ratio below"; compare with ln(1 / alpha)."""
        return self._evidence(boundary, -1)

    def _evidence(self, boundary: float, sign: int) -> float:
        if self.blocks < PILOT_BLOCKS:
            return 0.0
        process = self._processes.get((boundary, sign))
        if process is None:
            scale = scale_about(boundary, self.log_ratios[:PILOT_BLOCKS])
            process = self._processes[boundary, sign] = EProcess(boundary, sign, scale)
            for value in self.log_ratios:
                process.add(value)
        return process.peak

    def estimate(self) -> float:
        """Estimate the log ratio: Hodges-Lehmann over the blocks."""
        return hodges_lehmann(self.log_ratios)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Compute the confidence sequence {theta0: neither side rejects}, valid at any stop.

        Its ends share the error rate; they are infinite while there are too few blocks.
        """
        limit = math.log(2 / alpha)
        values = np.asarray(self.log_ratios, float)
        if len(values) < PILOT_BLOCKS or log_e_value(len(values), len(values)) < limit:
            return -math.inf, math.inf  # too few blocks, even if the truth is far away
        return _end(values, limit), -_end(-values, limit)


def _end(values: Floats, limit: float) -> float:
    """Find the lower end of the confidence sequence: the smallest boundary not rejected."""
    far = 6 * CLIP * scale_about(float(np.median(values)), values.tolist())
    grid = np.linspace(float(values.min()) - far, float(values.max()) + far, 129)
    first = int(np.argmax(_log_e(values, grid) < limit))
    if not first:
        return -math.inf
    for _ in range(4):  # each leaves a 32nd
        grid = np.linspace(grid[first - 1], grid[first], 33)
        first = int(np.argmax(_log_e(values, grid) < limit))
    return float(grid[first - 1])


def _log_e(values: Floats, boundaries: Floats) -> Floats:
    """Return ln E of "above" for each boundary after all blocks."""
    differences = values - boundaries[:, None]
    sizes = np.median(np.abs(differences[:, :PILOT_BLOCKS]), axis=1, keepdims=True)
    y = np.clip(differences / np.maximum(SCALE_FLOOR, sizes), -CLIP, CLIP)
    sums = zip(y.sum(axis=1), np.square(y).sum(axis=1), strict=True)
    return np.array([log_e_value(float(total), float(squares)) for total, squares in sums])


def hodges_lehmann(values: Sequence[float]) -> float:
    """Return the median of all pairwise means (Hodges and Lehmann 1963); of many, the median.

    Its efficiency under normal noise is 0.955 of the mean's (the median's: 0.637), its breakdown
    point 29%.

    Raises:
        ValueError: values are empty.
    """
    if not len(values):
        raise ValueError("no values")
    array = np.asarray(values, float)
    if len(array) > PAIRS_UP_TO:
        return float(np.median(array))
    rows, columns = np.triu_indices(len(array))
    return float(np.median((array[rows] + array[columns]) / 2))


def medians_side_by_side(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Estimate the median of each row without what slows all rows of a column alike.

    Median polish (Tukey, Exploratory Data Analysis, 1977) on logarithms. Where a machine alternates
    between two speeds, plain medians may fall on one for the first row and on the other for the
    second, so that their ratio says nothing; within a column both run at the same speed.

    Args:
        rounds: (models, runs) times above 0; runs of one column were taken together. Rows are cut
            to the length of the shortest.

    Raises:
        ValueError: a row without times.
    """
    fewest = min(len(times) for times in rounds)
    if not fewest:
        raise ValueError("no times")
    rest = np.log(np.maximum(1.0, [list(times[:fewest]) for times in rounds]))
    rows, columns = np.zeros(len(rest)), np.zeros(fewest)
    for _ in range(POLISH_ITERATIONS):
        by_row = np.median(rest, axis=1)
        rows, rest = rows + by_row, rest - by_row[:, None]
        by_column = np.median(rest, axis=0)
        columns, rest = columns + by_column, rest - by_column
    return [float(ns) for ns in np.exp(rows + np.median(columns))]
