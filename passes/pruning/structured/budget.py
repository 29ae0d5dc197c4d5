"""How many channels each group keeps: the least loss for the cost that is asked.

Every group has a curve, what is lost when 1, 2, ... of its channels go, the least important first.
The cost of a layer depends on two groups, those of its inputs and its outputs. Greedy descent: the
step that loses least for what it saves, of any length, again and again, since on a staircase of
latencies the first channels of a step may save nothing; the last step is the one that loses least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dependency.groups import Group, Labels

#: Candidate widths that one group is tried at.
CANDIDATES = 24


@dataclass(frozen=True, eq=False)
class Curve:
    """What a group loses.

    Attributes:
        order: its classes, the first to go first.
        loss: (len(order) + 1,) lost when the first 0, 1, ... are gone; ascending from 0.
    """

    order: NDArray[np.int64]
    loss: NDArray[np.float64]

    @classmethod
    def of_scores(cls, group: Group, scores: NDArray[np.float64]) -> Curve:
        """The least score first; ties by position."""
        order = group.classes[np.argsort(scores[group.classes], kind="stable")]
        return cls(order, np.concatenate([[0.0], np.cumsum(scores[order])]))


@dataclass(frozen=True, eq=False)
class Layer:
    """One operator's cost as a function of the groups' widths.

    Attributes:
        index: its number among the costs of the trace.
        base: lengths of its labelled axes that no group has a part in.
        parts: for each axis, positions that one class of each group takes, by group.
    """

    index: int
    base: tuple[int, ...]
    parts: tuple[dict[int, int], ...]

    def lengths(self, kept: NDArray[np.int64]) -> tuple[int, ...]:
        """Lengths of its labelled axes where the groups keep so many classes."""
        return tuple(
            base + sum(times * int(kept[g]) for g, times in part.items())
            for base, part in zip(self.base, self.parts, strict=True)
        )

    @property
    def groups(self) -> set[int]:
        """The groups that its cost depends on."""
        return {g for part in self.parts for g in part}


#: Cost of a layer, by its number among the costs of the trace and the lengths of its axes.
CostOf = Callable[[int, tuple[int, ...]], float]


def layers(labels: Labels, groups: Sequence[Group]) -> list[Layer]:
    """The operators that multiply, with the groups that they depend on."""
    owner = np.full(labels.count, -1)
    first = np.zeros(labels.count, bool)
    for number, group in enumerate(groups):
        owner[group.classes] = number
        first[group.classes[0]] = True
    found = []
    for index, cost in enumerate(labels.trace.costs):
        bases, parts = [], []
        for ids in cost.axes:
            classes = labels.class_of[ids]
            members, times = np.unique(classes[first[classes]], return_counts=True)
            parts.append({int(owner[c]): int(n) for c, n in zip(members, times, strict=True)})
            bases.append(int((owner[classes] < 0).sum()))
        found.append(Layer(index, tuple(bases), tuple(parts)))
    return found


def macs_of(labels: Labels) -> CostOf:
    """Multiply-accumulates as cost."""
    fixed = [cost.fixed for cost in labels.trace.costs]
    return lambda index, lengths: float(fixed[index]) * float(np.prod(lengths))


class Budget:
    """Widths of all groups on their way down.

    Args:
        groups: the groups.
        curves: what they lose.
        steps: for each group, the widths that it may have, ascending; the last is what it has.
        layers: the operators that multiply.
        cost_of: what they cost.

    Attributes:
        kept: the present widths.
        fixed: cost of all else, which no width changes.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        curves: Sequence[Curve],
        steps: Sequence[Sequence[int]],
        layers: Sequence[Layer],
        cost_of: CostOf,
    ) -> None:
        self.kept = np.array([len(g.classes) for g in groups], np.int64)
        self.fixed = 0.0
        self._curves, self._steps = curves, steps
        self._layers, self._cost_of = layers, cost_of
        self._of_group: list[list[Layer]] = [[] for _ in groups]
        for layer in layers:
            for g in layer.groups:
                self._of_group[g].append(layer)

    @property
    def cost(self) -> float:
        """Cost of the whole at the present widths."""
        return self.fixed + sum(self._cost_of(y.index, y.lengths(self.kept)) for y in self._layers)

    def descend(self, target: float) -> None:
        """Narrow groups until the cost is at most `target`, or nothing is left to narrow."""
        total = self.cost
        best = {g: self._best(g) for g in range(len(self.kept))}
        while total > target:
            chosen = min(best, key=lambda g: (best[g][0], g), default=None)
            if chosen is None or not np.isfinite(best[chosen][0]):
                return
            _, width, saved = best[chosen]
            if total - saved <= target:
                # Of all steps that suffice the one that loses least ends it.
                chosen, width = self._last(total - target, (chosen, width))
                self.kept[chosen] = width
                return
            self.kept[chosen] = width
            total -= saved
            touched = {g for layer in self._of_group[chosen] for g in layer.groups} | {chosen}
            best.update({g: self._best(g) for g in touched})

    def _best(self, group: int) -> tuple[float, int, float]:
        """Loss per cost saved, width and saving of the best step of one group."""
        steps = [(lost / saved, width, saved) for lost, width, saved in self._narrower(group)]
        return min(steps, key=lambda step: step[0], default=(np.inf, int(self.kept[group]), 0.0))

    def _last(self, wanted: float, default: tuple[int, int]) -> tuple[int, int]:
        """Group and width of the step that saves at least so much and loses least."""
        steps = [
            (lost, group, width)
            for group in range(len(self.kept))
            for lost, width, saved in self._narrower(group)
            if saved >= wanted
        ]
        return min(steps)[1:] if steps else default

    def _narrower(self, group: int) -> list[tuple[float, int, float]]:
        """Loss, width and saving of the steps of one group that save anything."""
        curve, now = self._curves[group], int(self.kept[group])
        count, before, found = len(curve.order), self._own_cost(group), []
        narrower = [w for w in self._steps[group] if w < now][::-1]
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


def widths(count: int, width: int, block: int | None, prefer: int) -> list[int]:
    """The numbers of classes that a group may keep, ascending, all of them last.

    Args:
        count: classes of the group.
        width: channels of one class.
        block: channels are kept in multiples of it; None for `prefer`, halved for groups that are
            narrower than two blocks.
        prefer: the block of the target's kernels.
    """
    unit = block or prefer
    while block is None and unit > 1 and count * width < 2 * unit:
        unit //= 2
    step = unit // int(np.gcd(unit, width))
    return [*range(step, count, step), count]


def uniform(
    groups: Sequence[Group], steps: Sequence[Sequence[int]], ratio: float
) -> NDArray[np.int64]:
    """Every group keeps the same part, to the nearest width that it may have."""
    wanted = [len(g.classes) * (1 - ratio) for g in groups]
    pairs = zip(steps, wanted, strict=True)
    return np.array(
        [min((w for w in s if w), key=lambda w: (abs(w - want), w)) for s, want in pairs], np.int64
    )
