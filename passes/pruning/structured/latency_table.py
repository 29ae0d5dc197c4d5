"""A measured table of layers: what each costs at each pair of widths that it may get.

onnxruntime's latency is a staircase in the number of channels, so multiply-accumulates do not tell
it. Each distinct layer is timed by itself, all widths of its output interleaved; layers of the same
shape share one measurement, and one process measures a shape once.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from trimtab.core.context import Context
from trimtab.core.dataset import Dataset
from trimtab.core.errors import OptionError
from trimtab.core.files import write_text
from trimtab.core.memo import ByIdentity, MemoKind
from trimtab.core.model import Model
from trimtab.core.ort.session import SessionConfig, random_feeds

from ..dependency.groups import Group, Labels
from ..dependency.parts import Cost
from .budget import CostOf, Layer, layers
from .layer_benchmark import layer_at, layer_model
from .layer_benchmark_int8 import addition_model
from .layer_spec import LayerSpec

#: Widths of one axis that are measured; those between are interpolated.
POINTS = 8
#: What a layer that cannot be timed alone is taken to do, and how long the others may take.
MACS_PER_NS = 20.0
#: Seconds for one set of `POINTS` widths of one layer.
SECONDS = 0.4
#: Runs that each width of a slow layer gets: of two or three the luckiest would look like a stair.
RUNS = 9
#: Bytes of weights that are measured at once, of which onnxruntime holds a second, packed copy.
SET_BYTES = 1 << 28
#: Samples that a model is calibrated on where nothing but its latency matters.
FEW_SAMPLES = 8
#: Widths of an axis where the weights are larger than that: each point takes long to make there,
#: and so large a product has no stairs.
FEW_POINTS = 4

Lengths = tuple[int, ...]
#: Nanoseconds of layers, by clock, machine, target and layer.
TIMES: MemoKind[float] = MemoKind("layer times", 1 << 16)


def latencies(
    models: Sequence[Model], ctx: Context, *, int8: bool = False, data: Dataset | None = None
) -> list[float]:
    """Return the median latencies of whole models, measured in one run, in nanoseconds.

    Args:
        models: models of the same inputs.
        ctx: with a clock.
        int8: measure them in static int8.
        data: calibration data for that; the context's where None.
    """
    if int8:
        models = [in_int8(model, data or ctx.data, ctx) for model in models]
    clock = ctx.need_clock("latency=")
    feeds = random_feeds(models[0], seed=ctx.seed)
    return clock.median_ns(models, feeds, SessionConfig.of(ctx.target), 3.0)


def in_int8(model: Model, data: Dataset | None, ctx: Context) -> Model:
    """The model in static int8, for its latency alone: a few samples give its ranges.

    Args:
        model: a float model.
        data: calibration data; random inputs where None.
        ctx: with the target.
    """
    from ...quantization.static import QuantizeStatic

    data = data or Dataset.of_arrays(random_feeds(model, seed=ctx.seed, batch=FEW_SAMPLES))
    # Its answers matter to nobody, so that no sums of theirs are looked through for saturation.
    target = dataclasses.replace(ctx.target, vnni=True)
    few = QuantizeStatic(data=data, samples=FEW_SAMPLES)
    return few(model, dataclasses.replace(ctx, target=target))


def table(
    labels: Labels,
    groups: list[Group],
    steps: list[list[int]],
    ctx: Context,
    cache: str = "",
    *,
    int8: bool = False,
) -> CostOf:
    """Cost of each layer in nanoseconds, by measurement; that of a call is not in it.

    Args:
        labels: of the whole model.
        groups: what may become narrower.
        steps: to which numbers of classes.
        ctx: with a clock.
        cache: file of what was timed on machines of this class, read first and added to.
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
    found = layers(labels, groups)
    integers = (ctx.target.activation, ctx.target.weight) if int8 else None
    times: dict[int, dict[Lengths, float]] = {}
    for layer in ctx.progress.track(found, "timing layers", len(found)):
        cost = labels.trace.costs[layer.index]
        make = functools.partial(layer_at, labels.trace, cost, integers=integers)
        whole = make(_full(layer, steps))
        large = whole is not None and whole.nbytes > SET_BYTES
        grid = _grid(layer, steps, FEW_POINTS if large else POINTS)
        times[layer.index] = _time(make, cost, grid, timer)
    calling = timer.empty_run_ns()
    timer.save()

    def cost_of(index: int, lengths: Lengths) -> float:
        return max(0.0, _between(times[index], lengths) - calling)

    return cost_of


def with_additions(cost_of: CostOf, labels: Labels, found: Sequence[Layer], ctx: Context) -> CostOf:
    """The cost with that of the int8 sums at the ends of branches, which go with their branch.

    Args:
        cost_of: of the operators that multiply.
        labels: of the whole model.
        found: by `additions`.
        ctx: with a clock.
    """
    costs, timer = labels.trace.costs, LayerTimer(ctx)
    per_channel: dict[int, float] = {}
    for layer in found:
        cost = costs[layer.index - len(costs)]
        elements = math.prod(labels.trace.shape(cost.node.outputs[0]))
        once = timer.addition_ns(elements // labels.trace.shapes.samples)
        per_channel[layer.index] = max(0.0, once - timer.empty_run_ns()) / len(cost.axes[-2])

    def both(index: int, lengths: Lengths) -> float:
        if index not in per_channel:
            return cost_of(index, lengths)
        stream, branch = lengths
        return per_channel[index] * stream if branch else 0.0

    return both


def _full(layer: Layer, steps: list[list[int]]) -> Lengths:
    """The labelled axes with all their channels."""
    return tuple(
        base + sum(times * steps[g][-1] for g, times in part.items())
        for base, part in zip(layer.base, layer.parts, strict=True)
    )


def _grid(layer: Layer, steps: list[list[int]], points: int) -> list[list[int]]:
    """For each labelled axis the lengths to measure."""
    axes = []
    for base, part, full in zip(layer.base, layer.parts, _full(layer, steps), strict=True):
        options = [[times * w for w in some(steps[g])] for g, times in part.items()]
        lengths = {
            base + sum(chosen) for chosen in itertools.islice(itertools.product(*options), 64)
        }
        axes.append(some(sorted(lengths | {full}), points))
    return axes


def some(values: Sequence[int], points: int = POINTS) -> list[int]:
    """At most `points` of them, evenly spaced, both ends among them."""
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
    by_reads: dict[tuple[tuple[int, ...], ...], dict[Lengths, LayerSpec]] = {}
    for point in points:
        made = make(point) if 0 not in point else None
        if made is not None:
            by_reads.setdefault(made.reads, {})[point] = made
        else:
            result[point] = cost.fixed * math.prod(point) / MACS_PER_NS
    for same in by_reads.values():
        result |= dict(zip(same, timer.layers_ns(list(same.values())), strict=True))
    return result


class LayerTimer:
    """Clock for single layers that measures each layer once on a machine.

    Args:
        ctx: with a clock; its memo keeps the times.
        cache: file of earlier times, by machine; read first. Empty for none.
    """

    def __init__(self, ctx: Context, cache: str = "") -> None:
        self._ctx, self._clock = ctx, ctx.need_clock("latency=")
        self._config = SessionConfig.of(ctx.target)
        self._machine, self._path = ctx.timing_class(), Path(cache) if cache else None
        self._owner = (ByIdentity(self._clock), self._machine, ctx.target)
        self._times = {
            key[-1]: ns
            for key, ns in ctx.memo.items(TIMES)
            if isinstance(key, tuple) and key[:-1] == self._owner
        }
        if self._path is not None:
            for name, ns in _read(self._path).get(self._machine, {}).items():
                self._keep(name, float(ns))

    def layers_ns(self, layers: list[LayerSpec]) -> list[float]:
        """Return the nanoseconds of layers that read the same input."""
        for new in _sets([layer for layer in layers if layer.key not in self._times]):
            models = [layer_model(layer) for layer in new]
            once = sum(layer.macs for layer in new) / MACS_PER_NS / 1e9
            seconds = max(SECONDS * len(new) / POINTS, RUNS * once)
            found = self._clock.median_ns(models, random_feeds(models[0]), self._config, seconds)
            for layer, ns in zip(new, found, strict=True):
                self._keep(layer.key, ns)
        return [self._times[layer.key] for layer in layers]

    def empty_run_ns(self) -> float:
        """Return the time of a run that computes nothing, which each layer alone takes as well."""
        x = ir.val("x0", ir.DataType.FLOAT, [1])
        node = ir.Node("", "Identity", [x], num_outputs=1)
        node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.FLOAT
        graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 17}, name="nothing")
        return self._one_ns("nothing", Model(ir.Model(graph, ir_version=8), name="nothing"))

    def addition_ns(self, elements: int) -> float:
        """Return the time of an int8 sum of so many elements, that of an empty run included."""
        kind = self._ctx.target.activation
        return self._one_ns(f"{kind} Add {elements}", addition_model(elements, kind))

    def save(self) -> None:
        """Add all times of this machine to the file."""
        if self._path is None:
            return
        everything = _read(self._path)  # again: another run may have written meanwhile
        own = {name: round(ns) for name, ns in self._times.items()}
        everything[self._machine] = everything.get(self._machine, {}) | own
        write_text(self._path, json.dumps(everything, indent=1, sort_keys=True) + "\n")

    def _one_ns(self, name: str, model: Model) -> float:
        if name not in self._times:
            feeds = random_feeds(model)
            self._keep(name, self._clock.median_ns([model], feeds, self._config, SECONDS / 4)[0])
        return self._times[name]

    def _keep(self, name: str, ns: float) -> None:
        self._times[name] = ns
        self._ctx.memo.put(TIMES, (*self._owner, name), ns)


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Read nanoseconds by machine and layer; nothing where the file does not exist."""
    try:
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _sets(found: list[LayerSpec]) -> Iterator[list[LayerSpec]]:
    """Layers to measure interleaved: as many as `SET_BYTES` of weights allow."""
    chosen: list[LayerSpec] = []
    for layer in found:
        if chosen and sum(other.nbytes for other in (*chosen, layer)) > SET_BYTES:
            yield chosen
            chosen = []
        chosen.append(layer)
    if chosen:
        yield chosen


def _between(times: dict[Lengths, float], lengths: Lengths) -> float:
    """Multilinear interpolation between measured lengths; beyond them in proportion."""
    if lengths in times:
        return times[lengths]
    axes = [sorted({point[a] for point in times}) for a in range(len(lengths))]
    corners: list[list[tuple[int, float]]] = []
    for axis, value in zip(axes, lengths, strict=True):
        right = int(np.clip(np.searchsorted(axis, value), 1, max(len(axis) - 1, 1)))
        if len(axis) == 1:
            corners.append([(axis[0], 1.0)])
            continue
        low, high = axis[right - 1], axis[right]
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        corners.append([(low, 1 - part), (high, part)])
    total = 0.0
    for chosen in itertools.product(*corners):
        weight = math.prod(w for _, w in chosen)
        if weight:
            total += weight * times[tuple(n for n, _ in chosen)]
    return total
