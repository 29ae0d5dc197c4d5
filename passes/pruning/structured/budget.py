"""Numbers of channels that the groups keep: the least loss for a given cost.

Every group has a curve of the loss when 1, 2, ... of its channels go, the least important first.
The cost of a layer depends on two groups, those of its inputs and its outputs. Greedy descent takes
the step, of any length, that loses least for what it saves, again and again: on a staircase of
latencies the first channels of a step may save nothing. The last step is the one that loses least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dependency.graph import DependencyGraph, Group

#: Candidate widths that one group is tried at.
CANDIDATES = 24


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Loss of a group as its channels go.

    Attributes:
        order: its units, the first to go first.
        loss: (len(order) + 1,) loss when the first 0, 1, ... are gone; ascending from 0.
    """

    order: NDArray[np.int64]
    loss: NDArray[np.float64]

    @classmethod
    def of_scores(cls, group: Group, scores: NDArray[np.float64]) -> LossCurve:
        """Order units by score, the least first; ties by position."""
        order = group.units[np.argsort(scores[group.units], kind="stable")]
        return cls(order, np.concatenate([[0.0], np.cumsum(scores[order])]))


@dataclass(frozen=True, eq=False)
class PrunableLayer:
    """Operator whose cost depends on the groups' widths.

    Attributes:
        index: its number among the costs of the trace.
        base: lengths of its prunable axes that belong to no group.
        parts: for each axis, positions that one unit of each group takes, by group.
    """

    index: int
    base: tuple[int, ...]
    parts: tuple[dict[int, int], ...]

    def lengths(self, kept: Sequence[int] | NDArray[np.int64]) -> tuple[int, ...]:
        """Return the lengths of its prunable axes where the groups keep so many units."""
        return tuple(
            base + sum(times * int(kept[g]) for g, times in part.items())
            for base, part in zip(self.base, self.parts, strict=True)
        )

    @property
    def groups(self) -> set[int]:
        """Groups that its cost depends on."""
        return {g for part in self.parts for g in part}


#: Cost of a layer, by its number among the costs of the trace and the lengths of its axes.
CostOf = Callable[[int, tuple[int, ...]], float]


def prunable_layers(graph: DependencyGraph, groups: Sequence[Group]) -> list[PrunableLayer]:
    """Return the operators that multiply, with the groups that they depend on."""
    owner = graph.owners(groups)
    first = np.zeros(graph.num_units, bool)
    first[[group.units[0] for group in groups]] = True
    found = []
    for index, cost in enumerate(graph.trace.costs):
        bases, parts = [], []
        for ids in cost.axes:
            units = graph.unit_of[ids]
            members, times = np.unique(units[first[units]], return_counts=True)
            parts.append({int(owner[c]): int(n) for c, n in zip(members, times, strict=True)})
            bases.append(int((owner[units] < 0).sum()))
        found.append(PrunableLayer(index, tuple(bases), tuple(parts)))
    return found


def mac_cost(graph: DependencyGraph) -> CostOf:
    """Return a cost that counts multiply-accumulates."""
    fixed = [cost.fixed for cost in graph.trace.costs]
    return lambda index, lengths: float(fixed[index]) * float(np.prod(lengths))


class ChannelBudget:
    """Widths of all groups while their cost is brought down.

    `choices` are for each group the widths that it may have, ascending; the last is the present.

    Attributes:
        kept: present widths, in units.
        fixed: cost of everything that no width changes.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        curves: Sequence[LossCurve],
        choices: Sequence[Sequence[int]],
        layers: Sequence[PrunableLayer],
        cost_of: CostOf,
    ) -> None:
        self.kept = np.array([len(g.units) for g in groups], np.int64)
        self.fixed = 0.0
        self._curves, self._choices = curves, choices
        self._layers, self._cost_of = layers, cost_of
        self._of_group: list[list[PrunableLayer]] = [[] for _ in groups]
        for layer in layers:
            for g in layer.groups:
                self._of_group[g].append(layer)

    @property
    def cost(self) -> float:
        """Cost of the whole model at the present widths."""
        return self.fixed + sum(self._cost_of(y.index, y.lengths(self.kept)) for y in self._layers)

    def descend(self, target: float) -> None:
        """Narrow groups until the cost is at most `target` or nothing is left to narrow."""
        total = self.cost
        best = {g: self._best(g) for g in range(len(self.kept))}
        while total > target:
            chosen = min(best, key=lambda g: (best[g][0], g), default=None)
            if chosen is None or not np.isfinite(best[chosen][0]):
                return
            _, width, saved = best[chosen]
            if total - saved <= target:
                # The last step is the one that loses least of all that suffice.
                chosen, width = self._last(total - target, (chosen, width))
                self.kept[chosen] = width
                return
            self.kept[chosen] = width
            total -= saved
            touched = {g for layer in self._of_group[chosen] for g in layer.groups} | {chosen}
            best.update({g: self._best(g) for g in touched})

    def _best(self, group: int) -> tuple[float, int, float]:
        """Return loss per cost saved, width and saving of the best step of one group."""
        steps = [(lost / saved, width, saved) for lost, width, saved in self._narrower(group)]
        return min(steps, key=lambda step: step[0], default=(np.inf, int(self.kept[group]), 0.0))

    def _last(self, wanted: float, default: tuple[int, int]) -> tuple[int, int]:
        """Return group and width of the step that loses least and saves at least so much."""
        steps = [
            (lost, group, width)
            for group in range(len(self.kept))
            for lost, width, saved in self._narrower(group)
            if saved >= wanted
        ]
        return min(steps)[1:] if steps else default

    def _narrower(self, group: int) -> list[tuple[float, int, float]]:
        """Return loss, width and saving of the steps of one group that save anything."""
        curve, now = self._curves[group], int(self.kept[group])
        count, before, found = len(curve.order), self._own_cost(group), []
        narrower = [w for w in self._choices[group] if w < now][::-1]
        for width in narrower[:CANDIDATES]:
            self.kept[group] = width
            saved = before - self._own_cost(group)
            if saved > 0:
                lost = float(curve.loss[count - width] - curve.loss[count - now])
                found.append((lost, width, saved))
        self.kept[group] = now
        return found

    def _own_cost(self, group: int) -> float:
        return sum(self._cost_of(y.index, y.lengths(self.kept)) for y in self._of_group[group])


def allowed_widths(count: int, width: int, block: int | None, prefer: int) -> list[int]:
    """Return the numbers of units that a group of `count` may keep, ascending, all of them last.

    A unit has `width` channels, which are kept in multiples of `block`; where that is None, of
    `prefer`, the block of the target's kernels, halved for groups narrower than two blocks.
    """
    unit = block or prefer
    while block is None and unit > 1 and count * width < 2 * unit:
        unit //= 2
    step = unit // int(np.gcd(unit, width))
    return [*range(step, count, step), count]


def uniform_widths(
    groups: Sequence[Group], choices: Sequence[Sequence[int]], ratio: float
) -> NDArray[np.int64]:
    """Return widths of which each is the same part of its group, to the nearest allowed one."""
    wanted = [len(g.units) * (1 - ratio) for g in groups]
    pairs = zip(choices, wanted, strict=True)
    return np.array(
        [min((w for w in s if w), key=lambda w: (abs(w - want), w)) for s, want in pairs], np.int64
    )
