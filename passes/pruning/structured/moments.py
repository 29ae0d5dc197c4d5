"""Second moments of an operator's input: all that least squares needs to know of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trimtab.core.data import Array, Floats

from ...graph.constants import is_constant
from ...graph.queries import pair
from ..dependency.records import constant_input, weight_array

#: Inputs of one batch, by name.
Feeds = dict[str, Array]
#: Most columns of a matrix of moments.
LARGEST = 4608
#: Rows that a regression has at least, and for each of its columns.
ROWS, ROWS_PER_COLUMN = 1 << 15, 64


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


@dataclass(eq=False)
class Moments:
    """Moments of columns x and targets y: means, covariance of x, covariance of x with y.

    Shapes are (columns,), (outputs,), (columns, columns) and (columns, outputs).
    """

    mean_x: Floats
    mean_y: Floats
    xx: Floats
    xy: Floats


def moments(
    reader: Reader, inputs: Sequence[Array], targets: Sequence[Array] | None, seed: int
) -> Moments:
    """Compute moments over batches of inputs and targets, at a random part of the positions.

    Targets are wanted outputs, (samples, outputs, ...) for Conv, (..., outputs) else; None for
    the operator's own outputs without the bias.
    """
    rng = np.random.default_rng(seed)
    weight = reader.weight()
    columns = weight.shape[1]
    total = sum(int(np.prod(reader.places(x))) for x in inputs)
    share = min(1.0, max(ROWS, ROWS_PER_COLUMN * columns) / max(total, 1))
    width = columns + 1 + (0 if targets is None else len(weight))
    sums = np.zeros((width, width))
    count = 0
    for number, x in enumerate(inputs):
        at = _sample(reader.places(x), share, rng)
        rows = reader.windows(x)[at].reshape(len(at[0]), columns)
        parts = [rows, np.ones((len(rows), 1), np.float32)]
        if targets is not None:
            parts.append(reader.rows(targets[number])[at])
        both = np.concatenate(parts, axis=1)
        sums += both.T @ both  # BLAS computes one half only
        count += len(rows)
    return _centred(sums / max(count, 1), columns, weight)


def channel_statistics(arrays: Sequence[Array], axis: int) -> tuple[Floats, Floats]:
    """Return mean and variance along an axis over all batches, each (channels,)."""
    flat = [np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in arrays]
    count = sum(len(f) for f in flat)
    mean = np.asarray(sum(f.sum(axis=0, dtype=np.float64) for f in flat) / count)
    square = sum(np.einsum("ij,ij->j", f, f, dtype=np.float64) for f in flat) / count
    return mean, np.maximum(square - mean**2, 0)


def _sample(
    places: tuple[int, ...], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], ...]:
    """Draw random positions, as indices of each axis."""
    total = int(np.prod(places))
    size = max(1, round(total * share))
    chosen = np.arange(total) if share >= 1 else np.sort(rng.choice(total, size, replace=False))
    return np.unravel_index(chosen, places)


def _centred(sums: Floats, columns: int, weight: Array) -> Moments:
    mean_x, mean_y = sums[columns, :columns].copy(), sums[columns, columns + 1 :].copy()
    xx = sums[:columns, :columns] - np.outer(mean_x, mean_x)
    if not mean_y.size:
        return Moments(mean_x, weight @ mean_x, xx, xx @ weight.T)
    return Moments(mean_x, mean_y, xx, sums[:columns, columns + 1 :] - np.outer(mean_x, mean_y))
