"""Loss curves by least squares: the error that the readers of a group cannot compensate.

Backward elimination: the next channel to go is the one whose absence raises the error of its
readers least, with their weights solved again each time. With P the inverse covariance of a
reader's inputs and W its weights, removing the columns c raises the squared error by
tr(W_c' P_cc^-1 W_c), and P and W are updated in closed form: optimal brain surgeon on whole
channels (Hassibi and Stork 1993; for groups Kurtic et al. 2022, arXiv 2203.07259).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Floats

from .budget import LossCurve
from .moments import Moments

#: Ridge of the covariance, as a part of the mean of its diagonal.
RIDGE = 1e-4
#: Most solutions for one group: wider ones lose several channels at a time.
ROUNDS = 96

Places = NDArray[np.int64]


@dataclass(eq=False)
class ReaderSolution:
    """Least-squares weights of a reader while columns go.

    Attributes:
        inverse: (columns, columns) inverse covariance; identity rows for removed columns.
        weights: (columns, outputs), or any such matrix of the same products of rows: no more
            are needed. Rows of removed columns are 0.
        scale: divisor of errors: the variance of the tensor that they disturb.
    """

    inverse: Floats
    weights: Floats
    scale: float

    @classmethod
    def of(cls, found: Moments, scale: float) -> ReaderSolution:
        """Solve with all columns."""
        inverse = np.asarray(np.linalg.inv(with_ridge(found.xx)), np.float64)
        weights = inverse @ found.xy
        if weights.shape[1] > len(weights):
            weights = np.asarray(np.linalg.qr(weights.T, mode="r")).T
        return cls(inverse, weights, scale)

    def increase(self, places: Places) -> NDArray[np.float64]:
        """Return the rise of the error for each candidate, from its columns (candidates, n)."""
        if places.shape[1] == 1:
            columns = places[:, 0]
            squares = np.square(self.weights[columns]).sum(axis=1)
            return np.asarray(squares / (self.inverse[columns, columns] * self.scale))
        blocks = self.inverse[places[:, :, None], places[:, None, :]]
        rows = self.weights[places]  # (candidates, n, outputs)
        solved = np.linalg.solve(blocks, rows)
        return np.asarray(np.einsum("nko,nko->n", rows, solved) / self.scale)

    def remove(self, columns: NDArray[np.int64]) -> None:
        """Solve again without these columns."""
        side = self.inverse[:, columns]
        both = np.concatenate([side.T, self.weights[columns]], axis=1)
        change = np.linalg.solve(self.inverse[np.ix_(columns, columns)], both)
        size = len(self.inverse)
        self.inverse -= side @ change[:, :size]
        self.weights -= side @ change[:, size:]
        self.inverse[columns] = 0
        self.inverse[:, columns] = 0
        self.inverse[columns, columns] = 1
        self.weights[columns] = 0


def with_ridge(covariance: Floats, ridge: float = RIDGE) -> Floats:
    """Add a ridge, since channels that are always zero make a covariance singular."""
    level = float(np.trace(covariance)) / max(len(covariance), 1)
    return covariance + np.eye(len(covariance)) * max(ridge * level, 1e-12)


def backward_elimination(
    units: NDArray[np.int64], readers: Sequence[tuple[ReaderSolution, Places]]
) -> LossCurve:
    """Return the order in which a group's units (n,) go and the loss, summed over all readers.

    Each reader is a solution, which is changed, with the columns of the units, (n, columns).
    """
    alive = np.arange(len(units))
    order: list[int] = []
    lost = [0.0]
    at_once = max(1, len(units) // ROUNDS)
    while len(alive):
        rises = sum(solution.increase(places[alive]) for solution, places in readers)
        rises = np.maximum(np.nan_to_num(np.asarray(rises), nan=np.inf), 0)
        chosen = np.argsort(rises, kind="stable")[:at_once]
        for solution, places in readers:
            solution.remove(places[alive[chosen]].reshape(-1))
        order.extend(int(i) for i in alive[chosen])
        lost.extend(lost[-1] + np.cumsum(rises[chosen]))
        alive = np.delete(alive, chosen)
    return LossCurve(units[order], np.array(lost))
