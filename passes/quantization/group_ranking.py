"""Ranking of layers by few runs: groups run alone in int8, and those that cost most are halved.

Errors of layers nearly add up, so a group alone shows what its layers cost together. A unit is a
layer with the element-wise operators behind it: a layer in float gains little between int8 ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from trimtab.core.ort.int8_share import macs_of
from trimtab.core.progress import Progress

from .qdq.int8_operators import PRODUCTS

#: Groups at first.
GROUPS = 8
#: Runs of groups in all.
RUNS = 18
#: Part of all costs below which a group is not halved.
SMALL = 0.02

#: Node that may be quantized, its sensitivity, and the number of its unit.
Ranked = tuple[str, float]


def rank_groups(
    graph: ir.Graph,
    nodes: Sequence[str],
    cost_alone: Callable[[Sequence[str]], float],
    progress: Progress,
) -> list[list[Ranked]]:
    """Return units of nodes with their sensitivity, those first that cost most for what they gain.

    Args:
        graph: the float graph, sorted.
        nodes: names of the nodes that may be quantized, in the order of the graph.
        cost_alone: function from nodes to what the answers lose with these alone in int8.
        progress: display of progress.
    """
    units = list(_units(graph, nodes))

    def cost_of(start: int, stop: int) -> float:
        return cost_alone([name for unit in units[start:stop] for name in unit])

    gains = _gains(graph, units)
    parts = halved(len(units), cost_of, progress, "ranking groups of layers")
    order = sorted(parts, key=lambda p: (-p.cost / sum(gains[p.start : p.stop]), p.start))
    return [
        [(name, part.cost / (part.stop - part.start)) for name in units[number]]
        for part in order
        for number in range(part.start, part.stop)
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


def _units(graph: ir.Graph, nodes: Sequence[str]) -> Iterator[list[str]]:
    chosen, unit = set(nodes), list[str]()
    for node in graph:
        if node.name not in chosen:
            continue
        if node.op_type in PRODUCTS | {"ConvTranspose"} and unit:
            yield unit
            unit = []
        unit.append(node.name or "")
    if unit:
        yield unit


def _gains(graph: ir.Graph, units: Sequence[Sequence[str]]) -> list[float]:
    """Return the part of the arithmetic of each unit, and as much again for each alike."""
    macs = {node.name: macs_of(node, _shapes(node)) for node in graph}
    each = [float(sum(macs.get(name, 0) for name in unit)) for unit in units]
    whole = sum(each) or 1.0
    return [gain / whole + 1 / len(units) for gain in each]


def _shapes(node: ir.Node) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of a node's tensors, with 1 for what is not known."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.shape is not None]
    return {
        v.name or "": tuple(d if isinstance(d, int) else 1 for d in v.shape or ()) for v in values
    }
