"""Float weights stored in fewer bits, with operators behind them that are folded on loading.

onnxruntime evaluates operators on constants once, while it loads a model, so such a weight is an
ordinary float initializer of the graph that runs. Nothing is lost but load time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Array, Floats32

from ..names import FreeNames
from .weight_scales import thresholds

#: Bytes that two operators and their names take in the file, and those that unpack four bits.
NODES_BYTES, UNPACK_BYTES = 250, 800
#: First operator set with tensors of four bits that are cast to floats.
INT4_OPSET = 21
#: Largest integer by the bits of a weight.
LARGEST = {16: 32767, 8: 127, 4: 7}
#: Relative error of a weight up to which it is rounded to integers, by their bits.
MAX_ERROR = {8: 0.02, 4: 0.15}
#: Fewest weights that share a scale, so that scales stay few beside the integers.
FEWEST = 8
#: Largest distance from an integer, in steps of a grid, that float rounding explains, by its bits.
_ROUNDING = {4: 1e-4, 8: 1e-4, 16: 0.01}
_CHUNK = 4096


class Form(Protocol):
    """Form in which a weight is stored."""

    def array(self) -> Floats32:
        """Return the weight that the stored form stands for."""

    def nbytes(self) -> int:
        """Return about how many bytes it takes in the file, operators included."""

    def build(self, place: Place) -> ir.Value:
        """Insert constants and operators and return the float weight."""


class Place:
    """Beginning of a graph, where constants and operators of one weight are inserted."""

    def __init__(self, names: FreeNames, graph: ir.Graph, base: str) -> None:
        self.names, self.graph, self.base = names, graph, base
        self.first = graph[0]
        self.opset = graph.opset_imports.get("", 1)

    def constant(self, part: str, array: Array, dtype: ir.DataType | None = None) -> ir.Value:
        """Register an initializer and return it."""
        name = self.names.tensor(f"{self.base}_{part}")
        tensor = ir.tensor(np.asarray(array, order="C"), dtype=dtype, name=name)
        value = ir.val(name, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def node(self, op: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
        """Insert an operator and return its output."""
        name = self.names.node(f"{self.base}_{op}")
        given = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        made = ir.Node("", op, inputs, given, name=name)
        made.outputs[0].name = self.names.tensor(f"{name}_output")
        self.graph.insert_before(self.first, made)
        return made.outputs[0]

    def cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """Insert a Cast and return its output."""
        return self.node("Cast", [value], to=int(to))


@dataclass(frozen=True)
class Halved:
    """Weight stored in float16."""

    values: NDArray[np.float16]

    def array(self) -> Floats32:
        """Return the floats."""
        return self.values.astype(np.float32)

    def nbytes(self) -> int:
        """Return about how many bytes it takes in the file."""
        return self.values.nbytes + NODES_BYTES // 2

    def build(self, place: Place) -> ir.Value:
        """Insert a Cast."""
        return place.cast(place.constant("float16", self.values), ir.DataType.FLOAT)


@dataclass(frozen=True)
class Gridded:
    """Weight stored as integers times scales.

    Attributes:
        integers: signed, of the weight's shape.
        scales: float32, broadcast to that shape.
        bits: 16, 8 or 4.
    """

    integers: NDArray[np.signedinteger[Any]]
    scales: Floats32
    bits: int

    def array(self) -> Floats32:
        """Return the floats, computed as the operators do."""
        return self.integers.astype(np.float32) * self.scales

    def nbytes(self) -> int:
        """Return about how many bytes it takes in the file."""
        added = UNPACK_BYTES if self.bits == 4 else NODES_BYTES
        return self.integers.size * self.bits // 8 + self.scales.nbytes + added

    def build(self, place: Place) -> ir.Value:
        """Insert a Cast, or what unpacks four bits, and a product by the scales."""
        scales = place.constant("scale", self.scales)
        return place.node("Mul", [self._floats(place), scales])

    def _floats(self, place: Place) -> ir.Value:
        if self.bits > 4:
            integers = place.constant(f"int{self.bits}", self.integers)
            return place.cast(integers, ir.DataType.FLOAT)
        if place.opset >= INT4_OPSET:
            small = self.integers.astype(ml_dtypes.int4)
            return place.cast(place.constant("int4", small, ir.DataType.INT4), ir.DataType.FLOAT)
        unsigned = (self.integers.astype(np.int16) + 8).astype(np.uint8)
        eight = place.constant("zero", np.array(8, np.float32))
        return place.node("Sub", [_unpacked(place, unsigned), eight])


@dataclass(frozen=True)
class Tabled:
    """Weight stored as places in a table of its few values.

    Attributes:
        places: uint8, of the weight's shape.
        table: float32, (values,).
    """

    places: NDArray[np.uint8]
    table: Floats32

    @property
    def packed(self) -> bool:
        """Return whether two places fit in a byte."""
        return len(self.table) <= 16 and self.places.size % 2 == 0

    def array(self) -> Floats32:
        """Return the floats."""
        return self.table[self.places]

    def nbytes(self) -> int:
        """Return about how many bytes it takes in the file."""
        half = self.packed
        size = self.places.size // 2 if half else self.places.size
        return size + self.table.nbytes + (UNPACK_BYTES if half else NODES_BYTES)

    def build(self, place: Place) -> ir.Value:
        """Insert a Gather from the table."""
        packed = _unpacked(place, self.places) if self.packed else None
        index = packed or place.constant("places", self.places)
        table = place.constant("values", self.table)
        return place.node("Gather", [table, place.cast(index, ir.DataType.INT32)], axis=0)


def _unpacked(place: Place, array: NDArray[np.uint8]) -> ir.Value:
    """Store numbers of 0 to 15 in pairs and insert what unpacks them as floats.

    All of these operators are in any operator set from 7 on and exact on such numbers.
    """
    flat = array.reshape(-1)
    low, high = flat[: flat.size // 2], flat[flat.size // 2 :]
    packed = place.constant("packed", (low + 16 * high).astype(np.uint8))
    sixteen = place.constant("sixteen", np.array(16, np.float32))
    both = place.cast(packed, ir.DataType.FLOAT)
    upper = place.node("Floor", [place.node("Div", [both, sixteen])])
    lower = place.node("Sub", [both, place.node("Mul", [upper, sixteen])])
    joined = place.node("Concat", [lower, upper], axis=0)
    return place.node("Reshape", [joined, place.constant("shape", np.array(array.shape, np.int64))])


def store(names: FreeNames, value: ir.Value, form: Form) -> None:
    """Put a stored form and its operators in the place of a float initializer, under its name."""
    graph, name = value.graph, str(value.name)
    assert isinstance(graph, ir.Graph)
    made = form.build(Place(names, graph, name))
    made.dtype, made.shape = ir.DataType.FLOAT, value.shape
    value.replace_all_uses_with(made)
    del graph.initializers[name]
    value.name, made.name = None, name


def form_error(form: Form, array: Floats32) -> float:
    """Return the relative RMS error of a stored form."""
    power = float(np.square(array, dtype=np.float64).sum())
    lost = float(np.square(form.array() - array, dtype=np.float64).sum())
    return (lost / power) ** 0.5 if power else 0.0


def rounded(array: Floats32, bits: int) -> Gridded | None:
    """Round a weight to integers of 4, 8 or 16 bits with the scales of the least squared error.

    The axes that have scales are those along which plain rounding loses least.

    Returns:
        None for a weight with too few elements for each scale.
    """
    options = scale_axes(array, bits)
    if not options:
        return None
    axes = min(options, key=lambda axes: _plain_error(array, axes, LARGEST[bits]))
    return on_scales(array, fitted_scales(array, axes, bits), bits)


def fitted_scales(array: Floats32, axes: tuple[int, ...], bits: int) -> Floats32:
    """Return scales along these axes, of the least squared error, broadcast to a weight."""
    found: Floats32 = thresholds(array, axes, LARGEST[bits]) / np.float32(LARGEST[bits])
    return found


def on_scales(array: Floats32, scales: Floats32, bits: int) -> Gridded:
    """Return a weight rounded to the nearest integers with these scales."""
    largest = LARGEST[bits]
    places = np.clip(np.round(array / scales), -largest, largest)
    integers = places.astype(np.int16) if bits == 16 else places.astype(np.int8)
    return Gridded(integers, scales.astype(np.float32), bits)


def _packs(array: Floats32) -> bool:
    return array.size % 2 == 0


def scale_axes(array: Floats32, bits: int) -> list[tuple[int, ...]]:
    """Return the axes along which scales of so many bits may vary."""
    return list(_scale_axes(array)) if bits > 4 or _packs(array) else []


def _scale_axes(array: Floats32) -> Iterator[tuple[int, ...]]:
    """Yield the axes along which scales may vary; the first two together for recurrent weights."""
    shape = array.shape
    for axis in range(array.ndim):
        if 1 < shape[axis] <= array.size // FEWEST:
            yield (axis,)
    if array.ndim == 3 and min(shape[:2]) > 1 and FEWEST * shape[0] * shape[1] <= array.size:
        yield (0, 1)


def _others(array: Floats32, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(array.ndim) if axis not in axes)


def _plain_error(array: Floats32, axes: tuple[int, ...], largest: int) -> float:
    """Return the relative squared error of plain rounding, by slices of the axis that loses most.

    An average over all elements would let small channels vanish: later layers may scale them up.
    """
    limit = np.abs(array).max(axis=_others(array, axes), keepdims=True)
    scales = np.maximum(limit, np.float32(1e-30)) / largest
    lost, power = np.square(np.round(array / scales) * scales - array), np.square(array)
    worst = 0.0
    for axis in range(array.ndim):
        parts = [a.sum(axis=_others(array, (axis,)), dtype=np.float64) for a in (lost, power)]
        shares = parts[0] / np.maximum(parts[1], 1e-60)
        worst = max(worst, float(shares.mean()))
    return worst


def exact(array: Floats32) -> Form | None:
    """Return the smallest stored form that a weight has within float rounding; None for none."""
    options = (_four_bits(array), _table(array), _grid(array, 8), _half(array), _grid(array, 16))
    found = [form for form in options if form is not None]
    best = min(found, key=lambda form: form.nbytes(), default=None)
    return best if best is not None and best.nbytes() < array.nbytes else None


def _four_bits(array: Floats32) -> Form | None:
    return _grid(array, 4) if _packs(array) else None


def _half(array: Floats32) -> Form | None:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    return Halved(half) if np.array_equal(half.astype(np.float32), array) else None


def _table(array: Floats32) -> Form | None:
    flat = array.reshape(-1)
    # Signed zeros are one value of a table, as they are one value of a product.
    if len(np.unique(flat[:_CHUNK])) > 256 or len(table := np.unique(flat)) > 256:
        return None
    return Tabled(np.searchsorted(table, array).astype(np.uint8), table)


def _grid(array: Floats32, bits: int) -> Form | None:
    for axes in _scale_axes(array):
        moved = np.moveaxis(array, axes, range(len(axes)))
        rows = moved.reshape(int(np.prod(moved.shape[: len(axes)])), -1)
        steps = _steps(rows, bits)
        if steps is not None:
            shape = [n if axis in axes else 1 for axis, n in enumerate(array.shape)]
            return on_scales(array, steps.reshape(shape), bits)
    return None


def _steps(rows: Floats32, bits: int) -> Floats32 | None:
    """Return the step of a grid on which each row lies; None where a row lies on none."""
    limits = np.abs(rows).max(axis=1)
    steps = np.where(limits > 0, np.float32(0), np.float32(1)).astype(np.float32)
    if limits[0] > 0 and not any(_fits(rows[:1], limits[:1], n, bits)[0] for n in _counts(bits)):
        return None  # most weights end here
    for count in _counts(bits):
        open_rows = np.flatnonzero(steps == 0)
        if not len(open_rows):
            break
        fitting = open_rows[_fits(rows[open_rows], limits[open_rows], count, bits)]
        steps[fitting] = limits[fitting] / np.float32(count)
    return steps if steps.all() else None


def _counts(bits: int) -> range:
    """Return the integers that the largest weight of a row may be, the likely ones first."""
    most = LARGEST[bits]
    return range(most, most - 1 if bits == 16 else 0, -1)


def _fits(rows: Floats32, limits: Floats32, count: int, bits: int) -> NDArray[np.bool_]:
    places = rows / (limits[:, None] / np.float32(count))
    return np.asarray(np.abs(places - np.round(places)).max(axis=1) < _ROUNDING[bits], np.bool_)
