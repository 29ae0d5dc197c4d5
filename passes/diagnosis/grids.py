"""Integer grids of quantizers, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trimtab.core.graphs import constant_array

from ..graph.queries import input_at


@dataclass(frozen=True)
class IntegerGrid:
    """Values that a quantizer rounds to: (q - zero) * scale, low <= q <= high.

    Attributes:
        scale: scalar, or one for each slice along `axis`.
        zero: zero point, of the same shape.
        low: smallest integer.
        high: largest integer.
        axis: axis of the scales; None for a scalar.
    """

    scale: NDArray[np.float64]
    zero: NDArray[np.float64]
    low: int
    high: int
    axis: int | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest float of the whole tensor that is not clipped."""
        low, high = (self.low - self.zero) * self.scale, (self.high - self.zero) * self.scale
        return float(low.min()), float(high.max())

    @property
    def step(self) -> float:
        """Largest distance of neighbouring levels."""
        return float(self.scale.max())

    @property
    def levels(self) -> int:
        """Number of integers."""
        return self.high - self.low + 1

    def same(self, other: IntegerGrid | None) -> bool:
        """Return whether both have the same scale and zero point."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero, other.zero)
        )

    def dequantize(self, integers: NDArray[Any]) -> NDArray[np.float32]:
        """Convert integers to floats."""
        scale, zero = self._shaped(integers.ndim)
        floats: NDArray[np.float32] = ((integers - zero) * scale).astype(np.float32)
        return floats

    def quantize(self, floats: NDArray[Any]) -> NDArray[np.float64]:
        """Round floats to integers."""
        scale, zero = self._shaped(floats.ndim)
        rounded = np.round(floats / scale) + zero
        integers: NDArray[np.float64] = np.clip(rounded, self.low, self.high)
        return integers

    def offsets(self, floats: NDArray[Any]) -> NDArray[np.float64]:
        """Round floats to integers, minus the zero point."""
        zero = self._shaped(floats.ndim)[1]
        distance: NDArray[np.float64] = self.quantize(floats) - zero
        return distance

    def _shaped(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        axis = self.axis
        shape = [] if axis is None else [-1 if i == axis % rank else 1 for i in range(rank)]
        return self.scale.reshape(shape), self.zero.reshape(shape)


def grid_of(node: ir.Node) -> IntegerGrid | None:
    """Read the grid of a QuantizeLinear or DequantizeLinear; None where it is not constant."""
    stored, scale, zero = (constant_array(input_at(node, i)) for i in range(3))
    if scale is None or scale.ndim > 1:
        return None
    kind: np.dtype[Any] = np.dtype(np.uint8) if zero is None else zero.dtype
    if node.op_type == "DequantizeLinear" and stored is not None:
        kind = stored.dtype
    if kind.kind not in "iu":
        return None
    limits = np.iinfo(kind)
    zeros = np.zeros(scale.shape) if zero is None else zero.astype(np.float64)
    return IntegerGrid(
        scale.astype(np.float64),
        np.broadcast_to(zeros, scale.shape),
        int(limits.min),
        int(limits.max),
        None if scale.size == 1 else node.attributes.get_int("axis", 1),
    )
