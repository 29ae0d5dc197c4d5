"""Statistics of a tensor's values: extremes, a histogram, and the magnitudes of its samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .histogram import Counts, Histogram

#: Strides through a tensor: primes, so that they hardly ever divide rows or channels.
STRIDES = (1, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093)
#: Number of binary exponents of float32; the first is that of zero and subnormal values.
EXPONENTS = 256
#: Bits below the exponent field of float32, and the field's bias.
MANTISSA_BITS, EXPONENT_BIAS = 23, 127


@dataclass
class Statistics:
    """Statistics of one tensor.

    Attributes:
        lowest: smallest value, exact, as is the largest, `highest`.
        sum_lowest: sum over samples of each sample's smallest value; `sum_highest` of the largest.
        rows: number of samples seen.
        histogram: histogram of an evenly spread part of the values, without those of outliers
            (see `outliers`).
        empty: number of runs in which it had no elements.
        reach: samples by the binary exponent of their largest magnitude, (EXPONENTS,).
        unbounded: whether it takes infinity or NaN by design, which no range covers.
    """

    lowest: float = math.inf
    highest: float = -math.inf
    sum_lowest: float = 0.0
    sum_highest: float = 0.0
    rows: int = 0
    histogram: Histogram = field(default_factory=Histogram)
    empty: int = 0
    reach: Counts = field(default_factory=lambda: np.zeros(EXPONENTS, np.int64))
    unbounded: bool = False

    def update(self, array: NDArray[Any], rows: int, budget: int) -> int | None:
        """Update with the tensor of one run and return its first row with NaN or infinity, if any.

        Args:
            array: (rows, ...), or any shape where the tensor has no batch axis.
            rows: samples in the run.
            budget: approximate number of values to count in the histogram.
        """
        by_row = array.ndim > 0 and array.shape[0] == rows and rows > 1
        flat = array.reshape(rows if by_row else 1, -1)
        if flat.dtype != np.float32:
            flat = flat.astype(np.float32)
        if not flat.size:
            self.empty += 1
            return None
        low, high = flat.min(axis=1), flat.max(axis=1)
        sum_low, sum_high = float(low.sum(dtype=np.float64)), float(high.sum(dtype=np.float64))
        if not math.isfinite(sum_low + sum_high):
            return int(np.argmin(np.isfinite(low) & np.isfinite(high)))
        self.lowest = min(self.lowest, float(low.min()))
        self.highest = max(self.highest, float(high.max()))
        self.sum_lowest += sum_low
        self.sum_highest += sum_high
        self.rows += len(low)
        count_reach(self.reach, np.maximum(-low, high))
        self.histogram.cover(self.lowest, self.highest)
        self.histogram.add(_subsample(flat.reshape(-1), budget))
        return None

    def update_unbounded(self, array: NDArray[Any], rows: int, budget: int) -> None:
        """Update with the finite values of a tensor that is infinite in places by design."""
        self.unbounded = True
        self.update(np.where(np.isfinite(array), array, 0), rows, budget)

    def within(self, array: NDArray[Any], budget: int) -> NDArray[np.float32]:
        """Return those of an evenly spread part of the values that the histogram covers."""
        values = _subsample(array.reshape(-1).astype(np.float32, copy=False), budget)
        low, high = self.histogram.start, self.histogram.start + self.histogram.width
        return values[(values >= low) & (values <= high)]


def unbounded_nodes(graph: ir.Graph, found: Mapping[str, Statistics]) -> list[ir.Node]:
    """Return the nodes that read or write a tensor without a range; they stay float."""
    names = {name for name, of in found.items() if of.unbounded}
    return [
        node
        for node in graph
        if any(v is not None and v.name in names for v in (*node.inputs, *node.outputs))
    ]


def _subsample(flat: NDArray[np.float32], budget: int) -> NDArray[np.float32]:
    """Return an evenly spread part of the values, about `budget` of them."""
    stride = next((s for s in STRIDES if flat.size // s <= budget), STRIDES[-1])
    return flat[::stride]


def count_reach(counts: Counts, largest: NDArray[np.float32]) -> None:
    """Count (samples,) magnitudes by their binary exponent, in place in `counts`: (EXPONENTS,)."""
    bits = np.abs(largest).astype(np.float32, copy=False).view(np.int32)
    counts += np.bincount(bits >> MANTISSA_BITS, minlength=EXPONENTS)
