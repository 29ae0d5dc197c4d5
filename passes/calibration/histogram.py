"""A histogram of a stream whose range is not known beforehand.

It covers [start, start + width) with equal bins. A value outside doubles the width to that side,
which merges pairs of bins and loses no count; so after any stream at least half of the bins lie in
the data's range, and the memory is that of the bins whatever the stream's length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trimtab.core.data import Floats32

Counts = NDArray[np.int64]

#: Half of them lie in the data's range at the least, so 2,048 do the work of a search.
BINS = 4096


@dataclass
class Histogram:
    """Counts of a stream of finite values.

    Attributes:
        start: lower edge of the first bin.
        width: of all bins together; 0 before the first value.
        counts: (BINS,).
    """

    start: float = 0.0
    width: float = 0.0
    counts: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def cover(self, low: float, high: float) -> None:
        """Widen the range until it holds [low, high]."""
        if self.width == 0.0:
            # Zero is in every quantized range, so it is on an edge from the start.
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
        # Rounding puts the largest value just beyond the last bin. What float32 puts just below
        # the first one is cut towards zero, into it.
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
