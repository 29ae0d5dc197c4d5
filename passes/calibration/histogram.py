"""Histogram of a stream whose range is not known in advance.

It covers [start, start + width) with equal bins. A value outside doubles the width to that side,
which merges pairs of bins and loses no count; so at least half of the bins always lie in the data's
range, and memory is constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Floats32

#: Counts by bin or by exponent.
Counts = NDArray[np.int64]

#: At least half of them lie in the data's range, so 2,048 serve the search for a range.
BINS = 4096


@dataclass
class Histogram:
    """Counts of a stream of finite values.

    Attributes:
        start: lower edge of the first bin.
        width: width of all bins together; 0 before the first value.
        counts: (BINS,).
    """

    start: float = 0.0
    width: float = 0.0
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def cover(self, low: float, high: float) -> None:
        """Widen the range until it contains [low, high]."""
        if self.width == 0.0:
            # Every quantized range contains zero, so it is on an edge from the start.
            self.start = min(low, 0.0)
            self.width = max(max(high, 0.0) - self.start, 1e-30)
            return
        while high > self.start + self.width:
            self._merge(shift=0)
        while low < self.start:
            self._merge(shift=BINS)

    def _merge(self, shift: int) -> None:
        if shift:
            self.start -= self.width
        self.width *= 2
        half = self.counts.reshape(BINS // 2, 2).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[shift // 2 : shift // 2 + BINS // 2] = half

    def add(self, values: Floats32) -> None:
        """Count values that lie in the covered range."""
        place = np.subtract(values, np.float32(self.start))
        place *= np.float32(BINS / self.width)
        # Rounding may put the largest value just beyond the last bin. A value just below the first
        # one is truncated towards zero, into it.
        counts = np.bincount(place.astype(np.intp), minlength=BINS + 1)
        self.counts += counts[:BINS]
        self.counts[-1] += counts[BINS]

    @property
    def total(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum())

    @property
    def edges(self) -> NDArray[np.float64]:
        """(BINS + 1,) edges of the bins."""
        return self.start + self.width * np.arange(BINS + 1) / BINS

    @property
    def centres(self) -> NDArray[np.float64]:
        """(BINS,) middles of the bins."""
        return self.start + self.width * (np.arange(BINS) + 0.5) / BINS
