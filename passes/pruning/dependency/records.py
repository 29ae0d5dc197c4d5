"""Records of a trace: constants that can be cut, operands with channels, costs and splits."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array

from ...graph.constants import constant_array
from ...graph.queries import input_at

#: A channel id for each position of an axis.
Ids = NDArray[np.int64]
#: Channel ids of each axis, or None where nothing can be removed.
Axes = list[Ids | None]


class OpaqueError(Exception):
    """Raised by a rule that cannot follow its operator: all channels of its inputs are pinned."""


def constant_input(node: ir.Node, index: int) -> Array | None:
    """Return the array of an input as the operator reads it, None where absent or computed."""
    value = input_at(node, index)
    return None if value is None else constant_array(value)


def weight_array(node: ir.Node, index: int = 1) -> Array:
    """Return the array of a constant input as the operator reads it; read only."""
    array = constant_input(node, index)
    assert array is not None
    return array


@dataclass(frozen=True, eq=False)
class ConstantUse:
    """Constant as one operator reads it, which can be cut: an initializer or a ConstantOfShape."""

    node: ir.Node
    index: int
    value: ir.Value
    axes: Axes


@dataclass(frozen=True, eq=False)
class Operand:
    """Input of an operator with channels; verification sets removed ones to zero.

    Attributes:
        index: number of the input.
        axes: its channel ids.
        kind: `weight` of a product, `vector` such as a bias or scale, or computed `data`.
        input_axis: axis of a weight's input channels, which the operator sums over.
    """

    node: ir.Node
    index: int
    axes: Axes
    kind: Literal["weight", "vector", "data"]
    input_axis: int | None = None

    # Former name, for importance functions written against it.
    into = property(operator.attrgetter("input_axis"))

    @property
    def value(self) -> ir.Value:
        """Tensor that the operator reads."""
        value = self.node.inputs[self.index]
        assert value is not None
        return value

    def array(self) -> Array:
        """Return the array of a weight or vector as the operator reads it; read only."""
        return weight_array(self.node, self.index)


@dataclass(frozen=True, eq=False)
class Cost:
    """Multiply-accumulates of one operator: `fixed` times the lengths of the prunable axes.

    Attributes:
        fixed: product of all lengths that cannot change.
        axes: channel ids of the prunable axes.
        lengths: all lengths, in the order of the operator's rule.
        prunable: for each of them, true where it is that of a prunable axis.
    """

    node: ir.Node
    fixed: int
    axes: tuple[Ids, ...]
    lengths: tuple[int, ...]
    prunable: tuple[bool, ...]

    def filled(self, point: Sequence[int]) -> list[int]:
        """Return all lengths, with these for the prunable axes."""
        new = iter(point)
        pairs = zip(self.lengths, self.prunable, strict=True)
        return [next(new) if prunable else n for n, prunable in pairs]


@dataclass(frozen=True, eq=False)
class OperatorSite:
    """Place where an axis splits into several factors, only one of which can carry channel ids.

    Attributes:
        key: node and number of the place, the same in every trace of a model.
        ids: channel ids of the axis.
        options: number of factors that could carry them.
    """

    key: tuple[int, int]
    ids: Ids
    options: int


class ChannelMask:
    """Mask of the channel ids that stay."""

    def __init__(self, alive: NDArray[np.bool_]) -> None:
        self._alive = alive

    def mask(self, ids: Ids) -> NDArray[np.bool_]:
        """Return a mask of an axis, true where a position stays."""
        return np.asarray(self._alive[ids])

    def masks(self, axes: Sequence[Ids | None]) -> list[NDArray[np.bool_] | None]:
        """Return a mask of each axis that loses a position, None for the others."""
        return [None if ids is None or self._alive[ids].all() else self.mask(ids) for ids in axes]

    def count(self, ids: Ids) -> int:
        """Return the number of positions that stay."""
        return int(self._alive[ids].sum())

    def places(self, ids: Ids, taken: Ids) -> Ids:
        """Return where on the cut axis those of the positions `taken` are that stay."""
        alive = self.mask(ids)
        return np.asarray((np.cumsum(alive) - 1)[taken[alive[taken]]])

    def changes(self, ids: Ids | None) -> bool:
        """Return whether a position of the axis goes."""
        return ids is not None and not self._alive[ids].all()

    def any(self, axes: Sequence[Ids | None]) -> bool:
        """Return whether a position of any of these axes goes."""
        return any(self.changes(ids) for ids in axes)


#: Change of the graph beside its constants, made when channels go.
GraphUpdate = Callable[[ir.Model, ChannelMask], None]
