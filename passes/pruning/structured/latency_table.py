"""Measured latency of each layer at each pair of widths that it may get.

onnxruntime's latency is a staircase in the number of channels, which multiply-accumulates cannot
predict. Each distinct layer is timed by itself, all widths of its output interleaved; layers of the
same shape share one measurement.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.model import Model
from trimtab.core.ort.feeding import random_feeds
from trimtab.core.ort.session import SessionConfig

from ..dependency.graph import DependencyGraph, Group
from ..dependency.records import Cost
from .budget import CostOf, PrunableLayer, prunable_layers
from .layer_benchmark import layer_at
from .layer_spec import LayerSpec
from .layer_timer import MACS_PER_NS, POINTS, SET_BYTES, LayerTimer

#: Samples for the calibration of a model of which only the latency matters.
FEW_SAMPLES = 8
#: Most seconds of measurement of whole models, half of them where models are quick.
WHOLE_SECONDS = 1.5
#: Widths of an axis where the weights are larger than that: each point takes long to make there,
#: and so large a product has no stairs.
FEW_POINTS = 4

Lengths = tuple[int, ...]


def latencies(
    models: Sequence[Model], ctx: Context, *, int8: bool = False, data: Dataset | None = None
) -> list[float]:
    """Return the median latencies of models of the same inputs, from one run, in nanoseconds.

    With `int8` they run in static int8, calibrated on `data` or else on the context's.
    """
    if int8:
        models = [in_int8(model, data or ctx.data, ctx) for model in models]
    clock = ctx.need_clock("latency=")
    feeds = random_feeds(models[0], seed=ctx.seed)
    return clock.median_ns(models, feeds, SessionConfig.of(ctx.target), WHOLE_SECONDS)


def in_int8(model: Model, data: Dataset | None, ctx: Context) -> Model:
    """Quantize a float model by a few samples, random ones without data, for its latency alone."""
    from ...quantization.static import QuantizeStatic

    data = data or Dataset.of_arrays(random_feeds(model, seed=ctx.seed, batch=FEW_SAMPLES))
    # Its outputs do not matter, so its sums need no check for saturation.
    target = dataclasses.replace(ctx.target, vnni=True)
    few = QuantizeStatic(data=data, samples=FEW_SAMPLES)
    return few(model, dataclasses.replace(ctx, target=target))


def latency_cost(
    graph: DependencyGraph,
    groups: list[Group],
    choices: list[list[int]],
    ctx: Context,
    cache: str = "",
    *,
    int8: bool = False,
) -> CostOf:
    """Measure the cost of each layer in nanoseconds, without that of an empty run.

    Args:
        graph: dependency graph of the whole model.
        groups: groups that may become narrower.
        choices: for each group the numbers of units that it may keep.
        ctx: with a clock.
        cache: file of earlier times on this machine, read first and added to.
        int8: time the target's int8 kernels, since quantization will follow.

    Raises:
        OptionError: int8 for a GPU, whose providers have no kernels to time alone.
    """
    if int8 and ctx.target.isa == "gpu":
        raise OptionError(
            "precision=int8 times the kernels of a CPU",
            where="prune-channels",
            hint="Leave it out, or name the target's CPU",
        )
    timer = LayerTimer(ctx, cache)
    found = prunable_layers(graph, groups)
    integers = (ctx.target.activation, ctx.target.weight) if int8 else None
    times: dict[int, dict[Lengths, float]] = {}
    full = [widths[-1] for widths in choices]
    for layer in ctx.progress.track(found, "timing layers", len(found)):
        cost = graph.trace.costs[layer.index]
        make = functools.partial(layer_at, graph.trace, cost, integers=integers)
        whole = make(layer.lengths(full))
        large = whole is not None and whole.nbytes > SET_BYTES
        grid = _grid(layer, choices, FEW_POINTS if large else POINTS)
        times[layer.index] = _time(make, cost, grid, timer)
    empty_run = timer.empty_run_ns()
    timer.save()

    def cost_of(index: int, lengths: Lengths) -> float:
        return max(0.0, _interpolate(times[index], lengths) - empty_run)

    return cost_of


def with_additions(
    cost_of: CostOf, graph: DependencyGraph, found: Sequence[PrunableLayer], ctx: Context
) -> CostOf:
    """Add to a cost that of int8 sums, from `residual_additions`, which go with their branch."""
    costs, timer = graph.trace.costs, LayerTimer(ctx)
    per_channel: dict[int, float] = {}
    for layer in found:
        cost = costs[layer.index - len(costs)]
        elements = math.prod(graph.trace.shape(cost.node.outputs[0]))
        once = timer.addition_ns(elements // graph.trace.shapes.samples)
        per_channel[layer.index] = max(0.0, once - timer.empty_run_ns()) / len(cost.axes[-2])

    def both(index: int, lengths: Lengths) -> float:
        if index not in per_channel:
            return cost_of(index, lengths)
        stream, branch = lengths
        return per_channel[index] * stream if branch else 0.0

    return both


def _grid(layer: PrunableLayer, choices: list[list[int]], points: int) -> list[list[int]]:
    """Return the lengths to measure for each prunable axis."""
    axes, full = [], layer.lengths([widths[-1] for widths in choices])
    for base, part, longest in zip(layer.base, layer.parts, full, strict=True):
        options = [[times * w for w in evenly_spaced(choices[g])] for g, times in part.items()]
        some = itertools.islice(itertools.product(*options), 64)
        axes.append(
            evenly_spaced(sorted({base + sum(chosen) for chosen in some} | {longest}), points)
        )
    return axes


def evenly_spaced(values: Sequence[int], points: int = POINTS) -> list[int]:
    """Return at most `points` of the values, evenly spaced, with both ends."""
    if len(values) <= points:
        return list(values)
    return [values[round(i * (len(values) - 1) / (points - 1))] for i in range(points)]


def _time(
    make: Callable[[Lengths], LayerSpec | None],
    cost: Cost,
    grid: list[list[int]],
    timer: LayerTimer,
) -> dict[Lengths, float]:
    """Return the nanoseconds at every point of the grid."""
    points = list(itertools.product(*grid)) or [()]
    result: dict[Lengths, float] = {}
    by_inputs: dict[tuple[tuple[int, ...], ...], dict[Lengths, LayerSpec]] = {}
    for point in points:
        layer = make(point) if 0 not in point else None
        if layer is None:
            result[point] = cost.fixed * math.prod(point) / MACS_PER_NS
        else:
            by_inputs.setdefault(layer.reads, {})[point] = layer
    for layers in by_inputs.values():
        result |= dict(zip(layers, timer.layers_ns(list(layers.values())), strict=True))
    return result


def _interpolate(times: dict[Lengths, float], lengths: Lengths) -> float:
    """Interpolate between measured lengths, multilinearly; clamp beyond them."""
    if lengths in times:
        return times[lengths]
    axes = [sorted({point[a] for point in times}) for a in range(len(lengths))]
    corners: list[list[tuple[int, float]]] = []
    for axis, value in zip(axes, lengths, strict=True):
        if len(axis) == 1:
            corners.append([(axis[0], 1.0)])
            continue
        right = int(np.clip(np.searchsorted(axis, value), 1, len(axis) - 1))
        low, high = axis[right - 1], axis[right]
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        corners.append([(low, 1 - part), (high, part)])
    total = 0.0
    for chosen in itertools.product(*corners):
        weight = math.prod(w for _, w in chosen)
        if weight:
            total += weight * times[tuple(n for n, _ in chosen)]
    return total
