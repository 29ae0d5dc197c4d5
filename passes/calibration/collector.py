"""Calibration: statistics of the inner tensors of a model, in one pass over the data.

The observed tensors become outputs of the float model, which runs optimized on batches of limited
memory. Minimum and maximum are exact; histograms count an evenly spread part of each tensor.
Where single samples reach far beyond all others, a second pass counts without them.
Memory is that of one batch and of tensors x bins, whatever the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from trimtab.core.batches import fixed_rows, in_runs
from trimtab.core.context import Context
from trimtab.core.data import Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.repeated_runs import RepeatedRuns
from trimtab.core.ort.session import (
    Level,
    Outputs,
    SessionConfig,
    build_session,
    run,
    with_only_outputs,
)
from trimtab.core.target import usable_cpus

from .outliers import exclude_outliers
from .statistics import Statistics

#: A new pass over the batches.
Batches = Callable[[], Iterable[Batch]]

#: Memory of the observed tensors of one run; those of two runs are in memory at a time.
CHUNK_BYTES = 32 << 20
#: Approximate number of values per tensor in its histogram, over all runs.
SAMPLED_VALUES = 1 << 20
#: Least number of values per tensor that each run adds to its histogram.
SAMPLED_PER_RUN = 1 << 12
#: Nodes above which onnxruntime's higher levels take longer than they save: their time is
#: quadratic in the nodes (1.32.0: 2.7 s instead of 0.5 s for 10,000 with half of them observed).
MANY_NODES = 2000


def calibrate(
    model: Model, tensors: Sequence[str], data: Dataset, ctx: Context
) -> dict[str, Statistics]:
    """Collect statistics of the named tensors over all data, in one pass if there are no outliers.

    The tensors are inputs of the graph or inner tensors, of a float type; the data fit the model,
    see `Dataset.bind`.

    Raises:
        DataError: a tensor takes NaN or infinity and so does an output, or the model refuses a
            batch.
    """
    fed = {spec.name for spec in model.inputs}
    inner = [name for name in tensors if name not in fed]
    level: Level = "basic" if len(model.graph) > MANY_NODES else "all"
    config = SessionConfig(threads=usable_cpus(), level=level)
    session = build_session(with_only_outputs(model, inner), config)
    rows = rows_per_run(model, data, session, inner)
    runs = data.batches if data.source.batched else math.ceil(len(data) / rows)
    budget = max(SAMPLED_PER_RUN, SAMPLED_VALUES // max(runs, 1))
    found = {name: Statistics() for name in tensors}
    stream = partial(in_runs, model, data.sized(rows), rows)
    observed = partial(_observed, RepeatedRuns(session, inner), runs, stream, data, ctx)
    take_in = partial(_take_in, found, budget, data, partial(_answers, model))
    # Statistics are updated while the next run is computed: numpy and onnxruntime both release
    # the interpreter lock. Updates are in order, so the result is that of one thread.
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[None] | None = None
        for arrays, size, first in observed("calibrating"):
            if waiting is not None:
                waiting.result()
            waiting = pool.submit(take_in, arrays, size, first)
        if waiting is not None:
            waiting.result()
    exclude_outliers(found, observed, budget, data, ctx)
    return found


def _observed(
    again: RepeatedRuns, runs: int, stream: Batches, data: Dataset, ctx: Context, what: str
) -> Iterator[tuple[Outputs, int, int]]:
    """Yield for each run its arrays by tensor, its samples, and the number of the first."""
    first = 0
    for index, batch in enumerate(ctx.progress.track(stream(), what, runs)):
        yield _run(again, batch, f"{data.spec}, batch {index}"), batch.size, first
        first += batch.size


def _take_in(  # noqa: PLR0917 - the last three are one run's
    found: dict[str, Statistics],
    budget: int,
    data: Dataset,
    answers: Callable[[Outputs], bool],
    arrays: Outputs,
    rows: int,
    first: int,
) -> None:
    """Update the statistics with the tensors of a run, whose first sample is number `first`."""
    for name, statistics in found.items():
        bad = statistics.update(arrays[name], rows, budget)
        if bad is not None and (statistics.unbounded or answers(arrays)):
            statistics.update_unbounded(arrays[name], rows, budget)
        elif bad is not None:
            raise DataError(
                f"tensor {name!r} takes NaN or infinity at sample {data.row(first + bad)}",
                where=data.spec,
                hint="Check that sample; a range from it would be meaningless",
            )


def _answers(model: Model, arrays: Outputs) -> bool:
    """Return whether inputs and outputs of a run are finite, so that infinity inside is by design.

    Attention masks scores with minus infinity in front of Softmax, and buckets of distances take
    the logarithm of zero.
    """
    feeds = {spec.name: arrays[spec.name] for spec in model.inputs}
    if not _finite(feeds):
        return False
    try:
        return _finite(run(build_session(model), feeds))
    except RunError:
        return False


def _finite(arrays: Outputs) -> bool:
    return all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f")


def _run(session: RepeatedRuns, batch: Batch, where: str) -> Outputs:
    try:
        return {**batch.feeds, **session.run(batch.feeds)}
    except RunError as error:
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in batch.feeds.items())
        raise DataError(f"the model refuses it ({shapes})", where=where, hint=error.what) from error


def rows_per_run(model: Model, data: Dataset, session: Any, inner: Sequence[str]) -> int:
    """Return samples per run, so that its observed tensors stay within `CHUNK_BYTES`."""
    fixed = fixed_rows(model)
    if fixed is not None:
        return fixed
    for row in in_runs(model, data.take(1), 1):
        arrays = _run(RepeatedRuns(session, inner), row, f"{data.spec}, batch 0")
        nbytes = sum(a.nbytes for a in arrays.values()) / max(row.size, 1)
        return int(np.clip(CHUNK_BYTES // max(nbytes, 1), 1, 64))
    return 1
