"""Integers for constant weights, with one scale for the tensor or one for each channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Array
from trimtab.core.target import IntType

#: Elements that are rounded at a time, to save memory.
_PART = 1 << 20


@dataclass(frozen=True)
class IntegerWeight:
    """Integers q of a weight that is about (q - zero) * scale.

    Attributes:
        values: the integers, in the shape of the weight.
        scale: one number, or one for each channel with the other axes of size 1.
        zero: integer that stands for 0.
    """

    values: NDArray[Any]
    scale: NDArray[np.float32]
    zero: int


def symmetric(
    array: Array, channels: Sequence[int], kind: IntType, *, reduce_range: bool
) -> IntegerWeight:
    """Round a weight symmetrically around zero, with a scale for each index along `channels`.

    With `reduce_range` the integers have 7 bits. A channel of zeros gets scale 1.
    """
    others = tuple(i for i in range(array.ndim) if i not in channels)
    largest = np.maximum(array.max(others, keepdims=True), -array.min(others, keepdims=True))
    most = (64 if kind == "int8" else 63) if reduce_range else 127
    scale = (largest.astype(np.float64) / most).astype(np.float32)
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
    zero = 0 if kind == "int8" else 64 if reduce_range else 128
    return IntegerWeight(_rounded(array, scale, zero, np.dtype(kind)), scale, zero)


def between_extremes(array: Array) -> IntegerWeight:
    """Round a weight to unsigned integers between its least and its greatest value."""
    low, high = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
    scale = np.asarray((high - low) / 255, np.float32)
    if scale < np.finfo(np.float32).tiny:
        scale = np.ones((), np.float32)
    zero = round(-low / float(scale))
    return IntegerWeight(_rounded(array, scale, zero, np.dtype(np.uint8)), scale, zero)


def _rounded(
    array: Array, scale: NDArray[np.float32], zero: int, dtype: np.dtype[Any]
) -> NDArray[Any]:
    integers = np.empty(array.shape, dtype)
    limits = np.iinfo(cast("Any", dtype))
    spread = np.broadcast_to(scale, array.shape)
    step = max(1, _PART // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):
        part = slice(start, start + step)
        values = np.rint(array[part] / spread[part]) + zero
        integers[part] = np.clip(values, limits.min, limits.max)
    return integers
