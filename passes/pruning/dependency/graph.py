"""Dependency graph of a model's channels: units, groups of units, and how axes split."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import InputError
from trimtab.core.model import Model

from ...graph.cleanup import inline_functions
from ...graph.concrete_shapes import Shapes, concrete_shapes
from ...graph.edit import drop_weight_inputs
from ...graph.queries import node_label
from .records import ChannelMask, Ids, Operand
from .rules import rule_of
from .tracer import Trace, components

Bools = NDArray[np.bool_]
#: Layers whose second input is a weight of channels.
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
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

    # Former name, for importance functions written against it.
    classes = property(operator.attrgetter("units"))


@dataclass(frozen=True, eq=False)
class WeightAxis:
    """Axis of a weight with channel id and unit of each of its positions."""

    operand: Operand
    axis: int
    ids: Ids
    units: NDArray[np.int64]

    @property
    def produces(self) -> bool:
        """True for an axis of output channels."""
        return self.axis != self.operand.input_axis

    @property
    def label(self) -> str:
        """Name of the operator."""
        return node_label(self.operand.node)


@dataclass(frozen=True, eq=False)
class DependencyGraph:
    """Channel ids of a model, joined to the units that can only be removed as a whole.

    A unit is one channel with everything that depends on it, or a whole attention head or group
    of a convolution.

    Attributes:
        unit_of: unit of each channel id, 0 to `num_units`.
        num_units: number of units.
    """

    trace: Trace
    unit_of: NDArray[np.int64]
    num_units: int

    # Former names, for importance functions written against them.
    count = property(operator.attrgetter("num_units"))
    class_of = property(operator.attrgetter("unit_of"))

    @cached_property
    def pinned(self) -> Bools:
        """Mask of the units that have to stay, (units,)."""
        stay = np.zeros(self.num_units, bool)
        for ids, _, _ in self.trace.pins:
            stay[self.unit_of[ids]] = True
        return stay

    @cached_property
    def weights(self) -> list[Operand]:
        """Weights of convolutions and products whose axes have channel ids."""
        return [s for s in self.trace.operands if s.kind == "weight"]

    @cached_property
    def weight_axes(self) -> list[WeightAxis]:
        """Axes of the weights that have channel ids."""
        return [
            WeightAxis(operand, axis, ids, self.unit_of[ids])
            for operand in self.weights
            for axis, ids in enumerate(operand.axes)
            if ids is not None
        ]

    def input_units(self, operand: Operand) -> NDArray[np.int64] | None:
        """Return the unit of each input channel of a weight, None where none of them can go."""
        ids = None if operand.input_axis is None else operand.axes[operand.input_axis]
        return None if ids is None else self.unit_of[ids]

    def owners(self, groups: Sequence[Group]) -> NDArray[np.int64]:
        """Return the number of each unit's group, (units,); -1 for units of no group."""
        owner = np.full(self.num_units, -1)
        for number, group in enumerate(groups):
            owner[group.units] = number
        return owner

    @cached_property
    def free(self) -> Bools:
        """Mask of the units that can go, (units,): not pinned, and on an axis of a weight."""
        weighed = np.zeros(self.num_units, bool)
        for row in self.weight_axes:
            weighed[row.units] = True
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
        for row in self.weight_axes:
            key = rng.integers(1, 1 << 63, dtype=np.uint64)
            units, times = np.unique(row.units, return_counts=True)
            signature[units] += times.astype(np.uint64) * key
        by_signature: dict[int, list[int]] = {}
        for index in np.flatnonzero(self.free):
            by_signature.setdefault(int(signature[index]), []).append(int(index))
        return [self._group(np.array(units)) for units in by_signature.values()]

    def _group(self, units: NDArray[np.int64]) -> Group:
        members: dict[str, int] = {}
        producers: dict[str, int] = {}
        for row, times in self._axes_of_unit[int(units[0])]:
            members.setdefault(row.label, times)
            if row.produces:
                producers.setdefault(row.label, times)
        name, width = next(iter((producers or members).items()))
        return Group(name, units, width, tuple(members))

    @cached_property
    def _axes_of_unit(self) -> list[list[tuple[WeightAxis, int]]]:
        """Axes of weights that have each unit, and how often."""
        found: list[list[tuple[WeightAxis, int]]] = [[] for _ in range(self.num_units)]
        for row in self.weight_axes:
            for unit, times in zip(*np.unique(row.units, return_counts=True), strict=True):
                found[unit].append((row, int(times)))
        return found

    def macs(self, keep: ChannelMask | None = None) -> int:
        """Return the multiply-accumulates for one sample, of the channels that stay."""
        total = 0
        for cost in self.trace.costs:
            lengths = (len(ids) if keep is None else keep.count(ids) for ids in cost.axes)
            total += cost.fixed * math.prod(lengths)
        return total // self.trace.shapes.samples


def build_dependency_graph(model: Model, *, whole: bool = True) -> DependencyGraph:
    """Build the dependency graph of a model whose constants are initializers.

    Where an axis splits, `whole` prefers that whole heads and groups go, else all of them become
    narrower. A choice that leaves nothing to remove gives way to the other.
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
    roots, unit_of = np.unique(components(trace.size, trace.edges), return_inverse=True)
    return DependencyGraph(trace, unit_of.astype(np.int64), len(roots))


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
    return {
        key: next((w for w in order if free[w].get(find(key), 0) > 1), order[0]) for key in keys
    }


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

    inline_functions(model.ir)
    drop_weight_inputs(model.ir)
    model.ir.ir_version = max(model.ir.ir_version, 4)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.ir)
    _refuse_broken_weights(model)
    return dataclasses.replace(model, ir=model.ir)


def _refuse_broken_weights(model: Model) -> None:
    """Refuse layers whose channels cannot be compared."""
    for node in model.nodes():
        for value in node.inputs[1:2] if node.op_type in PRODUCTS else ():
            if value is None or value.const_value is None:
                continue
            array = value.const_value
            if (
                array.dtype.is_floating_point()
                and not np.isfinite(array.numpy().astype(np.float32, copy=False)).all()
            ):
                raise InputError(
                    f"weight {value.name!r} of {node.name or node.op_type} has values that are not "
                    "finite, by which channels cannot be ranked",
                    where=model.name,
                    hint="Export the model anew, from weights that are finite",
                )
