"""Weights of few bits in blocks that share a scale, packed as MatMulNBits reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Array, Floats, Floats32

#: Weights that are rounded at a time, to save memory.
_PART = 1 << 20


@dataclass(frozen=True)
class RoundingGrid:
    """Grid of integers that weights are rounded to.

    Attributes:
        bits: bits of a weight.
        block: neighbouring weights of an output that share a scale.
        symmetric: true where all zero points are the middle.
    """

    bits: int
    block: int
    symmetric: bool

    @property
    def largest(self) -> int:
        """Largest integer; the smallest is 0."""
        return int(2**self.bits - 1)

    def fit(self, rows: Floats) -> tuple[Floats, Floats]:
        """Return scale and zero point of each output, (..., out), for rows (..., block, out)."""
        low, high = np.minimum(rows.min(axis=-2), 0), np.maximum(rows.max(axis=-2), 0)
        middle = (self.largest + 1) // 2
        if self.symmetric:
            # The largest magnitude, whatever its sign, becomes the integer 0, as in onnxruntime.
            scale = np.where(high > -low, high, low) / -middle
        else:
            scale = (high - low) / self.largest
        scale = np.where(scale != 0, scale, 1.0).astype(np.float32).astype(np.float64)
        zero = np.full(scale.shape, float(middle)) if self.symmetric else np.round(-low / scale)
        return scale, zero


@dataclass(frozen=True)
class RoundedWeight:
    """A weight as integers.

    Attributes:
        integers: (in, out), 0 to the grid's largest.
        scales: (blocks, out), as are the zero points, `zeros`.
    """

    integers: NDArray[np.uint8]
    scales: Floats
    zeros: Floats


@dataclass(frozen=True)
class PackedWeight:
    """Constant inputs of MatMulNBits.

    Attributes:
        values: integers, (out, blocks, bytes of a block).
        scales: (out, blocks).
        zeros: zero points, packed along the blocks like integers, or not packed floats; None where
            all are the middle.
    """

    values: Array
    scales: Array
    zeros: Array | None


def round_to_nearest(weight: Floats32, grid: RoundingGrid) -> RoundedWeight:
    """Round a weight (in, out), each element by itself."""
    depth, outputs = weight.shape
    blocks = -(-depth // grid.block)
    integers = np.empty(weight.shape, np.uint8)
    scales, zeros = np.ones((2, blocks, outputs))
    step = max(1, _PART // max(1, depth))
    for start in range(0, outputs, step):
        part = np.zeros((blocks * grid.block, len(range(outputs)[start : start + step])))
        part[:depth] = weight[:, start : start + step]
        rows = part.reshape(blocks, grid.block, -1)
        scale, zero = grid.fit(rows)
        levels = np.rint(rows / scale[:, None]) + zero[:, None]
        levels = np.clip(levels, 0, grid.largest).reshape(part.shape)
        integers[:, start : start + step] = levels[:depth]
        scales[:, start : start + step], zeros[:, start : start + step] = scale, zero
    return RoundedWeight(integers, scales, zeros)


def pack(weight: RoundedWeight, grid: RoundingGrid, dtype: np.dtype[np.generic]) -> PackedWeight:
    """Return the inputs of MatMulNBits for a rounded weight; scales have the type `dtype`."""
    depth, outputs = weight.integers.shape
    blocks = len(weight.scales)
    full = np.empty((blocks * grid.block, outputs), np.uint8)
    full[:depth] = weight.integers
    full[depth:] = weight.zeros[-1].astype(np.uint8)  # padding represents zero
    zeros = None if grid.symmetric else _packed(weight.zeros.T.astype(np.uint8), grid.bits)
    return PackedWeight(
        _packed(full.T.reshape(outputs, blocks, grid.block), grid.bits),
        weight.scales.T.astype(dtype),
        zeros,
    )


def _packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack neighbours of the last axis into one byte, the first into the low bits."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, 1)])
    return np.asarray(values[..., ::2] | (values[..., 1::2] << 4), np.uint8)
