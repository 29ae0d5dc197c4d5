"""Calibration: statistics of the inner tensors of a model, in one pass over the data.

The observed tensors become outputs of the float model, which runs optimized on batches of limited
memory. Minimum and maximum are exact; histograms count an evenly spread part of each tensor.
Where single samples reach far beyond all others, a second pass counts without them.
Memory is that of one batch and of tensors x bins, whatever the number of samples.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from trimtab.core.batches import fixed_rows, in_runs
from trimtab.core.context import Context
from trimtab.core.data import Array, Batch
from trimtab.core.dataset import Dataset
from trimtab.core.errors import DataError, RunError
from trimtab.core.model import Model
from trimtab.core.ort.inner_shapes import inner_bytes
from trimtab.core.ort.session import Feeds, Level, Outputs, build_session, run
from trimtab.core.text import shape_text

from ..graph.runs_in_parts import PART_BYTES, RunsInParts
from .outliers import exclude_outliers
from .statistics import Statistics

#: A new pass over the batches.
Batches = Callable[[], Iterable[Batch]]

#: Memory of the observed tensors of one run of several rows. A row that takes more is observed part
#: by part, so that no more of it is in memory; the tensors of two runs are at a time.
CHUNK_BYTES = PART_BYTES
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
        DataError: a tensor takes NaN or infinity, and a row has no finite answer, or the model
            refuses a batch.
    """
    fed = {spec.name for spec in model.inputs}
    inner = [name for name in tensors if name not in fed]
    level: Level = "basic" if len(model.graph) > MANY_NODES else "all"
    rows, sizes = rows_per_run(model, data, inner)
    runs = data.batches if data.source.batched else math.ceil(len(data) / rows)
    budget = max(SAMPLED_PER_RUN, SAMPLED_VALUES // max(runs, 1))
    found = {name: Statistics() for name in tensors}
    stream = partial(in_runs, model, data.sized(rows), rows)
    observed = partial(_observed, RunsInParts(model, inner, sizes, level), runs, stream, data, ctx)
    answers = partial(_answers, model, missing=data.missing)
    take_in = partial(_take_in, found, budget, data, answers)
    # Statistics are updated while the next run is computed: numpy and onnxruntime both release
    # the interpreter lock. Updates are in order, so the result is that of one thread.
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[None] | None = None
        for arrays, batch, first in observed("calibrating"):
            if waiting is not None:
                waiting.result()
            waiting = pool.submit(take_in, arrays, batch, first)
        if waiting is not None:
            waiting.result()
    exclude_outliers(found, observed, budget, data, ctx)
    return found


def _observed(
    parts: RunsInParts, runs: int, stream: Batches, data: Dataset, ctx: Context, what: str
) -> Iterator[tuple[Outputs, Batch, int]]:
    """Yield inputs and tensors of each run, some at a time, its batch, its first sample."""
    first = 0
    for index, batch in enumerate(ctx.progress.track(stream(), what, runs)):
        yield dict(batch.feeds), batch, first
        with _refusal(batch.feeds, f"{data.spec}, batch {index}"):
            for arrays in parts.run(batch.feeds):
                yield dict(arrays), batch, first
        first += batch.size


def _take_in(  # noqa: PLR0917 - the last three are one run's
    found: dict[str, Statistics],
    budget: int,
    data: Dataset,
    answers: Callable[[Batch], bool],
    arrays: Outputs,
    batch: Batch,
    first: int,
) -> None:
    """Update the statistics with tensors of a run, whose first sample is number `first`."""
    for name in (name for name in found if name in arrays):
        statistics = found[name]
        bad = statistics.update(arrays[name], batch.size, budget)
        if bad is not None and (statistics.unbounded or answers(batch)):
            statistics.update_unbounded(arrays[name], batch.size, budget)
        elif bad is not None:
            raise DataError(
                f"tensor {name!r} takes NaN or infinity at sample {data.row(first + bad)}",
                where=data.spec,
                hint="Check that sample; a range from it would be meaningless",
            )


def _answers(model: Model, batch: Batch, *, missing: bool) -> bool:
    """Return whether each row of a run is answered, so that NaN and infinity are by design.

    Attention masks scores with minus infinity in front of Softmax, buckets of distances take the
    logarithm of zero, and an imputer reads NaN for a missing value. A model with a constant of NaN
    or infinity may answer with it where a mask leaves nothing to answer, but not a whole row.
    """
    fed = (a for a in batch.feeds.values() if a.dtype.kind == "f")
    if not missing and not all(np.isfinite(a).all() for a in fed):
        return False
    try:
        outputs = run(build_session(model), batch.feeds)
    except RunError:
        return False
    arrays = [a for a in outputs.values() if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
    if all(np.isfinite(array).all() for array in arrays):
        return True
    return _writes_unbounded(model) and all(_answered(array, batch.size) for array in arrays)


def _writes_unbounded(model: Model) -> bool:
    """Return whether a constant of the model is NaN or infinity."""
    filled = (n.attributes.get("value") for n in model.nodes() if n.op_type == "ConstantOfShape")
    constants = (*model.constant_tensors(), *(a.as_tensor() for a in filled if a is not None))
    return any(t.dtype.is_floating_point() and not np.isfinite(t.numpy()).all() for t in constants)


def _answered(array: Array, rows: int) -> bool:
    """Return whether each row of an output (rows, ...) has a finite value; any other has one."""
    if not array.size:
        return True
    by_row = array.ndim > 0 and len(array) == rows
    return bool(np.isfinite(array.reshape(rows if by_row else 1, -1)).any(axis=1).all())


@contextlib.contextmanager
def _refusal(feeds: Feeds, where: str) -> Iterator[None]:
    """Report that the model refuses the feeds."""
    try:
        yield
    except RunError as error:
        shapes = ", ".join(f"{n} {shape_text(a.shape)}" for n, a in feeds.items())
        raise DataError(f"the model refuses it ({shapes})", where=where, hint=error.what) from error


def rows_per_run(
    model: Model, data: Dataset, inner: Sequence[str]
) -> tuple[int, Mapping[str, int]]:
    """Return samples per run, so that its tensors stay within `CHUNK_BYTES`, and their bytes."""
    fixed = fixed_rows(model)
    for batch in in_runs(model, data.take(fixed or 1), fixed or 1):
        with _refusal(batch.feeds, f"{data.spec}, batch 0"):
            sizes = inner_bytes(model, inner, batch.feeds)
        if fixed is not None:
            return fixed, sizes
        fed = sum(array.nbytes for array in batch.feeds.values())
        each = (fed + sum(sizes.values())) / max(batch.size, 1)
        rows = int(np.clip(CHUNK_BYTES // max(each, 1), 1, 64))
        return rows, {name: math.ceil(size * rows / batch.size) for name, size in sizes.items()}
    return fixed or 1, dict.fromkeys(inner, 0)
