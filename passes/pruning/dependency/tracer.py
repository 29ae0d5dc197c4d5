"""Channel ids: positions of axes of tensors that can only be removed together.

Every axis of every tensor carries a vector of channel ids, one for each position, or None where
nothing can be removed from it. Operators tie ids (both operands of an Add), pin them (Softmax over
channels) or pass them on (Transpose); ids that are tied, directly or not, are a unit. Removing all
positions of a unit from all tensors leaves a graph whose shapes fit.

Coupled groups are DepGraph's idea (Fang et al. 2023, arXiv 2301.12900); ids in place of rules for
pairs of operators are possible since every shape of an ONNX graph is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from trimtab.core.data import Array

from ...graph.concrete_shapes import Shapes
from ...graph.constants import can_cut, captured, constant_array, constant_shape, is_constant
from ...graph.queries import const, input_at, node_label
from .records import Axes, ConstantUse, Cost, GraphUpdate, Ids, OpaqueError, Operand, OperatorSite

#: A shared initializer of at least this many elements stays shared: all its uses lose the same.
TIED_SIZE = 4096
#: Most positions of an axis of channels: a table of so many rows is read by index.
MOST_CHANNELS = 1 << 24


@dataclass(eq=False)
class Trace:
    """Records that the rules make while they walk over a graph, operator by operator.

    Attributes:
        model: graph whose constants are initializers, functions inlined.
        choose: number of the factor that carries the channel ids at a split, by the split's key.
        default: factor of splits that `choose` does not name; the last one where it has fewer.
        size: number of channel ids.
        edges: channel ids that go together.
        pins: channel ids that stay, the operator that requires it, and the reason.
        uses: constants that can be cut.
        operands: inputs with channels.
        costs: multiply-accumulates of the operators.
        sites: places where an axis splits.
        updates: changes of the graph beside its constants, to be made when channels go.
        inexact: normalisations whose statistics change, with their channel ids.
    """

    model: ir.Model
    shapes: Shapes
    choose: Mapping[tuple[int, int], int] = field(default_factory=dict)
    default: int = 0
    size: int = 0
    edges: list[tuple[Ids, Ids]] = field(default_factory=list)
    pins: list[tuple[Ids, str, str]] = field(default_factory=list)
    uses: list[ConstantUse] = field(default_factory=list)
    operands: list[Operand] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    sites: list[OperatorSite] = field(default_factory=list)
    updates: list[GraphUpdate] = field(default_factory=list)
    inexact: list[tuple[ir.Node, Axes]] = field(default_factory=list)
    _axes: dict[ir.Value, Axes] = field(default_factory=dict)
    _tied: dict[ir.Value, Axes] = field(default_factory=dict)
    _node: ir.Node | None = None
    _index: int = 0
    _sites_here: int = 0

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.model.opset_imports.get("", 1)

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """Return the concrete shape of a tensor.

        Raises:
            OpaqueError: it is not known.
        """
        if value is None or not value.name:
            raise OpaqueError("an input is missing")
        if is_constant(value):
            return constant_shape(value)
        if value.name not in self.shapes.sizes:
            raise OpaqueError(f"the shape of {value.name!r} is not known")
        return self.shapes.sizes[value.name]

    def varies(self, value: ir.Value, axis: int) -> bool:
        """Return whether the length of an axis follows from that of an input."""
        return (str(value.name), axis) in self.shapes.varies

    def has(self, node: ir.Node, index: int) -> bool:
        """Return whether an operator has this input."""
        return input_at(node, index) is not None

    def present(self, node: ir.Node, first: int = 0) -> list[int]:
        """Return the numbers of the inputs that an operator has, from the first of these on."""
        return [i for i in range(first, len(node.inputs)) if node.inputs[i] is not None]

    def constant(self, node: ir.Node, index: int) -> Array | None:
        """Return the array of an input that is an initializer, else None."""
        value = input_at(node, index)
        return const(value) if value is not None and is_constant(value) else None

    def integers(self, node: ir.Node, index: int, attribute: str) -> list[int] | None:
        """Return whole numbers from an attribute or a constant input; None if absent.

        Raises:
            OpaqueError: they are computed.
        """
        if attribute in node.attributes:
            return [int(v) for v in node.attributes[attribute].as_ints()]
        if not self.has(node, index):
            return None
        found = self.constant(node, index)
        if found is None:
            raise OpaqueError(f"its {attribute} are computed")
        return [int(v) for v in np.atleast_1d(found)]

    def axes(self, node: ir.Node, index: int, only: Sequence[int] | None = None) -> Axes:
        """Return the channel ids of an input; a constant gets new ones, on the axes `only`."""
        value = node.inputs[index]
        shape = self.shape(value)
        assert value is not None
        if not is_constant(value):
            return self._axes.get(value) or [None] * len(shape)
        if not can_cut(value):
            return [None] * len(shape)
        wanted = {a % len(shape) for a in (range(len(shape)) if only is None else only) if shape}
        new_axes = self._tied.get(value)
        if new_axes is None:
            new_axes = [
                self.fresh(n) if i in wanted and n > 1 else None for i, n in enumerate(shape)
            ]
        else:
            others = [ids for i, ids in enumerate(new_axes) if i not in wanted]
            self.pin(others, "shares its weights")
        if value.const_value is not None and int(np.prod(shape)) >= TIED_SIZE:
            self._tied.setdefault(value, new_axes)
        self.uses.append(ConstantUse(node, index, value, new_axes))
        return [ids if i in wanted else None for i, ids in enumerate(new_axes)]

    def fresh(self, length: int) -> Ids:
        """Return new channel ids.

        Raises:
            OpaqueError: an axis is too long to be one of channels.
        """
        if length > MOST_CHANNELS:
            raise OpaqueError(f"an axis of {length} positions is too long to be one of channels")
        self.size += length
        return np.arange(self.size - length, self.size)

    def tie_broadcast(self, operand: Axes, shape: tuple[int, ...], result: Axes) -> None:
        """Tie the axes of an operand that are longer than 1 to those it is broadcast to."""
        for axis in range(-len(shape), 0):
            if shape[axis] > 1:
                self.tie(operand[axis], result[axis])

    def set(self, value: ir.Value | None, axes: Axes) -> None:
        """Set the channel ids of a tensor."""
        if value is not None:
            self._axes[value] = axes

    def tie(self, first: Ids | None, second: Ids | None) -> Ids | None:
        """Let positions of both axes go together and return their ids; None pins the other."""
        if first is None or second is None:
            self.pin([first, second], "meets an axis that cannot change")
            return None
        if first.shape != second.shape:
            raise OpaqueError(f"axes of {len(first)} and {len(second)} meet")
        if first is not second:
            self.edges.append((first, second))
        return first

    def tie_rows(self, table: Ids) -> Ids:
        """Tie the channel ids within each row of (n, m); return one for each row, (n,)."""
        first = table[:, 0].copy()
        pairs = np.stack([np.repeat(first, table.shape[1] - 1), table[:, 1:].reshape(-1)])
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.shape[1]:
            self.edges.append((pairs[0], pairs[1]))
        return first

    def pin(self, axes: Sequence[Ids | None], reason: str) -> None:
        """Pin these channels, which then stay."""
        where = node_label(self._node) if self._node is not None else "the graph"
        self.pins.extend((ids, where, reason) for ids in axes if ids is not None)

    def choose_factor(self, ids: Ids, options: int) -> int:
        """Return the number of the factor that carries the channel ids at this split."""
        key = (self._index, self._sites_here)
        self._sites_here += 1
        self.sites.append(OperatorSite(key, ids, options))
        return min(self.choose.get(key, self.default), options - 1)

    def cost(self, node: ir.Node, fixed: int, axes: Sequence[tuple[int, Ids | None]]) -> None:
        """Record multiply-accumulates: `fixed` times the lengths of these axes."""
        constant = fixed * int(np.prod([n for n, ids in axes if ids is None], dtype=np.int64))
        prunable = tuple(ids is not None for _, ids in axes)
        own = tuple(ids for _, ids in axes if ids is not None)
        self.costs.append(Cost(node, constant, own, tuple(n for n, _ in axes), prunable))

    def operand(
        self,
        node: ir.Node,
        index: int,
        axes: Axes,
        input_axis: int | None = None,
        *,
        weight: bool = False,
    ) -> None:
        """Record an input with channels; verification sets removed ones to zero."""
        if all(ids is None for ids in axes):
            return
        value = node.inputs[index]
        assert value is not None
        kind: Literal["weight", "vector", "data"] = "data"
        if constant_array(value) is not None:
            kind = "weight" if weight or input_axis is not None else "vector"
        self.operands.append(Operand(node, index, axes, kind, input_axis))

    def run(self, rule_of: Callable[[ir.Node], Callable[[Trace, ir.Node], None] | None]) -> None:
        """Walk over the graph in order, with the rule of each operator."""
        for index, node in enumerate(self.model.graph):
            self._node, self._index, self._sites_here = node, index, 0
            before = len(self.uses)
            rule = rule_of(node)
            if rule is None:
                name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
                self._give_up(node, f"operator {name} is not followed", before)
                continue
            try:
                rule(self, node)
            except OpaqueError as error:
                self._give_up(node, str(error), before)
        self._node = None
        for value in self.model.graph.outputs:
            self.pin(self._axes.get(value, []), "is a graph output")

    def _give_up(self, node: ir.Node, reason: str, uses_before: int) -> None:
        for value in (*node.inputs, *captured(node)):
            if value is not None:
                self.pin(self._axes.get(value, []), reason)
        for use in self.uses[uses_before:]:
            self.pin(use.axes, reason)
        for result in node.outputs:
            self._axes.pop(result, None)


def components(size: int, edges: Sequence[tuple[Ids, Ids]]) -> Ids:
    """Return the smallest id that each channel id is tied to, directly or not.

    Hooking and pointer jumping (Shiloach and Vishkin 1982), on whole arrays.
    """
    parent = np.arange(size)
    if not edges:
        return parent
    a = np.concatenate([e[0] for e in edges])
    b = np.concatenate([e[1] for e in edges])
    while True:
        ra, rb = parent[a], parent[b]
        apart = ra != rb
        if not apart.any():
            return parent
        a, b, ra, rb = a[apart], b[apart], ra[apart], rb[apart]
        np.minimum.at(parent, np.maximum(ra, rb), np.minimum(ra, rb))
        jumped = parent[parent]
        while not np.array_equal(jumped, parent):
            parent, jumped = jumped, jumped[jumped]
