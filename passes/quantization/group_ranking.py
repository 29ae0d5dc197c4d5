"""Ranking of layers by few runs: groups run alone in int8, and those that cost most are halved.

Errors of layers nearly add up, so a group alone shows what its layers cost together.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from trimtab.core.progress import Progress

from .unit_gains import Gain

#: Groups at first.
GROUPS = 8
#: Runs of groups in all.
RUNS = 18
#: Part of all costs below which a group is not halved.
SMALL = 0.02

#: Node that may be quantized, its sensitivity, and the number of its unit.
Ranked = tuple[str, float]


def rank_groups(
    gains: Sequence[Gain],
    cost_alone: Callable[[Sequence[str]], float],
    progress: Progress,
) -> list[list[Ranked]]:
    """Return units of nodes with their sensitivity, those first that cost most for what they gain.

    Args:
        gains: units, nodes that are in int8 or in float together, in the order of the graph, and
            what each gains in int8, above 0.
        cost_alone: function from nodes to what the answers lose with these alone in int8.
        progress: display of progress.
    """

    def cost_of(start: int, stop: int) -> float:
        return cost_alone([name for unit, _ in gains[start:stop] for name in unit])

    def worth(part: Part) -> float:
        return part.cost / sum(gain for _, gain in gains[part.start : part.stop])

    parts = halved(len(gains), cost_of, progress, "ranking groups of layers")
    return [
        [(name, part.cost / (part.stop - part.start)) for name in unit]
        for part in sorted(parts, key=lambda p: (-worth(p), p.start))
        for unit, _ in gains[part.start : part.stop]
    ]


class Part(NamedTuple):
    """Neighbouring units and what they cost together."""

    cost: float
    start: int
    stop: int


def halved(
    count: int, cost_of: Callable[[int, int], float], progress: Progress, activity: str
) -> list[Part]:
    """Return parts of a sequence with their costs, the shorter the more they cost.

    Args:
        count: number of units.
        cost_of: function from the first unit and the one behind the last to their cost together.
        progress: display of progress.
        activity: text that it shows.
    """
    size = max(-(-count // GROUPS), 1)
    waiting: list[tuple[float, int, int]] = []  # negative cost, first unit, unit behind the last

    def measure(start: int, stop: int) -> None:
        heapq.heappush(waiting, (-cost_of(start, stop), start, stop))

    for start in progress.track(range(0, count, size), activity, -(-count // size)):
        measure(start, min(start + size, count))
    whole, runs = -sum(cost for cost, _, _ in waiting), len(waiting)
    done: list[Part] = []
    while waiting:
        cost, start, stop = heapq.heappop(waiting)
        if stop - start == 1 or runs + 2 > RUNS or -cost <= SMALL * whole:
            done.append(Part(-cost, start, stop))
            continue
        middle = (start + stop) // 2
        measure(start, middle)
        measure(middle, stop)
        runs += 2
    return done
