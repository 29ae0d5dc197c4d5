"""From labels to decisions: classes, groups of classes, and which of two ways to split an axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trimtab.core.model import Model

from ...graph.concrete_shapes import Shapes, concrete_shapes
from ...graph.weights import label as node_label
from .parts import Keep, Sink
from .rules import rule_of
from .tracer import Trace, components

Bools = NDArray[np.bool_]
Key = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that take part in the same tensors: any of them can go, but not all.

    Attributes:
        name: the operator whose weight makes them, the first of several.
        classes: their classes.
        width: how many positions of that operator's output one class is.
        members: operators whose weights have them.
    """

    name: str
    classes: NDArray[np.int64]
    width: int
    members: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of a graph with what follows from them.

    Attributes:
        trace: what the rules recorded.
        class_of: for each label its class, 0 to `count`.
        count: number of classes.
    """

    trace: Trace
    class_of: NDArray[np.int64]
    count: int

    @classmethod
    def of(cls, trace: Trace) -> Labels:
        """Classes by the labels' ties."""
        roots, class_of = np.unique(components(trace.size, trace.edges), return_inverse=True)
        return cls(trace, class_of.astype(np.int64), len(roots))

    @cached_property
    def pinned(self) -> Bools:
        """(classes,) True where a class has to stay."""
        stay = np.zeros(self.count, bool)
        for ids, _, _ in self.trace.pins:
            stay[self.class_of[ids]] = True
        return stay

    @cached_property
    def weights(self) -> list[Sink]:
        """The weights of products that have labels."""
        return [s for s in self.trace.sinks if s.kind == "weight"]

    @cached_property
    def free(self) -> Bools:
        """(classes,) True where a class can go: not pinned, and a weight has it."""
        weighed = np.zeros(self.count, bool)
        for sink in self.weights:
            for ids in sink.axes:
                if ids is not None:
                    weighed[self.class_of[ids]] = True
        return weighed & ~self.pinned

    def keep(self, dead: Iterable[int]) -> Keep:
        """The labels that stay where these classes go."""
        alive = np.ones(self.count, bool)
        alive[np.fromiter(dead, np.int64)] = False
        return Keep(alive[self.class_of])

    @cached_property
    def groups(self) -> list[Group]:
        """Free classes by the axes that they stand on: the same axes, equally often."""
        rng = np.random.default_rng(0)  # a random number for each axis makes sums distinct
        signature = np.zeros(self.count, np.uint64)
        for sink in self.weights:
            for ids in sink.axes:
                if ids is not None:
                    key = rng.integers(1, 1 << 63, dtype=np.uint64)
                    classes, times = np.unique(self.class_of[ids], return_counts=True)
                    signature[classes] += times.astype(np.uint64) * key
        by_signature: dict[int, list[int]] = {}
        for index in np.flatnonzero(self.free):
            by_signature.setdefault(int(signature[index]), []).append(int(index))
        groups = [self._group(np.array(classes)) for classes in by_signature.values()]
        return [g for g in groups if g is not None]

    def _group(self, classes: NDArray[np.int64]) -> Group | None:
        members: dict[str, int] = {}
        makers: dict[str, int] = {}
        for sink in self._sinks_of[int(classes[0])]:
            for axis, ids in enumerate(sink.axes):
                if ids is None:
                    continue
                times = int((self.class_of[ids] == classes[0]).sum())
                if times:
                    members.setdefault(node_label(sink.node), times)
                    if axis != sink.into:
                        makers.setdefault(node_label(sink.node), times)
        name, width = next(iter((makers or members).items()))
        return Group(name, classes, width, tuple(members))

    @cached_property
    def _sinks_of(self) -> list[list[Sink]]:
        found: list[list[Sink]] = [[] for _ in range(self.count)]
        for sink in self.weights:
            classes = [self.class_of[ids] for ids in sink.axes if ids is not None]
            for index in np.unique(np.concatenate(classes)):
                found[index].append(sink)
        return found

    def macs(self, keep: Keep | None = None) -> int:
        """Multiply-accumulates for one sample, of what stays."""
        total = 0
        for cost in self.trace.costs:
            product = cost.fixed
            for ids in cost.axes:
                product *= len(ids) if keep is None else keep.count(ids)
            total += product
        return total // self.trace.shapes.samples

    def axes_of(self, sink: Sink) -> list[tuple[int, NDArray[np.int64]]]:
        """The labelled axes of a weight, with the class of each position."""
        return [(a, self.class_of[ids]) for a, ids in enumerate(sink.axes) if ids is not None]


def label_channels(model: Model, *, whole: bool = True) -> Labels:
    """The labels of a model whose constants are initializers.

    Args:
        model: is read only.
        whole: where an axis splits, prefer that whole heads and groups go; else that all of them
            become narrower. What leaves nothing to remove gives way to the other.
    """
    shapes = concrete_shapes(model)
    traces = [_trace(model, shapes, {}, 0)]
    ways = max((site.options for site in traces[0].trace.sites), default=1)
    traces += [_trace(model, shapes, {}, way) for way in range(1, ways)]
    if ways == 1:
        return traces[0]
    chosen = _choose(traces, whole=whole)
    return _trace(model, shapes, chosen, 0)


def _trace(model: Model, shapes: Shapes, choose: Mapping[Key, int], default: int) -> Labels:
    trace = Trace(model.ir, shapes, choose, default)
    trace.run(rule_of)
    return Labels.of(trace)


def _choose(traces: list[Labels], *, whole: bool) -> dict[Key, int]:
    """For each site the way that leaves something to remove, alike for sites that share labels."""
    order = range(len(traces)) if whole else range(len(traces))[::-1]
    partner: dict[Key, Key] = {}

    def find(key: Key) -> Key:
        while partner.setdefault(key, key) != key:
            key = partner[key]
        return key

    for labels in traces:
        owner: dict[int, Key] = {}
        for site in labels.trace.sites:
            for index in np.unique(labels.class_of[site.ids]):
                partner[find(site.key)] = find(owner.setdefault(int(index), site.key))
    free = {way: _free_by_component(traces[way], find) for way in order}
    keys = {site.key for labels in traces for site in labels.trace.sites}
    chosen = {}
    for key in keys:
        root = find(key)
        chosen[key] = next((w for w in order if free[w].get(root, 0) > 1), order[0])
    return chosen


def _free_by_component(labels: Labels, find: Callable[[Key], Key]) -> dict[Key, int]:
    classes: dict[Key, set[int]] = {}
    for site in labels.trace.sites:
        own = np.unique(labels.class_of[site.ids])
        free = own[labels.free[own]]
        classes.setdefault(find(site.key), set()).update(map(int, free))
    return {root: len(found) for root, found in classes.items()}


def prepared(model: Model) -> Model:
    """The model in place with constants as initializers, functions inlined: what rules expect."""
    from onnx_ir.passes import common

    if model.ir.functions:
        common.InlinePass()(model.ir)
    common.RemoveInitializersFromInputsPass()(model.ir)
    model.ir.ir_version = max(model.ir.ir_version, 4)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.ir)
    return dataclasses.replace(model, ir=model.ir)
