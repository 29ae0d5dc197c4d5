"""Outliers: single samples that reach so far that a range for them would be useless for all others.

One broken pixel of a million, where images reach four, makes a range in which all others share one
level, and a histogram that does not resolve them. The largest magnitudes of a tensor's samples are
therefore counted by powers of two; where a few reach far beyond the rest, its histogram is counted
again over the range of the rest. Values that every sample has, however large, are not outliers:
transformers need them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.ort.session import Outputs

from .histogram import Counts, Histogram
from .statistics import EXPONENT_BIAS, EXPONENTS, Statistics, count_reach

#: Ratio of an outlier's reach to the typical one.
FAR = 256.0
#: Ratio of the range searched then to the typical reach, which some samples exceed.
SEARCHED = 8.0
#: Part of the samples that counts as typical.
TYPICAL = 0.9
#: Least samples for which a typical reach is known.
LEAST_SAMPLES = 8

#: A new run over the data: some arrays by tensor, their batch, number of its first sample.
Stream = Callable[[str], Iterator[tuple[Outputs, Batch, int]]]


def typical_reach(counts: Counts) -> float:
    """Return a bound of nine samples of ten, to a factor of two; infinite where it is not known."""
    total = int(counts.sum())
    place = int(np.searchsorted(np.cumsum(counts), TYPICAL * total))
    if total < LEAST_SAMPLES or place == 0:  # most samples are zero throughout
        return float("inf")
    return float(2.0 ** (place - EXPONENT_BIAS + 1))


def exclude_outliers(
    found: Mapping[str, Statistics], stream: Stream, budget: int, data: Dataset, ctx: Context
) -> None:
    """Count histograms of tensors with outliers again without them, and report that."""
    reach = {name: typical_reach(of.reach) for name, of in found.items()}
    far = {n: r for n, r in reach.items() if max(-found[n].lowest, found[n].highest) > FAR * r}
    if not far:
        return
    for name, typical in far.items():
        far_enough = SEARCHED * typical
        low, high = max(found[name].lowest, -far_enough), min(found[name].highest, far_enough)
        found[name].histogram = Histogram(min(low, 0.0), max(high, 0.0) - min(low, 0.0))
    row = None
    for arrays, batch, first in stream("calibrating without outliers"):
        for name, typical in ((name, each) for name, each in far.items() if name in arrays):
            values = found[name].within(arrays[name], budget)
            if row is None and np.abs(arrays[name]).max(initial=0) > FAR * typical:
                row = first + _first_row(arrays[name], batch.size, FAR * typical)
            found[name].histogram.add(values)
    name = next(iter(far))
    largest = max(-found[name].lowest, found[name].highest)
    sample = "a sample" if row is None else f"sample {data.row(row)}"
    ctx.progress.say(
        f"{sample} reaches {largest:.3g} in tensor {name!r}, where nine of ten stay below "
        f"{far[name]:.3g}: check it. Ranges of {len(far)} tensors exclude such values"
    )


def typical_rows(batches: Sequence[Mapping[str, Any]]) -> list[NDArray[np.bool_]]:
    """Return for each batch of inputs the samples that are not outliers, (rows,).

    Arrays without a row for each sample are ignored.
    """
    reach: dict[str, Counts] = {}
    sizes = [Batch(batch).size for batch in batches]
    largest = [
        {
            name: _largest(array)
            for name, array in batch.items()
            if array.dtype.kind == "f" and array.ndim and len(array) == size
        }
        for batch, size in zip(batches, sizes, strict=True)
    ]
    for found in largest:
        for name, each in found.items():
            count_reach(reach.setdefault(name, np.zeros(EXPONENTS, np.int64)), each)
    limits = {name: FAR * typical_reach(counts) for name, counts in reach.items()}
    return [
        np.all([np.ones(size, bool), *(e <= limits[n] for n, e in found.items())], axis=0)
        for size, found in zip(sizes, largest, strict=True)
    ]


def _largest(array: NDArray[Any]) -> NDArray[Any]:
    """Return the largest magnitude of each row, (rows,)."""
    return np.asarray(np.abs(array.reshape(len(array), -1)).max(axis=1, initial=0))


def _first_row(array: NDArray[np.float32], rows: int, limit: float) -> int:
    """Return the first sample beyond a limit, 0 where the tensor has no axis of samples."""
    if not array.ndim or array.shape[0] != rows:
        return 0
    return int(np.argmax(_largest(array) > limit))
