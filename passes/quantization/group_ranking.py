"""Ranking of layers by few runs: groups run alone in int8, and those that cost most are halved.

Errors of layers nearly add up, so a group alone shows what its layers cost together. A unit is a
layer with the element-wise operators behind it: a layer in float gains little between int8 ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

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
    costs: list[tuple[float, int, int]] = []  # negative cost, first unit, unit behind the last
    size = -(-len(units) // GROUPS)
    for start in progress.track(range(0, len(units), size), "ranking groups of layers", GROUPS):
        _measure(units, start, min(start + size, len(units)), cost_alone, costs)
    whole, runs = -sum(cost for cost, _, _ in costs), len(costs)
    done: list[tuple[float, int, int]] = []
    while costs:
        cost, start, stop = heapq.heappop(costs)
        if stop - start == 1 or runs + 2 > RUNS or -cost <= SMALL * whole:
            done.append((cost, start, stop))
            continue
        middle = (start + stop) // 2
        _measure(units, start, middle, cost_alone, costs)
        _measure(units, middle, stop, cost_alone, costs)
        runs += 2
    gains = _gains(graph, units)
    order = sorted(done, key=lambda d: (d[0] / sum(gains[d[1] : d[2]]), d[1]))
    return [
        [(name, -cost / (stop - start)) for name in units[number]]
        for cost, start, stop in order
        for number in range(start, stop)
    ]


def _measure(
    units: Sequence[Sequence[str]],
    start: int,
    stop: int,
    cost_alone: Callable[[Sequence[str]], float],
    costs: list[tuple[float, int, int]],
) -> None:
    names = [name for unit in units[start:stop] for name in unit]
    heapq.heappush(costs, (-cost_alone(names), start, stop))


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
