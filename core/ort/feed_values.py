"""Values that the inputs of a graph can take, read from the operators that use them.

An index must be below the rows of its table, a sample rate is one that the graph compares with, a
mask is of ones, a state starts at zero, and a picture whose first layer takes off a mean of 120 has
pixels of 0 to 255.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..errors import InputError
from ..graphs import constant_array
from ..model import Model, TensorSpec
from ..text import shape_text

Kind = Literal["normal", "pixels", "integers", "ones", "zeros", "constant", "text", "categories"]

#: Operators whose first result holds values of the input at this position, moved about at most.
_MOVES = {
    **dict.fromkeys(
        ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Expand",
         "Slice", "Tile", "Pad", "Split", "Gather", "GatherElements", "GatherND", "DepthToSpace",
         "SpaceToDepth", "Dropout", "CastLike", "ArrayFeatureExtractor", "StringNormalizer"),
        (0,),
    ),
    "Concat": tuple(range(64)),
    "Where": (1, 2),
}  # fmt: skip
_COMPARISONS = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Max", "Min"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
#: Operators and inputs of them that are sizes.
_SIZES = {"Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Range": (0, 1), "Tile": (1,)}
#: Attributes of encoders that list the categories which they know, of which others are refused.
_CATEGORIES = ("cats_strings", "cats_int64s", "keys_strings", "keys_int64s", "classes_strings")
#: Mean, or standard deviation of values, from which they are pixels of 0 to 255.
_PIXELS = 16.0
#: Constants that an input is compared with of which it is one; more of them are its range.
FEW = 8
#: Most values of an input: 8 GB of float32.
MOST_VALUES = 1 << 31


@dataclass(frozen=True)
class Values:
    """Values that an input takes.

    Attributes:
        kind: distribution to draw from.
        low: least integer.
        high: least integer above all that it takes.
        constants: values that the graph compares the input with; the first is the one drawn.
        like: input and axis whose size all indices are below, where the table is fed as well.
        categories: texts or numbers that an encoder knows.
    """

    kind: Kind
    low: int = 0
    high: int = 2
    constants: tuple[float, ...] = ()
    like: tuple[str, int] | None = None
    categories: tuple[Any, ...] = ()

    def draw(
        self,
        rng: np.random.Generator,
        spec: TensorSpec,
        shape: Sequence[int],
        shapes: Mapping[str, Sequence[int]],
    ) -> NDArray[Any]:
        """Return an array of the shape; `shapes` has those of all inputs.

        Raises:
            InputError: there are no values of the input's type, or too many are asked for.
        """
        if math.prod(map(int, shape)) > MOST_VALUES:
            raise InputError(
                f"input {spec.name!r} of shape {shape_text(shape)} is too large to be fed",
                hint="Give the size that it has in use with --shape, or a model that states it",
            )
        if self.categories or spec.dtype == ir.DataType.STRING:
            known = np.array(self.categories or ("text",), spec.dtype.numpy())
            return known[rng.integers(0, len(known), shape)]
        kind = _numpy(spec)
        if self.kind == "pixels":
            return rng.integers(0, 256, shape).astype(kind)
        if self.kind in {"ones", "zeros"}:
            return np.full(shape, int(self.kind == "ones"), kind)
        if self.kind == "constant":
            return np.full(shape, self.constants[0], kind)
        if self.kind == "integers":
            high = self.high if self.like is None else shapes[self.like[0]][self.like[1]]
            return rng.integers(self.low, max(high, self.low + 1), shape).astype(kind)
        return rng.standard_normal(shape).astype(kind)

    def __str__(self) -> str:
        if self.kind == "constant":
            return f"{self.constants[0]:g}"
        if self.kind == "integers":
            return "indices" if self.like else f"{self.low} to {max(self.high - 1, self.low)}"
        if self.kind == "categories":
            more = ", ..." if len(self.categories) > FEW else ""
            return f"of {', '.join(map(str, self.categories[:FEW]))}{more}"
        return {"pixels": "0 to 255", "normal": "from N(0, 1)"}.get(self.kind, self.kind)


def _numpy(spec: TensorSpec) -> Any:
    if not (spec.dtype.is_floating_point() or spec.dtype.is_integer()) and (
        spec.dtype != ir.DataType.BOOL
    ):
        raise InputError(
            f"cannot make values of type {spec.type_name}",
            where=f"input {spec.name!r}",
            hint="Give --data",
        )
    return spec.dtype.numpy()


def values_of(model: Model) -> dict[str, Values]:
    """Return the values that each input of a model takes, by name."""
    fed = {str(v.name): v for v in model.graph.inputs}
    return {spec.name: _of_input(model, spec, fed[spec.name]) for spec in model.inputs}


def _of_input(model: Model, spec: TensorSpec, value: ir.Value) -> Values:
    if spec.dtype == ir.DataType.STRING or spec.dtype.is_integer():
        known = next(_categories(value, texts=spec.dtype == ir.DataType.STRING), ())
        if known or spec.dtype == ir.DataType.STRING:
            return Values("categories" if known else "text", categories=known)
    # Zeros drawn at random may hide whole rows.
    if spec.dtype == ir.DataType.BOOL or "mask" in spec.name.lower():
        return Values("ones")
    found = _Uses().of(value)
    if found is not None:
        return found
    rank = len(spec.shape or ())
    if spec.dtype.is_integer():
        byte = spec.dtype in {ir.DataType.UINT8, ir.DataType.INT8} and rank >= 3
        return Values("pixels" if byte and spec.dtype == ir.DataType.UINT8 else "integers")
    if _is_state(model, spec, value):
        return Values("zeros")
    return Values("pixels" if rank >= 3 and _takes_pixels(value) else "normal")


def _categories(value: ir.Value, *, texts: bool) -> Iterator[tuple[Any, ...]]:
    """Yield the categories of the encoders that read an input, be it through others."""
    for node, _, _ in _readers(value):
        for name in _CATEGORIES:
            held = node.attributes.get(name)
            if held is not None and name.endswith("strings") is texts:
                yield tuple(held.as_strings() if texts else held.as_ints())


class _Uses:
    """Facts about an input that its indirect readers tell."""

    def __init__(self) -> None:
        self.low, self.high = 0, float("inf")
        self.like: tuple[str, int] | None = None
        self.constants: list[float] = []
        self.compared: list[float] = []
        self.positive = self.size = self.index = False

    def of(self, value: ir.Value) -> Values | None:
        """Return the values that the readers of an input allow, None where they say nothing."""
        for node, index, offset in _readers(value):
            self._add(node, index, offset)
        if self.constants:
            return Values("constant", constants=tuple(dict.fromkeys(self.constants)))
        if not (self.index or self.compared or self.positive or self.size):
            return None
        low = max(self.low, int(self.positive or self.size))
        high = self.high
        if not self.index:
            low = max(low, 1)
            high = min(high, max((*self.compared, low)) + 1 if self.compared else low + 1)
        return Values("integers", low, int(min(high, 1 << 30)), like=self.like)

    def _add(self, node: ir.Node, index: int, offset: float) -> None:
        op, other = node.op_type, _other(node, index)
        if op in {"Gather", "GatherElements", "ScatterElements"} and index == 1:
            self._indexes(node.inputs[0], node.attributes.get_int("axis", 0), offset)
        elif op in {"GatherND", "ScatterND"} and index == 1:
            self._indexes(node.inputs[0], 0, offset)
        elif op == "EmbedLayerNormalization" and index in {0, 1}:
            self._indexes(node.inputs[index + 2 if index == 0 else 3 + index], 0, offset)
        elif op == "OneHot" and index == 0:
            depth = constant_array(node.inputs[1])
            self._bound(int(depth.reshape(-1)[0]) if depth is not None else 1, offset)
        elif op == "Equal" and other is not None and 0 < other.size <= FEW:
            self.constants += [float(c) - offset for c in other.reshape(-1)]
        elif op == "Equal" and other is not None and other.size and _whole(node.inputs[index]):
            self.index = True  # a one-hot code, written as a comparison with all positions
            self.low = max(self.low, int(other.min() - offset))
            self.high = min(self.high, float(other.max()) - offset + 1)
        elif op in _COMPARISONS and _whole(node.inputs[index]):
            self.compared += [float(other.max()) - offset] if other is not None else []
            self.positive = True
        elif op == "Div" and index == 1:
            self.positive = True
        elif index in _SIZES.get(op, ()):
            self.size = True

    def _indexes(self, table: ir.Value | None, axis: int, offset: float) -> None:
        if table is None:
            return
        dims = list(table.shape) if table.shape is not None else []
        size = dims[axis] if -len(dims) <= axis < len(dims) else None
        if isinstance(size, int):
            self._bound(size, offset)
        elif table.is_graph_input() and dims and offset == 0:
            self.index, self.like = True, (str(table.name), axis % len(dims))
        else:
            self._bound(1, offset)

    def _bound(self, size: int, offset: float) -> None:
        self.index = True
        self.low = max(self.low, int(np.ceil(-offset)))
        self.high = min(self.high, size - offset)


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int, float]]:
    """Yield the readers of a value and of what holds its values, and what was added till then."""
    waiting: list[tuple[ir.Value, float]] = [(value, 0.0)]
    seen = {value}
    while waiting:
        current, offset = waiting.pop()
        for use in current.uses():
            node, index = use.node, use.idx
            yield node, index, offset
            more = _shift(node, index)
            if more is None:
                continue
            for output in node.outputs:
                if output not in seen:
                    seen.add(output)
                    waiting.append((output, offset + more))


def _shift(node: ir.Node, index: int) -> float | None:
    """Return what a node adds to the values that it passes on, None where it makes others."""
    if index in _MOVES.get(node.op_type, ()):
        return 0.0
    other = _other(node, index)
    if other is None or other.size != 1 or other.dtype.kind not in "iuf":
        return None
    amount = float(other.reshape(-1)[0])
    if node.op_type == "Add":
        return amount
    return -amount if node.op_type == "Sub" and index == 0 else None


def _other(node: ir.Node, index: int) -> NDArray[Any] | None:
    """Return the constant that an operator of two inputs reads beside the one at `index`."""
    return constant_array(node.inputs[1 - index]) if len(node.inputs) == 2 and index < 2 else None


def _whole(value: ir.Value | None) -> bool:
    return value is not None and (value.dtype is None or value.dtype.is_integer())


def _is_state(model: Model, spec: TensorSpec, value: ir.Value) -> bool:
    """Return whether an input is the state that an output of its name or shape goes on with."""
    if any(n.op_type in _RECURRENT and i >= 5 for n, i, _ in _readers(value)):
        return True
    if len(model.inputs) < 2 or not spec.shape:
        return False
    stem = spec.name.lower()
    return any(
        output.dtype == spec.dtype
        and len(output.shape or ()) == len(spec.shape)
        and stem in output.name.lower()
        for output in model.outputs
    )


def _takes_pixels(value: ir.Value) -> bool:
    """Return whether the first arithmetic on a picture expects values of 0 to 255."""
    return any(_expects_pixels(node, index) for node, index, _ in _readers(value))


def _expects_pixels(node: ir.Node, index: int) -> bool:
    other = _other(node, index)
    if other is not None and other.dtype.kind == "f" and other.size:
        size = float(np.abs(other).max())
        return (
            (node.op_type in {"Sub", "Add"} and size >= _PIXELS)
            or (node.op_type == "Div" and index == 0 and size >= _PIXELS)
            or (node.op_type == "Mul" and 0 < size <= 1 / _PIXELS)
        )
    if node.op_type == "BatchNormalization" and index == 0:
        return _statistics_of_pixels(node, 1.0)
    if node.op_type != "Conv" or index != 0:
        return False
    weight = constant_array(node.inputs[1])
    if weight is None or weight.dtype.kind != "f":
        return False
    norms = np.sqrt(np.square(weight.astype(np.float64)).reshape(len(weight), -1).sum(1)) + 1e-12
    after = [use.node for use in node.outputs[0].uses()]
    if len(after) == 1 and after[0].op_type == "BatchNormalization":
        return _statistics_of_pixels(after[0], norms)
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    return bias is not None and float(np.quantile(np.abs(bias) / norms, 0.75)) >= _PIXELS


def _statistics_of_pixels(node: ir.Node, norms: Any) -> bool:
    mean, variance = (constant_array(v) for v in node.inputs[3:5])
    if mean is None or variance is None:
        return False
    spread = np.sqrt(np.abs(variance)) / norms
    return max(float(np.median(np.abs(mean) / norms)), float(np.median(spread))) >= _PIXELS
