"""What the trace of a graph's labels is made of, and the constants that it may cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

#: One label for each position of an axis.
Ids = NDArray[np.int64]
#: For each axis its labels, or None where nothing can be removed.
Axes = list[Ids | None]
Array = NDArray[Any]


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


def is_constant(value: ir.Value) -> bool:
    """An initializer that no caller feeds, or what a ConstantOfShape of constant shape makes."""
    if value.is_graph_input():
        return False
    if value.is_initializer() and value.const_value is not None:
        return True
    maker = value.producer()
    if maker is None or maker.op_type != "ConstantOfShape" or maker.domain not in {"", "ai.onnx"}:
        return False
    shape = maker.inputs[0]
    return shape is not None and shape.is_initializer() and shape.const_value is not None


def constant_shape(value: ir.Value) -> tuple[int, ...]:
    """Shape of a value that `is_constant`."""
    if value.const_value is not None:
        return tuple(value.const_value.numpy().shape)
    maker = value.producer()
    assert maker is not None
    shape = maker.inputs[0]
    assert shape is not None
    assert shape.const_value is not None
    return tuple(int(d) for d in shape.const_value.numpy().reshape(-1))


def constant_array(value: ir.Value) -> Array | None:
    """Numbers of a constant, or of what a few operators make of constants; else None."""
    if is_constant(value) and value.const_value is not None:
        return value.const_value.numpy()
    maker = value.producer()
    if maker is None or not maker.inputs or maker.inputs[0] is None:
        return None
    if is_constant(value):
        given = maker.attributes.get("value")
        filler = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
        return np.broadcast_to(filler.reshape(-1)[0], constant_shape(value))
    source = constant_array(maker.inputs[0]) if maker.op_type in _FOLDED else None
    return None if source is None else _FOLDED[maker.op_type](maker, source)


def _transposed(node: ir.Node, array: Array) -> Array:
    given = node.attributes.get("perm")
    return np.transpose(array, None if given is None else list(given.as_ints()))


def _dequantized(node: ir.Node, array: Array) -> Array | None:
    scale = None if node.inputs[1] is None else constant_array(node.inputs[1])
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    offset = np.zeros(1) if zero is None else constant_array(zero)
    if scale is None or offset is None or "block_size" in node.attributes:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [1] * array.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    spread = offset.reshape(shape if offset.size > 1 else [1] * array.ndim).astype(np.float32)
    return np.asarray((array.astype(np.float32) - spread) * scale.reshape(shape))


def _same(node: ir.Node, array: Array) -> Array:  # noqa: ARG001
    return array


_FOLDED: dict[str, Callable[[ir.Node, Array], Array | None]] = {
    "DequantizeLinear": _dequantized,
    "Transpose": _transposed,
    "Identity": _same,
}


def can_cut(value: ir.Value) -> bool:
    """Numbers of a layer; shapes, indices and texts change by rules of their own."""
    if value.const_value is None:
        maker = value.producer()
        given = maker.attributes.get("value") if maker is not None else None
        kind = ir.DataType.FLOAT if given is None else given.as_tensor().dtype
    else:
        kind = value.const_value.dtype
    return kind not in {ir.DataType.INT64, ir.DataType.STRING}


def captured(node: ir.Node) -> list[ir.Value]:
    """Values that the graphs inside of a node read, those of the outer graph among them."""
    found: list[ir.Value] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        else:
            continue
        for graph in graphs:
            found.extend(v for n in graph.all_nodes() for v in n.inputs if v is not None)
            found.extend(graph.outputs)
    return found
