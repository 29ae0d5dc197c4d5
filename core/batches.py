"""Batches as a model takes them: checked, and cut or padded to its fixed batch size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from .data import Array, Batch
from .dataset import Dataset
from .feeds import check_finite
from .model import Model
from .ort.feeding import one_row_alone

#: Steps after which the states of a stream are taken as steady.
STEADY = 32


def fixed_rows(model: Model) -> int | None:
    """Return the batch size that the model is fixed to, None where it takes any.

    It is 1 too where the interface leaves the batch free, but onnxruntime refuses two rows.
    """
    declared, free = declared_rows(model)
    return 1 if free and one_row_alone(model) else declared


def declared_rows(model: Model) -> tuple[int | None, bool]:
    """Return the declared batch size, and true as the second where an input leaves it free.

    A fixed first axis beside a free one of another input is not the batch: a state has (2, N, 8).
    """
    leading = [spec.shape[0] for spec in model.inputs if spec.shape]
    fixed = [size for size in leading if isinstance(size, int)]
    free = len(fixed) < len(leading)
    return (None if free or not fixed else fixed[0]), free


def fitting(model: Model, data: Dataset, rows: int = 64) -> Dataset:
    """Return the items in batches that the model takes, without an incomplete last one."""
    fixed = None if data.stream is not None else fixed_rows(model)
    if data.source.batched or fixed is None:
        return data.sized(min(rows, max(len(data), 1)))
    whole = len(data) - len(data) % fixed
    return (data.select(data.positions[:whole], data.part) if whole else data).sized(fixed)


def in_runs(model: Model, data: Dataset, rows: int) -> Iterator[Batch]:
    """Yield the data in batches of at most `rows`, or exactly of the model's fixed size."""
    fixed = None if data.stream is not None else fixed_rows(model)
    mixed = data.stream is None and _mixed(model)
    for batch in data:
        if mixed:
            yield batch
            continue
        for start in range(0, batch.size, rows):
            part = _cut(batch, start, start + rows)
            if fixed is not None and part.size < fixed:
                part = _padded(part, fixed)
            yield part
            if part.size > rows:  # it could not be cut
                break


def _mixed(model: Model) -> bool:
    """Return whether inputs start with a free axis or a fixed size, as weights and states have."""
    leading = {isinstance(spec.shape[0], int) for spec in model.inputs if spec.shape}
    return len(leading) > 1


def items_of(model: Model, data: Dataset, most: int = 8) -> Callable[[int], Mapping[str, Array]]:
    """Return a function from the number of an item to its arrays; the first few are kept.

    An item is one row, a batch of the model's fixed size, or a batch of the user's.
    """
    kept: list[Mapping[str, Array]] = []

    def item(number: int) -> Mapping[str, Array]:
        if not kept:
            kept.extend(batch.feeds for batch in _first(model, data.bind(model), most))
        return kept[number % len(kept)]

    return item


def _first(model: Model, data: Dataset, most: int) -> Iterable[Batch]:
    """Return the first items; of a stream the last of its first steps, in steady state."""
    if data.stream is not None:
        early = data.select(data.positions[: STEADY + most], "first")
        return list(itertools.islice(early, STEADY + most))[-most:]
    rows = declared_rows(model)[0] or 1
    count = most if data.source.batched else most * rows
    return data.select(data.positions[:count], "first").sized(rows)


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    """Return rows of a batch; the whole batch where its arrays do not share a batch axis."""
    if start == 0 and stop >= batch.size:
        return batch
    if not _has_rows(batch):
        return batch
    return Batch({name: a[start:stop] if a.ndim else a for name, a in batch.feeds.items()})


def _has_rows(batch: Batch) -> bool:
    """Return whether the first axis of every array counts the rows; scalars hold for all."""
    return all(not a.ndim or a.shape[0] == batch.size for a in batch.feeds.values())


def _padded(batch: Batch, rows: int) -> Batch:
    """Repeat the last row of a batch, which changes no range of values."""
    if not _has_rows(batch):
        return batch
    kept = np.minimum(np.arange(rows), batch.size - 1)
    return Batch({n: a[kept] if a.ndim else a for n, a in batch.feeds.items()})


def finite_batches(data: Dataset, batches: Iterable[Batch] | None = None) -> Iterator[Batch]:
    """Yield the data's batches, or these in order, each checked for NaN and infinity.

    Raises:
        DataError: a batch holds NaN or infinity; names the array and the row.
    """
    row = 0
    for batch in data if batches is None else batches:
        check_finite(batch, data.spec, row, data.row, missing=data.missing)
        row += batch.size
        yield batch
