"""Loss curves by least squares: what the readers of a group cannot make up for.

Backward elimination: of the channels that are left the one goes whose absence raises the error of
its readers least, their weights solved anew each time. With P the inverse of the covariance of what
a reader sums over and W its weights, removing the columns c raises the squared error by
tr(W_c' P_cc^-1 W_c), and P and W are updated in closed form: optimal brain surgeon on whole
channels (Hassibi and Stork 1993; for groups Kurtic et al. 2022, arXiv 2203.07259).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Floats

from .budget import Curve
from .moments import Moments, Reader

#: Added to the covariance, as a part of the mean of its diagonal.
RIDGE = 1e-4
#: Groups of more channels lose several at a time, so that at most so many solutions are made.
ROUNDS = 96

Places = NDArray[np.int64]


@dataclass(eq=False)
class Solution:
    """A reader's least-squares weights while columns go.

    Attributes:
        inverse: (columns, columns) inverse covariance; rows of what is gone are those of the unit.
        weights: (columns, outputs); rows of what is gone are 0.
        scale: what an error is divided by: the variance of the tensor that it disturbs.
    """

    inverse: Floats
    weights: Floats
    scale: float

    @classmethod
    def of(cls, found: Moments, scale: float) -> Solution:
        """With all columns."""
        inverse = np.asarray(np.linalg.inv(damped(found.xx)), np.float64)
        return cls(inverse, inverse @ found.xy, scale)

    def increase(self, places: Places) -> NDArray[np.float64]:
        """Rise of the error, for each row of columns (candidates, columns of one)."""
        blocks = self.inverse[places[:, :, None], places[:, None, :]]
        rows = self.weights[places]  # (candidates, columns of one, outputs)
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


def damped(covariance: Floats) -> Floats:
    """With a small ridge, since channels that are always zero make it singular."""
    level = float(np.trace(covariance)) / max(len(covariance), 1)
    return covariance + np.eye(len(covariance)) * max(RIDGE * level, 1e-12)


def eliminate(classes: NDArray[np.int64], readers: Sequence[tuple[Solution, Places]]) -> Curve:
    """The order in which channels go and what is lost, summed over all readers.

    Args:
        classes: (n,) the group's classes.
        readers: solutions, which are used up, with (n, columns of one class) for each.
    """
    alive = np.arange(len(classes))
    order: list[int] = []
    lost = [0.0]
    at_once = max(1, len(classes) // ROUNDS)
    while len(alive):
        rises = sum(solution.increase(places[alive]) for solution, places in readers)
        rises = np.maximum(np.nan_to_num(np.asarray(rises), nan=np.inf), 0)
        chosen = np.argsort(rises, kind="stable")[:at_once]
        for solution, places in readers:
            solution.remove(places[alive[chosen]].reshape(-1))
        order.extend(int(i) for i in alive[chosen])
        lost.extend(lost[-1] + np.cumsum(rises[chosen]))
        alive = np.delete(alive, chosen)
    return Curve(classes[order], np.array(lost))


def columns_of(reader: Reader, positions: NDArray[np.int64]) -> Places:
    """(n, positions * taps) columns of each class, from (n, positions) of its input channels."""
    taps = np.arange(reader.taps)
    return (positions[:, :, None] * reader.taps + taps).reshape(len(positions), -1)
