"""Dependency graph of a model's channels: units, groups of units, and how axes split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trimtab.core.model import Model

from ...graph.concrete_shapes import Shapes, concrete_shapes
from ...graph.queries import node_label
from .records import ChannelMask, Operand
from .rules import rule_of
from .tracer import Trace, components

Bools = NDArray[np.bool_]
Key = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Group:
    """Units on the same axes of the same tensors: any of them can go, but not all.

    Attributes:
        name: the operator whose weight produces them, the first of several.
        units: numbers of the units.
        width: channels of that operator's output in one unit.
        members: operators whose weights have these channels.
    """

    name: str
    units: NDArray[np.int64]
    width: int
    members: tuple[str, ...]

    @property
    def classes(self) -> NDArray[np.int64]:
        """Alias of `units`, for importance functions written against it."""
        return self.units


@dataclass(frozen=True, eq=False)
class DependencyGraph:
    """Channel ids of a model, joined to the units that can only be removed as a whole.

    A unit is one channel with everything that depends on it, or a whole attention head or group
    of a convolution.

    Attributes:
        trace: records of the rules.
        unit_of: unit of each channel id, 0 to `num_units`.
        num_units: number of units.
    """

    trace: Trace
    unit_of: NDArray[np.int64]
    num_units: int

    @classmethod
    def of(cls, trace: Trace) -> DependencyGraph:
        """Join the channel ids that the trace's edges connect."""
        roots, unit_of = np.unique(components(trace.size, trace.edges), return_inverse=True)
        return cls(trace, unit_of.astype(np.int64), len(roots))

    @property
    def count(self) -> int:
        """Alias of `num_units`, for importance functions written against it."""
        return self.num_units

    @property
    def class_of(self) -> NDArray[np.int64]:
        """Alias of `unit_of`, for importance functions written against it."""
        return self.unit_of

    @cached_property
    def pinned(self) -> Bools:
        """(units,) true where a unit has to stay."""
        stay = np.zeros(self.num_units, bool)
        for ids, _, _ in self.trace.pins:
            stay[self.unit_of[ids]] = True
        return stay

    @cached_property
    def weights(self) -> list[Operand]:
        """Weights of convolutions and products whose axes have channel ids."""
        return [s for s in self.trace.operands if s.kind == "weight"]

    @cached_property
    def free(self) -> Bools:
        """(units,) true where a unit can go: it is not pinned, and a weight has it."""
        weighed = np.zeros(self.num_units, bool)
        for operand in self.weights:
            for ids in operand.axes:
                if ids is not None:
                    weighed[self.unit_of[ids]] = True
        return weighed & ~self.pinned

    def keep(self, removed: Iterable[int]) -> ChannelMask:
        """Return the mask of channel ids that stay where these units go."""
        alive = np.ones(self.num_units, bool)
        alive[np.fromiter(removed, np.int64)] = False
        return ChannelMask(alive[self.unit_of])

    @cached_property
    def groups(self) -> list[Group]:
        """Removable units by their axes: those of a group are on the same axes, equally often."""
        rng = np.random.default_rng(0)  # a random number for each axis makes sums distinct
        signature = np.zeros(self.num_units, np.uint64)
        for operand in self.weights:
            for ids in operand.axes:
                if ids is not None:
                    key = rng.integers(1, 1 << 63, dtype=np.uint64)
                    units, times = np.unique(self.unit_of[ids], return_counts=True)
                    signature[units] += times.astype(np.uint64) * key
        by_signature: dict[int, list[int]] = {}
        for index in np.flatnonzero(self.free):
            by_signature.setdefault(int(signature[index]), []).append(int(index))
        groups = [self._group(np.array(units)) for units in by_signature.values()]
        return [g for g in groups if g is not None]

    def _group(self, units: NDArray[np.int64]) -> Group | None:
        members: dict[str, int] = {}
        producers: dict[str, int] = {}
        for operand in self._operands_of[int(units[0])]:
            for axis, ids in enumerate(operand.axes):
                if ids is None:
                    continue
                times = int((self.unit_of[ids] == units[0]).sum())
                if times:
                    members.setdefault(node_label(operand.node), times)
                    if axis != operand.input_axis:
                        producers.setdefault(node_label(operand.node), times)
        name, width = next(iter((producers or members).items()))
        return Group(name, units, width, tuple(members))

    @cached_property
    def _operands_of(self) -> list[list[Operand]]:
        found: list[list[Operand]] = [[] for _ in range(self.num_units)]
        for operand in self.weights:
            units = [self.unit_of[ids] for ids in operand.axes if ids is not None]
            for index in np.unique(np.concatenate(units)):
                found[index].append(operand)
        return found

    def macs(self, keep: ChannelMask | None = None) -> int:
        """Return the multiply-accumulates for one sample, of the channels that stay."""
        total = 0
        for cost in self.trace.costs:
            product = cost.fixed
            for ids in cost.axes:
                product *= len(ids) if keep is None else keep.count(ids)
            total += product
        return total // self.trace.shapes.samples

    def axes_of(self, operand: Operand) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the axes of a weight that have channel ids, with the unit of each position."""
        return [(a, self.unit_of[ids]) for a, ids in enumerate(operand.axes) if ids is not None]


def build_dependency_graph(model: Model, *, whole: bool = True) -> DependencyGraph:
    """Build the dependency graph of a model whose constants are initializers.

    Args:
        model: is not changed.
        whole: where an axis splits, prefer that whole heads and groups go; else that all of them
            become narrower. A choice that leaves nothing to remove gives way to the other.
    """
    shapes = concrete_shapes(model)
    traces = [_trace(model, shapes, {}, 0)]
    ways = max((site.options for site in traces[0].trace.sites), default=1)
    traces += [_trace(model, shapes, {}, way) for way in range(1, ways)]
    if ways == 1:
        return traces[0]
    chosen = _choose(traces, whole=whole)
    return _trace(model, shapes, chosen, 0)


def _trace(
    model: Model, shapes: Shapes, choose: Mapping[Key, int], default: int
) -> DependencyGraph:
    trace = Trace(model.ir, shapes, choose, default)
    trace.run(rule_of)
    return DependencyGraph.of(trace)


def _choose(traces: list[DependencyGraph], *, whole: bool) -> dict[Key, int]:
    """Choose a factor for each split that leaves something to remove, alike for connected ones."""
    order = range(len(traces)) if whole else range(len(traces))[::-1]
    partner: dict[Key, Key] = {}

    def find(key: Key) -> Key:
        while partner.setdefault(key, key) != key:
            key = partner[key]
        return key

    for graph in traces:
        owner: dict[int, Key] = {}
        for site in graph.trace.sites:
            for index in np.unique(graph.unit_of[site.ids]):
                partner[find(site.key)] = find(owner.setdefault(int(index), site.key))
    free = {way: _free_by_component(traces[way], find) for way in order}
    keys = {site.key for graph in traces for site in graph.trace.sites}
    chosen = {}
    for key in keys:
        root = find(key)
        chosen[key] = next((w for w in order if free[w].get(root, 0) > 1), order[0])
    return chosen


def _free_by_component(graph: DependencyGraph, find: Callable[[Key], Key]) -> dict[Key, int]:
    units: dict[Key, set[int]] = {}
    for site in graph.trace.sites:
        own = np.unique(graph.unit_of[site.ids])
        free = own[graph.free[own]]
        units.setdefault(find(site.key), set()).update(map(int, free))
    return {root: len(found) for root, found in units.items()}


def prepare(model: Model) -> Model:
    """Inline functions and turn constants into initializers, in place, as the rules expect."""
    from onnx_ir.passes import common

    if model.ir.functions:
        common.InlinePass()(model.ir)
    common.RemoveInitializersFromInputsPass()(model.ir)
    model.ir.ir_version = max(model.ir.ir_version, 4)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.ir)
    return dataclasses.replace(model, ir=model.ir)
