"""Choice of a reader's weights by rows that were held out: damped least squares, or the old ones.

Where a layer sees few positions, plain least squares fits their noise. The solution is therefore
pulled towards the old weights, by a damping that the held-out rows choose, and the old weights
stay where no solution is better than they are by more than chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from trimtab.core.data import Array, Floats

from .loss_curves import with_ridge
from .moments import HeldOut, Moments, Part

#: Dampings that are tried, as parts of the mean variance of a column, the least first.
DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


#: Weights (outputs, columns), from the rows to fit or from all of them.
Solver = Callable[[Part], Array]


@dataclass(frozen=True, eq=False)
class ReaderWeights:
    """Weights of a reader, (outputs, columns), with their bias, (outputs,)."""

    weight: Array
    bias: Array


def pulled(found: Moments, old: Array, damping: float) -> Floats:
    """Return least-squares weights (outputs, columns), pulled towards the old ones."""
    rest = found.xy - found.xx @ old.T
    return np.asarray(old + np.linalg.solve(with_ridge(found.xx, damping), rest).T, np.float64)


def dampened(moments_of: Callable[[Part], Moments], old: Array) -> Iterator[Solver]:
    """Yield a solver for each damping, the least first."""
    return (_solver(moments_of, old, damping) for damping in DAMPINGS)


def _solver(moments_of: Callable[[Part], Moments], old: Array, damping: float) -> Solver:
    return lambda part: pulled(moments_of(part), old, damping)


def choose(
    old: ReaderWeights,
    families: Iterable[Iterable[Solver]],
    held: HeldOut,
    bias_of: Callable[[Array, Part], Array],
    *,
    refit: bool,
) -> ReaderWeights | None:
    """Return the candidate with the least error on held-out rows; None where that is the old one.

    Args:
        old: weights and bias as they are.
        families: solvers by rising damping; a family ends where its error rises twice.
        held: rows to judge by.
        bias_of: function from weights, and the rows to use, to their bias.
        refit: whether rows are so many that the chosen solver is best given all of them.
    """
    before = held.errors(old.weight, old.bias)
    best: ReaderWeights | None = None
    chosen: Solver | None = None
    least = before
    for family in families:
        rises, last = 0, np.inf
        for solve in family:
            weight = solve("fit")
            candidate = ReaderWeights(weight, bias_of(weight, "fit"))
            errors = held.errors(weight, candidate.bias)
            if errors.mean() < least.mean():
                best, least, chosen = candidate, errors, solve
            rises = rises + 1 if errors.mean() > last else 0
            last = float(errors.mean())
            if rises == 2:
                break
    gain = before - least
    chance = float(gain.std()) / np.sqrt(max(len(gain), 1))
    if best is None or chosen is None or float(gain.mean()) <= chance:
        return None
    if not refit:
        return best
    weight = chosen("all")
    return ReaderWeights(weight, bias_of(weight, "all"))
