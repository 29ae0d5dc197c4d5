"""What the trace of a graph's labels is made of, and the constants that it may cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array

from ...graph.constants import (
    constant_array,
)

#: One label for each position of an axis.
Ids = NDArray[np.int64]
#: For each axis its labels, or None where nothing can be removed.
Axes = list[Ids | None]


class OpaqueError(Exception):
    """Raised by a rule that cannot follow its operator: all labels of its inputs are pinned."""


@dataclass(frozen=True, eq=False)
class Use:
    """A constant as one operator reads it: what is cut.

    Attributes:
        node: the operator.
        index: which of its inputs.
        value: an initializer, or what a ConstantOfShape makes.
        axes: its labels.
    """

    node: ir.Node
    index: int
    value: ir.Value
    axes: Axes


@dataclass(frozen=True, eq=False)
class Sink:
    """An input that the oracle zeroes where channels go, and whose numbers may tell importance.

    Attributes:
        node: the operator.
        index: which of its inputs.
        axes: its labels.
        kind: `weight` of a product, `vector` such as a bias or scale, `data` that is computed.
        into: axis of input channels of a weight, that is summed over.
    """

    node: ir.Node
    index: int
    axes: Axes
    kind: Literal["weight", "vector", "data"]
    into: int | None = None

    def array(self) -> Array:
        """The numbers of a weight or vector, as the operator reads them; not to be written to."""
        value = self.node.inputs[self.index]
        found = None if value is None else constant_array(value)
        assert found is not None
        return found


@dataclass(frozen=True, eq=False)
class Cost:
    """Multiply-accumulates of one operator: `fixed` times the lengths of the labelled axes.

    Attributes:
        node: the operator.
        fixed: product of all lengths that cannot change.
        axes: labels of the axes that can.
        lengths: all lengths, in the order of the operator's rule.
        labelled: which of them have labels.
    """

    node: ir.Node
    fixed: int
    axes: tuple[Ids, ...]
    lengths: tuple[int, ...]
    labelled: tuple[bool, ...]

    def filled(self, point: Sequence[int]) -> list[int]:
        """All lengths, where the labelled ones are these."""
        given = iter(point)
        rows = zip(self.lengths, self.labelled, strict=True)
        return [next(given) if open_ else n for n, open_ in rows]


@dataclass(frozen=True, eq=False)
class Site:
    """A place where an axis splits into several, of which one only can carry labels.

    Attributes:
        key: node and number of the place, the same in every trace of a model.
        ids: the labels that arrive.
        options: how many factors could carry them.
    """

    key: tuple[int, int]
    ids: Ids
    options: int


class Keep:
    """Which labels stay, in the words that rewriting needs."""

    def __init__(self, alive: NDArray[np.bool_]) -> None:
        self._alive = alive

    def mask(self, ids: Ids) -> NDArray[np.bool_]:
        """True where a position stays."""
        return np.asarray(self._alive[ids])

    def count(self, ids: Ids) -> int:
        """How many positions stay."""
        return int(self._alive[ids].sum())

    def changes(self, ids: Ids | None) -> bool:
        """Whether a position goes."""
        return ids is not None and not self._alive[ids].all()

    def any(self, axes: Sequence[Ids | None]) -> bool:
        """Whether a position of any of these axes goes."""
        return any(self.changes(ids) for ids in axes)


#: What has to change in the graph beside its constants.
Fix = Callable[[ir.Model, Keep], None]
