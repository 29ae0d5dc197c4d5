"""Rows that tell nothing: the same one again and again, or one value for a whole picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .data import Array, Batch
from .dataset import Dataset
from .text import counted

#: Rows, evenly spaced, that are looked at where all up to there are alike; two settle most data.
LOOKED_AT = 256


def alike(data: Dataset) -> str:
    """Return how the rows are alike, in one sentence of a warning; "" where they differ.

    No more rows are read than it takes to find two that differ, and one that is not constant.
    """
    rows_alone = replace(data, stream=None)  # without the states, which change
    few = rows_alone if data.source.batched else rows_alone.take(LOOKED_AT)
    first: Batch | None = None
    same, constant, rows = True, True, 0
    for batch in few.sized(2):
        first = first or batch
        rows += batch.size
        same = same and _repeats(first, batch)
        constant = constant and all(_is_constant(a, batch) for a in batch.feeds.values())
        if rows > 1 and not same and not constant:
            return ""
    if constant and first is not None and any(np.size(a) > a.shape[0] for a in _arrays(first)):
        return _warning(f"every row has one value throughout{' and all are the same' * same}")
    if same and rows > 1:
        told = f"all {counted(rows, 'row')}" + (" looked at" * (rows < len(data)))
        return _warning(f"{told} are the same")
    return ""


def _warning(what: str) -> str:
    return (
        f"{what}: ranges and figures from such rows say nothing of the model's real inputs; "
        "give rows as it meets them in use"
    )


def _arrays(batch: Batch) -> list[Array]:
    return [array for array in batch.feeds.values() if array.ndim]


def _repeats(first: Batch, batch: Batch) -> bool:
    """Return whether each row of a batch is the first one of all."""
    for name, array in batch.feeds.items():
        one = first.feeds.get(name)
        if one is None or one.dtype != array.dtype:
            return False
        if batch.alone or not array.ndim:
            if not np.array_equal(one, array):
                return False
        elif one.shape[1:] != array.shape[1:] or not (array == one[:1]).all():
            return False
    return True


def _is_constant(array: Array, batch: Batch) -> bool:
    """Return whether each row of an array is one value, over and over."""
    if batch.alone or not array.ndim:
        return bool((array == array.reshape(-1)[:1]).all())
    flat = array.reshape(len(array), -1)
    return bool((flat == flat[:, :1]).all())
