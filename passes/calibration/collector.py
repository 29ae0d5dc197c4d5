"""Calibration: what values the inner tensors of a model take, in one pass over the data.

The observed tensors are made outputs of the float model, which runs optimized on batches cut to a
fixed memory. Minimum and maximum are exact; histograms count an evenly spread part of each tensor.
Where single samples reach far beyond all others a second pass counts without them.
So memory is that of one batch and of tensors x bins, whatever the number of samples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.context import Context
from trimtab.core.dataset import Batch, Dataset
from trimtab.core.errors import DataError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.repeated_runs import RepeatedRuns
from trimtab.core.ort.session import Level, Outputs, SessionConfig, build_session, with_outputs
from trimtab.core.target import usable_cpus

from .histogram import Histogram
from .outliers import EXPONENTS, count_reach, leave_out

#: Memory of the observed tensors of one run; two of them are held at a time.
CHUNK_BYTES = 32 << 20
#: Values per tensor that all runs together put into its histogram, about.
SAMPLED_VALUES = 1 << 20
#: Values per tensor that each run puts into its histogram at least.
SAMPLED_PER_RUN = 1 << 12
#: Strides through a tensor: primes, so that a stride never falls into step with rows or channels.
STRIDES = (1, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093)
#: Above so many nodes onnxruntime's higher levels take longer than they save: their time is
#: quadratic in the nodes (1.32.0: 2.7 s instead of 0.5 s for 10,000 with half of them observed).
MANY_NODES = 2000


@dataclass
class Statistics:
    """What was seen of one tensor.

    Attributes:
        lowest: smallest value, exact.
        highest: largest value, exact.
        sum_lowest: sum over samples of each sample's smallest value.
        sum_highest: sum over samples of each sample's largest value.
        rows: number of samples seen.
        histogram: of an evenly spread part of the values; without those of single samples that
            reach too far out, see `outliers`.
        reach: samples by the binary exponent of their largest magnitude.
    """

    lowest: float = math.inf
    highest: float = -math.inf
    sum_lowest: float = 0.0
    sum_highest: float = 0.0
    rows: int = 0
    histogram: Histogram = field(default_factory=Histogram)
    reach: NDArray[np.int64] = field(default_factory=lambda: np.zeros(EXPONENTS, np.int64))

    @property
    def mean_lowest(self) -> float:
        """Mean over samples of the smallest value."""
        return self.sum_lowest / max(self.rows, 1)

    @property
    def mean_highest(self) -> float:
        """Mean over samples of the largest value."""
        return self.sum_highest / max(self.rows, 1)

    def update(self, array: NDArray[Any], rows: int, budget: int) -> int | None:
        """Take in the tensor of one run.

        Args:
            array: (rows, ...), or any shape where the tensor has no batch axis.
            rows: samples in the run.
            budget: values to count in the histogram, about.

        Returns:
            The first row that holds NaN or infinity, None where all is finite.
        """
        by_row = array.ndim > 0 and array.shape[0] == rows and rows > 1
        flat = array.reshape(rows if by_row else 1, -1)
        if flat.dtype != np.float32:
            flat = flat.astype(np.float32)
        if not flat.size:
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
        self.histogram.add(_spread(flat.reshape(-1), budget))
        return None

    def within(self, array: NDArray[Any], budget: int) -> NDArray[np.float32]:
        """Those of an evenly spread part of the values that the histogram covers."""
        values = _spread(array.reshape(-1).astype(np.float32, copy=False), budget)
        low, high = self.histogram.start, self.histogram.start + self.histogram.width
        return values[(values >= low) & (values <= high)]


def calibrate(
    model: Model, tensors: Sequence[str], data: Dataset, ctx: Context
) -> dict[str, Statistics]:
    """Statistics of the named tensors over all of the data, in one pass where none lies far out.

    Args:
        model: the float model.
        tensors: inputs of the graph or inner tensors, of a float type.
        data: fits the model, see `Dataset.bind`.
        ctx: for progress.

    Raises:
        DataError: NaN or infinity, named by tensor and sample; a batch that the model refuses,
            named by its position.
    """
    fed = {spec.name for spec in model.inputs}
    inner = [name for name in tensors if name not in fed]
    level: Level = "basic" if len(model.graph) > MANY_NODES else "all"
    config = SessionConfig(threads=usable_cpus(), level=level)
    session = build_session(observing(model, inner), config)
    rows = rows_per_run(model, data, session, inner)
    runs = data.batches if data.source.batched else math.ceil(len(data) / rows)
    budget = max(SAMPLED_PER_RUN, SAMPLED_VALUES // max(runs, 1))
    found = {name: Statistics() for name in tensors}
    observed = functools.partial(
        _observed, RepeatedRuns(session, inner), model, data, ctx, rows=rows, runs=runs
    )
    take_in = functools.partial(_take_in, found, budget=budget, data=data)
    # One run is taken in while the next one is computed: numpy and onnxruntime both let go of
    # the interpreter. They are taken in one after the other, so the result is that of one thread.
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[None] | None = None
        for arrays, size, first in observed("calibrating"):
            if waiting is not None:
                waiting.result()
            waiting = pool.submit(take_in, arrays, size, first)
        if waiting is not None:
            waiting.result()
    leave_out(found, observed, budget, data, ctx)
    return found


def _observed(
    again: RepeatedRuns,
    model: Model,
    data: Dataset,
    ctx: Context,
    what: str,
    *,
    rows: int,
    runs: int,
) -> Iterator[tuple[Outputs, int, int]]:
    """Arrays by tensor, samples in them and the number of the first, run by run."""
    first = 0
    stream = in_runs(model, data.sized(rows), rows)
    for index, batch in enumerate(ctx.progress.track(stream, what, runs)):
        yield _run(again, batch, f"{data.spec}, batch {index}"), batch.size, first
        first += batch.size


def _take_in(
    found: dict[str, Statistics],
    arrays: Outputs,
    rows: int,
    first: int,
    *,
    budget: int,
    data: Dataset,
) -> None:
    """Take in the tensors of one run, whose first sample is number `first`."""
    for name, statistics in found.items():
        bad = statistics.update(arrays[name], rows, budget)
        if bad is not None:
            raise DataError(
                f"tensor {name!r} takes NaN or infinity at sample {data.row(first + bad)}",
                where=data.spec,
                hint="Look at that sample; a range made of it would mean nothing",
            )


def observing(model: Model, tensors: Sequence[str]) -> Model:
    """A copy whose outputs are the named inner tensors and nothing else."""
    copy = with_outputs(model, tensors)
    wanted = set(tensors)
    kept = [value for value in copy.graph.outputs if value.name in wanted]
    if kept:  # a model that is nothing but observed inputs keeps its outputs
        copy.graph.outputs[:] = kept
    return copy


def _run(session: RepeatedRuns, batch: Batch, where: str) -> Outputs:
    try:
        return {**batch.feeds, **session.run(batch.feeds)}
    except RunError as error:
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in batch.feeds.items())
        raise DataError(f"the model refuses it ({shapes})", where=where, hint=error.what) from error


def fixed_rows(model: Model) -> int | None:
    """The batch size that the model is fixed to, None where it takes any."""
    for spec in model.inputs:
        if spec.shape and isinstance(spec.shape[0], int):
            return spec.shape[0]
    return None


def fitting(model: Model, data: Dataset, rows: int = 64) -> Dataset:
    """The items in batches that the model takes, without a ragged rest where its batch is fixed."""
    fixed = fixed_rows(model)
    if data.source.batched or fixed is None:
        return data.sized(min(rows, max(len(data), 1)))
    whole = len(data) - len(data) % fixed
    return (data.select(data.positions[:whole], data.part) if whole else data).sized(fixed)


def rows_per_run(model: Model, data: Dataset, session: Any, inner: Sequence[str]) -> int:
    """How many samples a run takes, so that its observed tensors stay within `CHUNK_BYTES`."""
    fixed = fixed_rows(model)
    if fixed is not None:
        return fixed
    for batch in data.take(1):
        row = _cut(batch, 0, 1)
        arrays = _run(RepeatedRuns(session, inner), row, f"{data.spec}, batch 0")
        nbytes = sum(a.nbytes for a in arrays.values()) / max(row.size, 1)
        return int(np.clip(CHUNK_BYTES // max(nbytes, 1), 1, 64))
    return 1


def in_runs(model: Model, data: Dataset, rows: int) -> Iterator[Batch]:
    """The data in batches of at most `rows`; a model of a fixed batch size gets exactly that."""
    fixed = fixed_rows(model)
    for batch in data:
        for start in range(0, batch.size, rows):
            part = _cut(batch, start, start + rows)
            if fixed is not None and part.size < fixed:
                part = _padded(part, fixed)
            yield part
            if part.size > rows:  # cannot be cut: it went through whole
                break


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    """Rows of a batch; the whole batch where its arrays do not share a batch axis."""
    if start == 0 and stop >= batch.size:
        return batch
    if any(a.ndim == 0 or a.shape[0] != batch.size for a in batch.feeds.values()):
        return batch
    return Batch({name: a[start:stop] for name, a in batch.feeds.items()})


def _padded(batch: Batch, rows: int) -> Batch:
    """The batch with its last row repeated: that moves no range."""
    return Batch({n: a[np.minimum(np.arange(rows), len(a) - 1)] for n, a in batch.feeds.items()})


def _spread(flat: NDArray[np.float32], budget: int) -> NDArray[np.float32]:
    """An evenly spread part of the values, about `budget` of them."""
    stride = next((s for s in STRIDES if flat.size // s <= budget), STRIDES[-1])
    return flat[::stride]
