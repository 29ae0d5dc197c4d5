"""Second moments of an operator's input: all that least squares needs to know of the data.

A convolution of many channels has too many columns for its full covariance: one of 512 channels
and 3 x 3 taps has 4,608, at a cost of tera-operations. Its channels are then followed pixel by
pixel, as if it were a 1 x 1 convolution with the outputs of all taps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view

from trimtab.core.data import Array, Floats

from ...graph.constants import is_constant
from ...graph.queries import pair
from ..dependency.records import constant_input, weight_array

#: Inputs of one batch, by name.
Feeds = dict[str, Array]
#: Rows to fit to, or those that are held out as well.
Part = Literal["fit", "all"]
#: Most columns of a matrix of moments.
LARGEST = 4608
#: Columns of a convolution beyond which its channels are followed pixel by pixel.
WIDE = 1152
#: Random positions that enter moments, and that are held out to judge weights by.
ROWS, HELD_ROWS = 3 << 13, 1 << 13


@dataclass(frozen=True, eq=False)
class Reader:
    """Operator that sums over channels with a constant weight.

    Attributes:
        node: Conv without groups, Gemm, or MatMul with a constant on the right.
        kernel_size: columns of one input channel: the elements of a kernel.
    """

    node: ir.Node
    kernel_size: int

    @classmethod
    def of(cls, node: ir.Node) -> Reader | None:
        """Return the reader of a node, None where its weight cannot be solved for."""
        if len(node.inputs) < 2 or node.inputs[0] is None or node.inputs[1] is None:
            return None
        weight = constant_input(node, 1) if is_constant(node.inputs[1]) else None
        if weight is None or weight.dtype != np.float32 or is_constant(node.inputs[0]):
            return None
        if node.op_type == "Conv":
            auto = node.attributes.get_string("auto_pad", "")
            plain = node.attributes.get_int("group", 1) == 1 and auto in {"", "NOTSET", "VALID"}
            return cls(node, int(np.prod(weight.shape[2:]))) if plain else None
        if node.op_type == "Gemm":
            scaled = any(node.attributes.get_float(n, 1.0) != 1 for n in ("alpha", "beta"))
            swapped = node.attributes.get_int("transA", 0) != 0
            return None if scaled or swapped else cls(node, 1)
        return cls(node, 1) if node.op_type == "MatMul" and weight.ndim == 2 else None

    @property
    def wide(self) -> bool:
        """True where it has too many columns, and fewer as a reader of pixels."""
        return self.kernel_size > 1 and self.weight().shape[1] > WIDE

    def by_pixel(self) -> PixelReader:
        """Return the reader of single pixels in its place."""
        return PixelReader(self.node, 1)

    @property
    def source(self) -> ir.Value:
        """Tensor that it reads."""
        return pair(self.node)[0]

    def weight(self) -> Array:
        """Return the weight as (outputs, channels * kernel_size)."""
        array = weight_array(self.node)
        if self.node.op_type == "Conv":
            return array.reshape(array.shape[0], -1)
        return array if self.node.attributes.get_int("transB", 0) else array.T

    def shaped(self, weight: Array) -> Array:
        """Return a weight as the operator stores it, from (outputs, channels * kernel_size)."""
        if self.node.op_type == "Conv":
            return weight.reshape(weight.shape[0], -1, *weight_array(self.node).shape[2:])
        return weight if self.node.attributes.get_int("transB", 0) else weight.T

    def places(self, x: Array) -> tuple[int, ...]:
        """Return the numbers of samples and positions of the output."""
        return self.windows(x).shape[: 2 if self.node.op_type != "Conv" else x.ndim - 1]

    def rows(self, y: Array) -> Array:
        """Return an output as (samples, positions..., outputs)."""
        if self.node.op_type == "Conv":
            return np.moveaxis(y, 1, -1)
        return y.reshape(y.shape[0], -1, y.shape[-1])

    def windows(self, x: Array) -> Array:
        """Return the elements summed over, a view: (samples, positions..., channels, kernel...)."""
        if self.node.op_type != "Conv":
            return x.reshape(x.shape[0], -1, x.shape[-1], 1)
        kernel, attributes = weight_array(self.node).shape[2:], self.node.attributes
        dims = len(kernel)
        pads = attributes.get_ints("pads", [0] * 2 * dims)
        strides = attributes.get_ints("strides", [1] * dims)
        dilations = attributes.get_ints("dilations", [1] * dims)
        padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:dims], pads[dims:], strict=True)])
        span = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
        view = sliding_window_view(padded, span, axis=tuple(range(2, 2 + dims)))
        at = [slice(None), slice(None), *(slice(None, None, s) for s in strides)]
        view = view[(*at, *(slice(None, None, d) for d in dilations))]
        return np.moveaxis(view, 1, 1 + dims)


class PixelReader(Reader):
    """Convolution as a reader of single pixels; its outputs are those of all taps.

    Attributes:
        node: Conv without groups.
        kernel_size: 1.
    """

    def weight(self) -> Array:
        """Return the weight as (outputs * kernel_size, channels)."""
        array = weight_array(self.node)
        return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])

    def windows(self, x: Array) -> Array:
        """Return the pixels, a view: (samples, positions..., channels, 1)."""
        return np.moveaxis(x, 1, -1)[..., None]


@dataclass(eq=False)
class Moments:
    """Moments of columns x and targets y: means, covariance of x, covariance of x with y.

    Shapes are (columns,), (outputs,), (columns, columns) and (columns, outputs).
    """

    mean_x: Floats
    mean_y: Floats
    xx: Floats
    xy: Floats

    @property
    def uncentred(self) -> Moments:
        """Moments about zero, for a product without a bias."""
        xx = self.xx + np.outer(self.mean_x, self.mean_x)
        xy = self.xy + np.outer(self.mean_x, self.mean_y)
        return Moments(np.zeros_like(self.mean_x), np.zeros_like(self.mean_y), xx, xy)


@dataclass(frozen=True)
class HeldOut:
    """Positions that no weight is fitted to.

    Attributes:
        x: (rows, columns).
        y: wanted outputs, (rows, outputs).
    """

    x: Array
    y: Array

    def errors(self, weight: Array, bias: Array) -> Floats:
        """Return the squared error of each row under a weight (outputs, columns) and a bias."""
        got = self.x @ weight.T.astype(np.float32) + bias.astype(np.float32)
        return np.asarray(np.square(got - self.y).sum(axis=1), np.float64)


def fitted_part(number: int, batches: int) -> float:
    """Return the share of a batch, from its start, that is fitted to; the rest is held out.

    Every fourth batch is held out, the last of a few, and a quarter of the only one.
    """
    if batches == 1:
        return 0.75
    held = number % 4 == 3 if batches >= 4 else number == batches - 1
    return 0.0 if held else 1.0


@dataclass(eq=False)
class MomentSums:
    """Sums of moments over batches, at random positions, and positions that are held out.

    Attributes:
        reader: reader whose columns are x.
        batches: number of batches that will be added.
        seed: random seed of the choice of positions.
        rows: number of positions that enter the moments.
        held_rows: number of positions that are held out; with 0 every batch is fitted.
        covariance: whether there are second moments; else means alone.
    """

    reader: Reader
    batches: int
    seed: int
    rows: int = ROWS
    held_rows: int = 0
    covariance: bool = True
    count: int = 0
    _sums: Floats = field(default_factory=lambda: np.zeros(()))
    _held_sums: Floats = field(default_factory=lambda: np.zeros(()))
    _held: list[tuple[Array, Array]] = field(default_factory=list)
    _seen: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        self._weight = self.reader.weight()
        parts = [self._part(number) for number in range(self.batches)]
        self._fitted_batches = sum(part > 0 for part in parts)
        self._held_batches = sum(part < 1 for part in parts)

    def _part(self, number: int) -> float:
        return fitted_part(number, self.batches) if self.held_rows else 1.0

    def add(self, x: Array, y: Array | None = None) -> None:
        """Add a batch: input, and wanted output (samples, outputs, ...) of Conv, (..., outputs)."""
        places = self.reader.places(x)
        total = int(np.prod(places))
        part = self._part(self._seen)
        end = max(int(total * part), part > 0)  # a single position is fitted
        self._seen += 1
        if end:
            rows, wanted = self._gather(x, y, places, (0, end), self.rows, self._fitted_batches)
            self._sums = self._sums + self._products(rows, wanted)
            self.count += len(rows)
        if end < total and y is not None:
            span = (end, total)
            rows, wanted = self._gather(x, y, places, span, self.held_rows, self._held_batches)
            self._held_sums = self._held_sums + self._products(rows, wanted)
            self._held.append((rows, wanted))

    def _gather(
        self,
        x: Array,
        y: Array | None,
        places: tuple[int, ...],
        span: tuple[int, int],
        rows: int,
        batches: int,
    ) -> tuple[Array, Array]:
        """Return random positions of a span as rows of columns, and of wanted outputs."""
        count = min(span[1] - span[0], -(-rows // batches))
        chosen = np.arange(*span)
        if count < len(chosen):
            chosen = np.sort(self._rng.choice(chosen, count, replace=False))
        at = np.unravel_index(chosen, places)
        columns = self.reader.windows(x)[at].reshape(count, -1)
        wanted = np.empty((count, 0), np.float32) if y is None else self.reader.rows(y)[at]
        return columns, wanted

    def _products(self, rows: Array, wanted: Array) -> Floats:
        """Return sums of products of all columns, ones and targets; without covariance of ones."""
        both = np.concatenate([rows, np.ones((len(rows), 1), np.float32), wanted], axis=1)
        if self.covariance:
            return np.asarray(both.T @ both, np.float64)  # BLAS computes one half only
        return np.asarray(both.sum(axis=0, dtype=np.float64))

    def moments(self, part: Part = "fit") -> Moments:
        """Return the moments; without targets those of the operator's own outputs.

        Those of all are of the held-out positions as well.
        """
        sums, columns = self._sums, self._weight.shape[1]
        if part == "all":
            sums = sums + self._held_sums
        sums = sums / max(float((sums[columns] if self.covariance else sums)[columns]), 1.0)
        means = sums[columns] if self.covariance else sums
        mean_x, mean_y = means[:columns].copy(), means[columns + 1 :].copy()
        if not self.covariance:
            return Moments(mean_x, mean_y, np.zeros((0, 0)), np.zeros((0, 0)))
        xx = sums[:columns, :columns] - np.outer(mean_x, mean_x)
        if not mean_y.size:
            return Moments(mean_x, self._weight @ mean_x, xx, xx @ self._weight.T)
        xy = sums[:columns, columns + 1 :] - np.outer(mean_x, mean_y)
        return Moments(mean_x, mean_y, xx, xy)

    def held_out(self) -> HeldOut | None:
        """Return the positions that were held out, None where there are none."""
        if not self._held:
            return None
        x, y = zip(*self._held, strict=True)
        return HeldOut(np.concatenate(x), np.concatenate(y))


def moments(reader: Reader, inputs: Iterable[Array], batches: int, seed: int) -> Moments:
    """Compute moments of a reader's input and own output at a random part of the positions."""
    sums = MomentSums(reader, batches, seed, ROWS + HELD_ROWS)
    for x in inputs:
        sums.add(x)
    return sums.moments()


def channel_statistics(arrays: Iterable[Array], axis: int) -> tuple[Floats, Floats]:
    """Return mean and variance along an axis over all batches, each (channels,)."""
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for array in arrays:
        flat = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
        count += len(flat)
        total = total + flat.sum(axis=0, dtype=np.float64)
        squares = squares + np.einsum("ij,ij->j", flat, flat, dtype=np.float64)
    mean = total / max(count, 1)
    return mean, np.maximum(squares / max(count, 1) - mean**2, 0)
