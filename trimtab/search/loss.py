"""Evidence of few items on the loss of a candidate, and what they can resolve of it.

Two models that answer alike on most items differ by their few changed answers alone, of which some
are lost and others won. So the loss is (rate of changes) x (share lost - share won). Changes are
counted (a Gamma posterior, Jeffreys' prior), and shares learned from the changed items with a prior
of four of them: where the float model errs too, noise that moves answers over a boundary wins
nearly as many as it loses. Of items that score between 0 and 1 the parts of the loss are summed, in
units of a typical change. On 128 items the normal approximation of a mean says next to nothing of a
loss of 0.01; this says that a model without one changed answer does not lose twice as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from trimtab.core.data import Floats

#: Largest probability that a candidate which is taken loses half of the allowed drop in excess.
RISK = 0.04
#: Excess over the allowed drop, as a share of it, that few items must rule out.
EXCESS = 0.5
#: Changed items that the prior stands for, and the share of them that it thinks lost, where the
#: float model itself is wrong on `ROOM` of the items or more; all of them where it is never wrong.
PRIOR_CHANGES, PRIOR_LOST, ROOM = 4.0, 0.6, 0.05
#: Draws from the posterior: its 95% ends come out within some 4% of their distance.
DRAWS = 4_000
#: Normal quantile of `RISK`.
Z_RISK = 1.75
#: An item is taken to change its answer so many times as often as the allowed drop, to predict
#: errors before anything is made.
CHANGES_A_DROP = 2.0
#: Least rate of changes in that prediction, for an allowed drop of 0.
LEAST_CHANGES = 0.002


@dataclass(frozen=True)
class LossEvidence:
    """The loss of a candidate against the original, with its 95% interval.

    Attributes:
        value: loss on the items as they are.
        low: lower end of the interval.
        high: upper end.
        items: number of items.
        part: the split of these items, in words.
        without_one: loss that remains without the item that costs most.
        risk: probability that the loss exceeds the allowed drop by half of it or more.
        limit: allowed drop.
        metric: name of the metric.
        others: losses of the further metrics that are limited.
    """

    value: float
    low: float
    high: float
    items: int
    part: str
    without_one: float
    risk: float
    limit: float
    metric: str = ""
    others: tuple[LossEvidence, ...] = ()

    @property
    def verdict(self) -> Literal["held", "broken", "not settled"]:
        """Verdict on the allowed drop: which side of it the whole interval lies on."""
        if self.high <= self.limit + 1e-12:
            return "held"
        return "broken" if self.low > self.limit else "not settled"

    def to_json(self) -> dict[str, Any]:
        """Return all fields and the verdict as JSON values."""
        others = [other.to_json() for other in self.others]
        return dict(self.__dict__) | {"verdict": self.verdict, "others": others}


def loss_evidence(
    drops: Floats, limit: float, part: str, *, room: float = 1.0, unit: float = 1.0
) -> LossEvidence:
    """Return what the losses of items (N,) tell of the mean loss.

    Args:
        drops: loss of each item against the original, paired; below 0 where it is won.
        limit: allowed drop.
        part: the split of these items, in words.
        room: share of the score that the original leaves to be won, 0 to 1.
        unit: size of a change where none was seen.
    """
    count, value = len(drops), float(drops.mean())
    lost, won = float(drops[drops > 0].sum()), float(-drops[drops < 0].sum())
    size = float((drops**2).sum()) / (lost + won) if lost + won else unit
    gains = (1 - PRIOR_LOST) * min(1.0, room / ROOM)
    prior = PRIOR_CHANGES * np.array([1 - gains, max(gains, 1e-9)])
    rng = np.random.default_rng(0)
    changes = rng.gamma((lost + won) / size + 0.5, size=DRAWS) * size / count
    share = rng.beta(prior[0] + lost / size, prior[1] + won / size, size=DRAWS)
    draws = changes * (2 * share - 1)
    low, high = np.quantile(draws, [0.025, 0.975])
    risk = float((draws >= (1 + EXCESS) * limit).mean()) if limit else 0.0
    ends = min(float(low), value), max(float(high), value)
    return LossEvidence(value, *ends, count, part, without_one(drops), risk, limit)


def without_one(drops: Floats) -> float:
    """Return the mean loss of items (N,) where the one that costs most had cost nothing."""
    return (float(drops.sum()) - max(0.0, float(drops.max()))) / len(drops)


def predicted_error(limit: float, items: int) -> float:
    """Return the standard error of a drop before anything is made, of answers right or wrong.

    Where c of the items change their answer it is at most sqrt(c / items).
    """
    return math.sqrt(_changes(limit) / max(1, items))


def resolves(limit: float, items: int) -> bool:
    """Return whether so many items tell the allowed drop from one and a half times as much."""
    return EXCESS * limit >= Z_RISK * predicted_error(limit, items)


def items_needed(limit: float) -> int:
    """Return the fewest items that resolve an allowed drop; 0 where none do, as of a drop of 0."""
    if not limit:
        return 0
    return math.ceil(_changes(limit) * (Z_RISK / (EXCESS * limit)) ** 2)


def _changes(limit: float) -> float:
    """Return the share of items that are taken to change their answer."""
    return min(1.0, max(LEAST_CHANGES, CHANGES_A_DROP * limit))
