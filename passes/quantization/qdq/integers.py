"""Arithmetic of integer tensors: scales and zero points of ranges and weights, and rounding.

As in ONNX, a real value is `scale * (integer - zero point)`. Zero is always held exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.data import Floats
from trimtab.core.ort.overflow import SAFE_SUM

from ...calibration.range_estimator import Range

#: Bytes of a weight that are rounded at a time.
STEP_BYTES = 1 << 20
#: Integer types of activations and weights.
Kind = Literal["int8", "uint8", "int16", "uint16"]
#: Range that clips nothing.
EVERYTHING: Range = (-math.inf, math.inf)


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of a tensor.

    Attributes:
        scale: a scalar, or (channels,), in the element type of the float tensor.
        zero: of the scale's shape, in the integer type.
        axis: axis of the channels; None for a scalar.
    """

    scale: NDArray[Any]
    zero: NDArray[Any]
    axis: int | None = None

    @property
    def wide_scale(self) -> Floats:
        """Scale in float64."""
        return self.scale.astype(np.float64)


def activation_grid(
    range_: Range,
    kind: Kind,
    dtype: ir.DataType,
    *,
    symmetric: bool,
    bounds: Range = EVERYTHING,
    power_of_two: bool = False,
) -> Grid:
    """Return scale and zero point that cover a range.

    Args:
        range_: least and greatest value.
        kind: integer type.
        dtype: element type of the float tensor.
        symmetric: true for a zero point in the middle.
        bounds: bounds of a Relu or Clip that the integers' own bounds stand for.
        power_of_two: true for the least power of two that covers the range as the scale.
    """
    low, high = (min(max(end, bounds[0]), bounds[1]) for end in range_)
    low, high = min(low, 0.0), max(high, 0.0)
    limits = np.iinfo(kind)
    least, greatest = int(limits.min), int(limits.max)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
        least = -greatest if least < 0 else least
    exact = (high - low) / (greatest - least)
    if power_of_two:
        exact = float(_power_of_two(exact))
    scale = _stored(exact, dtype)
    if scale == 1 and exact != 1:  # no range at all
        zero = least if bounds[0] >= 0 else greatest if bounds[1] <= 0 else 0
        zero = round((least + greatest) / 2) if symmetric else zero
    elif symmetric:
        zero = round((least + greatest) / 2)
    else:
        zero = min(max(round(least - low / exact), least), greatest)
    return Grid(scale, np.asarray(zero, kind))


def _power_of_two(scale: float | Floats) -> Floats:
    """Return the least powers of two that are not below scales; zeros stay."""
    scales = np.asarray(scale, np.float64)
    found: Floats = np.exp2(np.ceil(np.log2(np.where(scales > 0, scales, 1.0))))
    return np.where(scales > 0, found, scales)


def _stored(scale: float | Floats, dtype: ir.DataType) -> NDArray[Any]:
    """Return scales in the tensor's type; 1 where they are too small for it."""
    kind = dtype.numpy()
    info = np.finfo(kind)
    least = info.smallest_subnormal if kind == np.float16 else info.tiny
    stored = np.asarray(scale, np.float64).astype(kind)
    return np.where(stored < least, np.ones_like(stored), stored)


def magnitudes(array: NDArray[Any], axis: int | None) -> Floats:
    """Return the largest magnitude of each channel, or of all values, without a copy of them."""
    others = None if axis is None else tuple(a for a in range(array.ndim) if a != axis)
    if not array.size:
        return np.zeros(() if axis is None else array.shape[axis])
    ends = -array.min(others).astype(np.float64), array.max(others).astype(np.float64)
    largest: Floats = np.maximum(*ends)
    return largest


def weight_grid(
    largest: Floats,
    kind: Kind,
    dtype: ir.DataType,
    *,
    reduce_range: bool,
    axis: int | None,
    least_scale: Floats | float = 0.0,
    pairs: Floats | None = None,
    power_of_two: bool = False,
) -> Grid:
    """Return symmetric scales of a weight.

    Args:
        largest: largest magnitude of each channel, (channels,), or of all values.
        kind: integer type; unsigned integers are symmetric around the middle.
        dtype: element type of the float weight.
        reduce_range: true for 7 bits.
        axis: axis of the channels.
        least_scale: least scale of each channel that its bias needs to fit into 32 bits.
        pairs: largest sum of two signed weights of each channel that a kernel adds in 16 bits; with
            7 bits none saturates, and up to 8 bits are taken where their sums show that.
        power_of_two: true for scales that are powers of two.
    """
    if kind.startswith("u"):
        least, greatest = (0, 127) if reduce_range else (0, 255)
    else:
        least, greatest = (-64, 64) if reduce_range else (-127, 127)
    scale = 2 * largest / (greatest - least)
    if reduce_range and pairs is not None and least < 0:
        # Rounding adds a half to each of both at most.
        scale = np.minimum(scale, np.maximum(largest, pairs) / (SAFE_SUM - 1))
    scale = np.maximum(scale, least_scale)
    if power_of_two:
        scale = _power_of_two(scale)
    zero = np.full(largest.shape, round((least + greatest) / 2), kind)
    return Grid(_stored(scale, dtype), zero, axis)


def rounded(array: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Apply QuantizeLinear (ONNX) to a part of the channels at a time, to save memory."""
    limits = np.iinfo(grid.zero.dtype)
    axis = grid.axis
    flat = axis is None
    source = array.reshape(-1) if axis is None else np.moveaxis(array, axis, 0)
    integers = np.empty(array.shape, grid.zero.dtype)
    target = integers.reshape(-1) if axis is None else np.moveaxis(integers, axis, 0)
    shape = (1,) if flat else (-1, *(1,) * (array.ndim - 1))
    step = max(1, STEP_BYTES // max(1, math.prod(source.shape[1:])))
    for start in range(0, len(source), step):
        part = slice(start, start + step)
        scale, zero = (p.reshape(1) if flat else p[part] for p in (grid.scale, grid.zero))
        values = source[part].astype(np.float32) / scale.astype(np.float32).reshape(shape)
        np.rint(values, out=values)
        values += zero.astype(np.float32).reshape(shape)
        target[part] = np.clip(values, limits.min, limits.max)
    return integers


def bias_integers(bias: Floats, scale: Floats) -> NDArray[np.int32]:
    """Return a bias in int32 units of the sums that it is added to; the shapes broadcast."""
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(bias / scale), limits.min, limits.max).astype(np.int32)
