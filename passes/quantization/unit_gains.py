"""Gains of layers in int8: by the clock, each group alone, or by their share of the arithmetic.

A unit is a layer with the element-wise operators behind it: a layer in float gains little between
int8 ones. Alone in int8, a unit pays for the conversions on both sides; neighbours share them, so
that the whole gains what its units do, or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import onnx_ir as ir

from trimtab.core.ort.int8_share import macs_of

from .qdq.int8_operators import PRODUCTS

#: Operators that begin a unit.
LAYERS = PRODUCTS | {"ConvTranspose"}
#: Groups that are timed at first, and most of the slower ones that are timed in halves.
GROUPS, HALVED = 8, 4
#: Part of the network's time that cannot be told from noise, in a group.
NOISE = 0.01
#: Part of the network's time that is worth a search.
LEAST_GAIN = 0.05
#: Gain of a group that gains nothing: it is float first where too much is lost.
_TINY = 1e-4

#: Unit and what it gains.
Gain = tuple[list[str], float]
#: Neighbouring units: the first, and the one behind the last.
Span = tuple[int, int]


def units_of(graph: ir.Graph, nodes: Sequence[str]) -> list[list[str]]:
    """Return the nodes that may be quantized as units, in the order of a sorted graph."""
    return list(_units(graph, set(nodes)))


def without_tails(graph: ir.Graph, gains: Sequence[Gain]) -> list[Gain]:
    """Return units without the operators that are not fused into their layer, as Relu is."""
    layers = {node.name for node in graph if node.op_type in LAYERS}
    fused = {node.name for node in graph if _is_fused(node)}
    kept = [([name for name in unit if name in layers | fused], gain) for unit, gain in gains]
    return [pair for pair in kept if pair[0]]


def _is_fused(node: ir.Node) -> bool:
    """Return whether a node clips what a layer gives, which its int8 kernel does as well."""
    if node.op_type not in {"Clip", "Relu"} or node.inputs[0] is None:
        return False
    maker = node.inputs[0].producer()
    return maker is not None and maker.op_type in LAYERS


def gains_by_arithmetic(graph: ir.Graph, units: Sequence[Sequence[str]]) -> list[float]:
    """Return the part of the arithmetic of each unit, and as much again for each alike."""
    return [share + 1 / len(units) for share in _shares(graph, units)]


def gains_by_clock(
    graph: ir.Graph,
    units: Sequence[Sequence[str]],
    gains_alone: Callable[[Sequence[Sequence[str]]], Sequence[float]],
) -> list[float]:
    """Return the part of the network's time that each unit saves in int8, below 0 where it costs.

    Groups of neighbours are measured, and if there is anything to gain the slowest in halves again,
    which may hide what is faster; a group's units share its gain by their arithmetic. What all
    groups together gain beyond their sum, as they need no conversions between them, is shared by
    all, unless the whole is slower than float.

    Args:
        graph: the float graph, sorted.
        units: see `units_of`.
        gains_alone: function from groups of nodes to what is saved with each alone in int8.
    """
    count = len(units)
    size = max(-(-count // GROUPS), 1)
    whole = (0, count)
    spans = [(start, min(start + size, count)) for start in range(0, count, size)]

    def measured(parts: Sequence[Span]) -> dict[Span, float]:
        groups = [[name for unit in units[start:stop] for name in unit] for start, stop in parts]
        return dict(zip(parts, gains_alone(groups), strict=True)) if groups else {}

    together = measured([*spans, whole])
    gains = {span: together[span] for span in spans}
    beyond = min(together[whole] - sum(gains.values()), together[whole])
    shared = max(beyond, 0.0) / max(count, 1)
    wide: list[Span] = []
    if worth_it(gain for gain in gains.values() if gain > NOISE):
        wide = [s for s in spans if s[1] - s[0] > 1 and gains[s] < -NOISE]
        wide = sorted(wide, key=lambda s: gains[s])[:HALVED]
    gains |= measured([half for span in wide for half in _halves(span)])
    shares, each = _shares(graph, units), [0.0] * count
    for start, stop in (span for span in gains if span not in wide):
        gain = gains[start, stop] + shared * (stop - start)
        gain = _TINY if abs(gain) < NOISE else gain
        parts = sum(shares[start:stop])
        for number in range(start, stop):
            each[number] = gain * (shares[number] / parts if parts else 1 / (stop - start))
    return each


def worth_it(gains: Iterable[float]) -> bool:
    """Return whether what is gained is worth a search."""
    return sum(gain for gain in gains if gain > 0) >= LEAST_GAIN


def _halves(span: Span) -> tuple[Span, Span]:
    middle = sum(span) // 2
    return (span[0], middle), (middle, span[1])


def _units(graph: ir.Graph, chosen: set[str]) -> Iterator[list[str]]:
    unit: list[str] = []
    for node in graph:
        if node.name not in chosen:
            continue
        if node.op_type in LAYERS and unit:
            yield unit
            unit = []
        unit.append(node.name or "")
    if unit:
        yield unit


def _shares(graph: ir.Graph, units: Sequence[Sequence[str]]) -> list[float]:
    """Return the part of the arithmetic of each unit."""
    macs = {node.name: macs_of(node, _shapes(node)) for node in graph}
    each = [float(sum(macs.get(name, 0) for name in unit)) for unit in units]
    whole = sum(each) or 1.0
    return [part / whole for part in each]


def _shapes(node: ir.Node) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of a node's tensors, with 1 for what is not known."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.shape is not None]
    return {
        v.name or "": tuple(d if isinstance(d, int) else 1 for d in v.shape or ()) for v in values
    }
